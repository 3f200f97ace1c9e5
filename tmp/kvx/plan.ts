import { planKv, renderText } from '../../src/sql/kv-analysis.js';
import { lexShape } from '../../src/sql/shape-lexer.js';
import { loadParser, parse } from '../../src/sql/parse.js';
import { KV } from '../../test/support/kv-cluster.js';
await loadParser();
const find = (schema: string | null, name: string) => (name === 'kv' && (schema === null || schema === 'public') ? KV : null);
for (const text of process.argv.slice(2)) {
  const parsed = parse(text) as any;
  if (!parsed.statements) { console.log("PARSE", JSON.stringify(parsed)); continue; }
  const literals = lexShape(text, true)?.literals ?? [];
  const plan = planKv({ text, statements: parsed.statements, literals, find } as any) as any;
  if (plan?.kind !== 'kv') { console.log(JSON.stringify(plan)); continue; }
  console.log('TEXT', renderText(plan.text, text, literals));
  if (plan.scatter.shardText) console.log('SHARD', renderText(plan.scatter.shardText, text, literals), JSON.stringify({...plan.scatter, shardText: 0}).slice(0,300));
  else console.log(JSON.stringify(plan.scatter));
}
