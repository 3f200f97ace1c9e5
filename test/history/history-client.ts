// A client that works on objects, one operation after the other, and writes down what it was told, as operations of
// linearizable.ts. What it is told by an error has no effect, but for 08007 and a connection that is gone: unknown.

import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import type { SeededRandom } from '../support/seeded-random.js';
import { errorOf, rowsOf, type SqlClient } from '../support/sql-client.js';
import { type Action, cas, get, getBoth, incr, insert, put, remove, step, update } from './kv-object.js';
import type { Operation } from './linearizable.js';

export interface HistoryObject {
  readonly keys: readonly [string, string];
  readonly operations: Operation[];
}

export interface HistoryNotes {
  /** What nothing may ever show: no answer, a status that is not true. */
  readonly problems: string[];
  /** Answers by their code, '' for success. */
  readonly codes: Map<string, number>;
}

/** 23505 is the answer of an INSERT; these say that nothing was done. */
const REFUSALS = new Set(['08006', '40001', '40P01', '25P02', '55P03', '53300']);
const UNKNOWN = new Set(['08007', 'closed', 'silence']);
/** Attempts, each of which may meet a loss. */
const LOGINS_MAX = 20;
/** Longer than every time-out of the router under test, so that what hangs is told from what is given up. */
const SILENCE_MS = 20_000;
/** Nothing that is lost here stays silent: what runs into a time-out of the router has waited for what nobody brings. */
const TIMED_OUT = /\([a-z_.]+_ms\)/;

/** How a unit of the protocol ended. */
interface Heard {
  /** '' success, an SQLSTATE, `closed` or `silence`. */
  readonly code: string;
  readonly status: string;
  readonly answer: string;
  /** Of each statement. */
  readonly answers: readonly string[];
}

export class HistoryClient {
  readonly #name: string;
  readonly #random: SeededRandom;
  readonly #objects: readonly HistoryObject[];
  readonly #notes: HistoryNotes;
  readonly #connect: () => Promise<SqlClient>;
  #client: SqlClient | null = null;
  #value: number;
  /** Versions that this client has seen, for its next cas. */
  readonly #seen = new Map<string, number>();

  constructor(
    name: string,
    firstValue: number,
    random: SeededRandom,
    objects: readonly HistoryObject[],
    notes: HistoryNotes,
    connect: () => Promise<SqlClient>,
  ) {
    this.#name = name;
    this.#value = firstValue;
    this.#random = random;
    this.#objects = objects;
    this.#notes = notes;
    this.#connect = connect;
  }

  async play(operations: number): Promise<void> {
    for (let count = 0; count < operations; count++) {
      this.#client ??= await this.#logIn();
      const object = this.#random.pick(this.#objects);
      if (this.#random.chance(0.25)) await this.#transaction(object);
      else if (this.#random.chance(0.15)) await this.#batch();
      else if (this.#random.chance(0.2)) await this.#pipeline(object);
      else await this.#single(object, this.#action(object));
    }
  }

  /** A log-in may be what a loss strikes: the first of a role and database asks a server. */
  async #logIn(): Promise<SqlClient> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#connect();
      } catch (error) {
        if (attempt === LOGINS_MAX || !String(error).includes('08006')) throw error;
      }
    }
  }

  leave(): void {
    this.#client?.wire.destroy();
    this.#client = null;
  }

  #action(object: HistoryObject): Action {
    const random = this.#random;
    const key = random.integer(2);
    const value = ++this.#value;
    switch (random.integer(9)) {
      case 0:
      case 1:
        return get(key);
      case 2:
        return getBoth();
      case 3:
        return put(key, value);
      case 4:
        return insert(key, value);
      case 5:
        return update(key, value);
      case 6:
        return remove(key);
      case 7:
        return cas(key, this.#seen.get(object.keys[key]!) ?? 0, value);
      default:
        return incr(key);
    }
  }

  async #single(object: HistoryObject, action: Action): Promise<void> {
    const call = performance.now();
    const [heard] = (await this.#ask([messagesOf(object, action, this.#random.chance(0.7))])) as [Heard];
    this.#record(object, [action], call, [heard]);
    this.#expectIdle(heard, action.name);
    this.#learn(object, action, heard);
  }

  /** In one packet, each for itself. */
  async #pipeline(object: HistoryObject): Promise<void> {
    const actions = Array.from({ length: 2 + this.#random.integer(2) }, () => this.#action(object));
    const call = performance.now();
    const heard = await this.#ask(actions.map((action) => messagesOf(object, action, true)));
    for (const [index, action] of actions.entries()) this.#record(object, [action], call, [heard[index]!]);
    this.#expectIdle(heard.at(-1)!, 'a pipeline');
  }

  /** Reads of several objects before one Sync: pgkv sends them to their shards one after the other. */
  async #batch(): Promise<void> {
    const reads = Array.from({ length: 2 + this.#random.integer(2) }, () => {
      const object = this.#random.pick(this.#objects);
      const action = this.#random.chance(0.5) ? getBoth() : get(this.#random.integer(2));
      return { object, action };
    });
    const call = performance.now();
    const units = reads.flatMap(({ object, action }) => messagesOf(object, action, true).slice(0, -1));
    const [heard] = (await this.#ask([[...units, 'sync']])) as [Heard];
    this.#expectIdle(heard, 'a batch of reads');
    if (heard.code !== '') return this.#record(reads[0]!.object, [], call, [heard]);
    if (heard.answers.length !== reads.length) {
      return this.#problem(`${heard.answers.length} answers to ${reads.length} reads, and no error`);
    }
    for (const [index, { object, action }] of reads.entries()) {
      this.#record(object, [action], call, [{ ...heard, answer: heard.answers[index]! }]);
    }
  }

  /** Locks what it writes, so that it takes place when it commits. */
  async #transaction(object: HistoryObject): Promise<void> {
    const value = ++this.#value;
    const actions = this.#random.pick([
      [incr(0), incr(1)],
      [put(0, value), put(1, value)],
      [put(0, value), incr(0)],
      [incr(1), put(1, value)],
    ]);
    const isCommitted = this.#random.chance(0.85);
    const call = performance.now();
    const heard: Heard[] = [];
    // It begins on the home server, and moves to the shard of its keys.
    const neutral = this.#random.integer(2);
    const units: FrontendMessage[][] = [
      [{ query: 'BEGIN' }],
      ...Array.from({ length: neutral }, () => [{ query: 'SELECT 1' }]),
      ...actions.map((action) => messagesOf(object, action, this.#random.chance(0.5))),
      [{ query: isCommitted ? 'COMMIT' : 'ROLLBACK' }],
    ];
    if (this.#random.chance(0.3)) heard.push(...(await this.#ask(units)));
    else {
      for (const unit of units) {
        const [each] = (await this.#ask([unit])) as [Heard];
        heard.push(each);
        if (each.code !== '') break;
      }
    }
    this.#recordTransaction(object, actions, call, heard, isCommitted, 1 + neutral);
    const last = heard.at(-1)!;
    if (this.#client === null) return;
    if (last.status === 'E') {
      const [ended] = (await this.#ask([[{ query: 'ROLLBACK' }]])) as [Heard];
      if (ended.code !== '') this.#problem(`the ROLLBACK of a failed block is answered ${ended.code}`);
      this.#expectIdle(ended, 'ROLLBACK');
    } else this.#expectIdle(last, 'a transaction');
  }

  #recordTransaction(
    object: HistoryObject,
    actions: readonly Action[],
    call: number,
    heard: readonly Heard[],
    isCommitted: boolean,
    first: number,
  ): void {
    const codes = heard.map(({ code }) => code);
    const commit = heard.length === first + actions.length + 1 ? heard.at(-1)! : null;
    for (const [index, { code, status }] of heard.slice(0, -1).entries()) {
      if (status === 'I') this.#problem(`status I behind statement ${index} of a block, which was answered "${code}"`);
    }
    if (!isCommitted) return;
    if (commit?.code === '' && commit.answer === 'COMMIT') {
      if (codes.some((code) => code !== '')) this.#problem(`COMMIT behind ${codes.join(' ')}`);
      this.#record(object, actions, call, heard.slice(first, -1));
    } else if (codes.some((code) => UNKNOWN.has(code))) this.#recordUnknown(object, actions, call);
  }

  #record(object: HistoryObject, actions: readonly Action[], call: number, heard: readonly Heard[]): void {
    const codes = heard.map(({ code }) => code);
    for (const code of codes) this.#notes.codes.set(code, (this.#notes.codes.get(code) ?? 0) + 1);
    if (codes.some((code) => UNKNOWN.has(code))) {
      if (codes.includes('silence')) this.#problem(`no answer to ${actions.map(({ name }) => name).join(', ')}`);
      return this.#recordUnknown(object, actions, call);
    }
    if (codes.some((code) => REFUSALS.has(code))) return;
    const answers = heard.map(({ code, answer }) => (code === '' ? answer : code));
    const end = performance.now();
    const names = actions.map(({ name }, index) => `${name} → ${answers[index]}`).join(', ');
    object.operations.push({
      call,
      end,
      step: (state) => step(state, actions, answers),
      what: `${this.#name}: ${names}`,
    });
  }

  #recordUnknown(object: HistoryObject, actions: readonly Action[], call: number): void {
    if (actions.every(({ name }) => name.startsWith('get'))) return;
    object.operations.push({
      call,
      end: Number.POSITIVE_INFINITY,
      step: (state) => step(state, actions, null),
      what: `${this.#name}: ${actions.map(({ name }) => name).join(', ')} → unknown`,
    });
  }

  #learn({ keys }: HistoryObject, { key }: Action, { code, answer }: Heard): void {
    const version = /\|(\d+)$/.exec(answer)?.[1];
    if (code !== '' || key === 2) return;
    if (version === undefined || answer === 'none') this.#seen.delete(keys[key]!);
    else this.#seen.set(keys[key]!, Number(version));
  }

  #expectIdle({ status, code }: Heard, what: string): void {
    if (this.#client === null) return;
    if (status !== 'I') {
      this.#problem(`status ${status} behind ${what}, answered "${code}"`);
      this.leave();
    }
  }

  #problem(what: string): void {
    this.#notes.problems.push(`${this.#name}: ${what}`);
  }

  /** Units in one packet. */
  async #ask(units: readonly (readonly FrontendMessage[])[]): Promise<Heard[]> {
    const { wire } = this.#client!;
    const { messages, outcome } = await wire.exchange(units.flat(), units.length, SILENCE_MS);
    if (outcome !== 'reached') this.leave();
    for (const message of messages) {
      if (message.type !== 'ErrorResponse') continue;
      const { M: said = '', D: detail = '' } = message.fields;
      if (TIMED_OUT.test(`${said} ${detail}`)) this.#problem(`it waited in vain: ${said}: ${detail}`);
    }
    const heard: Heard[] = [];
    let rest = messages;
    for (let unit = 0; unit < units.length; unit++) {
      const at = rest.findIndex(({ type }) => type === 'ReadyForQuery');
      if (at < 0) {
        const code = outcome === 'timeout' ? 'silence' : 'closed';
        heard.push({ code, status: '', answer: '', answers: [] });
        continue;
      }
      heard.push(heardIn(rest.slice(0, at + 1)));
      rest = rest.slice(at + 1);
    }
    return heard;
  }
}

function heardIn(messages: readonly BackendMessage[]): Heard {
  const last = messages.at(-1)!;
  const status = last.type === 'ReadyForQuery' ? last.status : '';
  const error = errorOf(messages);
  if (error !== null) return { code: error.code, status, answer: '', answers: [] };
  const answers: string[] = [];
  for (let rest = messages; ; ) {
    const at = rest.findIndex(({ type }) => type === 'CommandComplete');
    const tag = rest[at];
    if (tag?.type !== 'CommandComplete') break;
    const rows = rowsOf(rest.slice(0, at)).map((row) => row.map((value) => value ?? 'null').join('|'));
    answers.push(/\d$/.test(tag.tag) ? (rows.length === 0 ? 'none' : rows.join(' ')) : tag.tag);
    rest = rest.slice(at + 1);
  }
  return { code: '', status, answer: answers.join(', '), answers };
}

function messagesOf({ keys }: HistoryObject, { sql, key }: Action, isExtended: boolean): FrontendMessage[] {
  const values = key === 2 ? ['t', ...keys] : ['t', keys[key]!];
  if (!isExtended) return [{ query: sql.replaceAll(/\$(\d)/g, (_, digit) => `'${values[Number(digit) - 1]}'`) }];
  return [{ parse: sql }, { bind: values }, { describe: 'portal' }, { execute: '' }, 'sync'];
}
