// Blocks whose BEGIN, COMMIT and ROLLBACK are portals, bound in one message and executed in another, in any order, more than once or
// never: a block begins and ends where its portal is executed, whoever has the portal by then (R43).
import { hashSlotOf } from '../../../src/cluster/key-hash.js';
import { TAGS } from './kv-statements.js';
import { Random } from './random.js';
import { shardOf } from './refusals.js';
import type { FuzzMessage, Packet, Script, Statement } from './script.js';

const TENANT = 't0';
const PORTALS = ['', '', 'p1', 'p2'];
const EDGES = ['begin', 'begin', 'begin', 'begin isolation level repeatable read', 'commit', 'commit', 'rollback'];
const WITHIN = ['savepoint a', 'rollback to a', 'commit and chain', 'rollback and chain'];
const SAVEPOINTS = [
  'savepoint a',
  'savepoint a',
  'savepoint b',
  'release a',
  'rollback to a',
  'rollback to a',
  'rollback to b',
];
/** Some take a snapshot, behind which it is too late for the options. */
const BESIDE = [
  'select 1',
  'show work_mem',
  "set local work_mem = '2MB'",
  'discard temp',
  'discard plans',
  'close all',
  'unlisten *',
  'deallocate all',
  'set constraints all deferred',
];
const OPTIONS = ['set transaction read only', 'set transaction isolation level repeatable read'];

const control = (sql: string): Statement => ({ sql, touch: { kind: 'control' } });
const neutral = (sql: string): Statement => ({ sql, touch: { kind: 'none' } });

class EdgeWriter {
  readonly #random: Random;
  readonly #key: string;
  readonly #isWithin: boolean;

  /** @param isWithin what stands within a block is played, rather than its edges */
  constructor(random: Random, shards: number, isWithin = false) {
    this.#random = random;
    this.#isWithin = isWithin;
    const shard = random.between(0, Math.min(shards, 3) - 1);
    const tag = TAGS.find((name) => shardOf(hashSlotOf(TENANT, `{${name}}1`), shards) === shard);
    if (tag === undefined) throw new Error(`no key of the fuzzer lies on shard ${shard} of ${shards}`);
    this.#key = `{${tag}}1`;
  }

  /** The block's key has a row. */
  rowThere(): Packet {
    return this.#query(this.#keyed(`insert into kv (tenant_id, key, value) values ('${TENANT}', '${this.#key}', '1')`));
  }

  /** Whatever is open ends. */
  end(): Packet {
    return this.#query(control('rollback'));
  }

  #query(statement: Statement): Packet {
    return { session: 0, messages: [{ query: [statement] }] };
  }

  #keyed(sql: string): Statement {
    const writes = !sql.startsWith('select');
    return {
      sql: sql.replaceAll('KEY', `tenant_id = '${TENANT}' and key = '${this.#key}'`),
      touch: { kind: 'keys', keys: [[TENANT, this.#key]], writes },
    };
  }

  /** The block begins. */
  begin(): Packet {
    const begin = control('begin');
    if (this.#random.chance(0.5)) return this.#query(begin);
    return {
      session: 0,
      messages: [
        { parse: begin, name: '', types: [] },
        { bind: [], portal: '', statement: '', resultFormats: [] },
        { execute: '', rows: 0 },
        'sync',
      ],
    };
  }

  #within(): Statement {
    const random = this.#random;
    return random.weighted<() => Statement>([
      [9, () => control(random.pick(SAVEPOINTS))],
      [4, () => neutral(random.pick(BESIDE))],
      [2, () => neutral(`${random.pick(BESIDE)}; ${random.pick(BESIDE)}`)],
      [2, () => neutral(random.pick(OPTIONS))],
      [2, () => this.#keyed('select key, value from kv where KEY')],
      [1, () => this.#keyed(`update kv set value = '${random.between(2, 9)}' where KEY`)],
      [1, () => neutral('select 1 / 0')],
    ])();
  }

  #statement(): Statement {
    const random = this.#random;
    if (this.#isWithin) return this.#within();
    return random.weighted<() => Statement>([
      [8, () => control(random.pick(EDGES))],
      [2, () => control(random.pick(WITHIN))],
      [2, () => this.#keyed('select key, value from kv where KEY')],
      [2, () => this.#keyed(`update kv set value = '${random.between(2, 9)}' where KEY`)],
      [1, () => neutral(random.pick(['select 1', "set local work_mem = '2MB'", 'show work_mem', 'select 1 / 0']))],
    ])();
  }

  /** One batch, or several in one packet. */
  packet(): Packet {
    const random = this.#random;
    if (random.chance(0.15)) return this.#query(this.#statement());
    const messages: FuzzMessage[] = [];
    for (let batches = random.between(1, 2); batches > 0; batches--) messages.push(...this.#batch());
    return { session: 0, messages };
  }

  #batch(): FuzzMessage[] {
    const random = this.#random;
    const messages: FuzzMessage[] = [];
    for (let count = random.between(1, 3); count > 0; count--) {
      const portal = random.pick(PORTALS);
      if (portal !== '' && random.chance(0.7)) messages.push({ close: 'portal', name: portal });
      messages.push({ parse: this.#statement(), name: '', types: [] });
      messages.push({ bind: [], portal, statement: '', resultFormats: [] });
      if (random.chance(0.6)) messages.push(this.#deed(portal));
    }
    for (let count = random.between(0, 3); count > 0; count--) messages.push(this.#deed(random.pick(PORTALS)));
    return [...messages, 'sync'];
  }

  #deed(portal: string): FuzzMessage {
    return this.#random.weighted<FuzzMessage>([
      [8, { execute: portal, rows: 0 }],
      [1, { execute: portal, rows: 1 }],
      [1, { describe: 'portal', name: portal }],
      [1, { close: 'portal', name: portal }],
    ]);
  }
}

/** One block, with savepoints, what takes a snapshot and what comes too late behind that, executed where they are bound, later or never. */
export function savepointScript(seed: number, shards: number): Script {
  const random = new Random(seed);
  const writer = new EdgeWriter(random, shards, true);
  const packets = [writer.rowThere(), writer.begin()];
  for (let count = random.between(2, 6); count > 0; count--) packets.push(writer.packet());
  packets.push(writer.end());
  return { seed, packets };
}

export function edgeScript(seed: number, shards: number): Script {
  const random = new Random(seed);
  const writer = new EdgeWriter(random, shards);
  const packets = [writer.rowThere()];
  for (let count = random.between(2, 5); count > 0; count--) packets.push(writer.packet());
  packets.push(writer.end());
  return { seed, packets };
}
