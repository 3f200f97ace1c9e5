// Runs several compiled test files in this process, one behind the other, for run.mjs: `node test/in-one-process.mjs FILE…`.
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

for (const file of process.argv.slice(2)) await import(pathToFileURL(resolve(file)));
