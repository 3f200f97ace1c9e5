// The statement that makes one answer of the partial rows of an aggregate, run on the home server: the partials' columns
// travel as array parameters in binary, so that nothing is lost by a text form that depends on settings (DateStyle,
// extra_float_digits), and nothing has to be escaped.
// https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c (array_recv)
import { ownSource, type StatementSource } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { PartialColumn } from '../../sql/plan/kv-plan.js';
import { type ClientEncoding, UTF8 } from '../../sql/text/client-encoding.js';
import { BindMessage } from '../../wire/bind-message.js';
import type { Column } from '../../wire/row-description.js';
import { builtinTypeName, TypeOid, typeInWords } from '../../wire/type-oids.js';
import type { RowRun } from './row-queue.js';
import type { FinalStatement } from './scatter-request.js';

/** Behind these names the partial rows stand in the final statement; no client's text has them by accident. */
const ROWS = '"pgkv partial rows"';
const columnName = (index: number): string => `"pgkv partial ${index}"`;

const PLACEHOLDER = /\{(?:(rows)|(type:)?(\d+))\}/g;
const ARRAY_HEADER_BYTES = 20;
const BINARY = 1;

/** Names of the partials' types. Throws 0A000 for one that cannot be handed on. */
function partialTypes(partials: readonly PartialColumn[], columns: readonly Column[]): string[] {
  if (columns.length !== partials.length) {
    throw new PgkvError('internal', {
      detail: `${columns.length} partial columns where ${partials.length} are planned`,
    });
  }
  return columns.map(({ type }, index) => {
    const name = builtinTypeName(type === TypeOid.unknown ? TypeOid.text : type);
    if (name !== undefined) return `pg_catalog.${name}`;
    throw refusalError(refuse('partial_type', { what: `${partials[index]!.role} of type ${typeInWords(type)}` }));
  });
}

/** Text, types of parameters and parameters of the final statement. */
export function finalStatement(options: {
  final: FinalStatement;
  partials: readonly PartialColumn[];
  columns: readonly Column[];
  rows: readonly RowRun[];
  /** Known types of the client's parameters. */
  parameterTypes: readonly number[];
  encoding?: ClientEncoding;
}): { readonly text: string; readonly parseTail: Buffer; readonly parameters: Buffer[] } {
  const { final, columns, parameterTypes } = options;
  const client = readParameters(final.parameters);
  const types = partialTypes(options.partials, columns);
  const arrays = types.map((type, index) => `pg_catalog.unnest($${client.count + index + 1}::${type}[])`);
  const relation = `ROWS FROM (${arrays.join(', ')}) AS ${ROWS}(${types.map((_, index) => columnName(index)).join(', ')})`;
  const text = final.render((part) =>
    part.replace(PLACEHOLDER, (_, rows: string | undefined, type: string | undefined, number: string | undefined) => {
      if (rows !== undefined) return relation;
      const index = Number(number);
      return type === undefined ? `${ROWS}.${columnName(index)}` : types[index]!;
    }),
  );
  const knownTypes = parameterTypes.slice(0, client.count);
  const oids = Buffer.alloc(2 + 4 * knownTypes.length);
  oids.writeUInt16BE(knownTypes.length, 0);
  for (const [index, oid] of knownTypes.entries()) oids.writeUInt32BE(oid, 2 + 4 * index);
  const arrayValues = encodeArrays(options.rows, columns);
  return {
    text,
    parseTail: Buffer.concat([(options.encoding ?? UTF8).write(`${text}\0`), oids]),
    parameters: [encodeFormats(client, types.length), client.values(), ...arrayValues],
  };
}

/** The client's parameters, walked; as they stand in a Bind, without result formats. */
function readParameters(bytes: Buffer): BindMessage {
  const message = new BindMessage();
  if (!message.readParameters(bytes, 0, bytes.length)) {
    throw new PgkvError('internal', { detail: 'the parameters of a statement cannot be read again' });
  }
  return message;
}

/** The client's formats written out one by one, those of the arrays behind them, and the number of all values. */
function encodeFormats(client: BindMessage, arrayCount: number): Buffer {
  const all = client.count + arrayCount;
  const bytes = Buffer.alloc(4 + 2 * all);
  bytes.writeUInt16BE(all, 0);
  for (let index = 0; index < all; index++) {
    bytes.writeInt16BE(index < client.count ? client.format(index) : BINARY, 2 + 2 * index);
  }
  bytes.writeUInt16BE(all, 2 + 2 * all);
  return bytes;
}

/** One array per column, as values in a Bind. What stands in a binary DataRow stands in an array likewise. */
export function encodeArrays(runs: readonly RowRun[], columns: readonly Column[]): Buffer[] {
  const sizes = columns.map(() => ARRAY_HEADER_BYTES);
  let rows = 0;
  eachValue(runs, (column, _, start, end) => {
    if (column === 0) rows++;
    sizes[column]! += end - start;
  });
  const arrays = sizes.map((bytes) => Buffer.allocUnsafe(4 + (rows === 0 ? 12 : bytes)));
  for (const [index, array] of arrays.entries()) {
    const { type } = columns[index]!;
    array.writeInt32BE(array.length - 4, 0);
    array.writeInt32BE(rows === 0 ? 0 : 1, 4); // dimensions
    array.writeInt32BE(1, 8); // there may be NULLs
    array.writeUInt32BE(type === TypeOid.unknown ? TypeOid.text : type, 12);
    if (rows === 0) continue;
    array.writeInt32BE(rows, 16);
    array.writeInt32BE(1, 20); // lower bound
  }
  const offsets = columns.map(() => 4 + ARRAY_HEADER_BYTES);
  eachValue(runs, (column, buffer, start, end) => {
    buffer.copy(arrays[column]!, offsets[column]!, start, end);
    offsets[column]! += end - start;
  });
  return arrays;
}

/** Calls `use` with each value of each row, its length in front, in the order of the rows. */
function eachValue(
  runs: readonly RowRun[],
  use: (column: number, buffer: Buffer, start: number, end: number) => void,
): void {
  for (const { buffer, start, end } of runs) {
    let offset = start;
    while (offset < end) {
      const count = buffer.readUInt16BE(offset + 5);
      offset += 7;
      for (let column = 0; column < count; column++) {
        const length = buffer.readInt32BE(offset);
        const next = offset + 4 + Math.max(length, 0);
        use(column, buffer, offset, next);
        offset = next;
      }
    }
  }
}

/** The last final statement by the statement of the shards: what is combined again is prepared. */
const lastFinals = new WeakMap<StatementSource, StatementSource>();

/** The source of a final statement, the same object as last time where it says the same. */
export function internFinal(shardSource: StatementSource, text: string, parseTail: Buffer): StatementSource {
  const last = lastFinals.get(shardSource);
  if (last?.parseTail === parseTail.toString('latin1')) return last;
  const { template } = shardSource;
  const source = ownSource(parseTail, text, template, []);
  lastFinals.set(shardSource, source);
  return source;
}
