// Generated blocks over keys of a key-value table and an ordinary table beside it, as messages of either protocol.
import type { FrontendMessage, Value } from './frontend-message.js';
import type { SeededRandom } from './seeded-random.js';

export interface BlockStatement {
  readonly sql: string;
  readonly values: readonly Value[];
}

const KEYS = 9;
const NAMES = Array.from({ length: KEYS }, (_, n) => `k${n}`);
const plain = (sql: string): BlockStatement => ({ sql, values: [] });
const key = (random: SeededRandom): string => `k${random.integer(KEYS)}`;

/** A statement on one key, with its key in the text or as a parameter. */
export function keyedStatement(random: SeededRandom): BlockStatement {
  const isBound = random.oneIn(2);
  const name = key(random);
  const values = isBound ? [name] : [];
  const where = `WHERE tenant_id = 'a' AND key = ${isBound ? '$1' : `'${name}'`}`;
  const row = `('a', ${isBound ? '$1' : `'${name}'`}, '${random.integer(100)}')`;
  const sql = random.pick([
    `UPDATE kv SET value = '${random.integer(100)}' ${where}`,
    `UPDATE kv SET value = to_jsonb((value #>> '{}')::int + 1) ${where} RETURNING key, value`,
    `INSERT INTO kv (tenant_id, key, value) VALUES ${row}`,
    `INSERT INTO kv (tenant_id, key, value) VALUES ${row} ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`,
    `INSERT INTO kv (tenant_id, key, value) VALUES ${row} ON CONFLICT DO NOTHING RETURNING value`,
    `DELETE FROM kv ${where}`,
    `SELECT key, value FROM kv ${where}`,
    `SELECT value FROM kv ${where} FOR UPDATE`,
    `UPDATE kv SET value = to_jsonb(1 / (length(key) - 2)) ${where}`,
  ]);
  return { sql, values };
}

/** A statement on keys of several shards. */
export function spreadStatement(random: SeededRandom): BlockStatement {
  const names = random.some(NAMES, random.between(2, 5));
  const isBound = random.oneIn(2);
  const values = isBound ? names : [];
  const listed = names.map((name, n) => (isBound ? `$${n + 1}` : `'${name}'`));
  const rows = listed.map((name) => `('a', ${name}, '${random.integer(100)}')`).join();
  const where = `WHERE tenant_id = 'a' AND key IN (${listed.join()})`;
  const some = random.pick<BlockStatement>([
    { sql: where, values },
    { sql: `WHERE tenant_id = 'a'`, values: [] },
    { sql: `WHERE (value #>> '{}')::int < 50`, values: [] },
  ]);
  const insert = `INSERT INTO kv (tenant_id, key, value) VALUES ${rows}`;
  return random.pick<BlockStatement>([
    { sql: insert, values },
    { sql: `${insert} ON CONFLICT DO NOTHING RETURNING key, value`, values },
    { sql: `${insert} ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`, values },
    { ...some, sql: `UPDATE kv SET value = to_jsonb((value #>> '{}')::int + 1) ${some.sql} RETURNING key, value` },
    { ...some, sql: `UPDATE kv SET value = '${random.integer(100)}' ${some.sql}` },
    { ...some, sql: `UPDATE kv SET value = to_jsonb(1 / ((value #>> '{}')::int - 7)) ${some.sql}` },
    { ...some, sql: `DELETE FROM kv ${some.sql} RETURNING key` },
    { ...some, sql: `SELECT key, value FROM kv ${some.sql} ORDER BY key` },
    { ...some, sql: `SELECT key FROM kv ${some.sql} ORDER BY key LIMIT 2` },
    { ...some, sql: `SELECT count(*), sum((value #>> '{}')::int) FROM kv ${some.sql}` },
    { ...some, sql: `SELECT key, 1 / ((value #>> '{}')::int - 7) AS q FROM kv ${some.sql}` },
  ]);
}

const OTHERS: readonly string[] = [
  'SELECT 1 AS one',
  'SELECT 1 / 0',
  'SELECT no_such_column',
  'INSERT INTO notes VALUES (1)',
  'SELECT count(*) FROM notes',
  'SAVEPOINT a',
  'SAVEPOINT b',
  'SAVEPOINT "A b"',
  'ROLLBACK TO a',
  'ROLLBACK TO SAVEPOINT b',
  'ROLLBACK TO "A b"',
  'ROLLBACK TO a',
  'RELEASE a',
  'RELEASE SAVEPOINT b',
  `SET LOCAL work_mem = '5MB'`,
  `SET work_mem = '6MB'`,
  `SET work_mem = 'much'`,
  `SET app.name = 'x'`,
  `SET LOCAL app.name = 'y'`,
  `SELECT set_config('app.name', 'z', false)`,
  'SHOW work_mem',
  `SELECT current_setting('app.name', true)`,
  'SET CONSTRAINTS ALL DEFERRED',
  'RESET work_mem',
];

const BEGINS = ['BEGIN', 'START TRANSACTION', 'BEGIN ISOLATION LEVEL READ COMMITTED', 'BEGIN READ WRITE'];
const ENDS = ['COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK', 'COMMIT AND CHAIN', 'ROLLBACK AND CHAIN', 'END'];

function blockStatement(random: SeededRandom): BlockStatement {
  if (random.oneIn(4)) return spreadStatement(random);
  return random.chance(0.5) ? keyedStatement(random) : plain(random.pick(OTHERS));
}

/** As a simple query, or a batch without its Sync, under a name or without. */
function messagesOf({ sql, values }: BlockStatement, isSimple: boolean, isNamed: boolean): FrontendMessage[] {
  if (isSimple && values.length === 0) return [{ query: sql }];
  const run = [{ describe: 'portal' }, { execute: '' }] as const;
  if (!isNamed) return [{ parse: sql }, { bind: values }, ...run];
  const close = { close: 'statement', name: NAME } as const;
  return [close, { parse: sql, name: NAME }, { bind: values, statement: NAME }, ...run];
}

/** COPY of rows for several keys, some of which may be there, or one of which may be no row. */
function copyOf(random: SeededRandom): FrontendMessage[] {
  // Of faults of both kinds each server tells the one that it comes to first.
  const isBad = random.oneIn(6);
  const rows = random.some(NAMES, random.between(1, 6)).map((name) => {
    const isOld = !isBad && random.oneIn(4);
    return `a\t${isOld ? name : `${name}x${random.integer(10_000)}`}\t${random.integer(100)}\n`;
  });
  if (isBad) rows.push('a\tbad\n');
  return [{ query: 'COPY kv (tenant_id, key, value) FROM STDIN' }, { copyData: rows.join('') }, 'copyDone'];
}

const NAME = 'named';

const isQuery = (message: FrontendMessage): boolean => typeof message !== 'string' && 'query' in message;

/** One block, as what is sent before its answers are awaited, part by part. */
export function blockScript(random: SeededRandom): FrontendMessage[][] {
  const parts: FrontendMessage[][] = [];
  const isSimple = (): boolean => random.oneIn(2);
  const add = (statements: readonly BlockStatement[]): void => {
    const part: FrontendMessage[] = [];
    for (const statement of statements) {
      const messages = messagesOf(statement, isSimple(), random.oneIn(3));
      if (part.length > 0 && !isQuery(part.at(-1)!) && (isQuery(messages[0]!) || random.oneIn(2))) part.push('sync');
      part.push(...messages);
    }
    if (!isQuery(part.at(-1)!)) part.push('sync');
    parts.push(part);
  };
  add([plain(random.pick(BEGINS))]);
  for (let n = random.between(1, 12); n > 0; n--) {
    if (random.oneIn(10)) {
      parts.push(copyOf(random));
      continue;
    }
    const isPipeline = random.oneIn(5);
    const count = isPipeline ? random.between(2, 4) : 1;
    add(
      Array.from({ length: count }, () =>
        isPipeline && random.oneIn(2) ? keyedStatement(random) : blockStatement(random),
      ),
    );
  }
  const end = random.pick(ENDS);
  add([plain(end)]);
  if (end.endsWith('CHAIN')) {
    add([keyedStatement(random)]);
    add([keyedStatement(random)]);
    add([plain(random.pick(['COMMIT', 'ROLLBACK']))]);
  }
  return parts;
}
