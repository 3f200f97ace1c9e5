// Any order of Parse, Bind, Describe, Execute, Close, Query, Flush and Sync: what a Query finds of a batch may be no more than a
// Bind, and whether the batch's transaction is still open behind it hangs on what was executed in front of it.
import { hashSlotOf } from '../../../src/cluster/key-hash.js';
import { TAGS } from './kv-statements.js';
import { Random } from './random.js';
import { shardOf } from './refusals.js';
import type { FuzzMessage, Packet, Script, Statement } from './script.js';

const TENANT = 't0';
const NAMES = ['', '', 's1'];
const PORTALS = ['', '', 'p1'];
const ROLLBACK: Packet = { session: 0, messages: [{ query: [{ sql: 'rollback', touch: { kind: 'control' } }] }] };

class SequenceWriter {
  readonly #random: Random;
  readonly #key: string;
  readonly #hasBlocks: boolean;

  constructor(random: Random, shards: number) {
    this.#random = random;
    const shard = random.between(0, Math.min(shards, 3) - 1);
    this.#key = `{${TAGS.find((tag) => shardOf(hashSlotOf(TENANT, `{${tag}}1`), shards) === shard)}}1`;
    this.#hasBlocks = random.chance(0.3);
  }

  /** One batch, in one packet or in several. */
  batch(): Packet[] {
    const random = this.#random;
    const packets: Packet[] = [];
    let messages: FuzzMessage[] = [];
    const cut = (): void => {
      if (messages.length > 0) packets.push({ session: 0, messages });
      messages = [];
    };
    for (let count = random.between(1, 8); count > 0; count--) {
      const next = this.#messages();
      messages.push(...next);
      const last = next.at(-1)!;
      // What is not answered before the rest is sent stands in one packet with it.
      const isAnswered = last === 'flush' || (typeof last !== 'string' && 'query' in last);
      if (isAnswered && random.chance(0.3)) cut();
    }
    // Postgres 18.4 forgets to commit where nothing behind a simple query starts a command anew, and says XX000 later.
    messages.push({ parse: { sql: 'select 1', touch: { kind: 'none' } }, name: '', types: [] }, 'sync');
    cut();
    return packets;
  }

  #messages(): FuzzMessage[] {
    const random = this.#random;
    const portal = random.pick(PORTALS);
    const name = random.pick(NAMES);
    const bind: FuzzMessage = { bind: [], portal, statement: name, resultFormats: [] };
    return random.weighted<() => FuzzMessage[]>([
      [4, () => [...this.#parse(name)]],
      [5, () => [...this.#parse(name), bind]],
      [3, () => [...this.#parse(name), bind, { execute: portal, rows: random.pick([0, 0, 1]) }]],
      [2, () => [bind]],
      [2, () => [{ execute: portal, rows: random.pick([0, 0, 1]) }]],
      [1, () => [{ describe: 'portal', name: portal }]],
      [1, () => [{ describe: 'statement', name }]],
      [1, () => [{ close: 'portal', name: portal }]],
      [1, () => [{ close: 'statement', name }]],
      [1, () => ['flush']],
      [6, () => [{ query: random.list(random.pick([1, 1, 1, 2]), () => this.#statement()) }]],
    ])();
  }

  #parse(name: string): FuzzMessage[] {
    const parse: FuzzMessage = { parse: this.#statement(), name, types: [] };
    return name === '' ? [parse] : [{ close: 'statement', name }, parse];
  }

  #statement(): Statement {
    const random = this.#random;
    const key = `tenant_id = '${TENANT}' and key = '${this.#key}'`;
    const keyed = (sql: string, writes: boolean): Statement => ({
      sql,
      touch: { kind: 'keys', keys: [[TENANT, this.#key]], writes },
    });
    return random.weighted<() => Statement>([
      [4, () => keyed(`select key, value from kv where ${key}`, false)],
      [2, () => keyed(`update kv set value = '${random.between(2, 9)}' where ${key}`, true)],
      [3, () => ({ sql: 'select 1 as one', touch: { kind: 'none' } })],
      [1, () => ({ sql: '', touch: { kind: 'none' } })],
      [1, () => ({ sql: 'show transaction_isolation', touch: { kind: 'none' } })],
      [1, () => ({ sql: 'select count(*) from note', touch: { kind: 'home' } })],
      [1, () => ({ sql: `update note set text = '${random.between(2, 9)}' where id = 1`, touch: { kind: 'home' } })],
      [1, () => ({ sql: 'select key from kv order by tenant_id, key', touch: { kind: 'every', writes: false } })],
      [1, () => ({ sql: 'select 1 / 0', touch: { kind: 'none' } })],
      [
        this.#hasBlocks ? 2 : 0,
        () => ({ sql: random.pick(['begin', 'commit', 'rollback']), touch: { kind: 'control' } }),
      ],
    ])();
  }
}

/** The same in fewer packets: a batch is sent before the one in front of it has been answered. */
function joined(packets: readonly Packet[], random: Random): Packet[] {
  const made: Packet[] = [];
  for (const packet of packets) {
    const before = made.at(-1);
    if (before === undefined || random.chance(0.5)) made.push(packet);
    else made[made.length - 1] = { session: 0, messages: [...before.messages, ...packet.messages] };
  }
  return made;
}

export function sequenceScript(seed: number, shards: number): Script {
  const random = new Random(seed);
  const writer = new SequenceWriter(random, shards);
  const packets: Packet[] = [];
  for (let count = 5; count > 0; count--) packets.push(...writer.batch(), ROLLBACK);
  return { seed, packets: random.chance(0.5) ? packets : joined(packets, random) };
}
