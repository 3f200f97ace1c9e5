// Runs several compiled test files in this process, one behind the other, for run.mjs: `node test/in-one-process.mjs FILE…`.
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import t from 'tap';

for (const file of process.argv.slice(2)) {
  await import(pathToFileURL(resolve(file)));
  // What a file has told tap to run may go on behind its last line: the next one is not to prepare its servers meanwhile.
  while (t.occupied || t.queue.length > 0) await sleep(5);
}
