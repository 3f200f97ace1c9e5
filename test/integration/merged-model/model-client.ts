// One client of the model: asks one statement after the other, alone, in pipelines, in transactions, cancels some and
// vanishes in the middle of others, and records what each answer says of its keys.
import { setTimeout as sleep } from 'node:timers/promises';
import type { BackendMessage } from '../../support/backend-message.js';
import { encodeAll, encodeCancel, type FrontendMessage } from '../../support/frontend-message.js';
import { type WireAddress, WireClient, type WireClientOptions } from '../../support/wire-client.js';
import type { Asked, Draw, Key, KeyedEvent, Mishap } from './asked.js';
import { Block } from './block.js';
import type { Span } from './key-events.js';
import { COUNTS_READ, KINDS, READ } from './statements.js';
import { type Answer, type Form, messagesOf, readAnswer, SIMPLE } from './wire-forms.js';
import { type KeySort, type Random, seeded, type World } from './world.js';

const ANSWER_TIMEOUT_MS = 60_000;
/** A client keeps all it was told, so it is replaced now and then. */
const STATEMENTS_OF_CONNECTION = 400;
const PIPELINE_MAX = 8;
const BATCH_STATEMENTS = 20;
const BATCH_WRITES_MAX = 3;
const PAUSE_MS_MAX = 130;
const CANCELLED = '57014';
const DEADLOCK = '40P01';
/** Counts single statements that were told of a deadlock. */
export const BYSTANDER = 'single statements told 40P01';
const MISHAPS: readonly Mishap[] = ['cast', 'check', 'null', 'other'];

interface Ready {
  readonly asked: Asked;
  readonly form: Form;
  readonly parses: boolean;
  readonly messages: readonly FrontendMessage[];
}

export class ModelClient {
  readonly #world: World;
  readonly #number: number;
  readonly #random: Random;
  readonly #address: WireAddress;
  readonly #options: WireClientOptions;
  #wire!: WireClient;
  /** Statements prepared on this connection. */
  #names = new Map<string, string>();
  #met = new Map<string, number>();
  #asked = 0;
  #askedHere = 0;
  /** Statements that a cancel request which is still on its way may hit. */
  #cancelledLeft = 0;

  constructor(world: World, number: number, address: WireAddress, options: WireClientOptions) {
    this.#world = world;
    this.#number = number;
    this.#random = seeded(world.seed, world.round, 1000 + number);
    this.#address = address;
    this.#options = { ...options, timeoutMs: ANSWER_TIMEOUT_MS };
  }

  /** Asks until the world has had enough. */
  async run(transactions: boolean): Promise<void> {
    try {
      await this.#askAll(transactions);
    } catch (error) {
      this.#world.wrong(error instanceof Error ? (error.stack ?? error.message) : String(error));
      this.#wire.destroy();
    }
  }

  async #askAll(transactions: boolean): Promise<void> {
    await this.#connect();
    const random = this.#random;
    while (this.#world.take()) {
      const chance = random(1000);
      if (this.#askedHere > STATEMENTS_OF_CONNECTION) await this.#reconnect();
      if (transactions && random(10) < 4) await this.#transaction();
      else if (chance < 20) await this.#syncs();
      else if (chance < 32) await this.#batch();
      else if (chance < 46) await this.#cancelled();
      else if (chance < 61) await this.#vanish();
      else await this.#single();
    }
    await this.#wire.end();
  }

  /** What is there in the end. */
  async readAll(keys: readonly Key[]): Promise<void> {
    await this.#connect();
    for (const key of keys) {
      const build = key.name.startsWith('counter') ? COUNTS_READ : READ;
      await this.#ask(build(this.#draw([key], false)), SIMPLE);
    }
    await this.#wire.end();
  }

  async #connect(): Promise<void> {
    this.#wire = await WireClient.connect(this.#address, this.#options);
    this.#names = new Map();
    this.#askedHere = 0;
    this.#cancelledLeft = 0;
  }

  async #reconnect(): Promise<void> {
    await this.#wire.end();
    await this.#connect();
  }

  #draw(keys: readonly Key[], mayMishap = true): Draw {
    const random = this.#random;
    const key = keys[0]!;
    return {
      key,
      group: keys,
      nonce: `c${this.#number}n${this.#asked++}.`,
      mishap: mayMishap && random(50) === 0 ? MISHAPS[random(MISHAPS.length)]! : null,
      version: this.#met.get(`${key.tenant}/${key.name}`) ?? 1,
      client: this.#number,
      random,
    };
  }

  #drawn(sort: KeySort): Asked {
    const keys = this.#world.keys(sort, this.#number, this.#random);
    return this.#world.kind(sort, this.#random)(this.#draw(keys));
  }

  /** @param again the statement may be prepared under its name, since it is waited for */
  #ready(asked: Asked, wanted: Form, again = true, sync = true): Ready {
    const known = this.#names.get(asked.sql);
    const isLate = wanted.protocol === 'named' && known === undefined && !again;
    const form: Form = isLate ? { ...wanted, protocol: 'unnamed' } : wanted;
    const parses = form.protocol === 'named' && known === undefined;
    const name = known ?? `s${this.#names.size}`;
    if (parses) this.#names.set(asked.sql, name);
    return { asked, form, parses, messages: messagesOf(asked, form, name, parses, sync) };
  }

  async #single(): Promise<void> {
    const sort = this.#world.sort(this.#random);
    const asked = this.#drawn(sort);
    await this.#ask(asked, this.#world.form(this.#random));
    // Its owner looks at it at once: nobody else would be told what it has become.
    if (sort === 'owned' && asked.writes)
      await this.#ask(READ(this.#draw([asked.key], false)), this.#world.form(this.#random));
  }

  async #ask(asked: Asked, form: Form): Promise<void> {
    const ready = this.#ready(asked, form);
    const from = this.#world.now();
    this.#wire.send(...ready.messages);
    this.#record(ready, await this.#answer(ready, 'I'), { from, to: this.#world.now() });
  }

  /** The messages up to the next ReadyForQuery. */
  async #answer({ asked, form, parses }: Ready, status: string): Promise<Answer> {
    const messages = await this.#messages(asked);
    const answer = this.#read(messages, asked, form, parses, status);
    if (parses && !messages.some(({ type }) => type === 'ParseComplete')) this.#names.delete(asked.sql);
    return answer;
  }

  async #messages(asked: Asked): Promise<readonly BackendMessage[]> {
    this.#askedHere++;
    const { outcome, messages } = await this.#wire.wait(1);
    if (outcome === 'reached') return messages;
    const last = JSON.stringify(messages.at(-1)) ?? 'nothing';
    throw new Error(`${outcome} behind ${asked.kind} of client ${this.#number}: ${asked.sql}; came: ${last}`);
  }

  #read(messages: readonly BackendMessage[], asked: Asked, form: Form, parses: boolean, status: string | null): Answer {
    const answer = readAnswer(messages, asked, form, parses, status);
    if (typeof answer !== 'string') return this.#world.tamper(asked, answer);
    throw new Error(`${asked.kind}, ${JSON.stringify(form)}: ${answer}`);
  }

  #record(ready: Ready, answer: Answer, span: Span): void {
    const events = this.#judged(ready, answer, span);
    this.#world.record(events);
    this.#meet(events);
  }

  #meet(events: readonly KeyedEvent[]): void {
    for (const [{ tenant, name }, event] of events) {
      if (event.kind !== 'claim' && event.version !== null) this.#met.set(`${tenant}/${name}`, event.version);
    }
  }

  #judged({ asked, form }: Ready, { error, rows, tag }: Answer, span: Span): readonly KeyedEvent[] {
    const { mishap } = asked;
    this.#world.count(error === null ? asked.kind : `${asked.kind} ${error['C']}`);
    const wrong = (problem: string): readonly KeyedEvent[] => {
      this.#world.wrong(`${asked.kind} of ${asked.key.tenant}/${asked.key.name}, ${JSON.stringify(form)}: ${problem}`);
      return [];
    };
    if (this.#cancelledLeft > 0) {
      this.#cancelledLeft--;
      if (error?.['C'] === CANCELLED) return [];
    }
    if (error?.['C'] === DEADLOCK) {
      // Waiting in line behind a transaction and a batch that wait for each other it can be the one that Postgres ends.
      this.#world.count(BYSTANDER);
      return [];
    }
    if (error !== null) {
      const told = JSON.stringify(error);
      const isMishap = error['C'] === mishap?.code;
      if (isMishap)
        return told.includes(mishap!.mention) ? [] : wrong(`another's error, not of ${mishap!.mention}: ${told}`);
      const events = asked.onError(error['C'] ?? '', span);
      if (events === null) return wrong(`unexpected ${told}`);
      return told.includes(asked.key.name) ? events : wrong(`another's error: ${told}`);
    }
    const events = asked.judge(rows, span, tag);
    if (typeof events === 'string') return wrong(events);
    // What does not reach the row does not fail for it.
    const hasReached = events.some(([, { kind }]) => kind === 'write' || kind === 'seen');
    if (mishap !== null && hasReached && !(asked.kind === 'kvCas' && events[0]![1].kind === 'seen'))
      return wrong(`no error, but ${tag}: ${rows.join()}`);
    return events;
  }

  /** Several statements in one packet, each with its own Sync. */
  async #syncs(): Promise<void> {
    const readies: Ready[] = [];
    for (let count = 2 + this.#random(PIPELINE_MAX - 1); count > 0; count--) {
      const sort = this.#world.sort(this.#random);
      readies.push(this.#ready(this.#drawn(sort === 'owned' ? 'plain' : sort), this.#world.form(this.#random), false));
    }
    this.#world.take(readies.length);
    const from = this.#world.now();
    this.#wire.send(...readies.flatMap(({ messages }) => messages));
    for (const ready of readies) this.#record(ready, await this.#answer(ready, 'I'), { from, to: this.#world.now() });
  }

  /** Twenty statements on keys of one tag before one Sync: one transaction. */
  async #batch(): Promise<void> {
    const random = this.#random;
    const keys = this.#world.keys('tagged', this.#number, random);
    const form: Form = { ...this.#world.form(random), protocol: 'unnamed', describes: random(2) === 0 };
    let writes = random(2) === 0 ? 0 : BATCH_WRITES_MAX;
    const written = new Set<Key>();
    const readies: Ready[] = [];
    while (readies.length < BATCH_STATEMENTS) {
      const shuffled = [...keys.slice(random(keys.length)), ...keys].slice(0, keys.length);
      const build = writes > 0 ? this.#world.kind('block', random) : KINDS.blockReads[random(KINDS.blockReads.length)]!;
      const asked = build(this.#draw(writes > 0 ? shuffled : keys, false));
      if (asked.writes && written.has(asked.key)) continue;
      if (asked.writes) {
        writes--;
        written.add(asked.key);
      }
      readies.push(this.#ready(asked, form, false, false));
    }
    this.#world.take(readies.length);
    const from = this.#world.now();
    this.#wire.send(...readies.flatMap(({ messages }) => messages), 'sync');
    const messages = await this.#messages(readies[0]!.asked);
    const to = this.#world.now();
    const block = new Block(this.#world);
    const parts = splitAnswers(messages);
    for (const [index, part] of parts.entries()) {
      const ready = readies[index];
      if (ready === undefined) throw new Error(`${parts.length} answers to ${readies.length} statements`);
      const answer = this.#read(part, ready.asked, ready.form, false, null);
      if (!this.#inBlock(block, ready, answer, { from, to })) return;
    }
    if (parts.length < readies.length) throw new Error(`${parts.length} answers to ${readies.length} statements`);
    this.#meet(block.committed({ from, to }));
  }

  /** Takes an answer within a transaction; false where that has failed. */
  #inBlock(block: Block, ready: Ready, answer: Answer, span: Span): boolean {
    if (answer.error?.['C'] === DEADLOCK) {
      this.#world.count(`${ready.asked.kind} in a block ${DEADLOCK}`);
      return false;
    }
    const events = this.#judged(ready, answer, span);
    block.add(events);
    return answer.error === null;
  }

  async #transaction(): Promise<void> {
    const random = this.#random;
    const vanishes = random(12) === 0;
    const keys = vanishes ? this.#world.fragileTag(random) : this.#world.keys('tagged', this.#number, random);
    await this.#control('begin', 'BEGIN', 'T');
    const block = new Block(this.#world);
    const count = 2 + random(3);
    const asked: Asked[] = keys.slice(0, count).map((_, index) => {
      const rest = [...keys.slice(index), ...keys.slice(0, index)];
      return this.#world.kind('block', random)(this.#draw(rest, false));
    });
    // And one of them is looked at again.
    asked.push(READ(this.#draw([keys[random(count)]!], false)));
    this.#world.take(asked.length);
    for (const one of asked) {
      if (vanishes && random(4) === 0) return this.#leave();
      const ready = this.#ready(one, this.#world.form(random));
      const from = this.#world.now();
      this.#wire.send(...ready.messages);
      const messages = await this.#messages(one);
      const failed = messages.some(({ type }) => type === 'ErrorResponse');
      const answer = this.#read(messages, one, ready.form, ready.parses, failed ? 'E' : 'T');
      if (ready.parses && !messages.some(({ type }) => type === 'ParseComplete')) this.#names.delete(one.sql);
      if (!this.#inBlock(block, ready, answer, { from, to: this.#world.now() }))
        return this.#control('rollback', 'ROLLBACK', 'I');
      if (random(5) === 0) await sleep(random(PAUSE_MS_MAX));
    }
    if (random(3) === 0) return this.#control('rollback', 'ROLLBACK', 'I');
    const from = this.#world.now();
    if (vanishes) {
      this.#wire.send({ query: 'commit' });
      await sleep(random(3));
      block.left(from);
      return this.#leave();
    }
    await this.#control('commit', 'COMMIT', 'I');
    this.#meet(block.committed({ from, to: this.#world.now() }));
  }

  async #control(sql: string, tag: string, status: string): Promise<void> {
    const form: Form = this.#random(2) === 0 ? SIMPLE : { ...SIMPLE, protocol: 'unnamed' };
    const asked = {
      ...READ(this.#draw([{ tenant: '', name: '' }], false)),
      kind: sql,
      sql,
      parameters: [],
      columns: [],
    };
    const ready = this.#ready(asked, form);
    this.#wire.send(...ready.messages);
    const answer = await this.#answer(ready, status);
    if (answer.tag !== tag) throw new Error(`${sql} was answered with ${answer.tag} ${JSON.stringify(answer.error)}`);
  }

  /** Asks, and has it cancelled a moment later. */
  async #cancelled(): Promise<void> {
    const random = this.#random;
    const sort = this.#world.sort(random);
    const ready = this.#ready(this.#drawn(sort === 'owned' ? 'tagged' : sort), this.#world.form(random));
    const data = this.#wire.received.find(({ type }) => type === 'BackendKeyData');
    if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
    const from = this.#world.now();
    this.#wire.send(...ready.messages);
    const answered = this.#answer(ready, 'I').then((answer) => [answer, this.#world.now()] as const);
    const cancel = random(2) === 0 ? sleep(random(8)) : Promise.resolve();
    await cancel;
    const other = await WireClient.open(this.#address);
    other.sendBytes(encodeCancel(data.pid, data.key));
    await other.wait('closed');
    other.destroy();
    this.#cancelledLeft = 2;
    const [answer, to] = await answered;
    this.#record(ready, answer, { from, to });
  }

  /** Sends some statements up to a random byte and is gone. */
  async #vanish(): Promise<void> {
    const random = this.#random;
    const readies: Ready[] = [];
    for (let count = 1 + random(3); count > 0; count--) {
      readies.push(this.#ready(this.#drawn('fragile'), this.#world.form(random), false));
    }
    const encoded = readies.map(({ messages }) => encodeAll(messages));
    const bytes = Buffer.concat(encoded);
    const cut = random(2) === 0 ? bytes.length : random(bytes.length);
    const from = this.#world.now();
    this.#wire.sendBytes(bytes.subarray(0, cut));
    let end = 0;
    for (const [index, { asked }] of readies.entries()) {
      end += encoded[index]!.length;
      // Without its Sync nothing is committed.
      if (end <= cut) this.#world.record(asked.unanswered(from));
    }
    this.#world.count('vanished');
    if (random(3) > 0) await sleep(random(6));
    await this.#leave();
  }

  async #leave(): Promise<void> {
    this.#wire.destroy();
    await this.#connect();
  }
}

/** The messages of each statement of a batch; what does not belong to one is left out. */
function splitAnswers(messages: readonly BackendMessage[]): BackendMessage[][] {
  const parts: BackendMessage[][] = [];
  let part: BackendMessage[] = [];
  for (const message of messages) {
    if (message.type === 'ReadyForQuery') {
      if (part.length > 0 || message.status !== 'I') throw new Error(`a batch ended with ${JSON.stringify(message)}`);
      continue;
    }
    part.push(message);
    if (message.type !== 'CommandComplete' && message.type !== 'ErrorResponse') continue;
    parts.push(part);
    part = [];
  }
  return parts;
}
