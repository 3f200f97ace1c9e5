// Many clients of one router that send in the same turn of the event loop, so that what they send is merged, and that
// keep their answers as bytes, so that two routers can be compared to the last one.
import type { Test } from 'tap';
import { type BackendMessage, BackendMessageReader } from './backend-message.js';
import { encodeAll, type FrontendMessage } from './frontend-message.js';
import type { LiveRouter } from './live-router.js';
import { errorOf, rowsOf, SqlClient, type SqlClientOptions, tagsOf } from './sql-client.js';
import type { WireAddress } from './wire-client.js';

const READY = 0x5a;
const ANSWER_TIMEOUT_MS = 20_000;

interface Waiter {
  readies: number;
  readonly resolve: (answer: Buffer) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** Sends bytes and gets bytes; one question at a time. */
export class TickClient {
  readonly sql: SqlClient;
  #bytes: Buffer = Buffer.alloc(0);
  /** Start of the first message not looked at yet. */
  #at = 0;
  #waiter: Waiter | null = null;
  #closed = false;

  /** Takes over a client that has signed in. */
  constructor(sql: SqlClient) {
    this.sql = sql;
    const { socket } = sql.wire;
    socket.removeAllListeners('data');
    socket.on('data', (chunk: Buffer) => {
      this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
      this.#settle();
    });
    socket.on('close', () => {
      this.#closed = true;
      this.#settle();
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  send(bytes: Buffer): void {
    this.sql.wire.sendBytes(bytes);
  }

  /** Everything up to so many ReadyForQuery, or up to the end of the connection. */
  answer(readies = 1): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiter = null;
        reject(new Error(`no answer in time, only ${JSON.stringify(this.#bytes.toString('latin1').slice(0, 200))}`));
      }, ANSWER_TIMEOUT_MS);
      this.#waiter = { readies, resolve, reject, timer };
      this.#settle();
    });
  }

  ask(bytes: Buffer, readies = 1): Promise<Buffer> {
    this.send(bytes);
    return this.answer(readies);
  }

  /** Rows of a simple query; throws its error. */
  async run(sql: string): Promise<readonly (string | null)[][]> {
    const { code, error, rows } = told(await this.ask(queryBytes(sql)));
    if (code !== '') throw new Error(`${code} ${error!['M']}: ${sql}`);
    return rows;
  }

  #settle(): void {
    const waiter = this.#waiter;
    if (waiter === null) return;
    const bytes = this.#bytes;
    while (this.#at + 5 <= bytes.length && waiter.readies > 0) {
      const end = this.#at + 1 + bytes.readInt32BE(this.#at + 1);
      if (end > bytes.length) break;
      if (bytes[this.#at] === READY) waiter.readies--;
      this.#at = end;
    }
    if (waiter.readies > 0 && !this.#closed) return;
    this.#waiter = null;
    clearTimeout(waiter.timer);
    const end = waiter.readies === 0 ? this.#at : bytes.length;
    this.#bytes = bytes.subarray(end);
    this.#at = 0;
    waiter.resolve(bytes.subarray(0, end));
  }
}

export async function tickClients(
  live: LiveRouter,
  count: number,
  options?: Partial<SqlClientOptions>,
): Promise<TickClient[]> {
  return Promise.all(Array.from({ length: count }, async () => new TickClient(await live.connect(options))));
}

/** A client of the server itself. */
export async function directClient(
  address: WireAddress & { readonly superuser: string },
  database = 'postgres',
): Promise<TickClient> {
  return new TickClient(await SqlClient.connect(address, { user: address.superuser, database }));
}

/** All send before any is read; the answers in the clients' order. */
export function together(
  clients: readonly TickClient[],
  bytesOf: (index: number) => Buffer,
  readies = 1,
): Promise<Buffer[]> {
  const questions = clients.map((_, index) => bytesOf(index));
  for (const [index, client] of clients.entries()) client.send(questions[index]!);
  return Promise.all(clients.map((client) => client.answer(readies)));
}

export interface Told {
  readonly messages: readonly BackendMessage[];
  readonly rows: readonly (string | null)[][];
  readonly tags: readonly string[];
  /** SQLSTATE, '' where there was no error. */
  readonly code: string;
  readonly error: Readonly<Record<string, string>> | null;
}

export function told(answer: Buffer): Told {
  const messages = new BackendMessageReader().push(answer);
  const error = errorOf(messages)?.fields ?? null;
  return { messages, rows: rowsOf(messages), tags: tagsOf(messages), code: error?.['C'] ?? '', error };
}

/** Connections handed out by all pools so far: one for each lease and one for each merged batch. */
export const grants = (live: LiveRouter): number =>
  live.router.pools.reduce((sum, { counters }) => sum + counters.grantsTotal, 0);

const ATTEMPTS_MAX = 60;

/** Repeats until all that was sent has gone out as a few statements; false where it never does. */
export async function becomesMerged(
  live: LiveRouter,
  clients: readonly TickClient[],
  bytesOf: (index: number) => Buffer,
  attemptsMax = ATTEMPTS_MAX,
): Promise<boolean> {
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const before = grants(live);
    await together(clients, bytesOf);
    if (grants(live) - before <= Math.max(1, clients.length / 4)) return true;
  }
  return false;
}

/** The same, and fails the test where it never does. */
export async function untilMerged(
  t: Test,
  live: LiveRouter,
  clients: readonly TickClient[],
  bytesOf: (index: number) => Buffer,
  what = '',
): Promise<void> {
  if (!(await becomesMerged(live, clients, bytesOf))) t.fail(`it is never merged ${what}`);
}

export interface BatchOptions {
  /** Statement name, with a Parse made before; else the unnamed one, parsed here. */
  readonly named?: string;
  readonly types?: readonly number[];
  readonly describes?: boolean;
  readonly resultFormats?: readonly number[];
}

/** One statement of the extended protocol, with its Sync. */
export function batchBytes(
  sql: string,
  values: readonly (string | Buffer | null)[],
  { named, types = [], describes = true, resultFormats = [] }: BatchOptions = {},
): Buffer {
  const messages: FrontendMessage[] = [];
  if (named === undefined) messages.push({ parse: sql, types });
  messages.push({ bind: values, statement: named ?? '', resultFormats });
  if (describes) messages.push({ describe: 'portal' });
  messages.push({ execute: '' }, 'sync');
  return encodeAll(messages);
}

export const queryBytes = (sql: string): Buffer => encodeAll([{ query: sql }]);
