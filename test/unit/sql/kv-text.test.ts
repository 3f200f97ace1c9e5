import t from 'tap';
import { originalPosition, renderText } from '../../../src/sql/keyed/kv-analysis.js';
import { tokensOf } from '../../../src/sql/text/text-tokens.js';
import { literalsOf, planned } from './kv-planning.js';

const characters = (text: string): number => [...text].length;

/** Positions are in characters, from 1. */
const positionOf = (text: string, offset: number): number => characters(text.slice(0, offset)) + 1;

const TEXTS = [
  "SELECT 'é😀', /* é😀 */ value\n\n FROM -- é😀\n kv WHERE (tenant_id) = 'a' AND (key = 'b') ORDER BY nothing;  -- last",
  "(SELECT * FROM kv\tWHERE (tenant_id, key) IN (('a', 'b'), ('c', E'\\n')))",
  "UPDATE kv  SET   value = 'é', (ttl) = ROW(NULL) WHERE tenant_id = 'a' RETURNING kv.ttl + 1, nothing",
  'UPDATE kv SET value = version, updated_at = pg_catalog.now(), ttl = kv.ttl WHERE false OR nothing',
  `EXPLAIN (COSTS) INSERT  INTO kv AS kv (key, tenant_id, value) VALUES ('b', 'a', 'c'), ($$d$$, 'e', NULL)
   ON CONFLICT (key, tenant_id) DO UPDATE SET value = 'é', ttl = excluded.ttl WHERE kv.version = 0 RETURNING nothing`,
  `INSERT INTO kv (tenant_id, key) VALUES ('a', $1); DELETE FROM kv WHERE (tenant_id, key) = ('b', '😀') ;
   INSERT INTO kv (tenant_id, key) VALUES ($2, 'c') ON CONFLICT DO NOTHING RETURNING nothing`,
  "SELECT /* x */ * FROM   kv_put('a', 'b', '😀')",
];

t.test('positions in a rewritten text are told as positions in the client’s', async (t) => {
  let compared = 0;
  for (const text of TEXTS) {
    const plan = planned(text);
    const literals = literalsOf(text);
    const rendered = renderText(plan.text, text, literals);
    for (const { start, end } of tokensOf(text, literals)) {
      const token = text.slice(start, end);
      const places = rendered.split(token).length - 1;
      // A literal may have been copied: all its places are the one.
      if (places === 0 || (places > 1 && !/^'.+'$|^\$\$/.test(token))) continue;
      for (let at = rendered.indexOf(token); at >= 0; at = rendered.indexOf(token, at + 1)) {
        for (const into of [0, token.length - 1]) {
          const expected = positionOf(text, start + into);
          t.equal(
            originalPosition(plan.text, text, literals, positionOf(rendered, at + into)),
            expected,
            `${token} in ${text}`,
          );
          compared++;
        }
      }
    }
  }
  t.ok(compared > 100, `${compared} positions`);
});

t.test('a position in what was put in is that of the next token', async (t) => {
  const [text, literals] = [
    "DELETE FROM kv WHERE key = 'a' RETURNING 1",
    literalsOf("DELETE FROM kv WHERE key = 'a' RETURNING 1"),
  ];
  const { text: parts } = planned(text);
  const rendered = renderText(parts, text, literals);
  const told = (word: string) => originalPosition(parts, text, literals, rendered.indexOf(word) + 1);
  t.equal(told('statement_timestamp'), text.indexOf('RETURNING') + 1);
  t.equal(told('RETURNING'), text.indexOf('RETURNING') + 1);
  t.equal(originalPosition(parts, text, literals, rendered.length + 1), characters(text) + 1, 'at the end');
  t.equal(originalPosition(parts, text, literals, 1), 1);
});

t.test('positions are told for the client’s own reading of backslashes', async (t) => {
  const parsed = "SELECT nothing FROM kv WHERE tenant_id =  E'a\\'b' AND nowhere = 'c'";
  const client = "SELECT nothing FROM kv WHERE tenant_id = 'a\\'b'  AND nowhere = 'c'";
  const { text: parts } = planned(parsed);
  const literals = literalsOf(client, false);
  const rendered = renderText(parts, client, literals);
  t.equal(originalPosition(parts, client, literals, rendered.indexOf('nowhere') + 1), client.indexOf('nowhere') + 1);
});
