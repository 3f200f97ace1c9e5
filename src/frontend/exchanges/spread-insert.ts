// An INSERT whose rows belong on several shards: which row goes where, what each shard gets of its text and parameters, and the
// rows that the shards return, in the order of VALUES. All parameters are sent, with their numbers: those that stand only in
// rows of other shards as NULLs of a type that nobody asks for.
import { type RewrittenText, rewrittenText, unsharedText } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { ClusterView, ShardView } from '../../cluster/cluster-view.js';
import { hashSlotOf } from '../../cluster/key-hash.js';
import { parameterCount } from '../../execute/scatter/instant.js';
import type { BranchResult } from '../../execute/two-phase/branch-reader.js';
import type { BranchStatement } from '../../execute/two-phase/write-branch.js';
import { Unreadable } from '../../route/key-values.js';
import type { InsertRows } from '../../sql/plan/kv-plan.js';
import { allRows, insertText, mapPieces, placeInAll } from '../../sql/rewrite/insert-text.js';
import { numberedInstants } from '../../sql/scatter/instant-parameters.js';
import type { ClientEncoding } from '../../sql/text/client-encoding.js';
import { BindMessage } from '../../wire/bind-message.js';
import { encodeErrorResponse, readErrorFields } from '../../wire/error-fields.js';
import { readColumns, withoutLastColumns } from '../../wire/row-description.js';
import { withoutLastValues } from '../../wire/row-values.js';
import { TypeOid } from '../../wire/type-oids.js';
import type { KvStatement } from '../unit/kv-statements.js';
import { type BoundParts, placedError, typesWithInstant } from './scatter-request-of.js';

/** tenant_id and key, behind what the client asks for. */
const HIDDEN = 2;
const TEXT = 0;
const NULL_VALUE = Buffer.from([0xff, 0xff, 0xff, 0xff]);

/** What one shard gets of the INSERT. */
export interface ShardInsert {
  readonly shard: ShardView;
  readonly statement: Omit<BranchStatement, 'isAtomic' | 'template'>;
  place(error: Buffer): Buffer;
  /** What the shard returns, by row of the INSERT. */
  ordered(returned: BranchResult): [row: number, message: Buffer][];
}

export interface TimedInsert {
  readonly insert: InsertRows;
  readonly hasInstant: boolean;
}

interface ShardRows {
  readonly shard: ShardView;
  readonly rows: number[];
  /** Tenant and key of each. */
  readonly keys: string[];
}

const keyText = (tenant: string | null, key: string | null): string => `${tenant}\0${key}`;

export function shardInserts(
  { insert: planned, hasInstant }: TimedInsert,
  statement: KvStatement,
  shards: readonly ShardView[],
  view: ClusterView,
  bound: BoundParts,
): ShardInsert[] | PgkvError {
  const own = statement.source?.parameterTypes ?? [];
  const declared = hasInstant ? typesWithInstant(own, bound.parameters) : own;
  const first = parameterCount(bound.parameters) + 1;
  const insert = hasInstant ? mapPieces(planned, (parts) => numberedInstants(parts, first)) : planned;
  const unsure = insert.entangled.find((number) => (declared[number - 1] ?? 0) === 0);
  if (unsure !== undefined) return entangledParameter(unsure);
  const all: RewrittenText = {
    parts: insertText(insert, allRows(insert), false),
    text: statement.text,
    literals: statement.literals,
    encoding: statement.encoding,
  };
  return rowsByShard(insert, statement, shards, view).map(({ shard, rows, keys }) => ({
    shard,
    statement: branchStatement(insert, statement, rows, declared, bound),
    place: (error) => placedError(placedInAll(insert, rows, statement, error), all),
    ordered: (returned) => inOrder(returned, rows, keys, statement.encoding),
  }));
}

const entangledParameter = (number: number): PgkvError =>
  refusalError(
    refuse('several_shards_form', {
      what: `an INSERT in which parameter $${number} stands in several rows, and in places of different types,`,
      instead: 'Declare the type of the parameter, or cast it alike in each place.',
    }),
  );

/** A row without a key goes anywhere: every shard refuses it alike. */
function rowsByShard(
  insert: InsertRows,
  { plan, values }: KvStatement,
  shards: readonly ShardView[],
  view: ClusterView,
): ShardRows[] {
  const byShard = new Map<number, ShardRows>(shards.map((shard) => [shard.id, { shard, rows: [], keys: [] }]));
  const first = byShard.get(shards[0]!.id)!;
  for (const [row, { keyIndex }] of insert.rows.entries()) {
    const ref = plan.keys?.[keyIndex];
    const tenant = ref === undefined ? null : values.text(ref.tenant);
    const key = ref === undefined ? null : values.text(ref.key);
    if (tenant instanceof Unreadable || key instanceof Unreadable) {
      throw new PgkvError('internal', { detail: 'a key of an INSERT cannot be read again' });
    }
    const hasKey = tenant !== null && key !== null;
    const own = hasKey ? byShard.get(view.shardOfSlot[hashSlotOf(tenant, key)]!) : first;
    if (own === undefined) throw new PgkvError('internal', { detail: 'a row of an INSERT belongs on no shard of it' });
    own.rows.push(row);
    own.keys.push(keyText(tenant, key));
  }
  return [...byShard.values()].filter(({ rows }) => rows.length > 0);
}

function branchStatement(
  insert: InsertRows,
  { text, literals, encoding }: KvStatement,
  rows: readonly number[],
  declared: readonly number[],
  { parameters, formats }: BoundParts,
): ShardInsert['statement'] {
  const returns = insert.hidden !== '';
  const sql = rewrittenText({ parts: insertText(insert, rows, returns), text, literals, encoding });
  const elsewhere = parametersElsewhere(insert, rows);
  const types = [...declared];
  for (const number of elsewhere) {
    while (types.length < number) types.push(TypeOid.unspecified);
    if (types[number - 1] === TypeOid.unspecified) types[number - 1] = TypeOid.text;
  }
  // The hidden columns are text, which is the same in both formats.
  const all = formats.length > 1 ? [...formats, TEXT, TEXT] : formats;
  return {
    source: unsharedText(sql, types, encoding),
    parameters: elsewhere.size === 0 ? [parameters] : withNulls(parameters, elsewhere),
    formats: returns ? all : null,
  };
}

/** Numbers of those that stand in rows, but in none of these. */
function parametersElsewhere(insert: InsertRows, rows: readonly number[]): Set<number> {
  const elsewhere = new Set(insert.rows.flatMap(({ parameters }) => parameters));
  for (const row of rows) for (const number of insert.rows[row]!.parameters) elsewhere.delete(number);
  for (const number of insert.parameters) elsewhere.delete(number);
  return elsewhere;
}

/** The parameters of a Bind, with some of them NULL. */
function withNulls(parameters: Buffer, nulls: ReadonlySet<number>): Buffer[] {
  const message = new BindMessage();
  if (!message.readParameters(parameters, 0, parameters.length)) {
    throw new PgkvError('internal', { detail: 'the parameters of a statement cannot be read again' });
  }
  const parts: Buffer[] = [parameters.subarray(0, 4 + 2 * message.formatCount)];
  for (let index = 0; index < message.count; index++) {
    const [start, length] = [message.offsets[2 * index]!, message.offsets[2 * index + 1]!];
    const isNull = length < 0 || nulls.has(index + 1);
    parts.push(isNull ? NULL_VALUE : parameters.subarray(start - 4, start + length));
  }
  return [Buffer.concat(parts)];
}

function placedInAll(
  insert: InsertRows,
  rows: readonly number[],
  { text, literals }: KvStatement,
  error: Buffer,
): Buffer {
  const fields = readErrorFields(error, 0, error.length);
  const position = fields['P'];
  if (position === undefined) return error;
  const place = placeInAll(insert, rows, text, literals, Number(position));
  return encodeErrorResponse({ ...fields, P: String(place) });
}

/** Where rows are missing, as behind DO NOTHING, their keys say which those are that have come. */
function inOrder(
  { rows: returned }: BranchResult,
  rows: readonly number[],
  keys: readonly string[],
  encoding: ClientEncoding,
): [number, Buffer][] {
  const isWhole = returned.length === rows.length;
  const byKey = new Map<string, number[]>();
  if (!isWhole) {
    for (const [nth, row] of rows.entries()) {
      const same = byKey.get(keys[nth]!);
      if (same === undefined) byKey.set(keys[nth]!, [row]);
      else same.push(row);
    }
  }
  return returned.map((message, nth) => {
    const { row, last } = withoutLastValues(message, HIDDEN);
    if (isWhole) return [rows[nth]!, row];
    const [tenant, key] = last.map((value) => (value === null ? null : encoding.read(value)));
    const found = byKey.get(keyText(tenant ?? null, key ?? null))?.shift();
    if (found === undefined) throw new PgkvError('internal', { detail: 'a shard returned a row of another key' });
    return [found, row];
  });
}

/** The RowDescription without what is hidden. */
export const visibleColumns = (description: Buffer): Buffer =>
  withoutLastColumns(description, readColumns(description), HIDDEN);
