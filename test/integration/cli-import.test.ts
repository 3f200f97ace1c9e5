// `pgkv import`: generated tables of a plain Postgres into key-value tables of three shards. What is to be there afterwards is asked of
// the source itself, row by row: whatever fits, as the source casts it; what was there already stays; all else is named. Imports are
// killed at any moment and go on. PGKV_SEED=n plays that seed, PGKV_RUNS=n so many tables.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import t from 'tap';
import { type CliRun, runCli } from '../support/cli-run.js';
import { BLOBS, KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo } from '../support/kv-extension.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { startPostgres } from '../support/postgres-server.js';
import { buildPackage } from '../support/router-process.js';
import { SeededRandom } from '../support/seeded-random.js';
import { GRANTS } from '../support/spread-servers.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const RUNS = Number(process.env['PGKV_RUNS'] ?? (process.env['PGKV_LONG'] === '1' ? 200 : 5));
t.comment(`PGKV_SEED=${SEED}`);

const cluster = await kvServers(t, 3, { stated: true, tables: [KV, BLOBS] });
for (const server of cluster.servers) {
  const admin = await connectTo(t, server);
  await admin.query(`${GRANTS}; GRANT ALL ON blobs TO app`);
}
const live = await kvRouter(t, cluster);
const origin = await startPostgres({ version: findPostgres('15') ? '15' : 'embedded' });
t.teardown(() => origin.stop());
const source = await connectTo(t, origin);
const target = new pg.Client({ host: live.host, port: live.port, user: 'app', database: 'postgres' });
await target.connect();
t.teardown(() => target.end());
const FROM = `postgres://${origin.superuser}@${origin.host}:${origin.port}/postgres`;
const TO = `postgres://app@${live.host}:${live.port}/postgres`;
const folder = mkdtempSync(join(tmpdir(), 'pgkv-import-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
interface Import {
  readonly state: string;
  readonly args: readonly string[];
  run(...more: string[]): Promise<CliRun>;
  /** Rows that were left out, as the file has them. */
  leftOut(): { kind: string; row: Record<string, string>; key: string; reason: string }[];
}

function importOf(table: string, columns: Readonly<Record<string, string>>, ...more: string[]): Import {
  const state = join(folder, `state-${++count}.json`);
  const mapped = Object.entries(columns).flatMap(([name, sql]) => [`--${name}`, sql]);
  const args = ['import', '--from', FROM, '--table', table, ...mapped, '--to', TO, '--state', state, ...more];
  return {
    state,
    args,
    run: (...others) => runCli([...args, ...others]),
    leftOut: () => {
      const path = `${state}.left-out`;
      if (!existsSync(path)) return [];
      return readFileSync(path, 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
    },
  };
}

const WORDS = [
  'a',
  "o'hara",
  '\\',
  'back\\slash',
  '"q"',
  'tab\there',
  'line\nend',
  'ü😀',
  '{t}x',
  'NULL',
  '\\N',
  '\\.',
  ',',
  ' ',
  'x',
];
const VALUES = [
  'null',
  '{}',
  '{"a": 1, "a": 2}',
  '"\\\\u0000"',
  '"tab\\there \\u00fc"',
  '[1.0, 1e3, "\\\\"]',
  ' {"b":1 , "a":"o\'h"} ',
  '"😀\\n"',
  null,
];
const NOT_JSON = ['', '{', '"\\u0000"', '"\\ud800"', "{'a': 1}", 'NaN'];
const TTLS = [null, null, '2999-01-02 03:04:05.678901+02', 'infinity', '2001-01-01 00:00:00+00'];

interface Kind {
  readonly type: string;
  readonly into: string;
  readonly primaryKey: string;
  value(random: SeededRandom): string | null;
}

const KINDS: readonly Kind[] = [
  { type: 'json', into: 'kv', primaryKey: 'id', value: (random) => random.pick(VALUES) },
  { type: 'jsonb', into: 'kv', primaryKey: 'a, b', value: (random) => random.pick(VALUES) },
  {
    type: 'text',
    into: 'kv',
    primaryKey: 'b, a',
    value: (random) => random.pick(random.oneIn(15) ? NOT_JSON : VALUES),
  },
  {
    type: 'bytea',
    into: 'blobs',
    primaryKey: 'id',
    value: (random) => `\\x${random.bytes(random.integer(6)).toString('hex')}`,
  },
  { type: 'timestamptz', into: 'kv', primaryKey: 'a, b', value: () => '2020-02-03 04:05:06.7+00' },
];

/** Rows with keys that repeat and are NULL now and then, and values that fit or do not. Returns whether no key comes twice. */
async function fill(
  random: SeededRandom,
  table: string,
  { type, primaryKey, value }: Kind,
  rows: number,
): Promise<boolean> {
  await source.query(`CREATE TABLE ${table} (id uuid UNIQUE NOT NULL, a text NOT NULL, b numeric NOT NULL, tenant varchar(40), k text,
    val ${type}, ttl timestamptz, PRIMARY KEY (${primaryKey}))`);
  const seldom = random.oneIn(2);
  for (let n = 0; n < rows; n++) {
    const id = random.bytes(16).toString('hex');
    const tenant = !seldom && random.oneIn(40) ? null : `${table}${random.integer(3)}`;
    const key = !seldom && random.oneIn(40) ? null : `${random.pick(WORDS)}${random.integer(seldom ? 1_000_000 : 60)}`;
    const place = [`${random.pick(WORDS)}${random.integer(4)}`, `${n}.${random.integer(10)}0`];
    await source.query(`INSERT INTO ${table} VALUES ($1, $2, $3, $4, $5, $6, $7)`, [
      id,
      ...place,
      tenant,
      key,
      value(random),
      random.pick(TTLS),
    ]);
  }
  return seldom;
}

/** What the source says that the table has to hold: by key, the first row that fits. */
async function expected(table: string, { type, into, primaryKey }: Kind): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const asTexts = type === 'timestamptz' ? 'to_jsonb(val)::text' : 'val::text';
  await source.query(`SET TimeZone = 'UTC'`);
  const { rows } = await source.query(
    `SELECT tenant, k, ${asTexts} AS val, ttl::text, ttl <= now() AS over FROM ${table} ORDER BY ${primaryKey}`,
  );
  for (const { tenant, k, val, ttl, over } of rows) {
    if (tenant === null || k === null || over === true || found.has(`${tenant}\t${k}`)) continue;
    const cast = into === 'kv' ? 'jsonb' : 'bytea';
    const shown = await source.query(`SELECT $1::text::${cast}::text AS shown`, [val]).catch(() => null);
    if (shown !== null) found.set(`${tenant}\t${k}`, JSON.stringify([shown.rows[0].shown, ttl]));
  }
  return found;
}

async function present(table: string, into: string): Promise<Map<string, string>> {
  await target.query(`SET TimeZone = 'UTC'`);
  const { rows } = await target.query(
    `SELECT tenant_id, key, value::text AS value, ttl::text AS ttl FROM ${into} WHERE tenant_id LIKE $1`,
    [`${table}%`],
  );
  return new Map(rows.map(({ tenant_id, key, value, ttl }) => [`${tenant_id}\t${key}`, JSON.stringify([value, ttl])]));
}

const sorted = (map: Map<string, string>): string[] => [...map].map((pair) => pair.join(' → ')).sort();
const COLUMNS = { tenant: 'tenant', key: 'k', value: 'val', ttl: 'ttl' };

for (let run = 0; run < RUNS; run++) {
  t.test(`table ${run} of seed ${SEED}`, async (t) => {
    const random = new SeededRandom(SEED, run);
    const kind = random.pick(KINDS);
    const table = `t${run}_`;
    const keysAreOnce = await fill(random, table, kind, random.between(1, 100));
    const wanted = await expected(table, kind);
    // Some of it is there: as it will be, or otherwise.
    for (const key of wanted.keys()) {
      if (!random.oneIn(12)) continue;
      const tenant = key.slice(0, key.indexOf('\t'));
      const rest = key.slice(tenant.length + 1);
      const mine = random.oneIn(2)
        ? wanted.get(key)!
        : JSON.stringify([kind.into === 'kv' ? '"mine"' : '\\x00ff', null]);
      const [value, ttl] = JSON.parse(mine) as (string | null)[];
      await target.query(`INSERT INTO ${kind.into} (tenant_id, key, value, ttl) VALUES ($1, $2, $3, $4)`, [
        tenant,
        rest,
        value,
        ttl,
      ]);
      wanted.set(key, mine);
    }
    const chunkRows = String(random.pick([1, 7, 50, 10_000]));
    const { run: once, state, leftOut } = importOf(table, COLUMNS, '--into', kind.into, '--chunk-rows', chunkRows);
    const foreseen = await once('--dry-run', '--json');
    const leftOutBefore = leftOut().length;
    const { exitCode, errors, output } = await once('--conflicts', 'keep', '--unfit', 'skip', '--json');
    t.ok([0, 3].includes(exitCode), errors);
    t.strictSame(sorted(await present(table, kind.into)), sorted(wanted));
    const said = JSON.parse(output);
    t.equal(said.sourceChecksum, said.targetChecksum);
    t.equal(said.read, said.written + said.present + said.expired + said.kept + said.unfit);
    t.equal(said.different, 0);
    t.equal(exitCode === 0, said.kept + said.unfit === 0);
    t.notOk(existsSync(state));
    // A later row of a key that comes twice is found in the table then, not before.
    const before = JSON.parse(foreseen.output);
    for (const name of keysAreOnce ? ['read', 'expired', 'kept', 'unfit', 'present', 'written'] : ['read', 'expired']) {
      t.equal(before[name], said[name], `${name} as foreseen`);
    }
    t.equal(leftOut().length - leftOutBefore, said.kept + said.unfit);
    // Once more: all is there.
    const again = await once('--conflicts', 'keep', '--unfit', 'skip', '--json');
    t.match(JSON.parse(again.output), { written: 0, kept: said.kept, unfit: said.unfit }, again.errors);
    t.strictSame(sorted(await present(table, kind.into)), sorted(wanted));
  });
}

t.test('killed at any moment, it goes on: nothing is lost, doubled or overwritten', async (t) => {
  const { program } = buildPackage(t);
  const random = new SeededRandom(SEED, 1_000_000);
  const rows = 10_000;
  await source.query(`CREATE TABLE killed AS SELECT n AS id, 'k' || n AS k, json_build_object('n', n) AS val FROM generate_series(1, ${rows}) n;
    ALTER TABLE killed ADD PRIMARY KEY (id)`);
  const job = importOf(
    'killed',
    { tenant: "'killed'", key: 'k', value: 'val' },
    '--chunk-rows',
    '500',
    '--conflicts',
    'keep',
    '--json',
  );
  const own = new Map<string, string>();
  let kills = 0;
  let output = '';
  for (let ended = false; !ended; ) {
    const child = spawn(process.execPath, [program, ...job.args], { stdio: ['ignore', 'pipe', 'pipe'] });
    output = '';
    child.stdout.on('data', (bytes) => {
      output += bytes;
    });
    const gone = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
    const before = positionOf(job.state);
    // The beginning of the program counts for nothing.
    while (positionOf(job.state) === before && child.exitCode === null) await sleep(5);
    if (kills < 5) {
      await sleep(random.integer(60));
      child.kill('SIGKILL');
      kills++;
    }
    const code = await gone;
    ended = code !== null;
    if (ended) t.ok(code === 0 || code === 3, output);
    // Others go on meanwhile: what they write stays, what they take away does not come back but for the chunk at hand.
    const done = positionOf(job.state);
    for (let n = 0; n < 5 && !ended && done > 1; n++) {
      const key = `k${1 + random.integer(done)}`;
      await target.query(`UPDATE kv SET value = '"theirs"' WHERE tenant_id = 'killed' AND key = $1`, [key]);
      own.set(key, '"theirs"');
    }
  }
  t.ok(kills > 1, `${kills} kills`);
  const { rows: there } = await target.query(`SELECT key, value::text AS value FROM kv WHERE tenant_id = 'killed'`);
  t.equal(there.length, rows);
  const wrong = there.filter(({ key, value }) => value !== (own.get(key) ?? `{"n": ${key.slice(1)}}`));
  t.strictSame(wrong, []);
  t.match(JSON.parse(output), { read: rows, unfit: 0, different: 0, sourceRows: rows });
});

function positionOf(state: string): number {
  try {
    return Number(JSON.parse(readFileSync(state, 'utf8')).position[0]);
  } catch {
    return 0;
  }
}

t.test('what cannot be imported is told before anything is', async (t) => {
  await source.query(`CREATE TABLE plain (sid text, sess text, raw bytea); INSERT INTO plain VALUES ('s', '1', 'x');
    CREATE TABLE keyed (sid text PRIMARY KEY, sess text, raw bytea, since int); INSERT INTO keyed VALUES ('s', '1', 'x', 7)`);
  const columns = { tenant: "'e'", key: 'sid', value: 'sess' };
  const told = async (table: string, changed: Record<string, string>, ...more: string[]): Promise<string> => {
    const { exitCode, errors, output } = await importOf(table, { ...columns, ...changed }, ...more).run();
    t.equal(output, '');
    return `${exitCode} ${errors}`;
  };
  t.match(await told('plain', {}), /^1 pgkv: error: "public"\."plain" has no primary key/);
  t.match(await told('nowhere', {}), /^1 pgkv: error: the source has no table nowhere/);
  t.match(await told('keyed', { key: 'sidd' }), /^1 pgkv: error: --key: the source says: column "sidd" does not exist/);
  t.match(
    await told('keyed', { value: 'raw' }),
    /^1 pgkv: error: --value is of type bytea, the values of the table are jsonb\n.*convert_from/,
  );
  t.match(
    await told('keyed', {}, '--into', 'blobs'),
    /--value is of type text, the values of the table are bytea\n.*convert_to/,
  );
  t.match(
    await told('keyed', { ttl: 'since' }),
    /--ttl: the source says: cannot cast type integer to timestamp with time zone\n.*to_timestamp/,
  );
  t.match(
    await told('keyed', {}, '--into', 'nothing'),
    /^1 pgkv: error: there is no key-value table public\.nothing behind pgkv/,
  );
  t.match(await told('keyed', {}, '--to', FROM), /^1 pgkv: error: what answers at .* is not a pgkv router/);
  t.match(
    await told('keyed', {}, '--from', 'postgres://x@127.0.0.1:1/x'),
    /^2 pgkv: error: connection to server .*refused/,
  );
  t.match(await told('keyed', { where: 'sid = ' }), /^1 pgkv: error: /);
  t.equal((await target.query(`SELECT FROM kv WHERE tenant_id = 'e'`)).rowCount, 0);
});

t.test(
  'at a row that does not fit, or whose key is taken, it stops and names it, and goes on when it is mended',
  async (t) => {
    await source.query(`CREATE TABLE faulty (id int PRIMARY KEY, k text, val text);
    INSERT INTO faulty SELECT n, 'k' || n, n::text FROM generate_series(1, 40) n;
    UPDATE faulty SET val = '{' WHERE id = 17; UPDATE faulty SET k = NULL WHERE id = 23`);
    await target.query(`INSERT INTO kv (tenant_id, key, value) VALUES ('faulty', 'k33', '"other"')`);
    const { run, state } = importOf('faulty', { tenant: "'faulty'", key: 'k', value: 'val' }, '--chunk-rows', '10');
    const first = await run();
    t.equal(first.exitCode, 1);
    t.match(
      first.errors,
      'the row with id 17 (tenant "faulty", key "k17") does not fit: invalid input syntax for type json',
    );
    t.ok(existsSync(state));
    await source.query(`UPDATE faulty SET val = '17' WHERE id = 17`);
    t.match((await run()).errors, 'the row with id 23 (tenant "faulty", key NULL) does not fit: its key is NULL');
    const other = await runCli([
      'import',
      '--from',
      FROM,
      '--table',
      'faulty',
      '--tenant',
      "'else'",
      '--key',
      'k',
      '--value',
      'val',
      '--to',
      TO,
      '--state',
      state,
    ]);
    t.match(other.errors, 'is the state of another import');
    await source.query(`UPDATE faulty SET k = 'k23' WHERE id = 23`);
    const third = await run();
    t.equal(third.exitCode, 1);
    t.match(
      third.errors,
      'the row with id 33 (tenant "faulty", key "k33"): its key is there with another value or ttl',
    );
    await target.query(`DELETE FROM kv WHERE tenant_id = 'faulty' AND key = 'k33'`);
    const last = await run();
    t.equal(last.exitCode, 0, last.errors);
    t.match(last.output, '40 rows read: ');
    t.match(last.output, ': equal\n');
    t.equal((await target.query(`SELECT FROM kv WHERE tenant_id = 'faulty'`)).rowCount, 40);
  },
);
