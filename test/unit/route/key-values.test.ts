// What a reference of a plan stands for: literals of a text, parameters of a Bind message. A key read wrongly is a row
// misplaced, so that what is not certain has to be Unreadable. test/integration/key-values.test.ts asks a server, too.
import t from 'tap';
import { StatementValues, Unreadable } from '../../../src/route/key-values.js';
import type { ValueRef } from '../../../src/sql/plan/kv-plan.js';
import { clientEncoding } from '../../../src/sql/text/client-encoding.js';
import { encode, type Value } from '../../support/frontend-message.js';
import { type BindOptions, bindValues, boundValues, literalValues } from './bind-values.js';

const BOOLEAN = 16;
const BYTEA = 17;
const BIGINT = 20;
const SMALLINT = 21;
const INTEGER = 23;
const TEXT = 25;
const UNKNOWN = 705;
const TEXT_ARRAY = 1009;
const BPCHAR = 1042;
const VARCHAR = 1043;
const VARCHAR_ARRAY = 1015;
const INTEGER_ARRAY = 1007;

const literal = (index: number): ValueRef => ({ kind: 'literal', index });
const parameter = (number: number): ValueRef => ({ kind: 'parameter', number });
const NULL_REF: ValueRef = { kind: 'null' };

/** What a test table can hold in the place of an Unreadable. */
const shown = <T>(value: T | Unreadable): T | 'unreadable' => (value instanceof Unreadable ? 'unreadable' : value);

const text4 = (values: readonly string[]): Buffer => {
  const parts = values.map((value) => {
    const bytes = Buffer.from(value);
    const length = Buffer.alloc(4);
    length.writeInt32BE(bytes.length);
    return Buffer.concat([length, bytes]);
  });
  return Buffer.concat(parts);
};

/** array_send: dimensions, flags, element type, then length and lower bound of each dimension, then elements. */
function binaryArray(elements: readonly (string | null)[], elementType = TEXT, dimensions = 1): Buffer {
  const header = Buffer.alloc(dimensions === 0 ? 12 : 12 + 8 * dimensions);
  header.writeInt32BE(dimensions, 0);
  header.writeInt32BE(elements.includes(null) ? 1 : 0, 4);
  header.writeInt32BE(elementType, 8);
  for (let dimension = 0; dimension < dimensions; dimension++) {
    header.writeInt32BE(dimension === 0 ? elements.length : 1, 12 + 8 * dimension);
    header.writeInt32BE(1, 16 + 8 * dimension);
  }
  const missing = Buffer.from([255, 255, 255, 255]);
  return Buffer.concat([header, ...elements.map((element) => (element === null ? missing : text4([element])))]);
}

t.test('a literal says what Postgres reads in it', async (t) => {
  const CASES: readonly (readonly [source: string, value: string])[] = [
    ["'abc'", 'abc'],
    ["''", ''],
    ["'it''s'", "it's"],
    ["''''", "'"],
    ["''''''", "''"],
    ["'a\\b'", 'a\\b'],
    ["'\\'", '\\'],
    ["'ключ 🔑 \u2019'", 'ключ 🔑 \u2019'],
    ["'a\nb'", 'a\nb'],
    ["'$1 $$ --/* \" %'", '$1 $$ --/* " %'],
    ["'a'\n'b'", 'ab'],
    ["'a'  \r\n\t 'b' \n 'c'", 'abc'],
    ["'a'''\n'''b'", "a''b"],
    ["''\n''", ''],
    ["E'abc'", 'abc'],
    ["e'a\\nb\\tc\\rd\\be\\ff'", 'a\nb\tc\rd\be\ff'],
    ["E'\\''", "'"],
    ["E'it''s'", "it's"],
    ["E'\\\\'", '\\'],
    ["E'\\\\\\''", "\\'"],
    ["E'\\q\\\"\\é\\🔑'", 'q"é🔑'],
    ["E'a\\\nb'", 'a\nb'],
    ["E'a\\\\'\n'\\\\b\\n'", 'a\\\\b\n'],
    ['$$abc$$', 'abc'],
    ['$$$$', ''],
    ["$$it's \\ $1 $a$ $$", "it's \\ $1 $a$ "],
    ['$tag$a$$b$tag$', 'a$$b'],
    ['$tag$a$Tag$b$tag$', 'a$Tag$b'],
    ['$é1$a$1$$é1$', 'a$1$'],
    ['$a$$$a$', '$'],
  ];
  for (const [source, value] of CASES) {
    t.equal(shown(literalValues(`SELECT ${source}`).text(literal(0))), value, source);
  }
});

t.test('a literal whose characters are given by number, or that goes on behind a comment, is not read', async (t) => {
  const CASES = [
    "E'\\x41'",
    "E'\\101'",
    "E'\\0'",
    "E'\\u0041'",
    "E'\\U00000041'",
    "E'a\\\\\\x41'",
    "E'a'\n'\\u0041'",
    "U&'\\0041'",
    "U&'a'",
    "U&'!0041' UESCAPE '!'",
    "B'01'",
    "X'1F'",
    "'a' -- it's\n'b'",
    "'a' -- plain\n'b'",
    // The letter v on Postgres 15, a vertical tab since 16.
    "E'\\v'",
    "E'a'\n'\\v'",
  ];
  for (const source of CASES) t.equal(shown(literalValues(`SELECT ${source}`).text(literal(0))), 'unreadable', source);
});

t.test('without standard_conforming_strings a backslash escapes in plain quotes, too', async (t) => {
  const CASES: readonly (readonly [source: string, value: string])[] = [
    ["'a\\'b'", "a'b"],
    ["'a\\\\'", 'a\\'],
    ["'a\\nb'", 'a\nb'],
    ["'\\\\'''", "\\'"],
    ["'a\\q'", 'aq'],
    ["'a''b'", "a'b"],
    ["E'\\''", "'"],
    ['$$a\\n$$', 'a\\n'],
    ["'\\x41'", 'unreadable'],
    ["'\\1'", 'unreadable'],
    ["'\\v'", 'unreadable'],
  ];
  for (const [source, value] of CASES) {
    t.equal(shown(literalValues(`SELECT ${source}`, false).text(literal(0))), value, source);
  }
});

t.test('literals are counted from the front, whatever stands between', async (t) => {
  const values = literalValues(`SELECT 'a', 1, E'b', 'c' /* 'no' */, "d'e", $$f$$, -2.5 -- 'no'`);
  t.same(
    [0, 1, 2, 3, 4, 5].map((index) => shown(values.text(literal(index)))),
    ['a', '1', 'b', 'c', 'f', '2.5'],
  );
  t.equal(shown(values.text(literal(6))), 'unreadable', 'there is none');
  t.equal(values.text(NULL_REF), null);
  t.equal(values.list(NULL_REF), null);
  t.equal(values.integer(NULL_REF), null);
});

t.test('a parameter is the text its bytes are, in either format', async (t) => {
  const TEXTS = ['', 'a', "it's", 'ключ', '🔑', '\u0001', 'a\\b', '{}', 'NULL', 'x'.repeat(5000)];
  for (const surrounded of [false, true]) {
    for (const types of [[], [TEXT], [VARCHAR], [UNKNOWN], [0]]) {
      for (const text of TEXTS) {
        t.equal(boundValues([text], { types, surrounded }).text(parameter(1)), text);
        t.equal(boundValues([Buffer.from(text)], { types, surrounded }).text(parameter(1)), text);
      }
      t.equal(boundValues([null], { types, surrounded }).text(parameter(1)), null);
    }
  }
});

t.test('a parameter is found behind others, NULL and empty ones', async (t) => {
  for (const surrounded of [false, true]) {
    const values = boundValues(['a', null, '', 'dd', null, 'f'], { surrounded });
    t.same(
      [1, 2, 3, 4, 5, 6].map((number) => values.text(parameter(number))),
      ['a', null, '', 'dd', null, 'f'],
    );
    t.equal(shown(values.text(parameter(7))), 'unreadable');
    t.equal(shown(boundValues([], { surrounded }).text(parameter(1))), 'unreadable');
  }
  t.equal(shown(new StatementValues('', [], null).text(parameter(1))), 'unreadable', 'a simple query has none');
});

t.test('one format code is for all parameters, none means text', async (t) => {
  const slots = Buffer.from([0, 0, 1, 0]);
  const read = (formats: readonly number[], values: readonly Value[]) =>
    shown(boundValues(values, { types: [TEXT, INTEGER], formats }).integer(parameter(2)));
  t.equal(read([1], ['a', slots]), 256n);
  t.equal(read([0, 1], ['a', slots]), 256n);
  t.equal(read([1, 0], ['a', '256']), 256n);
  t.equal(read([], ['a', '256']), 256n);
  t.equal(read([0], ['a', '256']), 256n);
});

t.test('a parameter of another type than text is not read', async (t) => {
  for (const type of [BOOLEAN, BYTEA, BIGINT, INTEGER, BPCHAR, TEXT_ARRAY, 19, 114, 3802]) {
    t.equal(shown(boundValues(['7'], { types: [type] }).text(parameter(1))), 'unreadable', `${type}`);
    t.equal(boundValues(['7', 'a'], { types: [type] }).text(parameter(2)), 'a', 'the other one is');
  }
  for (const type of [BOOLEAN, TEXT, VARCHAR, INTEGER_ARRAY, 1014]) {
    t.equal(shown(boundValues(['{7}'], { types: [type] }).list(parameter(1))), 'unreadable', `${type}`);
  }
});

t.test('bytes that are not UTF-8 are not read', async (t) => {
  for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe4]]) {
    const value = Buffer.from(bytes);
    for (const formats of [[0], [1]]) {
      t.equal(shown(boundValues([value], { formats }).text(parameter(1))), 'unreadable', value.toString('hex'));
      const list = Buffer.concat([Buffer.from('{'), value, Buffer.from('}')]);
      t.equal(shown(boundValues([list], { formats: [0] }).list(parameter(1))), 'unreadable', value.toString('hex'));
    }
  }
});

t.test('only what every server refuses alike is told apart as a fault', async (t) => {
  const isFault = (values: StatementValues): boolean | 'readable' => {
    const value = values.text(parameter(1));
    return value instanceof Unreadable ? value.isFault : 'readable';
  };
  t.equal(isFault(boundValues([Buffer.of(0xff)])), true);
  t.equal(isFault(boundValues([])), true);
  t.equal(isFault(boundValues(['é'], { encoding: clientEncoding('UHC') })), false, 'right in another encoding');
  t.equal(isFault(boundValues(['7'], { types: [INTEGER] })), false, 'right as another type');
  t.equal(isFault(boundValues(['7'])), 'readable');
});

t.test('the number of parameters is known', async (t) => {
  for (const given of [[], ['a'], ['a', null, 'c']]) {
    for (const count of [0, 1, 2, 3]) t.equal(boundValues(given).hasParameters(count), count === given.length);
  }
  t.equal(new StatementValues('', [], null).hasParameters(0), true);
  t.equal(new StatementValues('', [], null).hasParameters(1), false);
});

t.test('under another client_encoding a value is the text that Postgres makes of it, or is not read', async (t) => {
  for (const name of ['LATIN1', 'SJIS', 'UHC', 'EUC_TW', 'KLINGON']) {
    const encoding = clientEncoding(name);
    t.equal(boundValues(['plain ~'], { encoding }).text(parameter(1)), 'plain ~');
    t.same(boundValues(['{plain}'], { encoding }).list(parameter(1)), ['plain']);
    t.same(boundValues([binaryArray(['plain'])], { encoding }).list(parameter(1)), ['plain']);
  }
  const latin1 = clientEncoding('LATIN1');
  const e = Buffer.from([0xe9]);
  t.equal(boundValues([e], { encoding: latin1 }).text(parameter(1)), 'é');
  t.equal(boundValues(['é'], { encoding: latin1 }).text(parameter(1)), 'Ã©', 'whatever the bytes would be in UTF-8');
  t.same(boundValues([Buffer.from('{a,\xe9}', 'latin1')], { encoding: latin1, formats: [0] }).list(parameter(1)), [
    'a',
    'é',
  ]);
  t.same(boundValues([binaryArray([null, 'é'])], { encoding: latin1 }).list(parameter(1)), [null, 'Ã©']);
  for (const name of ['UHC', 'EUC_TW', 'JOHAB', 'KLINGON']) {
    const encoding = clientEncoding(name);
    const bytes = Buffer.from([0xb0, 0xa1]);
    t.equal(shown(boundValues([bytes], { encoding, formats: [0] }).text(parameter(1))), 'unreadable', name);
    t.equal(shown(boundValues([binaryArray(['é'])], { encoding }).list(parameter(1))), 'unreadable', name);
  }
});

t.test('an array comes as text or in binary, and as a literal', async (t) => {
  const ARRAYS: readonly (readonly (string | null)[])[] = [
    [],
    ['a'],
    ['a', null, 'b'],
    ['', 'NULL', 'null', '{}', 'a,b', 'a"b', 'a\\b', ' a ', 'ключ', '🔑', '\n'],
    [null, null],
  ];
  /** Whether NULL without quotes is NULL, array_nulls says. */
  const asText = (elements: readonly (string | null)[]) => elements.map((one) => one ?? 'NULL');
  const written = (elements: readonly (string | null)[]): string =>
    `{${elements.map((one) => (one === null ? 'NULL' : `"${one.replace(/[\\"]/g, '\\$&')}"`)).join(',')}}`;
  for (const elements of ARRAYS) {
    for (const types of [[], [TEXT_ARRAY], [VARCHAR_ARRAY], [UNKNOWN]]) {
      t.same(boundValues([written(elements)], { types }).list(parameter(1)), asText(elements));
      const binary = binaryArray(elements, TEXT, elements.length === 0 ? 0 : 1);
      t.same(boundValues([binary], { types }).list(parameter(1)), elements);
      t.equal(boundValues([null], { types }).list(parameter(1)), null);
    }
    const source = `SELECT '${written(elements).replaceAll("'", "''")}'`;
    t.same(literalValues(source).list(literal(0)), asText(elements));
  }
  t.same(boundValues([binaryArray(['a'], VARCHAR)], { types: [VARCHAR_ARRAY] }).list(parameter(1)), ['a']);
});

t.test('what is no array of text, or not a whole one, is not read', async (t) => {
  const whole = binaryArray(['ab', null, 'c']);
  const values: Value[] = ['', 'a', '{a', 'a}', '{{a}', '[0:1]={a}', '{a}{b}', '{a,}'];
  for (let length = 0; length < whole.length; length++) values.push(whole.subarray(0, length));
  values.push(Buffer.concat([whole, Buffer.of(0)]), binaryArray(['\0\0\0\u0001'], INTEGER));
  for (const value of values) {
    t.equal(shown(boundValues([value]).list(parameter(1))), 'unreadable', JSON.stringify(`${value}`));
  }
  t.equal(shown(literalValues("SELECT 'a'").list(literal(0))), 'unreadable');
  t.equal(shown(literalValues("SELECT U&'{a}'").list(literal(0))), 'unreadable');
});

t.test('a binary array that no server takes is left to a server, where it can be nothing else', async (t) => {
  const wrong = Buffer.from(binaryArray(['ab', null]));
  wrong.writeInt32BE(2, 4);
  const isFault = (types: readonly number[]): boolean => {
    const read = boundValues([wrong], { types }).array(parameter(1));
    return read instanceof Unreadable && read.isFault;
  };
  for (const type of [0, UNKNOWN, TEXT_ARRAY, VARCHAR_ARRAY, 3807]) t.ok(isFault([type]), `${type}`);
  // Cast to an array, it may be one.
  for (const type of [TEXT, VARCHAR, 16_400]) t.notOk(isFault([type]), `${type}`);
});

t.test('an integer is read in every form in which one is sent', async (t) => {
  const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
  const CASES: readonly (readonly [value: Value, options: BindOptions, read: bigint | 'unreadable' | null])[] = [
    ['7', {}, 7n],
    [' -7 ', {}, -7n],
    ['+7', {}, 7n],
    ['9223372036854775807', {}, 9223372036854775807n],
    ['', {}, 'unreadable'],
    ['7.0', {}, 'unreadable'],
    ['7a', {}, 'unreadable'],
    ['1 2', {}, 'unreadable'],
    [null, {}, null],
    [bytes('0007'), { types: [SMALLINT] }, 7n],
    [bytes('ffffffff'), { types: [INTEGER] }, -1n],
    [bytes('00000000000000ff'), { types: [BIGINT] }, 255n],
    [bytes('0000000000000007'), { types: [0] }, 7n],
    [bytes('00000007'), {}, 7n],
    [bytes('0007'), { types: [INTEGER] }, 'unreadable'],
    [bytes('00000007'), { types: [BIGINT] }, 'unreadable'],
    [bytes('07'), {}, 'unreadable'],
    [bytes('00000007'), { types: [TEXT] }, 'unreadable'],
    [bytes('0000000000000007'), { types: [1700] }, 'unreadable'],
  ];
  for (const [value, options, read] of CASES) {
    t.equal(shown(boundValues([value], options).integer(parameter(1))), read, JSON.stringify([value, options]));
  }
  const values = literalValues("SELECT 16384, '12', 1.5, 'x', 0x10, 1_000");
  t.same(
    [0, 1, 2, 3, 4, 5].map((index) => shown(values.integer(literal(index)))),
    [16384n, 12n, 'unreadable', 'unreadable', 16n, 1000n],
  );
});

t.test('a Bind message cut anywhere is never read beyond its end', async (t) => {
  const message = encode({ bind: ['tenant', null, 'key'] });
  const buffer = Buffer.concat([message, Buffer.from('somebody else’s message')]);
  let unreadable = 0;
  for (let end = 7; end < message.length; end++) {
    const values = new StatementValues('', [], { ...bindValues([]), buffer, offset: 7, end });
    for (const [number, wanted] of [
      [1, 'tenant'],
      [2, null],
      [3, 'key'],
    ] as const) {
      const value = values.text(parameter(number));
      if (value instanceof Unreadable) unreadable++;
      else if (value !== wanted) t.fail(`${JSON.stringify(value)} for $${number} of ${end} bytes`);
    }
  }
  t.ok(unreadable > 30);
});
