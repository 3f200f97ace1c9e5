// Key-value tables over one and four shards answer as a table of Postgres 18 does. How to run a part of it: README.md.
import t from 'tap';
import { checkVersion } from './check-version.js';
import { KV_SUITE } from './kv-suite.js';

await checkVersion(t, 'embedded', KV_SUITE);
