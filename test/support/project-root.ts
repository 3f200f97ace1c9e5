// The folder of the project, whether a test runs from its TypeScript or compiled (test/compile.mjs).
import { realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

export const PROJECT_ROOT = dirname(realpathSync(fileURLToPath(new URL('../../package.json', import.meta.url))));
