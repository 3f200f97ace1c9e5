// What each shard gets of an INSERT that is written together with others' (execute/two-phase/write-groups.ts): messages with its
// rows' parameters and slots alone.
import type { ClusterView, HashSlot } from '../../cluster/cluster-view.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import type { GroupMember } from '../../execute/two-phase/group-write.js';
import { type PlainInsert, plainInsert, plainText } from '../../sql/rewrite/plain-insert.js';
import type { BindMessage } from '../../wire/bind-message.js';
import { encodeBareBind, encodeExecute, encodeParse } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import type { KvStatement } from '../unit/kv-statements.js';

type Parts = GroupMember['parts'];

const EXECUTE = encodeExecute('');
const BARE_BIND = encodeBareBind('');

/** An INSERT that can be written together with others'. */
export interface Groupable {
  readonly statement: KvStatement;
  /** Its Bind, read; null: it came by simple query. */
  readonly bind: BindMessage | null;
  readonly plain: PlainInsert;
  /** The rows of each shard, by its id. */
  readonly byShard: ReadonlyMap<number, readonly number[]>;
  slotOf(row: number): HashSlot;
}

/** @param statement whose route is `spread`. @returns null: it is another one */
export function groupable(
  statement: KvStatement,
  slots: readonly HashSlot[],
  bind: BindMessage | null,
  view: ClusterView,
): Groupable | null {
  const { plan, encoding } = statement;
  const { spread } = plan;
  if (spread?.insert == null || spread.hasInstant || !encoding.isUtf8 || plan.slots.length > 0) return null;
  const { insert } = spread;
  // A row without a key has no slot.
  if (slots.length !== insert.rows.length || plan.keys?.length !== slots.length) return null;
  const plain = plainInsert(insert);
  if (plain === null || (bind?.count ?? 0) !== plain.parameters) return null;
  const byShard = new Map<number, number[]>();
  for (const [row, { keyIndex }] of insert.rows.entries()) {
    const shard = view.shardOfSlot[slots[keyIndex]!]!;
    const rows = byShard.get(shard);
    if (rows === undefined) byShard.set(shard, [row]);
    else rows.push(row);
  }
  return { statement, bind, plain, byShard, slotOf: (row) => slots[insert.rows[row]!.keyIndex]! };
}

export function groupedParts(
  { statement, bind, plain, byShard, slotOf }: Groupable,
  view: ClusterView,
  lanes: SessionLanes,
): Parts {
  const { text, literals } = statement;
  return [...byShard].map(([id, rows]) => {
    const shard = view.shards[id]!;
    const own = rows.map(slotOf);
    const sql = plainText(plain, rows, bind === null ? own : null, text, literals);
    const types = bind === null ? [] : typesOf(plain, rows, statement.source?.parameterTypes ?? []);
    const statements = [
      encodeParse('', parseTail(sql, types)),
      bind === null ? BARE_BIND : bindOf(plain, rows, own, bind),
      EXECUTE,
    ];
    return {
      target: { shardName: shard.name, lane: (client) => lanes.another(shard, client) },
      statement: statements,
    };
  });
}

function parseTail(sql: string, types: readonly number[]): Buffer {
  const bytes = Buffer.byteLength(sql);
  const tail = Buffer.allocUnsafe(bytes + 3 + 4 * types.length);
  tail.write(sql, 0);
  tail[bytes] = 0;
  tail.writeUInt16BE(types.length, bytes + 1);
  for (const [index, type] of types.entries()) tail.writeUInt32BE(type >>> 0, bytes + 3 + 4 * index);
  return tail;
}

/** As the client has declared them; a slot's is its column's. */
function typesOf(plain: PlainInsert, rows: readonly number[], declared: readonly number[]): number[] {
  if (declared.every((type) => type === 0)) return [];
  return rows.flatMap((row) => [...plain.rows[row]!.parameters.map((number) => declared[number - 1] ?? 0), 0]);
}

/** Bind of the unnamed portal: the values of some rows, each row's slot behind them. TOKENS_MAX keeps their count below 2^16. */
function bindOf(plain: PlainInsert, rows: readonly number[], slots: readonly HashSlot[], bind: BindMessage): Buffer {
  const { buffer, offsets, formatCount, formatsAt } = bind;
  const formatOf = (number: number): number => {
    if (formatCount === 0) return 0;
    return buffer.readUInt16BE(formatsAt + 2 + (formatCount === 1 ? 0 : 2 * (number - 1)));
  };
  let count = 0;
  let bytes = 0;
  let isText = true;
  for (const row of rows) {
    const { parameters } = plain.rows[row]!;
    count += parameters.length + 1;
    for (const number of parameters) {
      bytes += 4 + Math.max(0, offsets[2 * number - 1]!);
      isText &&= formatOf(number) === 0;
    }
  }
  const slotTexts = slots.map(String);
  for (const slot of slotTexts) bytes += 4 + slot.length;
  const formats = isText ? 0 : count;
  const message = Buffer.allocUnsafe(13 + 2 * formats + bytes);
  message[0] = Frontend.bind;
  message.writeInt32BE(message.length - 1, 1);
  message.writeUInt16BE(0, 5);
  message.writeUInt16BE(formats, 7);
  let at = 9;
  if (!isText) {
    for (const row of rows) {
      for (const number of plain.rows[row]!.parameters) at = message.writeUInt16BE(formatOf(number), at);
      at = message.writeUInt16BE(0, at);
    }
  }
  at = message.writeUInt16BE(count, at);
  for (const [nth, row] of rows.entries()) {
    for (const number of plain.rows[row]!.parameters) {
      const from = offsets[2 * number - 2]!;
      // With its length in front.
      at += buffer.copy(message, at, from - 4, from + Math.max(0, offsets[2 * number - 1]!));
    }
    const slot = slotTexts[nth]!;
    at = message.writeInt32BE(slot.length, at);
    at += message.write(slot, at, 'latin1');
  }
  message.writeUInt16BE(0, at);
  return message;
}
