import fc from 'fast-check';
import t from 'tap';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import { Effect, type EffectBits, type Template } from '../../../src/sql/plan/template.js';
import { readTemplate } from '../../../src/sql/read-template.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';
import { CORPUS, CORPUS_TEXTS } from './corpus.js';

await loadParser();

const read = (text: string, standard = true, oldestServerMajor = 15) =>
  readTemplate(text, standard, lexShape(text, standard), oldestServerMajor);
const templateOf = (text: string, standard = true): Template => read(text, standard).template;
const at18 = (text: string): Template => read(text, true, 18).template;

const bits = (names: string): EffectBits =>
  names
    .split(' ')
    .filter((name) => name !== '')
    .reduce<EffectBits>((all, name) => all | Effect[name as keyof typeof Effect], 0);

const effectNames = (effects: EffectBits): string[] =>
  Object.entries(Effect)
    .filter(([, bit]) => bit !== 0 && (effects & bit) !== 0)
    .map(([name]) => name);

t.test('every kind of statement has its kind and effects', async (t) => {
  t.ok(CORPUS_TEXTS.length >= 250, `${CORPUS_TEXTS.length} statements`);
  t.equal(new Set(CORPUS_TEXTS).size, CORPUS_TEXTS.length, 'none of them twice');
  for (const group of CORPUS) {
    for (const text of group.texts) {
      const { kind, effects, settingNames, readOnly, leavesBlock } = templateOf(text);
      t.same(
        { kind, effects: effectNames(effects), settingNames, readOnly, leavesBlock },
        {
          kind: group.kind,
          effects: effectNames(bits(group.effects)),
          settingNames: group.settings ?? [],
          readOnly: group.readOnly ?? false,
          leavesBlock: group.leavesBlock ?? null,
        },
        text,
      );
    }
  }
});

t.test('SHOW tells the setting asked for', async (t) => {
  t.equal(templateOf('SHOW "TimeZone"').showName, 'timezone');
  t.equal(templateOf('show transaction isolation level').showName, 'transaction_isolation');
  t.equal(templateOf('SHOW ALL').showName, 'all');
  t.equal(templateOf('SHOW pgkv.Version').showName, 'pgkv.version');
  t.equal(templateOf('SELECT 1').showName, null);
  t.equal(templateOf('SHOW a; SHOW b').showName, null);
});

t.test('names of prepared statements are found where they stand', async (t) => {
  const table: [string, string, string, string][] = [
    ['EXECUTE foo', 'execute', 'foo', 'foo'],
    ["/* é😀 */ EXECUTE /* EXECUTE x */ FOO(1, 'EXECUTE y')", 'execute', 'foo', 'FOO'],
    ['execute "Fo""o é"(1)', 'execute', 'Fo"o é', '"Fo""o é"'],
    ['EXECUTE U&"f!006Fo" UESCAPE \'!\' (1)', 'execute', 'foo', 'U&"f!006Fo" UESCAPE \'!\''],
    ['EXPLAIN (ANALYZE, COSTS off) EXECUTE foo(1)', 'execute', 'foo', 'foo'],
    ['EXPLAIN ANALYZE VERBOSE EXECUTE execute', 'execute', 'execute', 'execute'],
    ['CREATE TABLE execute (as_, "as") AS EXECUTE "as"(2) WITH DATA', 'execute', 'as', '"as"'],
    ['EXPLAIN CREATE TABLE t AS EXECUTE foo', 'execute', 'foo', 'foo'],
    ['DEALLOCATE foo', 'deallocate', 'foo', 'foo'],
    ['DEALLOCATE PREPARE "Foo"', 'deallocate', 'Foo', '"Foo"'],
    ['DEALLOCATE prepare', 'deallocate', 'prepare', 'prepare'],
    ['DEALLOCATE PREPARE prepare', 'deallocate', 'prepare', 'prepare'],
    ['PREPARE foo (int) AS SELECT $1', 'prepare', 'foo', 'foo'],
    ['PREPARE prepare AS SELECT 1', 'prepare', 'prepare', 'prepare'],
  ];
  for (const [text, verb, name, written] of table) {
    const { statementNames, textDependent } = templateOf(text);
    t.same(
      statementNames.map((found) => [found.verb, found.name, text.slice(found.start, found.end)]),
      [[verb, name, written]],
      text,
    );
    t.ok(textDependent, 'offsets are good for this text only');
  }
  // The keyword before the name and not one in the table's name or the parameters.
  const [found] = templateOf('CREATE TABLE execute AS EXECUTE execute(1)').statementNames;
  t.equal(found?.start, 'CREATE TABLE execute AS EXECUTE '.length);

  const several = "SELECT 'é'; EXECUTE a; DEALLOCATE b;DEALLOCATE ALL; PREPARE c AS SELECT 1; EXPLAIN EXECUTE d";
  const template = templateOf(several);
  t.same(
    template.statementNames.map((one) => `${one.verb} ${several.slice(one.start, one.end)}`),
    ['execute a', 'deallocate b', 'prepare c', 'execute d'],
  );
  t.equal(template.kind, 'multi');
});

t.test('offsets are right where the text had to be rewritten for the parser', async (t) => {
  const text = "SELECT 'a\\'; EXECUTE x', '\\\\'; EXECUTE foo('\\'', 1)";
  const template = templateOf(text, false);
  t.equal(template.kind, 'multi');
  t.same(
    template.statementNames.map((one) => text.slice(one.start, one.end)),
    ['foo'],
  );
});

t.test('standard_conforming_strings off changes where strings end, and so what a text is', async (t) => {
  const text = "SELECT '\\'; DISCARD ALL; --'";
  t.equal(templateOf(text, false).kind, 'read');
  t.equal(templateOf(text, true).kind, 'multi');
  t.equal(templateOf("SELECT N'\\''", false).kind, 'unparsed', 'N and a backslash have no other spelling');
  t.equal(templateOf("SELECT N'x', fn'\\''", false).kind, 'read');
  t.same(templateOf("SELECT set_config('work\\_mem', '1', false)", false).settingNames, ['work_mem']);
  t.equal(templateOf("SELECT '\\101\\x41'", false).kind, 'read');
});

t.test('a template depends on its text where a literal had a say in it', async (t) => {
  const dependent = [
    "SELECT set_config('a.b', '1', false)",
    "SET work_mem = '1MB'",
    "SELECT a::float(10) FROM t WHERE b = '1'", // FLOAT(10) is float4, FLOAT(30) float8
    'SELECT current_timestamp(3)',
    "EXPLAIN (ANALYZE 'off') SELECT 1",
    "COPY t FROM STDIN (FORMAT 'csv')",
    'FETCH 10 FROM c',
    "PREPARE TRANSACTION 'x'",
    "LOAD 'x'",
    'SELECT ARRAY[]::int[3]',
    "SELECT 1, -2 FROM t WHERE a = '{}'::int[-1]",
  ];
  for (const text of dependent) {
    const { template, holdsForShape } = read(text);
    t.ok(template.textDependent, text);
    t.notOk(holdsForShape, text);
  }
  const independent = [
    "SELECT value FROM kv WHERE tenant_id = 'é😀' AND key = 'k' AND version > -1 AND x IN (-  (2), +3, - - 4.5, 1e99)",
    'SELECT 1 - 2, a -1, -(-5), - 3000000000, 0, -0',
    "INSERT INTO kv VALUES ('t', E'a\\nb', $$c$$, B'01', X'ff', 'a'\n'b', date '2020-01-01', interval '1' second(3))",
    'SELECT extract(year from a), a LIMIT 10 OFFSET 5',
    "SELECT a::varchar(10), b::numeric(10, 2), E'\\u0041' FROM t",
    'FETCH FORWARD FROM c',
    'BEGIN ISOLATION LEVEL SERIALIZABLE',
    "SELECT set_config($1, 'x', false)",
  ];
  for (const text of independent) {
    const { template, holdsForShape } = read(text);
    t.not(template.kind, 'unparsed', text);
    t.notOk(template.textDependent, text);
    t.ok(holdsForShape, text);
  }
});

t.test('functions are known as far as the oldest server has them', async (t) => {
  t.ok(templateOf('SELECT uuidv7()').effects & Effect.unknown);
  t.equal(at18('SELECT uuidv7(), casefold(a) FROM t').effects, Effect.none);
  t.ok(templateOf("SELECT json_value(a, '$')").effects & Effect.unknown);
  t.equal(at18("SELECT json_value(a, '$'), json_array(1, 2)").effects, Effect.none);
  t.ok(at18('SELECT pg_rotate_logfile_old()').effects & Effect.unknown, 'gone since 16');
});

t.test('what the parser rejects may do anything but tie the session down', async (t) => {
  for (const text of ['SELEC 1', 'SELECT (', "SELECT 'open", 'SELECT \0 1', 'SELECT \ud800', 'SELECT a b c']) {
    const template = templateOf(text);
    t.equal(template.kind, 'unparsed');
    t.equal(template.effects, bits('settings state unknown schema deallocatesAll'));
    t.same(template.settingNames, ['*']);
    t.notOk(template.readOnly);
    t.ok(template.textDependent);
  }
});

t.test('neutral are texts that run alike anywhere; each of several statements has to be', async (t) => {
  const neutral = [
    'SHOW work_mem',
    "SET LOCAL work_mem = '1MB'",
    'SAVEPOINT a',
    'ROLLBACK TO a',
    'SELECT 1',
    'SELECT version()',
    'SELECT relname FROM pg_class',
    "SELECT set_config('work_mem', '1MB', true)",
    'SET CONSTRAINTS ALL DEFERRED',
    'DISCARD PLANS',
  ];
  const others = [
    'SELECT * FROM t',
    "SELECT nextval('s')",
    'SELECT my_function()',
    'SET CONSTRAINTS fk DEFERRED',
    'DISCARD ALL',
    'LISTEN a',
    'COMMIT',
    'CLOSE c',
    'SELECT pg_advisory_lock(1)',
    'DECLARE c CURSOR FOR SELECT 1',
    "SET SESSION AUTHORIZATION 'x'",
    'INSERT INTO t VALUES (1)',
    "PREPARE TRANSACTION 'x'",
  ];
  for (const text of neutral) t.ok(templateOf(text).neutral, text);
  for (const text of [...others, 'BEGIN']) t.notOk(templateOf(text).neutral, text);
  // Any mixture, with a BEGIN anywhere, is neutral as long as none of the others is in it.
  const mixtures = fc.array(fc.constantFrom(...neutral, 'BEGIN'), { minLength: 2, maxLength: 6 });
  fc.assert(
    fc.property(mixtures, fc.constantFrom(...others), fc.nat(6), (texts, other, place) => {
      t.ok(templateOf(texts.join('; ')).neutral, texts.join('; '));
      const mixed = [...texts.slice(0, place), other, ...texts.slice(place)].join('; ');
      t.notOk(templateOf(mixed).neutral, mixed);
    }),
    { numRuns: 60 },
  );
});

t.test('what only gives up state is neutral for a session without any, and said to be so', async (t) => {
  const releases = [
    'DEALLOCATE x',
    'DEALLOCATE ALL',
    'CLOSE ALL',
    'UNLISTEN *',
    'UNLISTEN a',
    'DISCARD TEMP',
    'DISCARD SEQUENCES',
    'SELECT pg_advisory_unlock(1)',
    'SELECT pg_advisory_unlock_all()',
    'SELECT pg_advisory_unlock_shared(1, 2), 1',
    'SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; SELECT 1; SHOW work_mem',
  ];
  for (const text of releases) {
    t.ok(templateOf(text).releases, text);
    t.notOk(templateOf(text).neutral, text);
  }
  for (const text of [
    'SELECT 1',
    'CLOSE c',
    'DISCARD ALL',
    'SELECT pg_advisory_unlock(1), pg_advisory_lock(2)',
    'SELECT pg_advisory_unlock(a) FROM t',
    "SELECT pg_advisory_unlock(1), set_config('a.b', 'c', false)",
    'SELECT pg_advisory_unlock(1), f()',
    "UNLISTEN *; SET work_mem = '1MB'", // would have to be said again where a block moves
    'UNLISTEN *; LISTEN a',
    'UNLISTEN *; INSERT INTO t VALUES (1)',
  ]) {
    t.notOk(templateOf(text).releases, text);
  }
  t.ok(templateOf('SELECT pg_advisory_unlock(1)').effects & Effect.state, 'a lock given up is a state that changed');
});

t.test('a text tells what each of its statements is, and whether it goes on behind a failed block', async (t) => {
  t.same(templateOf('').kinds, []);
  t.same(templateOf('SELECT 1').kinds, ['read']);
  t.equal(templateOf('SELECT 1').kinds, templateOf('SELECT 2').kinds, 'one array for all');
  t.same(templateOf('ROLLBACK; BEGIN; INSERT INTO t VALUES (1); SET a.b = 1; SAVEPOINT s').kinds, [
    'rollback',
    'begin',
    'write',
    'set',
    'savepoint',
  ]);
  for (const first of ['ROLLBACK', 'COMMIT AND CHAIN', 'END', 'ABORT', 'ROLLBACK TO s', "PREPARE TRANSACTION 'x'"]) {
    t.ok(templateOf(first).endsFailure, first);
    t.ok(templateOf(`${first}; SELECT 1`).endsFailure, first);
    t.notOk(templateOf(`SELECT 1; ${first}`).endsFailure, `not first: ${first}`);
  }
  for (const other of ['BEGIN', 'SAVEPOINT s', 'RELEASE s', 'SET a.b = 1', "COMMIT PREPARED 'x'", '', 'SELEC 1']) {
    t.notOk(templateOf(other).endsFailure, other);
  }
});

t.test('large texts are read with short values, or not at all', async (t) => {
  const value = 'x'.repeat(2 * 1024 * 1024);
  const insert = read(`INSERT INTO kv VALUES ('t', E'a\\n', '${value}', 1.5)`);
  t.equal(insert.template.kind, 'write');
  t.equal(insert.template.effects, Effect.none);
  t.ok(insert.holdsForShape);
  const everything = bits('settings state unknown sticky schema deallocatesAll readsSequenceState');
  const unread = [
    `SELECT set_config('work_mem', '${value}', false)`, // its name was taken away
    `EXECUTE p('${value}')`,
    `SELECT ${'a,'.repeat(100_000)} b`,
    `SELECT 1${'+1'.repeat(30_000)}`,
  ];
  for (const text of unread) {
    t.equal(templateOf(text).kind, 'unparsed');
    t.equal(templateOf(text).effects, everything);
  }
});

t.test('what begins a block, and what may set another isolation level than READ COMMITTED', async (t) => {
  const of = (text: string) => {
    const { beginsBy, setsOtherIsolation } = templateOf(text);
    return [beginsBy, setsOtherIsolation];
  };
  const expected: readonly (readonly [string, string | null, boolean])[] = [
    ['/* start */ begin -- serializable', 'BEGIN', false],
    ['-- begin\nSTART /* x */ TRANSACTION read only', 'START TRANSACTION', false],
    ['begin isolation level read uncommitted', 'BEGIN', false],
    ['begin isolation level repeatable/**/ read', 'BEGIN', true],
    ['start transaction read only, isolation level serializable', 'START TRANSACTION', true],
    ["set application_name = 'serializable'", null, false],
    ["set local transaction_isolation = 'Read Committed'", null, false],
    ["set transaction_isolation to 'repeatable read'", null, true],
    ['set transaction_isolation to default', null, true],
    ['set transaction isolation level read committed', null, false],
    ['set session characteristics as transaction isolation level serializable', null, true],
    ["select set_config('transaction_isolation', 'serializable', true)", null, true],
    ["select set_config('app.level', 'serializable', true)", null, false],
    ['begin; set transaction isolation level serializable', null, true],
    ["select 'repeatable read'", null, false],
  ];
  for (const [text, begins, sets] of expected) t.same(of(text), [begins, sets], text);
});
