// Which statements of the extended protocol are one to the merged lane, and which values they have of their texts.
import t from 'tap';
import { StatementSources, textReading } from '../../../src/backend/replies/statement-source.js';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash, UNREAD } from '../../../src/cluster/key-hash.js';
import { tableScope } from '../../../src/cluster/table-scope.js';
import { type BoundStatement, BoundStatements } from '../../../src/execute/merged/bound-statements.js';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import { TemplateCache } from '../../../src/sql/template-cache.js';
import { encode } from '../../support/frontend-message.js';

await loadParser();
await loadKeyHash();

const view = initialView(
  [{ name: 's1', hashSlots: [[0, 16383]], nodes: [{ host: '', port: 1 }] }],
  ['kv', 'other'].map((name) => ({ schema: 'public', name, valueType: 'jsonb' as const })),
);
const scope = tableScope(view, null);
const cache = new TemplateCache({ bytesMax: 2 ** 20 });
const sources = new StatementSources(cache.budget, (text, standard, names) => cache.get(text, standard, names));
const statements = new BoundStatements();

function boundOf(
  sql: string,
  types: readonly number[] = [],
  encoding = 'UTF8',
  standard = true,
): BoundStatement | null {
  const message = encode({ parse: sql, types });
  const textEnd = message.indexOf(0, 6);
  const source = sources.intern(message, 6, textEnd, message.length, textReading(encoding, standard), scope);
  const { kv } = source.template;
  if (kv?.kind !== 'kv') throw new Error(`no plan: ${sql}`);
  const bound = statements.of(source, kv);
  t.equal(statements.of(source, kv), bound, 'read once');
  return bound;
}

const constantsOf = ({ constants: { bytes, offsets } }: BoundStatement): string[] =>
  Array.from({ length: offsets.length / 2 }, (_, index) =>
    bytes.toString('utf8', offsets[2 * index], offsets[2 * index]! + offsets[2 * index + 1]!),
  );

t.test('texts that differ in the literals of their keys are one statement', async (t) => {
  const update = (tenant: string, more = '') =>
    `UPDATE kv SET value = $1 WHERE tenant_id = ${tenant} AND key = $2${more}`;
  const one = boundOf(update("'a'"))!;
  t.strictSame(constantsOf(one), ['a']);
  t.not(one.shared.single, null);
  t.equal(one.shared.keepsLiterals, false);
  for (const [tenant, value] of [
    ["'b'", 'b'],
    ["E'it\\'s'", "it's"],
    ["U&'\\00fc'", 'ü'],
    ["U&'!00fc' UESCAPE '!'", 'ü'],
    ['$$x$$', 'x'],
    ["''", ''],
  ] as const) {
    const other = boundOf(update(tenant))!;
    t.strictSame(constantsOf(other), [value], tenant);
    if (!tenant.includes('UESCAPE')) t.equal(other.shared, one.shared, tenant);
    t.not(other.shared.single, null, tenant);
  }
  t.not(boundOf(update("'a'"), [3802])!.shared, one.shared, 'other types');
  t.not(boundOf(update("'a'", ' AND version = 1'))!.shared, one.shared);
  t.not(
    boundOf(update("'a'", ' AND version = 1'))!.shared,
    boundOf(update("'a'", ' AND version = 2'))!.shared,
    'any other literal stays in the text',
  );
  t.equal(boundOf(update("'a'", ' AND version = 1'))!.shared.keepsLiterals, true);
  t.not(boundOf(update("'a'").replace('kv', 'other'))!.shared, one.shared);
});

t.test('where the key is', async (t) => {
  const read = (tenant: string, key: string) => `SELECT value FROM kv WHERE tenant_id = ${tenant} AND key = ${key}`;
  t.match(boundOf(read('$2', '$1'))!.places, { tenantAt: 1, keyAt: 0, tenant: null, key: null, slot: UNREAD });
  t.match(boundOf(read("'a'", '$1'))!.places, { tenantAt: -1, keyAt: 0, tenant: Buffer.from('a'), slot: UNREAD });
  t.match(boundOf(read('$1', "'x{ü}'"))!.places, { tenantAt: 0, keyAt: -1, key: Buffer.from('ü') });
  t.match(boundOf(read("'a'", "'b'"))!.places, { slot: hashSlotOf('a', 'b') });
  t.equal(boundOf(read('$1', '$2'), [25, 20])!.places, null, 'a type that is no text');
  t.equal(boundOf(read('$1', 'ANY ($2)'))!.places, null);
});

t.test('what cannot be read with certainty is no statement of the lane', async (t) => {
  const read = (tenant: string) => `SELECT value FROM kv WHERE tenant_id = ${tenant} AND key = $1`;
  t.equal(boundOf(read("E'\\v'")), null, 'the letter v on Postgres 15');
  t.equal(boundOf(read("U&'\\00fc'"), [], 'LATIN1'), null, 'it would have to be said in LATIN1');
  t.strictSame(constantsOf(boundOf(read("'a'"), [], 'LATIN1')!), ['a']);
  t.strictSame(constantsOf(boundOf(read("'a\\'b'"), [], 'UTF8', false)!), ["a'b"]);
});
