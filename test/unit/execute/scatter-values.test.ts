// Comparing values by their binary form, and handing partial rows on as arrays.
import fc from 'fast-check';
import t from 'tap';
import { encodeArrays, finalStatement } from '../../../src/execute/scatter/combine-statement.js';
import { NO_PARAMETERS } from '../../../src/execute/scatter/extended-messages.js';
import { compareNumeric } from '../../../src/execute/scatter/numeric-order.js';
import { sortOrder } from '../../../src/execute/scatter/sort-order.js';
import type { Column } from '../../../src/wire/row-description.js';
import { TypeOid } from '../../../src/wire/type-oids.js';
import { dataRow } from '../../support/scatter-rows.js';

const SCALE = 40;
const KEY = { descending: false, nullsFirst: false, needsByteOrder: false };

function thrownBy(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    return error;
  }
}

/** The binary form of `units` / 10^SCALE, with zero digits in front and behind that Postgres would leave out. */
function numeric(units: bigint, zerosBefore: number, zerosBehind: number): Buffer {
  let rest = units < 0n ? -units : units;
  const digits: number[] = [];
  for (; rest > 0n; rest /= 10_000n) digits.unshift(Number(rest % 10_000n));
  let weight = digits.length - 1 - SCALE / 4;
  while (digits.at(-1) === 0) digits.pop();
  if (digits.length > 0) {
    digits.unshift(...Array<number>(zerosBefore).fill(0));
    digits.push(...Array<number>(zerosBehind).fill(0));
    weight += zerosBefore;
  }
  const value = Buffer.alloc(8 + digits.length * 2);
  value.writeInt16BE(digits.length, 0);
  value.writeInt16BE(weight, 2);
  value.writeUInt16BE(units < 0n ? 0x4000 : 0, 4);
  for (const [index, digit] of digits.entries()) value.writeInt16BE(digit, 8 + 2 * index);
  return value;
}

t.test('numeric values compare as the numbers they are', async () => {
  const units = fc.oneof(fc.bigInt(-(10n ** 80n), 10n ** 80n), fc.bigInt(-99999n, 99999n));
  const zeros = fc.nat(2);
  fc.assert(
    fc.property(
      units,
      units,
      zeros,
      zeros,
      fc.constantFrom('equal', 'near', 'other'),
      (a, other, before, behind, how) => {
        // Near: the same digits, and more of them.
        const b = how === 'equal' ? a : how === 'near' ? a * 10_000n + (other % 10_000n) : other;
        const left = numeric(how === 'near' ? a * 10_000n : a, before, behind);
        const right = Buffer.concat([Buffer.alloc(3), numeric(b, 0, before)]);
        const order = Math.sign(compareNumeric(left, 0, left.length, right, 3));
        if (Math.sign(compareNumeric(right, 3, right.length - 3, left, 0)) !== -order) return false;
        const difference = b - (how === 'near' ? a * 10_000n : a);
        return order === (difference > 0n ? -1 : difference < 0n ? 1 : 0);
      },
    ),
    { numRuns: 2_000 },
  );
});

t.test('numeric infinities and NaN are at the ends', async (t) => {
  const special = (sign: number): Buffer => Buffer.from([0, 0, 0, 0, sign >> 8, sign & 255, 0, 0]);
  const ascending = [
    special(0xf000),
    numeric(-1n, 0, 0),
    numeric(0n, 0, 0),
    numeric(5n, 0, 0),
    special(0xd000),
    special(0xc000),
  ];
  for (const [i, a] of ascending.entries()) {
    for (const [j, b] of ascending.entries())
      t.equal(Math.sign(compareNumeric(a, 0, a.length, b, 0)), Math.sign(i - j));
  }
});

t.test('types whose order is not known are refused by name', async (t) => {
  t.match(
    thrownBy(() => sortOrder(3802, KEY, true)),
    { sqlstate: '0A000', message: /of type jsonb$/ },
  );
  t.match(
    thrownBy(() => sortOrder(1042, KEY, true)),
    { sqlstate: '0A000', message: /of type bpchar$/ },
  );
  t.match(
    thrownBy(() => sortOrder(99_999, KEY, true)),
    { message: /of type with OID 99999$/ },
  );
  t.match(
    thrownBy(() => sortOrder(TypeOid.text, { ...KEY, needsByteOrder: true }, false)),
    { hint: /COLLATE "C"/ },
  );
  t.doesNotThrow(() => sortOrder(TypeOid.int8, { ...KEY, needsByteOrder: true }, false));
});

const column = (type: number): Column => ({ name: '', type, modifier: -1, format: 1, start: 0 });

t.test('rows become one array per column, whatever chunks they lie in', async (t) => {
  const rows = [dataRow('a', null), dataRow('', 'bc')];
  const together = Buffer.concat([Buffer.from('before'), ...rows, Buffer.from('behind')]);
  const columns = [column(TypeOid.text), column(TypeOid.unknown)];
  const runs = [
    { buffer: together, start: 6, end: together.length - 6, rows: 2 },
    { buffer: rows[1]!, start: 0, end: rows[1]!.length, rows: 1 },
  ];
  const header = (bytes: number) => [0, 0, 0, bytes, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 3, 0, 0, 0, 1];
  const empty = [0, 0, 0, 0];
  t.same(encodeArrays(runs, columns), [
    Buffer.from([...header(33), 0, 0, 0, 1, 97, ...empty, ...empty]),
    Buffer.from([...header(36), 255, 255, 255, 255, 0, 0, 0, 2, 98, 99, 0, 0, 0, 2, 98, 99]),
  ]);
  const none = [0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 25];
  t.same(encodeArrays([], columns), [Buffer.from(none), Buffer.from(none)]);
});

t.test('placeholders are replaced in the text of the plan, not in literals of the client', async (t) => {
  const { text, parameters, parseTail } = finalStatement({
    final: {
      render: (substitute) =>
        `${substitute('SELECT {1}::{type:1}, ')}'{0} {rows}'${substitute(' FROM {rows} GROUP BY {0}')}`,
      parameters: Buffer.from([0, 1, 0, 1, 0, 2, 255, 255, 255, 255, 0, 0, 0, 1, 7]),
    },
    partials: [{ role: 'group' }, { role: 'count' }],
    columns: [column(TypeOid.char), column(TypeOid.int8)],
    rows: [],
    parameterTypes: [TypeOid.text, TypeOid.bytea],
  });
  t.equal(
    text,
    `SELECT "pgkv partial rows"."pgkv partial 1"::pg_catalog.int8, '{0} {rows}' FROM ROWS FROM (` +
      'pg_catalog.unnest($3::pg_catalog."char"[]), pg_catalog.unnest($4::pg_catalog.int8[])) AS "pgkv partial rows"' +
      '("pgkv partial 0", "pgkv partial 1") GROUP BY "pgkv partial rows"."pgkv partial 0"',
  );
  t.same(parseTail.subarray(-10), Buffer.from([0, 2, 0, 0, 0, 25, 0, 0, 0, 17]));
  t.same(
    Buffer.concat(parameters.slice(0, 2)),
    Buffer.from([0, 4, 0, 1, 0, 1, 0, 1, 0, 1, 0, 4, 255, 255, 255, 255, 0, 0, 0, 1, 7]),
  );
});

t.test('partials that cannot be handed on are refused', async (t) => {
  const options = { final: { render: () => '', parameters: NO_PARAMETERS }, rows: [], parameterTypes: [] };
  t.match(
    thrownBy(() => finalStatement({ ...options, partials: [{ role: 'min' }], columns: [column(1007)] })),
    {
      sqlstate: '0A000',
      message: /^min of type with OID 1007 /,
    },
  );
  t.match(
    thrownBy(() => finalStatement({ ...options, partials: [], columns: [column(20)] })),
    { sqlstate: 'XX000' },
  );
});
