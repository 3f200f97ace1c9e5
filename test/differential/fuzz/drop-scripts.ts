// Names of prepared statements from a seed: parsed, parsed in vain, bound, closed, dropped by SQL and made anew, in batches that are
// pipelined, so that most of what a name stands for hangs on answers to come; in blocks and outside, around errors.
import { again, control, type Keys, keysFor, neutral, query, read, WRONG } from './by-hand.js';
import { Random } from './random.js';
import type { FuzzMessage, Packet, Script, Statement } from './script.js';

const NAMES = ['s1', 's1', 's2', 'S3'];
const HOME: Statement = { sql: 'select count(*) from note', touch: { kind: 'home' } };
const UNREAD = ['commit foo', 'selec', 'select ('];
const DROPS = [
  'deallocate s1',
  'deallocate "S3"',
  'deallocate prepare s2',
  'deallocate all',
  'discard all',
  'discard plans',
];

class DropWriter {
  readonly #random: Random;
  readonly #keys: Keys;

  constructor(random: Random, shards: number) {
    this.#random = random;
    this.#keys = keysFor(shards);
  }

  packet(): Packet {
    const random = this.#random;
    const messages: FuzzMessage[] = [];
    for (let batches = random.between(1, 4); batches > 0; batches--) {
      if (random.chance(0.15)) messages.push(query(this.#text()));
      else messages.push(...random.list(random.between(1, 4), () => this.#deed()).flat(), 'sync');
    }
    return { session: 0, messages };
  }

  #statement(): Statement {
    const random = this.#random;
    return random.weighted<() => Statement>([
      [3, () => neutral(`select ${random.between(1, 3)} as n`)],
      [2, () => read(random.pick([this.#keys.home, this.#keys.other]))],
      [1, () => HOME],
      [2, () => neutral('select nothing')],
      [1, () => neutral(random.pick(UNREAD))],
      [2, () => this.#drop()],
      [1, () => control(random.pick(['begin', 'commit', 'rollback']))],
    ])();
  }

  /** DISCARD ALL is none in a block, and everything else of the session is at home. */
  #drop(): Statement {
    const sql = this.#random.pick(DROPS);
    return sql === 'discard all' ? { sql, touch: { kind: 'home' } } : neutral(sql);
  }

  #dropAll(): Statement {
    return this.#random.chance(0.5) ? neutral('deallocate all') : { sql: 'discard all', touch: { kind: 'home' } };
  }

  #text(): Statement {
    const random = this.#random;
    return random.weighted<() => Statement>([
      [3, () => this.#drop()],
      [2, () => control(random.pick(['begin', 'commit', 'rollback', 'rollback']))],
      [1, () => WRONG],
      [1, () => neutral('select 1 as one')],
    ])();
  }

  #deed(): FuzzMessage[] {
    const random = this.#random;
    const name = random.pick(NAMES);
    return random.weighted<() => FuzzMessage[]>([
      [5, () => [{ parse: this.#statement(), name, types: [] }]],
      [
        4,
        () => [
          { close: 'statement', name },
          { parse: this.#statement(), name, types: [] },
        ],
      ],
      [7, () => again(name)],
      [2, () => [{ describe: 'statement', name }]],
      [2, () => [{ close: 'statement', name }]],
      [3, () => this.#run(this.#drop())],
      [2, () => this.#run(random.chance(0.5) ? WRONG : neutral(random.pick(UNREAD)))],
      [2, () => this.#run(this.#statement())],
      // Bound now and executed in a later batch of the block, if ever. Which statement a name stands for is told by the Bind (LIMITS).
      [2, () => this.#bind(this.#dropAll(), 'p1')],
      [2, () => [{ execute: 'p1', rows: 0 }]],
    ])();
  }

  #bind(statement: Statement, portal: string): FuzzMessage[] {
    const close: FuzzMessage[] = portal === '' ? [] : [{ close: 'portal', name: portal }];
    return [
      ...close,
      { parse: statement, name: '', types: [] },
      { bind: [], portal, statement: '', resultFormats: [] },
    ];
  }

  #run(statement: Statement): FuzzMessage[] {
    return [...this.#bind(statement, ''), { execute: '', rows: 0 }];
  }
}

export function dropScript(seed: number, shards: number): Script {
  const random = new Random(seed);
  const writer = new DropWriter(random, shards);
  const packets = random.list(random.between(3, 8), () => writer.packet());
  return { seed, packets: [...packets, { session: 0, messages: [query(control('rollback'))] }] };
}
