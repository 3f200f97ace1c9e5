// pg_dump, pg_restore and psql beside and through pgkv: what a shard dumps restores through pgkv into a cluster of other shards, row by
// row; what is dumped through pgkv has the rows of all shards; what does not work is refused as a whole.
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf } from '../support/kv-extension.js';
import type { LiveRouter } from '../support/live-router.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { GRANTS } from '../support/spread-servers.js';
import { SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
t.comment(`PGKV_SEED=${SEED}`);
const psql = findPostgres('15')?.psql;
if (psql === undefined) {
  t.plan(0, 'no Postgres 15 with psql and pg_dump here');
  process.exit(0);
}
const folder = mkdtempSync(join(tmpdir(), 'pgkv-dumps-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

interface Address {
  readonly host: string;
  readonly port: number;
}

const run = (program: string, { host, port }: Address, user: string, ...args: string[]): SpawnSyncReturns<string> =>
  spawnSync(join(dirname(psql), program), ['-h', host, '-p', String(port), '-U', user, ...args], { encoding: 'utf8' });
/** Not spawnSync: a router in this process has to answer. */
async function through(
  program: string,
  live: LiveRouter,
  ...args: string[]
): Promise<{ status: number; output: string; errors: string }> {
  const child = spawn(join(dirname(psql!), program), ['-h', live.host, '-p', String(live.port), '-U', 'app', ...args]);
  let [output, errors] = ['', ''];
  child.stdout.on('data', (bytes) => {
    output += bytes;
  });
  child.stderr.on('data', (bytes) => {
    errors += bytes;
  });
  const status = await new Promise<number>((resolve) => child.once('close', (code) => resolve(code ?? -1)));
  return { status, output, errors };
}

/** Where the dumps come from: no router is needed for that. */
const old = await kvServers(t, 2, { version: '15', stated: true, tables: [KV] });
const oldAdmins = await Promise.all(old.servers.map((server) => connectTo(t, server)));
const cluster = await kvServers(t, 3, { version: '15', stated: true, tables: [KV] });
const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
for (const admin of [...oldAdmins, ...admins]) await admin.query(`${GRANTS}; GRANT CREATE ON SCHEMA public TO app`);
const live = await kvRouter(t, cluster);
const client = await SqlClient.connect(live, { user: 'app', database: 'postgres' });
t.teardown(() => client.end());

const ALL = `SELECT tenant_id, key, version::text, value::text, ttl::text, updated_at::text FROM kv`;
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
  ';',
];

async function fill(): Promise<void> {
  const random = new SeededRandom(SEED);
  for (let n = 0; n < 120; n++) {
    const ttl = random.oneIn(4) ? '2999-01-01' : null;
    const value = random.oneIn(9) ? null : JSON.stringify({ n, word: random.pick(WORDS) });
    const row = [random.pick(WORDS), `${random.pick(WORDS)}${n}`, value, ttl];
    for (const admin of oldAdmins) {
      await admin.query(
        `INSERT INTO kv (tenant_id, key, value, ttl) SELECT * FROM (VALUES ($1::text, $2::text, $3::jsonb, $4::timestamptz)) AS row (t, k)
         WHERE pgkv.slot(t, k) <@ pgkv.owned_slots()`,
        row,
      );
    }
  }
  for (const admin of oldAdmins) await admin.query(`UPDATE kv SET value = '1' WHERE key LIKE '%7'`);
}

await fill();
const inOrder = (rows: readonly (readonly unknown[])[]): unknown[] => rows.map((row) => JSON.stringify(row)).sort();
const rows: string[][] = [];
for (const admin of oldAdmins) rows.push(...(await admin.query<string[]>({ text: ALL, rowMode: 'array' })).rows);

/** What was restored: every row as it was, found by its key alone, and on the shard that it belongs to. */
async function restored(t: Test): Promise<void> {
  t.strictSame(inOrder(await client.rows(ALL)), inOrder(rows));
  for (const [tenant, key, version] of rows.slice(0, 20)) {
    const found = await client.extended('SELECT version FROM kv WHERE tenant_id = $1 AND key = $2', [tenant!, key!]);
    t.strictSame(found, [[version]]);
  }
  for (const admin of admins) {
    t.strictSame(
      await rowsOf(admin, 'SELECT key FROM kv WHERE NOT pgkv.slot(tenant_id, key) <@ pgkv.owned_slots()'),
      [],
    );
  }
  await client.run('DELETE FROM kv');
}

t.test('pg_dump --data-only of each shard, and psql through pgkv', async (t) => {
  for (const [index, server] of old.servers.entries()) {
    const dump = run('pg_dump', server, 'app', '--data-only', '-t', 'kv', 'postgres');
    t.equal(dump.status, 0, dump.stderr);
    const path = join(folder, `${index}.sql`);
    writeFileSync(path, dump.stdout);
    const { status, errors } = await through('psql', live, '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', path, 'postgres');
    t.strictSame([status, errors], [0, '']);
  }
  await restored(t);
});

t.test('pg_dump -Fc of each shard, and pg_restore through pgkv', async (t) => {
  for (const [index, server] of old.servers.entries()) {
    const path = join(folder, `${index}.dump`);
    const dump = run('pg_dump', server, server.superuser, '-Fc', '-f', path, 'postgres');
    t.equal(dump.status, 0, dump.stderr);
    const restore = await through('pg_restore', live, '--data-only', '-t', 'kv', '-d', 'postgres', path);
    t.strictSame([restore.status, restore.errors], [0, '']);
  }
  await restored(t);
});

t.test('pg_dump --inserts of each shard, and psql through pgkv', async (t) => {
  for (const [index, server] of old.servers.entries()) {
    const more = index === 0 ? [] : ['--rows-per-insert=50'];
    const dump = run('pg_dump', server, 'app', '--data-only', '--column-inserts', ...more, '-t', 'kv', 'postgres');
    t.equal(dump.status, 0, dump.stderr);
    const path = join(folder, `${index}.sql`);
    writeFileSync(path, dump.stdout);
    const { status, errors } = await through('psql', live, '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', path, 'postgres');
    t.strictSame([status, errors], [0, '']);
  }
  await restored(t);
});

t.test('one transaction around a dump: all of it, or nothing', async (t) => {
  for (const [index, server] of old.servers.entries()) {
    const dump = run('pg_dump', server, 'app', '--data-only', '-t', 'kv', 'postgres');
    const path = join(folder, `${index}.sql`);
    const once = async () => through('psql', live, '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-f', path, 'postgres');
    const before = await client.rows(ALL);
    writeFileSync(path, `${dump.stdout}SELECT no_such_column;\n`);
    t.equal((await once()).status, 3);
    t.strictSame(inOrder(await client.rows(ALL)), inOrder(before));
    writeFileSync(path, dump.stdout);
    const { status, errors } = await once();
    t.strictSame([status, errors], [0, '']);
  }
  await restored(t);
});

t.test('pg_dump through pgkv: the schema, and ordinary tables', async (t) => {
  await client.run(`CREATE TABLE notes (id int PRIMARY KEY, t text); INSERT INTO notes VALUES (1, 'one')`);
  const schema = await through('pg_dump', live, '-s', '-N', 'pgkv', 'postgres');
  t.strictSame([schema.status, schema.errors], [0, '']);
  for (const made of [
    'CREATE TABLE public.kv (',
    'CREATE FUNCTION public.kv_get(',
    'CREATE TRIGGER',
    'CREATE TABLE public.notes (',
  ]) {
    t.match(schema.output, made);
  }
  t.notMatch(schema.output, 'CREATE SCHEMA pgkv');
  // Of the home shard, byte for byte, but for the keys that newer pg_dumps make up.
  const plain = run('pg_dump', cluster.servers[0]!, 'app', '-s', '-N', 'pgkv', 'postgres');
  const told = (text: string): string => text.replace(/^\\(un)?restrict .*$/gm, '');
  t.equal(told(schema.output), told(plain.stdout));
  const ordinary = await through('pg_dump', live, '-N', 'pgkv', '-T', 'kv', 'postgres');
  t.strictSame([ordinary.status, ordinary.errors], [0, '']);
  t.match(ordinary.output, /COPY public\.notes .*\n1\tone\n/);
});

/** What is in the COPY of table kv, or in its INSERTs, whatever the order. */
const linesOf = (dump: string): string[] => {
  const [, copied = ''] = /^COPY public\.kv \(.*\) FROM stdin;\n([\s\S]*?)^\\\.$/m.exec(dump) ?? [];
  const inserted = dump.split('\n').filter((line) => line.startsWith('INSERT INTO public.kv '));
  return [...copied.split('\n').filter((line) => line !== ''), ...inserted].sort();
};

t.test('pg_dump through pgkv: the rows of all shards, which restore', async (t) => {
  for (const [index, server] of old.servers.entries()) {
    const path = join(folder, `${index}.sql`);
    writeFileSync(path, run('pg_dump', server, 'app', '--data-only', '-t', 'kv', 'postgres').stdout);
    t.equal((await through('psql', live, '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', path, 'postgres')).status, 0);
  }
  const shards = cluster.servers.map(
    (server) => run('pg_dump', server, 'app', '--data-only', '-t', 'kv', 'postgres').stdout,
  );
  const expected = shards.flatMap(linesOf).sort();
  t.equal(expected.length, rows.length);
  for (const args of [
    ['--data-only', '-t', 'kv'],
    ['-t', 'kv'],
    ['-N', 'pgkv'],
    ['--data-only', '-N', 'pgkv'],
  ]) {
    const dump = await through('pg_dump', live, ...args, 'postgres');
    t.strictSame([dump.status, dump.errors], [0, ''], args.join(' '));
    t.strictSame(linesOf(dump.output), expected, args.join(' '));
    if (args.length === 3) writeFileSync(join(folder, 'all.sql'), dump.output);
  }
  const custom = join(folder, 'all.dump');
  const dumped = await through('pg_dump', live, '-Fc', '-t', 'kv', '-f', custom, 'postgres');
  t.strictSame([dumped.status, dumped.errors], [0, '']);
  for (const restore of [
    ['psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', join(folder, 'all.sql'), 'postgres'],
    ['pg_restore', '--data-only', '-t', 'kv', '-d', 'postgres', custom],
  ] as const) {
    await client.run('DELETE FROM kv', 'DELETE FROM notes');
    const [program, ...args] = restore;
    const { status, errors } = await through(program, live, ...args);
    t.strictSame([status, errors], [0, '']);
    t.strictSame(inOrder(await client.rows(ALL)), inOrder(rows));
  }
});

t.test('pg_dump through pgkv by cursors, or by several connections, is refused, and no row comes', async (t) => {
  for (const args of [['--inserts'], ['-Fd', '-j', '2', '-f', join(folder, 'parallel')]]) {
    const { status, errors, output } = await through('pg_dump', live, ...args, '-t', 'kv', 'postgres');
    t.equal(status, 1, args.join(' '));
    t.match(errors, /PGKV-\d+/, args.join(' '));
    t.strictSame(linesOf(output), []);
  }
});

t.test(
  'LOCK … IN ACCESS SHARE MODE holds the table as the home shard has it; all else of LOCK is refused',
  async (t) => {
    const client = await SqlClient.connect(live, { user: 'app', database: 'postgres' });
    t.teardown(() => client.end());
    const held = `SELECT mode FROM pg_locks WHERE relation = 'kv'::regclass AND granted`;
    await client.run('BEGIN', 'LOCK TABLE notes, public.kv IN ACCESS SHARE MODE');
    t.strictSame(await rowsOf(admins[0]!, held), [['AccessShareLock']]);
    await client.run('COMMIT');
    t.match(await client.failsWith('LOCK TABLE kv IN ACCESS SHARE MODE'), { code: '25P01' });
    for (const mode of ['ROW SHARE', 'SHARE', 'EXCLUSIVE', 'ACCESS EXCLUSIVE']) {
      await client.run('BEGIN');
      t.match(await client.failsWith(`LOCK TABLE notes, kv IN ${mode} MODE`), { code: '0A000' });
      await client.run('ROLLBACK');
    }
  },
);
