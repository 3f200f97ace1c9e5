// pgkv answers as Postgres 18 does. How to run a part of it: README.md in this folder.
import t from 'tap';
import { checkVersion } from './check-version.js';

await checkVersion(t, 'embedded');
