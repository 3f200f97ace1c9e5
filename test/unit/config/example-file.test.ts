// config/pgkv.toml says what is true: every option is in it, at its default.
import { readFileSync } from 'node:fs';
import t from 'tap';
import { describeSettings } from '../../../src/config/check.js';
import { defaultSettings, loadSettings } from '../../../src/config/load.js';
import { settingsJsonSchema } from '../../../src/config/settings.js';

const path = new URL('../../../config/pgkv.toml', import.meta.url);
const text = readFileSync(path, 'utf8');
/** Options are lines with # and no space. */
const uncommented = text.replace(/^#(?=[a-z_]+ = )/gm, '');
const expected = defaultSettings({ shards: [{ name: 'shard-1', nodes: [{ host: '127.0.0.1' }] }] });

interface Schema {
  readonly properties?: Record<string, Schema>;
  readonly items?: Schema;
  readonly description?: string;
}

const LISTS = new Set(['auth.allow']);

function optionPaths(schema: Schema, prefix: string): [path: string, schema: Schema][] {
  // A list of entries whose keys its comment describes: none stands in the file.
  if (LISTS.has(prefix)) return [[prefix, schema]];
  const inner = schema.properties ?? schema.items?.properties;
  if (inner === undefined) return [[prefix, schema]];
  return Object.entries(inner).flatMap(([key, value]) => optionPaths(value, prefix === '' ? key : `${prefix}.${key}`));
}

function optionsInFile(): string[] {
  let table = '';
  const paths: string[] = [];
  for (const line of uncommented.split('\n')) {
    const header = /^\[+([a-z_.]+)\]+$/.exec(line)?.[1];
    if (header !== undefined) table = `${header}.`;
    const key = /^([a-z_]+) = /.exec(line)?.[1];
    if (key !== undefined) paths.push(table + key);
  }
  return paths;
}

t.test('the file as it stands gives the defaults', async (t) => {
  t.same(loadSettings(text, 'pgkv.toml'), { ok: true, settings: expected });
});

t.test('the file with every option uncommented gives exactly the defaults', async (t) => {
  t.not(uncommented, text);
  t.same(loadSettings(uncommented, 'pgkv.toml'), { ok: true, settings: expected });
});

t.test('every option of the schema is in the file, in its order, and described', async (t) => {
  const known = optionPaths(settingsJsonSchema() as Schema, '');
  t.same(optionsInFile().sort(), known.map(([path]) => path).sort());
  for (const [path, schema] of known) t.match(schema.description, /^["A-Z].*\.$/, `${path} is described by a sentence`);
});

t.test('check-config prints the shards and the connection arithmetic, and no secret', async (t) => {
  const settings = defaultSettings(
    {
      listen: { host: '::', socketDir: '/run/pgkv' },
      pool: { sizeMax: 25 },
      shards: [
        {
          name: 'a',
          slots: [
            [0, 9],
            [11, 16383],
          ],
          nodes: [{ host: 'h1', role: 'primary' }, { host: 'h2' }],
        },
        { name: 'b', slots: [[10, 10]], nodes: [{ host: '/sock', port: 5433 }] },
      ],
    },
    'hunter2',
  );
  const lines = describeSettings(settings).join('\n');
  t.match(lines, 'listen   [::]:7432, /run/pgkv/.s.PGSQL.7432, TLS off');
  t.match(lines, 'note: clients reach :: without TLS');
  t.match(lines, 'a (home): slots 0-9, 11-16383 (16383)');
  t.match(lines, '    h1:5432 primary\n    h2:5432 auto');
  t.match(lines, 'b: slots 10 (1)\n    /sock/.s.PGSQL.5433 auto');
  t.match(lines, '(pool.size_max 25 + 4) x workers 1 = 29');
  t.notMatch(lines, 'is kept from transactions');
  t.match(lines, 'connections to all 3 servers: at most 87');
  t.notMatch(lines, /hunter2/);
  const small = describeSettings({ ...settings, pool: { ...settings.pool, sizeMax: 4 } }).join('\n');
  t.match(small, 'with pool.size_max below 5 no connection is kept from transactions');
});
