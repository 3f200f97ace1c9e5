// The arrays of a statement on several shards, cut (MemberPlan): which member belongs to which shard, and the parameters by which a
// shard gets its own. Behind the client's parameters come the numbers of the shard's members among all, from 1, and its parts of
// the arrays that stand in the text as literals.
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { ClusterView, ShardView } from '../../cluster/cluster-view.js';
import { hashSlotOf } from '../../cluster/key-hash.js';
import { Unreadable } from '../../route/key-values.js';
import { arrayOf, type ElementArray } from '../../route/text-array.js';
import type { MemberArray, MemberPlan } from '../../sql/plan/kv-plan.js';
import { literalParameters, numberedMembers } from '../../sql/scatter/member-parameters.js';
import type { TextParts } from '../../sql/text/text-parts.js';
import { BindMessage } from '../../wire/bind-message.js';
import { TypeOid } from '../../wire/type-oids.js';
import type { KvStatement } from '../unit/kv-statements.js';
import { keyText, memberTexts } from '../unit/member-keys.js';

const TEXT = 0;
const BINARY = 1;
const NULL_VALUE = Buffer.from([0xff, 0xff, 0xff, 0xff]);

export interface ShardMembers {
  readonly shard: ShardView;
  /** From 0. */
  readonly members: readonly number[];
  /** As in a Bind. */
  readonly parameters: Buffer;
}

export interface SplitMembers {
  readonly shards: readonly ShardMembers[];
  /** Of all parameters. */
  readonly types: readonly number[];
  /** Tenant and key of each member, as one text. */
  readonly keys: readonly string[];
  /** The text that the shards run, with the numbers of its parameters. */
  numbered(parts: TextParts): TextParts;
}

/** @param parameters the client's, as in a Bind */
export function splitMembers(
  statement: KvStatement,
  plan: MemberPlan,
  shards: readonly ShardView[],
  view: ClusterView,
  parameters: Buffer,
): SplitMembers {
  const arrays = plan.arrays.map(({ ref }) => readable(statement.values.array(ref)));
  const count = Math.max(0, ...plan.written, ...arrays.map((array) => array?.count ?? 0));
  const tenants = memberTexts(plan.tenant, count, statement.values);
  const keys = memberTexts(plan.key, count, statement.values);
  const byShard = new Map<number, number[]>(shards.map(({ id }) => [id, []]));
  for (let member = 0; member < count; member++) {
    const [tenant, key] = [tenants[member] ?? null, keys[member] ?? null];
    // One without a key is nowhere, or refused alike by every shard.
    const id = tenant === null || key === null ? shards[0]!.id : view.shardOfSlot[hashSlotOf(tenant, key)]!;
    const own = byShard.get(id);
    if (own === undefined)
      throw new PgkvError('internal', { detail: 'a member of a statement belongs on no shard of it' });
    own.push(member);
  }
  const bind = new BindMessage();
  if (!bind.readParameters(parameters, 0, parameters.length)) {
    throw new PgkvError('internal', { detail: 'the parameters of a statement cannot be read again' });
  }
  const literals = literalParameters(plan, bind.count);
  const cutter = new Cutter(plan.arrays, arrays, bind, literals, statement.encoding.write);
  const declared = [...(statement.source?.parameterTypes ?? [])];
  while (declared.length < bind.count) declared.push(TypeOid.unspecified);
  return {
    shards: shards
      .map((shard) => ({ shard, members: byShard.get(shard.id)! }))
      .filter(({ members }) => members.length > 0)
      .map(({ shard, members }) => ({ shard, members, parameters: cutter.parametersOf(members) })),
    types: [...declared, TypeOid.int4Array, ...[...literals].map(() => TypeOid.unspecified)],
    keys: Array.from({ length: count }, (_, member) => keyText(tenants[member] ?? null, keys[member] ?? null)),
    numbered: (parts) => numberedMembers(parts, plan, bind.count),
  };
}

function readable(array: ElementArray | null | Unreadable): ElementArray | null {
  if (!(array instanceof Unreadable)) return array;
  if (array.isTooLong) throw refusalError(refuse('array_too_long', { why: array.reason }));
  throw refusalError(
    refuse('several_shards_form', {
      what: `an array that is none to pgkv (${array.reason})`,
      instead: 'Write it as array_out and array_send do, or name one key in each statement.',
    }),
  );
}

class Cutter {
  readonly #arrays: readonly MemberArray[];
  readonly #read: readonly (ElementArray | null)[];
  readonly #bind: BindMessage;
  readonly #encode: (text: string) => Buffer;
  /** What is cut, by the parameter's number. */
  readonly #byParameter = new Map<number, number>();
  readonly #count: number;

  constructor(
    arrays: readonly MemberArray[],
    read: readonly (ElementArray | null)[],
    bind: BindMessage,
    literals: ReadonlyMap<number, number>,
    encode: (text: string) => Buffer,
  ) {
    this.#arrays = arrays;
    this.#read = read;
    this.#bind = bind;
    this.#encode = encode;
    this.#count = bind.count + 1 + literals.size;
    for (const [index, { ref }] of arrays.entries()) {
      const number = ref.kind === 'parameter' ? ref.number : ref.kind === 'literal' ? literals.get(ref.index)! : null;
      if (number !== null) this.#byParameter.set(number, index);
    }
  }

  parametersOf(members: readonly number[]): Buffer {
    const own = this.#bind.count;
    const head = Buffer.alloc(4 + 2 * this.#count);
    head.writeUInt16BE(this.#count, 0);
    head.writeUInt16BE(this.#count, 2 + 2 * this.#count);
    const parts: Buffer[] = [head];
    for (let index = 0; index < this.#count; index++) {
      const cut = this.#byParameter.get(index + 1);
      const isNumbers = index === own;
      head.writeInt16BE(isNumbers ? BINARY : index < own ? this.#bind.format(index) : TEXT, 2 + 2 * index);
      if (isNumbers) parts.push(...sized(numbersOf(members)));
      else parts.push(...sized(cut === undefined ? this.#bind.value(index) : this.#part(cut, members)));
    }
    return Buffer.concat(parts);
  }

  /** NULL stays what it is. */
  #part(index: number, members: readonly number[]): Buffer | null {
    const array = this.#read[index]!;
    if (array === null) return null;
    const places = this.#arrays[index]!.isSubscripted
      ? members.map((member) => placeOf(member, array))
      : // A shorter one is filled up by unnest().
        members.filter((member) => member < array.count);
    return arrayOf(array, places, this.#encode);
  }
}

/** Where a[member + 1] is. */
const placeOf = (member: number, { dimensions, lowerBound }: ElementArray): number =>
  dimensions === 1 ? member + 1 - lowerBound : -1;

function sized(value: Buffer | null): readonly Buffer[] {
  if (value === null) return [NULL_VALUE];
  const length = Buffer.alloc(4);
  length.writeInt32BE(value.length, 0);
  return [length, value];
}

/** int4[] in binary. */
function numbersOf(members: readonly number[]): Buffer {
  const bytes = Buffer.alloc(20 + 8 * members.length);
  bytes.writeInt32BE(1, 0);
  bytes.writeUInt32BE(TypeOid.int4, 8);
  bytes.writeInt32BE(members.length, 12);
  bytes.writeInt32BE(1, 16);
  for (const [index, member] of members.entries()) {
    bytes.writeInt32BE(4, 20 + 8 * index);
    bytes.writeInt32BE(member + 1, 24 + 8 * index);
  }
  return bytes;
}
