// Blocks from a seed, and what stands around their BEGIN: statements in front of it in its batch, reads of all shards beside it,
// options that are late, errors and AND CHAIN on their way, texts in another encoding; then a key somewhere. All of it alone, in
// batches or pipelined, so that a block is held here, open on a server or being moved when it comes.
import { TAGS } from './kv-statements.js';
import { Random } from './random.js';
import type { FuzzMessage, Packet, Script, Statement, Touch } from './script.js';

const TENANT = 't0';
const NONE: Touch = { kind: 'none' };
const CONTROL: Touch = { kind: 'control' };
/** A comment in it is no text in UTF8. */
const LATIN1_LETTER = '\u00e9';

const neutral = (sql: string): Statement => ({ sql, touch: NONE });
const control = (sql: string): Statement => ({ sql, touch: CONTROL });

/** What takes a snapshot, or takes none, and what sets something up to the end of the transaction. */
const AROUND = [
  "set work_mem = '3MB'",
  "set local work_mem = '2MB'",
  "set local timezone = 'Asia/Tokyo'",
  'set constraints all deferred',
  "select set_config('app.user', 'y', true)",
  'show work_mem',
  'show timezone',
  'select 1',
  'discard plans',
  'close all',
];
const BEGINS = [
  'begin',
  'begin',
  'start transaction read only',
  'begin isolation level repeatable read',
  'begin isolation level serializable',
  'begin isolation level read committed, read write',
];
const OPTIONS = [
  'set transaction isolation level repeatable read',
  'set transaction read only',
  'set transaction read write',
  'set transaction deferrable',
  'show transaction_isolation',
];
const ENDS = ['commit', 'rollback', 'commit and chain', 'rollback and chain', 'rollback and chain'];
const SAVEPOINTS = ['savepoint a', 'release a', 'rollback to a', 'rollback to a'];
const WRONG = ['select 1 / 0', 'release nothing', 'selec 1', 'set work_mem = nothing'];
const ON_HOME: Statement = { sql: 'select count(*) from note', touch: { kind: 'home' } };
const ENCODINGS = ['LATIN1', 'WIN1251', 'UTF8', 'UTF8'];

class BlockWriter {
  readonly #random: Random;
  #tag: string;

  constructor(random: Random) {
    this.#random = random;
    this.#tag = random.pick(TAGS);
  }

  #keyed(): Statement {
    const random = this.#random;
    if (random.chance(0.2)) this.#tag = random.pick(TAGS);
    const key = `{${this.#tag}}${random.between(1, 2)}`;
    const writes = random.chance(0.5);
    const sql = writes
      ? `update kv set value = '${random.between(1, 9)}' where tenant_id = '${TENANT}' and key = '${key}'`
      : `select value, version from kv where tenant_id = '${TENANT}' and key = '${key}'`;
    return { sql, touch: { kind: 'keys', keys: [[TENANT, key]], writes } };
  }

  #every(): Statement {
    return {
      sql: `select count(*) from kv where tenant_id = '${TENANT}'`,
      touch: { kind: 'every', writes: false },
    };
  }

  #statement(): Statement {
    const random = this.#random;
    return random.weighted<() => Statement>([
      [5, () => neutral(random.pick(AROUND))],
      [4, () => control(random.pick(BEGINS))],
      [3, () => neutral(random.pick(OPTIONS))],
      [2, () => control(random.pick(ENDS))],
      [2, () => control(random.pick(SAVEPOINTS))],
      [2, () => neutral(random.pick(WRONG))],
      [3, () => this.#every()],
      [3, () => this.#keyed()],
      [1, () => ({ sql: `select count(*) from pg_class where relname = 'note'`, touch: { kind: 'catalog' } })],
      [1, () => neutral(`set client_encoding to '${random.pick(ENCODINGS)}'`)],
    ])();
  }

  /** A text, some of them with a letter of another encoding. */
  #marked(statement: Statement): Statement {
    return this.#random.chance(0.05) ? { ...statement, sql: `${statement.sql} /* ${LATIN1_LETTER} */` } : statement;
  }

  #query(): FuzzMessage {
    return { query: [this.#marked(this.#statement())], latin1: true };
  }

  /** What names a statement, which may be there or not, and may be one on a table at home. */
  #named(): FuzzMessage[] {
    const random = this.#random;
    const name = random.pick(['s1', 's2']);
    const statement = random.chance(0.3) ? ON_HOME : this.#statement();
    return random.weighted<() => FuzzMessage[]>([
      [2, () => [{ describe: 'statement', name }]],
      [2, () => [{ close: 'statement', name }]],
      [
        2,
        () => [
          { close: 'statement', name },
          { parse: statement, name, types: [] },
        ],
      ],
      [
        3,
        () => [
          { bind: [], portal: '', statement: name, resultFormats: [] },
          { execute: '', rows: 0 },
        ],
      ],
    ])();
  }

  #run(): FuzzMessage[] {
    const random = this.#random;
    if (random.chance(0.15)) return this.#named();
    if (random.chance(0.05))
      return [
        { bind: [], portal: '', statement: 's9', resultFormats: [] },
        { execute: '', rows: 0 },
      ];
    const describe: FuzzMessage[] = random.chance(0.3) ? [{ describe: 'statement', name: '' }] : [];
    return [
      { parse: this.#marked(this.#statement()), name: '', types: [], latin1: true },
      ...describe,
      { bind: [], portal: '', statement: '', resultFormats: [] },
      { execute: '', rows: 0 },
    ];
  }

  #batch(): FuzzMessage[] {
    return [...this.#random.list(this.#random.between(1, 4), () => this.#run()).flat(), 'sync'];
  }

  packet(): Packet {
    const random = this.#random;
    const messages = random.weighted<() => FuzzMessage[]>([
      [4, () => [this.#query()]],
      [4, () => random.list(random.between(2, 4), () => this.#query())],
      [5, () => this.#batch()],
      [2, () => [...this.#batch(), ...this.#batch()]],
      [1, () => [...this.#batch(), this.#query()]],
    ])();
    return { session: 0, messages };
  }
}

export function blockScript(seed: number): Script {
  const random = new Random(seed);
  const writer = new BlockWriter(random);
  return { seed, packets: random.list(random.between(4, 10), () => writer.packet()) };
}
