// The map as a value: who owns which hash slot, and how one map follows another.
import t from 'tap';
import {
  type HashSlot,
  homeShard,
  initialView,
  type ShardDescription,
  shardOf,
} from '../../../src/cluster/cluster-view.js';
import type { KvTable } from '../../../src/cluster/kv-table.js';
import { ViewHolder } from '../../../src/cluster/view-holder.js';

const node = { host: '127.0.0.1', port: 5432 };
const kv: KvTable = { schema: 'public', name: 'kv', valueType: 'jsonb' };
const shard = (name: string, ...hashSlots: [number, number][]): ShardDescription => ({
  name,
  hashSlots,
  nodes: [node, { ...node, port: 5433 }],
});

t.test('every slot finds the shard whose ranges hold it', async (t) => {
  const shards = [shard('a', [0, 99], [16383, 16383]), shard('b', [200, 16382]), shard('c', [100, 199])];
  const view = initialView(shards, [kv], 7);
  t.equal(view.epoch, 7);
  t.strictSame(view.tables, [kv]);
  const nameAt = (slot: number) => shardOf(view, slot as HashSlot).name;
  t.strictSame([0, 99, 100, 199, 200, 16382, 16383].map(nameAt), ['a', 'a', 'c', 'c', 'b', 'b', 'a']);
  t.equal(homeShard(view).name, 'a');
  t.match(view.shards[1], { id: 1, primary: node, replicas: [{ port: 5433 }] });
});

t.test('with tables, a slot without an owner or with two is refused by name', async (t) => {
  const refuses = (shards: ShardDescription[], message: string) =>
    t.throws(() => initialView(shards, [kv]), new RangeError(message));
  refuses([shard('a', [0, 99]), shard('b', [101, 16383])], 'no shard holds hash slots 100 to 100');
  refuses([shard('a', [0, 16000])], 'no shard holds hash slots 16001 to 16383');
  refuses([shard('a', [0, 100]), shard('b', [100, 16383])], 'hash slots 100 to 100 belong to shard a and to shard b');
  refuses([shard('a', [5, 4]), shard('b', [0, 16383])], 'shard a: the range [5, 4] ends before it begins');
  t.throws(() => initialView([{ name: 'a', hashSlots: [[0, 16383]], nodes: [] }]), /shard a has no node/);
});

t.test('without tables, slots need no owner: one server is pooled', async (t) => {
  const view = initialView([shard('a'), shard('b')]);
  t.equal(view.epoch, 1);
  t.strictSame(view.tables, []);
  t.throws(() => homeShard(initialView([])), /at least one shard/);
});

t.test('the holder gives listeners the next view and the previous one, after it is current', async (t) => {
  const shards = [shard('a', [0, 16383])];
  const [first, second, third] = [1, 2, 5].map((epoch) => initialView(shards, [kv], epoch));
  const holder = new ViewHolder(first!);
  const seen: number[][] = [];
  const stop = holder.onChange((next, previous) => seen.push([previous.epoch, next.epoch, holder.current.epoch]));
  holder.swap(second!);
  t.equal(holder.current, second);
  stop();
  holder.swap(third!);
  t.strictSame(seen, [[1, 2, 2]]);
});

t.test('an older or equal epoch never replaces the current view', async (t) => {
  const shards = [shard('a', [0, 16383])];
  const holder = new ViewHolder(initialView(shards, [kv], 3));
  for (const epoch of [2, 3]) {
    t.throws(() => holder.swap(initialView(shards, [kv], epoch)), { message: /cannot follow epoch 3/ });
  }
  t.equal(holder.current.epoch, 3);
});
