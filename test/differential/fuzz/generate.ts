// Scripts of the fuzzer from a seed: up to three sessions that take turns, blocks with savepoints and errors, messages of
// both protocols alone, in one packet, in batches. What a session has is only guessed: errors make guesses wrong, and that is
// as well a case to play.
import { copyIn, type Keys, keyedStatement, kvStatement, TAGS } from './kv-statements.js';
import { Random } from './random.js';
import type { FuzzMessage, Packet, Script } from './script.js';
import { beginning, ending, savepoint, sessionStatement } from './session-statements.js';
import { bind, type Form, inText } from './slots.js';

const STATEMENT_NAMES = ['s1', 's2'];
const ENCODINGS = ['LATIN1', 'LATIN1', 'WIN1251', 'SQL_ASCII', 'UTF8'];
const STEPS_MAX = 26;
/** Other bytes than UTF-8 may hold, and what is a letter in all of the encodings. */
const LATIN1_LETTER = '\u00e9';

class SessionWriter {
  readonly packets: Packet[] = [];
  readonly #random: Random;
  readonly #session: number;
  #inBlock = false;
  #latin1 = false;
  #keys: Keys;
  /** Parameters of statements prepared by name. */
  readonly #named = new Map<string, readonly (string | null | { readonly hex: string })[]>();

  constructor(random: Random, session: number) {
    this.#random = random;
    this.#session = session;
    this.#keys = { tenant: `t${session}`, tag: random.pick(TAGS) };
  }

  step(): void {
    const random = this.#random;
    const make = random.weighted<() => void>([
      [34, () => this.#send([this.#query(1)])],
      [12, () => this.#send([this.#query(random.between(2, 4))])],
      [8, () => this.#send(random.list(random.between(2, 4), () => this.#query(random.chance(0.2) ? 2 : 1)))],
      [18, () => this.#send([...this.#unnamed(), 'sync'])],
      [5, () => this.#send([...this.#prepare(), 'sync'])],
      [8, () => this.#send([...this.#runNamed(), 'sync'])],
      [8, () => this.#send(this.#batch())],
      [5, () => this.#send([...this.#batch(), ...this.#batch(), ...(random.chance(0.3) ? [this.#query(1)] : [])])],
      [4, () => this.#flushed()],
      [4, () => this.#portals()],
      [3, () => this.#refusedParse()],
      [4, () => this.#copied()],
      [
        1,
        () =>
          this.#send([{ bind: [], portal: '', statement: '', resultFormats: [] }, { execute: '', rows: 0 }, 'sync']),
      ],
      [1, () => this.#send(['sync'])],
      [1, () => this.#encode()],
      [1, () => this.#send([{ close: 'statement', name: random.pick(STATEMENT_NAMES) }, 'sync'])],
    ]);
    make();
  }

  #send(messages: readonly FuzzMessage[]): void {
    const marked = this.#latin1
      ? messages.map((message) =>
          typeof message !== 'string' && ('query' in message || 'parse' in message || 'bind' in message)
            ? ({ ...message, latin1: true } as const)
            : message,
        )
      : messages;
    this.packets.push({ session: this.#session, messages: marked });
  }

  #form(): Form {
    const random = this.#random;
    if (!this.#inBlock && random.chance(0.2)) {
      this.#inBlock = true;
      this.#keys = { ...this.#keys, tag: random.pick(TAGS) };
      return beginning(random);
    }
    if (this.#inBlock && random.chance(0.14)) {
      this.#inBlock = false;
      return ending(random);
    }
    if (random.chance(this.#inBlock ? 0.12 : 0.02)) return savepoint(random);
    if (random.chance(0.015)) return beginning(random);
    if (random.chance(0.015)) return ending(random);
    if (!this.#inBlock && random.chance(0.3)) this.#keys = { ...this.#keys, tag: random.pick(TAGS) };
    if (random.chance(0.4)) return keyedStatement(random, this.#keys);
    return random.chance(0.45) ? kvStatement(random, this.#keys) : sessionStatement(random, this.#session);
  }

  #query(count: number): FuzzMessage {
    const statements = this.#random.list(count, () => {
      const statement = inText(this.#form());
      const isMarked = this.#latin1 && this.#random.chance(0.4);
      return isMarked ? { ...statement, sql: `${statement.sql} /* ${LATIN1_LETTER} */` } : statement;
    });
    return { query: statements };
  }

  #bound(name: string, portal: string, rows: number): FuzzMessage[] {
    const random = this.#random;
    const { statement, types, values } = bind(this.#form(), random);
    if (name !== '') this.#named.set(name, values);
    const messages: FuzzMessage[] = [{ parse: statement, name, types }];
    if (random.chance(0.3)) messages.push({ describe: 'statement', name });
    messages.push({ bind: values, portal, statement: name, resultFormats: random.pick([[], [], [], [1], [0]]) });
    if (random.chance(0.5)) messages.push({ describe: 'portal', name: portal });
    messages.push({ execute: portal, rows });
    return messages;
  }

  #unnamed(): FuzzMessage[] {
    return this.#bound('', '', 0);
  }

  #prepare(): FuzzMessage[] {
    const random = this.#random;
    const name = random.pick(STATEMENT_NAMES);
    const { statement, types, values } = bind(this.#form(), random);
    this.#named.set(name, values);
    const close: FuzzMessage[] = random.chance(0.6) ? [{ close: 'statement', name }] : [];
    const describe: FuzzMessage[] = random.chance(0.6) ? [{ describe: 'statement', name }] : [];
    return [...close, { parse: statement, name, types }, ...describe];
  }

  #runNamed(): FuzzMessage[] {
    const random = this.#random;
    const name = random.pick(STATEMENT_NAMES);
    const bound: FuzzMessage = { bind: this.#named.get(name) ?? [], portal: '', statement: name, resultFormats: [] };
    const describe: FuzzMessage[] = random.chance(0.4) ? [{ describe: 'portal', name: '' }] : [];
    return [bound, ...describe, { execute: '', rows: 0 }];
  }

  #batch(): FuzzMessage[] {
    const random = this.#random;
    const parts = random.list(random.between(1, 3), () =>
      random.weighted<() => FuzzMessage[]>([
        [5, () => this.#unnamed()],
        [2, () => this.#runNamed()],
        [1, () => this.#prepare()],
      ])(),
    );
    return [...parts.flat(), 'sync'];
  }

  /** A batch in two packets, the first of which asks for what there is. */
  #flushed(): void {
    this.#send([...this.#unnamed(), 'flush']);
    this.#send(this.#random.chance(0.3) ? ['sync'] : [...this.#unnamed(), 'sync']);
  }

  /** One portal read in pieces, within a batch or over several in a block. */
  #portals(): void {
    const random = this.#random;
    const isWhole = random.chance(0.5);
    // Postgres 18.4 itself crashes where a simple query has failed and the portal without a name is executed in that block.
    const portal = isWhole ? random.pick(['', 'p1']) : 'p1';
    const source = random.pick(['select generate_series(1, 5) as n', 'select key from kv order by tenant_id, key']);
    const touch = source.includes('kv') ? ({ kind: 'every', writes: false } as const) : ({ kind: 'none' } as const);
    const open: FuzzMessage[] = [
      { parse: { sql: source, touch }, name: '', types: [] },
      { bind: [], portal, statement: '', resultFormats: [] },
    ];
    const piece: FuzzMessage = { execute: portal, rows: random.between(1, 3) };
    const end: FuzzMessage = random.chance(0.5) ? { execute: portal, rows: 0 } : { close: 'portal', name: portal };
    if (isWhole) this.#send([...open, piece, piece, end, 'sync']);
    else {
      this.#send([...open, piece, 'sync']);
      this.#send([piece, end, 'sync']);
    }
  }

  /** A Parse that fails in front of a Bind, which must not find an older unnamed statement. */
  #refusedParse(): void {
    const random = this.#random;
    this.#send([...this.#unnamed(), 'sync']);
    const wrong = inText(
      random.chance(0.5) ? kvStatement(random, this.#keys) : sessionStatement(random, this.#session),
    );
    this.#send([
      { parse: wrong, name: '', types: [] },
      { bind: [], portal: '', statement: '', resultFormats: [] },
      { describe: 'portal', name: '' },
      { execute: '', rows: 0 },
      'sync',
    ]);
  }

  /** COPY FROM STDIN, alone or with more in its packet. */
  #copied(): void {
    const random = this.#random;
    const { statement, rows } = copyIn(random, this.#keys);
    const gives = random.chance(0.1) ? ({ givesUp: true } as const) : {};
    const before = random.chance(0.2) ? [this.#query(1)] : [];
    const behind = random.chance(0.2) ? [this.#query(1)] : [];
    this.#send([...before, { query: [statement], copy: rows, ...gives }, ...behind]);
  }

  #encode(): void {
    const name = this.#random.pick(ENCODINGS);
    this.#send([{ query: [{ sql: `set client_encoding to '${name}'`, touch: { kind: 'none' } }] }]);
    this.#latin1 = name !== 'UTF8';
  }
}

export function generateScript(seed: number): Script {
  const random = new Random(seed);
  const count = random.weighted([
    [6, 1],
    [3, 2],
    [1, 3],
  ]);
  const packets: Packet[] = [];
  const writers = random.list(count, (session) => new SessionWriter(random, session));
  for (let step = random.between(3, STEPS_MAX); step > 0; step--) {
    const writer = random.pick(writers);
    writer.step();
    packets.push(...writer.packets.splice(0));
  }
  return { seed, packets };
}
