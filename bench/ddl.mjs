// DDL through pgkv and on plain Postgres, one client each, statement by statement in turn in one run: `node bench/ddl.mjs
// [--count 200] [--routines 1000] [--assert]`. The same statements go to two databases of one server; what stands in their
// catalogues afterwards must be the same. `--routines` are functions, and views, that are there already.

import { parseArgs } from 'node:util';
import pg from 'pg';
import { createScratch, stopServers, stopServersOnSignals } from './processes.mjs';
import { startPgkv, startPostgres } from './servers.mjs';

const GOAL_RATIO = 2;

/** Each kind by itself, and all in turn, as migrations have it. */
const kinds = {
  'CREATE TABLE': (n) =>
    `CREATE TABLE t${n} (id serial PRIMARY KEY, name text NOT NULL DEFAULT '', at timestamptz DEFAULT now())`,
  'CREATE TEMP TABLE': (n) => `CREATE TEMP TABLE tmp${n} (a int)`,
  'CREATE INDEX': (n) => `CREATE INDEX i${n} ON t${n} (name)`,
  'ALTER TABLE': (n) => `ALTER TABLE t${n} ADD COLUMN more int DEFAULT ${n}`,
  'CREATE VIEW': (n) => `CREATE VIEW v${n} AS SELECT id, upper(name) AS name FROM t${n}`,
  'CREATE FUNCTION': (n) => `CREATE FUNCTION f${n}(a int) RETURNS int LANGUAGE sql AS 'SELECT a + ${n}'`,
};

const ours = (name) => `${name} ~ '^(t|i|v|f|base|was|old)[0-9]*(_|$)'`;
const EFFECTS = [
  `SELECT 'c', relname::text, relkind::text, relnatts::text FROM pg_class WHERE ${ours('relname')}`,
  `SELECT 'a', relname::text, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE ${ours('relname')}`,
  `SELECT 'p', proname::text, prosrc, '' FROM pg_proc WHERE ${ours('proname')}`,
  `SELECT 'd', relname::text, adnum::text, pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_class c ON c.oid = adrelid WHERE ${ours('relname')}`,
  `SELECT 'v', viewname::text, definition, '' FROM pg_views WHERE ${ours('viewname')}`,
].join(' UNION ALL ');

async function prepare(client, routines) {
  if (routines === 0) return;
  await client.query('CREATE TABLE base (a int, b text)');
  const body =
    "format('CREATE FUNCTION was%s(a int) RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN a + %s; END $f$', n, n)";
  const view = "format('CREATE VIEW old%s AS SELECT a + %s AS a, upper(b) AS b FROM base WHERE a > %s', n, n, n)";
  for (const text of [body, view]) {
    const { rows } = await client.query(`SELECT ${text} AS t FROM generate_series(1, ${routines}) n`);
    for (let at = 0; at < rows.length; at += 100) {
      await client.query(
        rows
          .slice(at, at + 100)
          .map(({ t }) => t)
          .join(';'),
      );
    }
  }
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

async function timed(client, sql) {
  const start = performance.now();
  await client.query(sql);
  return performance.now() - start;
}

/** Medians in ms of `count` of a kind, each statement on both in turn. */
async function measure(plain, routed, statementOf, count) {
  const times = { plain: [], routed: [] };
  for (let n = 0; n < count; n++) {
    const sql = statementOf(n);
    const order = n % 2 === 0 ? ['plain', 'routed'] : ['routed', 'plain'];
    for (const one of order) times[one].push(await timed(one === 'plain' ? plain : routed, sql));
  }
  return { plain: median(times.plain), routed: median(times.routed) };
}

const { values } = parseArgs({
  options: { count: { type: 'string' }, routines: { type: 'string' }, assert: { type: 'boolean' } },
});
stopServersOnSignals();
try {
  const count = Number(values.count ?? 200);
  const scratch = createScratch('ddl');
  const settings = { max_locks_per_transaction: 512 };
  const postgres = await startPostgres({ scratch, label: 'postgres', user: 'bench', database: 'bench', settings });
  const router = await startPgkv({ scratch, postgres, poolSize: 20, withCatalog: true });
  const connect = async ({ host, port }, database) => {
    const client = new pg.Client({ host, port, user: 'bench', database });
    client.on('error', () => undefined);
    await client.connect();
    await client.query('SET client_min_messages = warning');
    return client;
  };
  const setUp = await connect(postgres, 'postgres');
  await setUp.query('CREATE DATABASE plain');
  for (const database of ['bench', 'plain']) {
    const client = await connect(postgres, database);
    await prepare(client, Number(values.routines ?? 0));
    await client.query('VACUUM ANALYZE');
    await client.end();
  }
  console.log(`${router.name} in front of ${postgres.name}, Node ${process.version}: ${count} of each kind`);
  const missed = [];
  for (const [kind, statementOf] of Object.entries(kinds)) {
    // Of their own: a session that has made temporary tables keeps its server connection.
    const plain = await connect(postgres, 'plain');
    const routed = await connect(router, 'bench');
    const times = await measure(plain, routed, statementOf, count);
    await Promise.all([plain.end(), routed.end()]);
    const ratio = times.routed / times.plain;
    if (ratio > GOAL_RATIO) missed.push(kind);
    console.log(
      `${kind.padEnd(18)} plain ${times.plain.toFixed(2)} ms, pgkv ${times.routed.toFixed(2)} ms: ${ratio.toFixed(2)}`,
    );
  }
  const last = await Promise.all([connect(postgres, 'plain'), connect(router, 'bench')]);
  const [expected, found] = await Promise.all(last.map((client) => client.query({ text: EFFECTS, rowMode: 'array' })));
  const sorted = ({ rows }) => rows.map((row) => JSON.stringify(row)).sort();
  const [wanted, got] = [sorted(expected), sorted(found)];
  const sameEffects = wanted.length > count && wanted.join('\n') === got.join('\n');
  console.log(`effects: ${wanted.length} catalogue rows, ${sameEffects ? 'the same on both' : 'DIFFERENT'}`);
  console.log(
    `goal: at most ${GOAL_RATIO} times plain: ${missed.length === 0 ? 'met' : `MISSED by ${missed.join(', ')}`}`,
  );
  if (values.assert && (missed.length > 0 || !sameEffects)) process.exitCode = 1;
  await Promise.all([...last, setUp].map((client) => client.end()));
} finally {
  await stopServers();
}
