// Statements whose text is long are read like short ones, but not shared: they leave nothing behind in the cache of sources.
import t from 'tap';
import { StatementSources, textReading } from '../../../src/backend/replies/statement-source.js';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { tableScope } from '../../../src/cluster/table-scope.js';
import { evenSlotRanges } from '../../../src/config/slot-ranges.js';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import { TemplateCache } from '../../../src/sql/template-cache.js';
import { TextBudget } from '../../../src/sql/text-budget.js';

await loadParser();
const view = initialView(
  [{ name: 's', hashSlots: evenSlotRanges(1), nodes: [{ host: '', port: 1 }] }],
  [{ schema: 'public', name: 'kv', valueType: 'jsonb' }],
);
const scope = tableScope(view, null);
const reading = textReading('UTF8', true);
/** Behind the text: NUL, one parameter type. */
const TYPES = Buffer.from([0, 0, 1, 0, 0, 0, 25]);

function internTwice(text: string) {
  const budget = new TextBudget(2 ** 26);
  const cache = new TemplateCache({ bytesMax: budget });
  const sources = new StatementSources(budget, (...read) => cache.getForKept(...read));
  const bytes = Buffer.from(text);
  const message = Buffer.concat([Buffer.from('xx\0'), bytes, TYPES, Buffer.from('S')]);
  const intern = () => sources.intern(message, 3, 3 + bytes.length, message.length - 1, reading, scope);
  return { sources, one: intern(), other: intern() };
}

for (const filler of ['x', 'é', '€😀']) {
  for (const make of [
    (value: string) => `select length('${value}'), $1`,
    (value: string) => `insert into kv (tenant_id, key, value) values ($1, '${filler}', '"${value}"')`,
  ]) {
    const [short, long] = [10, 300_000].map((count) => internTwice(make(filler.repeat(count))));
    const name = make('').slice(0, 20) + filler;
    t.test(`${name}: a long text is read as a short one, and not kept`, (t) => {
      t.equal(short!.one, short!.other, 'a short one is shared');
      t.not(long!.one, long!.other);
      t.equal(long!.sources.entries, 0);
      t.equal(short!.sources.entries, 1);
      for (const field of ['parseTail', 'text'] as const) {
        const grown = Buffer.from(filler.repeat(299_990));
        const more = field === 'text' ? grown.toString() : grown.toString('latin1');
        const at = short!.one[field].indexOf(
          field === 'text' ? filler.repeat(10) : Buffer.from(filler.repeat(10)).toString('latin1'),
        );
        const expected = short!.one[field].slice(0, at) + more + short!.one[field].slice(at);
        // Where literals are shortened for the parser, blanks keep them apart.
        t.ok(long!.one[field].replaceAll(' ', '') === expected.replaceAll(' ', ''), field);
      }
      t.same(long!.one.parameterTypes, short!.one.parameterTypes);
      t.equal(long!.one.typeBytes, TYPES.length);
      t.equal(long!.one.template.kind, short!.one.template.kind);
      t.ok(long!.one.ownBytes > long!.one.text.length, 'what it holds is counted');
      t.end();
    });
  }
}
