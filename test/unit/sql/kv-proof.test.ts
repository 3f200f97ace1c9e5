import t from 'tap';
import { loadParser, type ParsedStatement, parse } from '../../../src/sql/meaning/parse.js';
import { isFaithful } from '../../../src/sql/rewrite/kv-proof.js';
import { takeFilter } from '../../../src/sql/rewrite/kv-rewrites.js';

await loadParser();

function statements(text: string): readonly ParsedStatement[] {
  const parsed = parse(text);
  if (parsed.kind === 'failed') throw new Error(parsed.message);
  return parsed.statements;
}

const FILTER = '(kv.ttl IS NULL OR kv.ttl > now())';
const isRight = (text: string, rewritten: string): boolean =>
  isFaithful(statements(text), rewritten, [(node) => 'SelectStmt' in node && takeFilter(node.SelectStmt, FILTER)]);

t.test('a rewritten text passes where it says the same but for what was put in', async (t) => {
  t.ok(isRight('SELECT * FROM kv', `SELECT * FROM kv WHERE ${FILTER}`));
  t.ok(isRight('SELECT * FROM kv WHERE a', `select *   FROM kv WHERE (a) AND ${FILTER}`));
  t.ok(isRight('SELECT * FROM kv WHERE a AND b', `SELECT * FROM kv WHERE (a AND b) AND ${FILTER}`));
  t.ok(isRight('SELECT * FROM kv WHERE a OR b', `SELECT * FROM kv WHERE (a OR b) AND ${FILTER}`));
});

t.test('every other text fails', async (t) => {
  const WRONG: readonly (readonly [string, string])[] = [
    ['SELECT * FROM kv', 'SELECT * FROM kv'],
    ['SELECT * FROM kv', `SELECT * FROM kv WHERE ${FILTER} AND ${FILTER}`],
    ['SELECT * FROM kv', 'SELECT * FROM kv WHERE kv.ttl IS NULL'],
    ['SELECT * FROM kv WHERE a OR b', `SELECT * FROM kv WHERE a OR b AND ${FILTER}`],
    ['SELECT * FROM kv WHERE a', `SELECT * FROM kv WHERE ${FILTER} AND a`],
    ['SELECT * FROM kv WHERE a', `SELECT * FROM kv WHERE ${FILTER}`],
    ['SELECT * FROM kv WHERE a', `SELECT * FROM kv WHERE b AND ${FILTER}`],
    ['SELECT 1 FROM kv', `SELECT 2 FROM kv WHERE ${FILTER}`],
    ['SELECT 1 FROM kv', `SELECT 1, 2 FROM kv WHERE ${FILTER}`],
    ['SELECT 1 FROM kv', `SELECT 1 FROM kv WHERE ${FILTER}; SELECT 1`],
    ['SELECT 1 FROM kv', `SELECT 1 FROM kv WHERE ${FILTER} LIMIT 1`],
    ['SELECT 1 FROM kv LIMIT 1', `SELECT 1 FROM kv WHERE ${FILTER}`],
    ['SELECT 1 FROM kv', `DELETE FROM kv WHERE ${FILTER}`],
    ['SELECT 1 FROM kv', `SELECT 1 FROM kv WHERE ${FILTER} nonsense`],
  ];
  for (const [text, rewritten] of WRONG) t.notOk(isRight(text, rewritten), rewritten);
  t.notOk(isFaithful(statements('SELECT 1; SELECT 2'), 'SELECT 1; SELECT 3', [null, null]));
  t.ok(isFaithful(statements('SELECT 1; SELECT 2'), 'SELECT  1; SELECT 2;', [null, null]));
});
