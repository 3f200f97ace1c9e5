// A raw protocol client for tests: sends exactly the messages (or bytes) it is told to, keeps everything it receives,
// and never interprets more than sign-in needs. `exchange` returns what arrived since the last exchange.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectSocket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type BackendMessage, BackendMessageReader, type BackendMessageType } from './backend-message.js';
import { encodeAll, encodeStartup, type FrontendMessage, frame, readyForQueryCount } from './frontend-message.js';
import { stretched } from './machine-speed.js';
import { ScramClient } from './scram-client.js';

export interface WireAddress {
  /** A host name, or the folder of a Unix socket. */
  readonly host: string;
  readonly port: number;
}

export interface WireClientOptions {
  readonly user: string;
  readonly database: string;
  readonly password?: string;
  /** Further startup parameters. */
  readonly parameters?: Readonly<Record<string, string>>;
  /** `major << 16 | minor`; default 3.0. */
  readonly protocol?: number;
  readonly timeoutMs?: number;
  /** Sees the socket before a byte has passed. */
  readonly watch?: (socket: Duplex) => void;
}

/** When an exchange is over: after so many ReadyForQuery, after messages of a type, or when the server hangs up. */
export type Until = number | 'closed' | { readonly type: BackendMessageType; readonly count?: number };

/** `closed` and `timeout` say that what was waited for did not come. */
export type Outcome = 'reached' | 'closed' | 'timeout';

export interface Exchange {
  readonly messages: readonly BackendMessage[];
  readonly outcome: Outcome;
}

interface Waiter {
  readonly isWanted: (message: BackendMessage) => boolean;
  /** How many wanted messages are still to come. */
  missing: number;
  /** Up to where `received` has been searched. */
  searched: number;
  readonly resolve: (exchange: Exchange) => void;
  timer: NodeJS.Timeout;
}

export const PROTOCOL_3_0 = 3 << 16;
export const PROTOCOL_3_2 = (3 << 16) | 2;
const TIMEOUT_MS = 30_000;

export class WireClient {
  readonly socket: Duplex;
  /** Every message received on this connection, in order. */
  readonly received: BackendMessage[] = [];
  readonly #reader = new BackendMessageReader();
  readonly #timeoutMs: number;
  /** How much of `received` earlier exchanges returned. */
  #taken = 0;
  #waiter: Waiter | undefined;
  #closed = false;
  #socketError: Error | undefined;

  constructor(socket: Duplex, timeoutMs: number = TIMEOUT_MS) {
    this.socket = socket;
    this.#timeoutMs = timeoutMs;
    socket.on('data', (chunk: Buffer) => {
      this.received.push(...this.#reader.push(chunk));
      this.#settle();
    });
    socket.on('error', (error: Error) => {
      this.#socketError = error;
    });
    socket.on('end', () => this.#close());
    socket.on('close', () => this.#close());
  }

  /** Connects without sending a byte: for start-up tests. */
  static async open(address: WireAddress, timeoutMs?: number): Promise<WireClient> {
    const socket = address.host.startsWith('/')
      ? connectSocket({ path: `${address.host}/.s.PGSQL.${address.port}` })
      : connectSocket({ host: address.host, port: address.port, noDelay: true });
    await once(socket, 'connect');
    return new WireClient(socket, timeoutMs);
  }

  /** Connects and signs in; throws when the server does not become ready. */
  static async connect(address: WireAddress, options: WireClientOptions): Promise<WireClient> {
    const client = await WireClient.open(address, options.timeoutMs);
    options.watch?.(client.socket);
    const { outcome, messages } = await client.startUp(options);
    if (outcome === 'reached') return client;
    client.destroy();
    const error = messages.find((message) => message.type === 'ErrorResponse');
    const reason = error?.type === 'ErrorResponse' ? `${error.fields['C']} ${error.fields['M']}` : outcome;
    throw new Error(`could not connect to ${address.host}:${address.port}: ${reason}`);
  }

  /** Sends the StartupMessage and answers authentication requests until ReadyForQuery or the end. */
  async startUp(options: WireClientOptions): Promise<Exchange> {
    const parameters = { user: options.user, database: options.database, ...options.parameters };
    this.sendBytes(encodeStartup(options.protocol ?? PROTOCOL_3_0, parameters));
    const signIn = new SignIn(options.user, options.password);
    const first = this.#taken;
    for (;;) {
      const { outcome } = await this.#wait((message) => {
        const asks = message.type === 'Authentication' && message.code !== 0;
        return asks || message.type === 'ReadyForQuery';
      });
      const messages = this.received.slice(first, this.#taken);
      const last = messages.at(-1);
      if (outcome !== 'reached' || last?.type !== 'Authentication') return { messages, outcome };
      const answer = signIn.answer(last.code, last.data);
      if (answer) this.sendBytes(frame('p', answer));
    }
  }

  send(...messages: readonly FrontendMessage[]): void {
    this.sendBytes(encodeAll(messages));
  }

  sendBytes(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  /** Sends `bytes` as several packets, cut before each of the offsets. */
  /** What was sent has left this process. */
  async drained(): Promise<void> {
    while (this.socket.writableLength > 0) await once(this.socket, 'drain');
  }

  async sendCut(bytes: Buffer, offsets: readonly number[]): Promise<void> {
    const cuts = [0, ...offsets, bytes.length];
    for (const [index, start] of cuts.slice(0, -1).entries()) {
      this.sendBytes(bytes.subarray(start, cuts[index + 1]));
      await new Promise((resolve) => setTimeout(resolve, 2)); // else the kernel joins the packets again
    }
  }

  /** Sends messages and waits; by default for as many ReadyForQuery as the messages ask for. */
  exchange(
    messages: readonly FrontendMessage[],
    until: Until = readyForQueryCount(messages),
    timeoutMs?: number,
  ): Promise<Exchange> {
    if (messages.length > 0) this.send(...messages);
    return this.wait(until, timeoutMs);
  }

  /** A simple query; the messages up to its ReadyForQuery. */
  async query(sql: string): Promise<readonly BackendMessage[]> {
    return (await this.exchange([{ query: sql }])).messages;
  }

  /** Waits without sending. Messages behind the one that ended the wait belong to the next exchange. */
  wait(until: Until, timeoutMs?: number): Promise<Exchange> {
    if (until === 'closed') return this.#waitForClose(timeoutMs);
    const { type, count = 1 } = typeof until === 'number' ? { type: 'ReadyForQuery', count: until } : until;
    return this.#wait((message) => message.type === type, count, timeoutMs);
  }

  /** Waits for the end of the connection for so long and no longer, on a slow machine as on any: it may well not come. */
  async closesWithin(ms: number): Promise<Exchange> {
    return this.#waitForClose(ms, true);
  }

  /** What arrived since the last exchange, without waiting. */
  takeReceived(): readonly BackendMessage[] {
    const messages = this.received.slice(this.#taken);
    this.#taken = this.received.length;
    return messages;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The socket's own error, when the connection was reset. */
  get socketError(): Error | undefined {
    return this.#socketError;
  }

  /** The process id of the last BackendKeyData. */
  get pid(): number | undefined {
    const key = this.received.findLast((message) => message.type === 'BackendKeyData');
    return key?.type === 'BackendKeyData' ? key.pid : undefined;
  }

  /** Terminate, then everything up to the end of the connection. */
  async end(): Promise<Exchange> {
    if (!this.#closed) this.send('terminate');
    const exchange = await this.wait('closed');
    this.socket.destroy();
    return exchange;
  }

  /** Vanishes without a Terminate. */
  destroy(): void {
    this.socket.destroy();
  }

  async #waitForClose(timeoutMs?: number, isExact = false): Promise<Exchange> {
    const exchange = await this.#wait(() => false, 1, timeoutMs, isExact);
    return exchange.outcome === 'closed' ? { ...exchange, outcome: 'reached' } : exchange;
  }

  #wait(isWanted: Waiter['isWanted'], count = 1, timeoutMs = this.#timeoutMs, isExact = false): Promise<Exchange> {
    if (this.#waiter) throw new Error('this client already waits for an answer');
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        if (isExact) this.#finish('timeout', this.received.length);
        else void this.#waitLonger(timeoutMs);
      }, timeoutMs);
      this.#waiter = { isWanted, missing: count, searched: this.#taken, resolve, timer };
      this.#settle();
    });
  }

  /** Time is up, as it goes on an idle machine: a slower one has more of it. */
  async #waitLonger(timeoutMs: number): Promise<void> {
    const waiter = this.#waiter!;
    const restMs = (await stretched(timeoutMs)) - timeoutMs;
    if (this.#waiter !== waiter) return;
    waiter.timer = setTimeout(() => this.#finish('timeout', this.received.length), restMs);
  }

  #settle(): void {
    const waiter = this.#waiter;
    if (!waiter) return;
    while (waiter.missing > 0) {
      const message = this.received[waiter.searched];
      if (!message) {
        if (this.#closed) this.#finish('closed', this.received.length);
        return;
      }
      waiter.searched++;
      if (waiter.isWanted(message)) waiter.missing--;
    }
    this.#finish('reached', waiter.searched);
  }

  #finish(outcome: Outcome, takenUpTo: number): void {
    const waiter = this.#waiter;
    if (!waiter) return;
    this.#waiter = undefined;
    clearTimeout(waiter.timer);
    const messages = this.received.slice(this.#taken, takenUpTo);
    this.#taken = takenUpTo;
    waiter.resolve({ messages, outcome });
  }

  #close(): void {
    this.#closed = true;
    this.#settle();
  }
}

/** Answers the server's authentication requests (clear text, MD5, SCRAM). */
class SignIn {
  readonly #user: string;
  readonly #password: string | undefined;
  #scram: ScramClient | undefined;

  constructor(user: string, password: string | undefined) {
    this.#user = user;
    this.#password = password;
  }

  /** The body of the message to send, if the request wants an answer. */
  answer(code: number, data: Buffer): Buffer | undefined {
    if (this.#password === undefined) throw new Error('the server asks for a password and none was given');
    switch (code) {
      case 3:
        return Buffer.from(`${this.#password}\0`);
      case 5: {
        const inner = md5(Buffer.from(this.#password + this.#user));
        return Buffer.from(`md5${md5(Buffer.concat([Buffer.from(inner), data]))}\0`);
      }
      case 10:
        this.#scram = new ScramClient(this.#password);
        return this.#scram.initialResponse();
      case 11:
        return this.#scram?.finalResponse(data.toString());
      case 12:
        this.#scram?.verify(data.toString());
        return undefined;
      default:
        throw new Error(`the server asks for authentication method ${code}`);
    }
  }
}

function md5(bytes: Buffer): string {
  return createHash('md5').update(bytes).digest('hex');
}
