// Batches of the extended protocol from a seed, of the kinds that clients seldom send: portals bound before others are executed,
// executed in pieces and out of order, on keys of several shards; simple queries in front of the Sync.
import { hashSlotOf } from '../../../src/cluster/key-hash.js';
import { TAGS } from './kv-statements.js';
import { Random } from './random.js';
import { shardOf } from './refusals.js';
import type { FuzzMessage, Packet, Script, Statement } from './script.js';

const TENANT = 't0';
const PORTALS = ['', '', 'p1', 'p2'];
const NAMES = ['', '', 's1', 's2'];

/** A key on each shard, home's first. */
function keysOn(shards: number): string[] {
  return Array.from({ length: Math.min(shards, 3) }, (_, shard) => {
    const tag = TAGS.find((name) => shardOf(hashSlotOf(TENANT, `{${name}}1`), shards) === shard);
    if (tag === undefined) throw new Error(`no key of the fuzzer lies on shard ${shard} of ${shards}`);
    return `{${tag}}1`;
  });
}

const onKey = (key: string, sql: string, writes = false): Statement => ({
  sql: sql.replaceAll('KEY', `tenant_id = '${TENANT}' and key = '${key}'`),
  touch: { kind: 'keys', keys: [[TENANT, key]], writes },
});
const ALL: Statement = {
  sql: `select key from kv where tenant_id = '${TENANT}' order by key`,
  touch: { kind: 'every', writes: false },
};
const insert = (key: string): Statement =>
  onKey(key, `insert into kv (tenant_id, key, value) values ('${TENANT}', '${key}', '1')`, true);

class BatchWriter {
  readonly #random: Random;
  readonly #keys: readonly string[];

  constructor(random: Random, shards: number) {
    this.#random = random;
    this.#keys = keysOn(shards);
  }

  #read(): Statement {
    const key = this.#random.pick(this.#keys);
    return onKey(
      key,
      this.#random.pick(['select key, value from kv where KEY', 'select version, value from kv where KEY']),
    );
  }

  #statement(): Statement {
    const random = this.#random;
    return random.weighted<() => Statement>([
      [8, () => this.#read()],
      [1, () => onKey(random.pick(this.#keys), `update kv set value = '${random.between(2, 9)}' where KEY`, true)],
      [1, () => ({ sql: 'select generate_series(1, 3) as n', touch: { kind: 'none' } })],
      [1, () => ({ sql: 'select count(*) from note', touch: { kind: 'home' } })],
      [1, () => ({ sql: 'select key from kv order by tenant_id, key', touch: { kind: 'every', writes: false } })],
    ])();
  }

  /** Portals bound first, in any names, and then whatever can be done with them. */
  portals(): FuzzMessage[] {
    const random = this.#random;
    const messages: FuzzMessage[] = [];
    const bound: string[] = [];
    for (let count = random.between(2, 3); count > 0; count--) {
      const portal = random.pick(PORTALS);
      const name = random.pick(NAMES);
      if (name !== '') messages.push({ close: 'statement', name });
      messages.push({ parse: this.#statement(), name, types: [] });
      messages.push({ bind: [], portal, statement: name, resultFormats: [] });
      bound.push(portal);
      if (random.chance(0.2)) messages.push(this.#deed(bound));
    }
    for (let count = random.between(1, 4); count > 0; count--) messages.push(this.#deed(bound));
    return [...messages, 'sync'];
  }

  /**
   * One batch with simple queries in it, in one packet or in several, and an end of whatever that may leave open. Something is
   * executed behind the last query: Postgres 18.4 forgets to commit such a batch otherwise, and says XX000 to the next statement.
   */
  withQueries(): Packet[] {
    const random = this.#random;
    const packets: Packet[] = [];
    const key = random.pick(this.#keys);
    // What pgkv answers without a server ends a part of the batch, which may have been no more than reads.
    const isOfAll = random.chance(0.4);
    const beside = (): Statement => (isOfAll ? this.#ofAllShards(key) : this.#besideKey(key));
    let messages: FuzzMessage[] = [];
    const cut = (): void => {
      packets.push({ session: 0, messages });
      messages = [];
    };
    for (let part = random.between(1, 3); part > 0; part--) {
      for (let count = random.between(0, 2); count > 0; count--) messages.push(...this.#run(beside()));
      messages.push({ query: [isOfAll ? ALL : beside()] });
      if (random.chance(0.3)) cut();
    }
    messages.push(...this.#run(beside()), 'sync');
    cut();
    packets.push({ session: 0, messages: [{ query: [{ sql: 'rollback', touch: { kind: 'control' } }] }] });
    return packets;
  }

  #ofAllShards(key: string): Statement {
    return this.#random.weighted<Statement>([
      [2, ALL],
      [1, onKey(key, 'select key, value from kv where KEY')],
      [1, { sql: 'select 1 as one', touch: { kind: 'none' } }],
    ]);
  }

  #run(statement: Statement): FuzzMessage[] {
    const describe: FuzzMessage[] = this.#random.chance(0.3) ? [{ describe: 'portal', name: '' }] : [];
    return [
      { parse: statement, name: '', types: [] },
      { bind: [], portal: '', statement: '', resultFormats: [] },
      ...describe,
      { execute: '', rows: 0 },
    ];
  }

  /** What can stand in one batch with statements on that key; what needs no shard opens the batch's transaction at home. */
  #besideKey(key: string): Statement {
    const random = this.#random;
    return random.weighted<() => Statement>([
      [5, () => onKey(key, 'select key, value from kv where KEY')],
      [2, () => onKey(key, `update kv set value = '${random.between(2, 9)}' where KEY`, true)],
      [2, () => ({ sql: 'select 1 as one', touch: { kind: 'home' } })],
      [1, () => ({ sql: 'begin', touch: { kind: 'control' } })],
      [1, () => ({ sql: random.pick(['commit', 'rollback']), touch: { kind: 'control' } })],
      [1, () => ({ sql: 'show server_version_num', touch: { kind: 'home' } })],
    ])();
  }

  #deed(bound: readonly string[]): FuzzMessage {
    const random = this.#random;
    const portal = random.pick(bound);
    return random.weighted<() => FuzzMessage>([
      [6, () => ({ execute: portal, rows: 0 })],
      [2, () => ({ execute: portal, rows: 1 })],
      [2, () => ({ describe: 'portal', name: portal })],
      [1, () => ({ close: 'portal', name: portal })],
    ])();
  }
}

/** Batches in which simple queries come before the Sync, or in its place. */
export function queryScript(seed: number, shards: number): Script {
  const random = new Random(seed);
  const writer = new BatchWriter(random, shards);
  const packets: Packet[] = keysOn(shards).map((key) => ({ session: 0, messages: [{ query: [insert(key)] }] }));
  for (let count = 5; count > 0; count--) packets.push(...writer.withQueries());
  return { seed, packets };
}

/** Several batches of portals, over rows that are there. */
export function portalScript(seed: number, shards: number): Script {
  const random = new Random(seed);
  const writer = new BatchWriter(random, shards);
  const packets: Packet[] = keysOn(shards).map((key) => ({ session: 0, messages: [{ query: [insert(key)] }] }));
  const isInBlock = random.chance(0.2);
  if (isInBlock) packets.push({ session: 0, messages: [{ query: [{ sql: 'begin', touch: { kind: 'control' } }] }] });
  for (let count = isInBlock ? 1 : 4; count > 0; count--) packets.push({ session: 0, messages: writer.portals() });
  return { seed, packets };
}
