// The short way to a Bind's slot says what the long way says, or nothing; and nothing of what is wrong with the message.
import fc from 'fast-check';
import t from 'tap';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash, UNREAD } from '../../../src/cluster/key-hash.js';
import { tableScope } from '../../../src/cluster/table-scope.js';
import { evenSlotRanges } from '../../../src/config/slot-ranges.js';
import { keyPlaces, slotOfBind } from '../../../src/route/bound-slot.js';
import { type BindValues, StatementValues } from '../../../src/route/key-values.js';
import { route } from '../../../src/route/route.js';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import type { KvPlan } from '../../../src/sql/plan/kv-plan.js';
import { TemplateCache } from '../../../src/sql/template-cache.js';
import { BindMessage } from '../../../src/wire/bind-message.js';
import { type BindOptions, bindValues, literalsOf } from './bind-values.js';

await loadParser();
await loadKeyHash();

const [hashSlots] = evenSlotRanges(1);
const view = initialView(
  [{ name: 's1', hashSlots: [hashSlots!], nodes: [{ host: '', port: 1 }] }],
  [{ schema: 'public', name: 'kv', valueType: 'jsonb' }],
);
const scope = tableScope(view, null);
const cache = new TemplateCache({ bytesMax: 2 ** 20 });

function planOf(text: string): KvPlan {
  const { kv } = cache.get(text, true, scope);
  if (kv?.kind !== 'kv') throw new Error(`no plan: ${text}`);
  return kv;
}

const READ = planOf('SELECT value FROM kv WHERE tenant_id = $1 AND key = $2');
const TURNED = planOf('UPDATE kv SET value = $2 WHERE key = $1 AND tenant_id = $3');

type Values = readonly (string | null)[];

function shortWay(plan: KvPlan, { buffer, offset, end, types }: BindValues, text = '', at = end): number {
  const places = keyPlaces(plan, types, new StatementValues(text, literalsOf(text), null));
  const bind = new BindMessage();
  return places === null || !bind.readBehindNames(buffer, offset, at) ? UNREAD : slotOfBind(places, bind);
}

function bothWays(
  plan: KvPlan,
  values: Values,
  options: BindOptions = {},
  text = '',
): { short: number; long: number | null } {
  const bind = bindValues(values, options);
  const short = shortWay(plan, bind, text);
  const found = route(plan, new StatementValues(text, literalsOf(text), bind), view);
  return { short, long: found.kind === 'keyed' ? (found.slots[0] ?? null) : null };
}

t.test('it agrees with route, whatever the values are', (t) => {
  const part = fc.oneof(
    fc.string({ maxLength: 40 }),
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.constantFrom(null, '', '{', 'a{b}c', 'x'.repeat(300), '\u007f', '\u0080'),
  );
  fc.assert(
    fc.property(part, part, part, fc.constantFrom(0, 25, 1043, 23), (tenant, key, value, type) => {
      for (const [plan, values, places] of [
        [READ, [tenant, key], [0, 1]],
        [TURNED, [key, value, tenant], [2, 0]],
      ] as const) {
        const types = values.map((_, index) => (index === places[1] ? type : 0));
        const { short, long } = bothWays(plan, values, { types });
        if (short !== UNREAD && short !== long) throw new Error(`${short}, not ${long}`);
        const isPlain = [tenant, key].every((text) => text !== null && /^[^{\u0080-\uffff]{0,100}$/.test(text));
        if (isPlain && type !== 23 && short === UNREAD) throw new Error('the usual case takes the long way');
      }
    }),
    { numRuns: 500 },
  );
  t.end();
});

t.test(
  'it agrees with route where tenant or key stand in the text, whatever they are and however they are written',
  (t) => {
    const part = fc.oneof(
      fc.string({ unit: 'grapheme', maxLength: 20 }),
      fc.constantFrom('', '{', 'a{b}c', '{b}', "it's", 'ü', '😀', 'x'.repeat(300), 'x'.repeat(2_000)),
    );
    const written = fc.constantFrom(
      (value: string) => `'${value.replaceAll("'", "''")}'`,
      (value: string) => `E'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'::text`,
      (value: string) =>
        `U&'${[...value].map((one) => `\\+${one.codePointAt(0)!.toString(16).padStart(6, '0')}`).join('')}'`,
      (value: string) =>
        `E'${[...Buffer.from(value)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}'`,
    );
    fc.assert(
      fc.property(part, part, written, written, fc.constantFrom(0, 1, 2), (tenant, key, one, other, which) => {
        if (`${tenant}${key}`.includes('\0')) return;
        const tenantText = which === 1 ? '$1' : one(tenant);
        const keyText = which === 0 ? '$1' : other(key);
        const text = `SELECT value FROM kv WHERE tenant_id = ${tenantText} AND key = ${keyText}`;
        const values = which === 0 ? [key] : which === 1 ? [tenant] : [];
        const { short, long } = bothWays(planOf(text), values, {}, text);
        if (long !== hashSlotOf(tenant, key)) throw new Error(`route says ${long}: ${text}`);
        if (short !== UNREAD && short !== long) throw new Error(`${short}, not ${long}: ${text}`);
        const bound = which === 0 ? key : which === 1 ? tenant : '';
        const isPlain = /^[^{\u0080-\uffff]{0,100}$/.test(bound) && Buffer.byteLength(tenant + key) < 250;
        if (isPlain && short === UNREAD) throw new Error(`the usual case takes the long way: ${text}`);
      }),
      { numRuns: 1_000 },
    );
    t.end();
  },
);

t.test('a message that is cut short, or says wrong lengths, has no slot', (t) => {
  const bind = bindValues(['tenant', 'key']);
  const { buffer, offset, end } = bind;
  t.not(shortWay(READ, bind), UNREAD);
  // Result formats follow the values: two bytes without any.
  for (let cut = offset; cut < end - 2; cut++) t.equal(shortWay(READ, bind, '', cut), UNREAD);
  for (const length of [7, 2 ** 31 - 1, -1, -(2 ** 31)]) {
    const wrong = Buffer.from(buffer);
    wrong.writeInt32BE(length, offset + 4 + wrong.readUInt16BE(offset) * 2);
    t.equal(shortWay(READ, { ...bind, buffer: wrong }), UNREAD, `${length}`);
  }
  t.equal(shortWay(TURNED, bind), UNREAD, 'a parameter is missing');
  t.end();
});

t.test('other kinds of keys take the long way', (t) => {
  for (const text of [
    'SELECT value FROM kv WHERE tenant_id = NULL AND key = $1',
    'SELECT value FROM kv WHERE tenant_id = $1 AND key = ANY ($2)',
    'SELECT value FROM kv WHERE tenant_id = $1',
    'INSERT INTO kv (tenant_id, key, value, slot) VALUES ($1, $2, $3, $4)',
  ]) {
    t.equal(shortWay(planOf(text), bindValues(['t', 'k', '1', '2']), text), UNREAD, text);
  }
  t.end();
});
