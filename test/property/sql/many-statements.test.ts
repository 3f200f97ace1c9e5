// A text of very many statements is put together from what each shape of them does alone: the outcome is that of reading the
// text as a whole, whatever stands between the statements, or there is none and it is read as a whole.
import t from 'tap';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { tableScope } from '../../../src/cluster/table-scope.js';
import { evenSlotRanges } from '../../../src/config/slot-ranges.js';
import { readMany } from '../../../src/sql/many-statements.js';
import { loadParser, parse } from '../../../src/sql/meaning/parse.js';
import type { Template } from '../../../src/sql/plan/template.js';
import { readTemplate, readWhole, TOKENS_MAX } from '../../../src/sql/read-template.js';
import { isSameTree } from '../../../src/sql/rewrite/kv-proof.js';
import { renderText } from '../../../src/sql/text/kv-text.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';

await loadParser();

const view = initialView(
  evenSlotRanges(3).map((range, index) => ({ name: `s${index}`, hashSlots: [range], nodes: [{ host: '', port: 1 }] })),
  [
    { schema: 'public', name: 'kv', valueType: 'jsonb' },
    { schema: 'public', name: 'other_kv', valueType: 'bytea' },
  ],
);
const scope = tableScope(view, null);
const OLDEST = 15;

/** As in test/unit: a small generator with a seed. */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

type Random = (below: number) => number;
const pick = <Item>(random: Random, items: readonly Item[]): Item => items[random(items.length)]!;

const STRINGS = ["'a'", "'it''s'", "'a;b'", '$$;$$', "$x$a'b;$x$", "'ä😀'", "E'a\\n;'", "'a' \n 'b'", "'/*'", "'a\\b'"];
const string = (random: Random): string => (random(3) > 0 ? `'k${random(9)}'` : pick(random, STRINGS));
const number = (random: Random): string => String(random(100) - 50);

/** On keys. */
const ON_KEYS: readonly ((random: Random) => string)[] = [
  (r) => `insert into kv (tenant_id, key, value) values (${string(r)}, ${string(r)}, '${r(9)}')`,
  (r) => `INSERT INTO public.kv VALUES (${string(r)}, ${string(r)}, NULL, '{}', NULL, NULL, NULL)`,
  (r) =>
    `insert into kv (tenant_id, key, value, slot) values ('t', ${string(r)}, '1', ${r(9)}), ('t', 'b', '1', ${r(9)})`,
  (r) =>
    `insert into kv as x (key, tenant_id, value) values (${string(r)}, 't', '1') on conflict (tenant_id, key) do update set value = excluded.value`,
  (r) => `update kv set value = ${string(r)} where tenant_id = 't' and key = ${string(r)}`,
  (r) =>
    `update other_kv as "a;b" set value = 'x' where "a;b".tenant_id = 't' and key = ${string(r)} and version = ${r(9)}`,
  (r) => `delete from kv where tenant_id = ${string(r)} and key in ('a', ${string(r)}) returning "key" as ";"`,
  (r) => `select value, ${number(r)} from kv where tenant_id = 't' and key = ${string(r)}`,
  (r) => `select kv_put('t', ${string(r)}, '${r(9)}')`,
  (r) => `select kv_get('t', ${string(r)}), kv_get(key => 'a', tenant => ${string(r)})`,
];
/** On no key, or such as are refused. */
const OTHERS: readonly ((random: Random) => string)[] = [
  (r) => `select ${number(r)}`,
  (r) => `select * from elsewhere where a = ${string(r)} order by ${1 + r(3)}`,
  (r) => `insert into elsewhere values (${number(r)}, ${string(r)})`,
  (r) => `select set_config('app.a', ${string(r)}, false)`,
  (r) => `select pg_advisory_lock(${r(9)})`,
  (r) => `set timezone = ${pick(r, ["'utc'", "'UTC'"])}`,
  () => 'show timezone',
  () => 'begin',
  () => 'commit',
  () => 'rollback',
  () => 'savepoint a',
  () => 'release a',
  (r) => `select count(*) from kv where value = '${r(9)}'`,
  (r) => `create table a${r(3)} (a float(${r(30) + 1}))`,
  () => 'deallocate all',
  (r) => `prepare a${r(3)} as select 1`,
  (r) => `select value from kv where tenant_id = 't' and key = 'k' order by ${1 + r(2)}`,
  () => 'create rule r as on insert to elsewhere do also (select 1; select 2)',
  () => 'create function f() returns int begin atomic select 1; select 2; end',
  (r) => `select nextval('s${r(2)}')`,
  () => 'select from where',
  (r) => `copy kv from stdin -- ${r(3)}`,
];
const GAPS = ['', ' ', '\n', ' /* ; */ ', ' -- it\'s; "x\n', '\t\n', '/* a /* ; */ " */', '\r\n'];
/** Blanks to JavaScript, letters to Postgres. */
const LETTERS = ['\u00a0', '\ufeff', '\u3000', '\u2003'];

function textOf(random: Random): string {
  // Most texts are of one sort.
  const pool = pick(random, [ON_KEYS, ON_KEYS, OTHERS, OTHERS.slice(0, 3), [...ON_KEYS, ...OTHERS]]);
  const chosen = Array.from({ length: 1 + random(4) }, () => pick(random, pool));
  const statements = Array.from({ length: 32 + random(30) }, () => pick(random, chosen)(random));
  if (random(4) === 0) statements.unshift('BEGIN');
  if (random(4) === 0) statements.push('commit');
  let text = pick(random, GAPS);
  for (const statement of statements) {
    if (random(300) === 0) text += pick(random, LETTERS);
    text += `${statement}${random(300) === 0 ? pick(random, LETTERS) : ''}${pick(random, GAPS)};${random(8) === 0 ? ';' : ''}${pick(random, GAPS)}`;
  }
  return random(2) === 0 ? text : text.slice(0, text.lastIndexOf(';'));
}

/** What must be alike, and apart from that the text for a shard. */
function parted({ kv, bytes: _, ...rest }: Template): [object, readonly (string | number)[] | null] {
  if (kv?.kind !== 'kv') return [{ ...rest, kv }, null];
  const { text, ...plan } = kv;
  return [{ ...rest, kv: plan }, text];
}

t.test('many statements read by their shapes are what they are read as a whole', async (t) => {
  let joined = 0;
  let onKeys = 0;
  for (let seed = 0; seed < 800; seed++) {
    // One that has grown large is replaced.
    await loadParser();
    const random = randomOf(seed);
    // A literal whose value is part of the shape has the text read as a whole.
    const text = random(8) === 0 ? `${textOf(random)}; select E'\\x41'` : textOf(random);
    const standard = random(4) > 0;
    const shape = lexShape(text, standard);
    if (shape === null) continue;
    const whole = readWhole(text, standard, shape, OLDEST, scope, TOKENS_MAX);
    const many = readMany(text, shape, TOKENS_MAX, (statement) => {
      const read = readWhole(statement, standard, lexShape(statement, standard), OLDEST, scope, TOKENS_MAX);
      return read.holdsForShape ? read.template : null;
    });
    const read = readTemplate(text, standard, shape, OLDEST, scope);
    t.same(parted(read.template)[0], parted(whole.template)[0], `${seed}: ${text}`, { diagnostic: false });
    if (read.holdsForShape !== whole.holdsForShape)
      t.fail(`${seed}: good for the shape, or for the text alone: ${text}`);
    if (many === null) continue;
    joined++;
    const [, parts] = parted(many);
    const [, wholeParts] = parted(whole.template);
    if (parts === null || wholeParts === null) continue;
    onKeys++;
    const [one, other] = [parts, wholeParts].map((each) => parse(renderText(each, text, shape.literals)));
    const trees = [one!, other!].map((each) =>
      each.kind === 'parsed' ? each.statements.map(({ node }) => node) : null,
    );
    if (standard && (trees[0] === null || !isSameTree(trees[0], trees[1]))) t.fail(`${seed}: another text: ${text}`);
  }
  t.comment(`${joined} of 800 put together, ${onKeys} of them on keys`);
  t.ok(onKeys > 200 && joined > onKeys + 100, `not for nothing: ${joined}, ${onKeys}`);
});
