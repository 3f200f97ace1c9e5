// The model Postgres behind the simulated network: accepts connections, takes its time, is cancelled, breaks. What its
// sessions answer is ModelSession's; what must hold at the server whatever pgkv does is checked here.
import { REQUEST_CODES } from '../support/frontend-message.js';
import type { SeededRandom } from '../support/seeded-random.js';
import {
  AUTHENTICATION_OK,
  backendKey,
  errorResponse,
  type Message,
  MessageSplitter,
  notification,
  ready,
} from './frames.js';
import { ModelSession } from './model-session.js';
import type { Scheduler } from './scheduler.js';
import { ModelDatabase, SqlError } from './session-engine.js';
import type { Transaction } from './session-state.js';
import type { SimSocket } from './sim-socket.js';

const CANCELLED = new SqlError('57014', 'canceling statement due to user request');
const SLEEP_MS = 50;
/** Length, code and process id of a CancelRequest; the key is behind them. */
const CANCEL_KEY_OFFSET = 12;

export interface ServerConditions {
  readonly thinkingMaxMs: number;
  /** Share of log-ins that are cut off in their middle; changes during a run. */
  loginFailureShare: number;
}

export interface ServerHost {
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  readonly conditions: ServerConditions;
  /** An invariant does not hold. */
  violated(what: string): void;
  traced(what: () => string): void;
  connectFailed(): void;
  /** A message has been handled: its answer may be on its way. */
  handled(session: ServerSession, message: Message): void;
}

export class ModelServer {
  readonly database = new ModelDatabase();
  readonly sessions = new Set<ServerSession>();
  readonly host: ServerHost;
  #lastPid = 100;

  constructor(host: ServerHost) {
    this.host = host;
    this.database.notify = (pid, channel, payload) => {
      for (const session of this.sessions) session.notified(pid, channel, payload);
    };
  }

  accept(socket: SimSocket): ServerSession {
    const session = new ServerSession(this, socket, ++this.#lastPid);
    this.sessions.add(session);
    return session;
  }

  cancel(pid: number, key: Buffer): void {
    for (const session of this.sessions) {
      if (session.pid === pid && session.key.equals(key)) session.cancel();
    }
  }
}

export class ServerSession {
  readonly pid: number;
  readonly key: Buffer;
  readonly socket: SimSocket;
  /** It has said that it ends: whoever reads that has lost it, before the connection closes. */
  saidGoodbye = false;
  /** Null until the log-in. */
  model: ModelSession | null = null;
  readonly #server: ModelServer;
  readonly #splitter = new MessageSplitter();
  readonly #inbox: Message[] = [];
  #startup: Buffer = Buffer.alloc(0);
  #output: Buffer[] = [];
  readonly #notifications: Buffer[] = [];
  /** What is being thought about; `interrupt` ends it early. */
  #interrupt: (() => void) | null = null;
  #busy = false;
  #awaitsDrain = false;
  #ended = false;
  #gone = false;
  #mute = false;
  #lastOwner: string | null = null;
  /** In which its last statement ran. */
  #lastTransaction: Transaction | null = null;

  constructor(server: ModelServer, socket: SimSocket, pid: number) {
    this.#server = server;
    this.socket = socket;
    this.pid = pid;
    this.key = server.host.random.bytes(4);
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('drain', () => {
      this.#awaitsDrain = false;
      this.#work();
    });
    socket.on('end', () => {
      this.#ended = true;
      this.#work();
    });
    socket.on('error', () => this.#cutOff());
    socket.on('close', () => this.#cutOff());
  }

  get open(): boolean {
    return !this.#gone;
  }

  cancel(): void {
    const interrupt = this.#interrupt;
    this.#interrupt = null;
    interrupt?.();
  }

  /** An administrator ends the session, with a word or without. */
  kill(says: boolean): void {
    if (this.#gone) return;
    this.#server.host.traced(() => `server ${this.pid} is killed${says ? ', FATAL' : ''}`);
    if (says && this.model !== null) {
      this.#flush();
      this.saidGoodbye = true;
      const M = 'terminating connection due to administrator command';
      this.socket.write(errorResponse({ S: 'FATAL', V: 'FATAL', C: '57P01', M, R: 'model' }));
      this.#exit();
    } else {
      this.#exit();
      this.socket.reset();
    }
  }

  /** Answers nothing from now on, and breaks after a while. */
  silence(ms: number): void {
    const { host } = this.#server;
    host.traced(() => `server ${this.pid} falls silent for ${ms} ms`);
    this.#mute = true;
    host.scheduler.after(ms, () => this.kill(false));
  }

  notified(sender: number, channel: string, payload: string): void {
    if (this.model === null || !this.model.state.revertible.channels.has(channel)) return;
    this.#notifications.push(notification(sender, channel, payload));
    if (!this.#busy && this.#inbox.length === 0) this.#flush();
  }

  #received(chunk: Buffer): void {
    if (this.#gone) return;
    if (this.model === null) {
      this.#startup = Buffer.concat([this.#startup, chunk]);
      this.#greet();
      return;
    }
    this.#inbox.push(...this.#splitter.push(chunk));
    this.#work();
  }

  #greet(): void {
    const packet = this.#startup;
    if (packet.length < 4 || packet.length < packet.readInt32BE(0)) return;
    const { host } = this.#server;
    if (packet.readUInt32BE(4) === REQUEST_CODES.cancel) {
      this.#server.sessions.delete(this);
      const [pid, key] = [packet.readInt32BE(8), packet.subarray(CANCEL_KEY_OFFSET)];
      this.#think(() => {
        host.traced(() => `server ${pid} gets a cancel`);
        this.#server.cancel(pid, key);
        this.#gone = true;
        this.socket.end();
      });
      return;
    }
    const texts = packet.toString('utf8', 8).split('\0');
    const startup = new Map<string, string>();
    for (let index = 0; index + 1 < texts.length && texts[index] !== ''; index += 2) {
      startup.set(texts[index]!.toLowerCase(), texts[index + 1]!);
    }
    const { pid } = this;
    const observe = (owner: string): void => this.#observe(owner);
    const { database } = this.#server;
    this.model = new ModelSession({ database, pid, startup, isMirror: false, observe });
    this.#busy = true;
    this.#think(() => {
      this.#busy = false;
      if (host.random.chance(host.conditions.loginFailureShare)) return this.#refuse();
      this.#output.push(AUTHENTICATION_OK);
      this.#output.push(...this.model!.reports());
      this.#output.push(backendKey(pid, this.key), ready('I'));
      this.#flush();
      this.#work();
    });
  }

  #refuse(): void {
    const { host } = this.#server;
    host.connectFailed();
    if (host.random.chance(0.5)) return this.kill(false);
    const isFull = host.random.chance(0.5);
    const [C, M] = isFull
      ? ['53300', 'sorry, too many clients already']
      : ['57P03', 'the database system is starting up'];
    this.socket.write(errorResponse({ S: 'FATAL', V: 'FATAL', C, M, R: 'model' }));
    this.#exit();
  }

  #think(then: () => void): void {
    const { scheduler, random, conditions } = this.#server.host;
    scheduler.after(random.fraction() * conditions.thinkingMaxMs, then);
  }

  /** Takes messages one after the other, as long as there are any and the network takes the answers. */
  #work(): void {
    const { host } = this.#server;
    while (!this.#busy && !this.#awaitsDrain && !this.#gone) {
      const message = this.#inbox.shift();
      if (message === undefined) {
        if (this.#ended) this.#exit();
        return;
      }
      if (message.type === 'X') return this.#exit();
      const sleeps = message.type === 'Q' && message.bytes.includes('pg_sleep') ? SLEEP_MS : 0;
      if (sleeps === 0 && host.random.chance(0.4)) {
        this.#answer(message, false);
        continue;
      }
      this.#busy = true;
      const finish = (interrupted: boolean): void => {
        timer.cancel();
        this.#busy = false;
        this.#interrupt = null;
        if (this.#gone) return;
        this.#answer(message, interrupted);
        this.#work();
      };
      const thinking = sleeps + host.random.fraction() * host.conditions.thinkingMaxMs;
      const timer = host.scheduler.after(thinking, () => finish(false));
      this.#interrupt = () => finish(true);
    }
  }

  #answer(message: Message, interrupted: boolean): void {
    const model = this.model!;
    const failures = interrupted ? [{ at: 'execution' as const, error: CANCELLED }] : [];
    this.#server.host.traced(
      () => `server ${this.pid} takes ${describe(message)}${interrupted ? ', interrupted' : ''}`,
    );
    // Handling may notify this very session, which flushes.
    const answer = model.handle(message, failures);
    this.#output.push(...answer);
    const { type } = message;
    const waits = 'QSHcf'.includes(type) || model.state.copy !== null;
    if (waits) this.#flush();
    else if (this.#server.host.random.chance(0.2)) this.#flush();
    this.#server.host.handled(this, message);
  }

  #flush(): void {
    // Notifications wait for the end of a transaction.
    if (this.model?.state.transaction === null) this.#output.push(...this.#notifications.splice(0));
    if (this.#mute || this.#output.length === 0) return;
    const bytes = Buffer.concat(this.#output);
    this.#output = [];
    this.#awaitsDrain = !this.socket.write(bytes) && !this.socket.destroyed;
  }

  /** A client's statement is about to run: the session must be that client's, or hold nothing of anybody's. */
  #observe(owner: string): void {
    const { state } = this.model!;
    if (this.#lastOwner === owner) {
      this.#lastTransaction = state.transaction;
      return;
    }
    const left = this.model!.pins();
    if (state.transaction === this.#lastTransaction) left.push('an open transaction');
    if (left.length > 0) {
      this.#server.host.violated(
        `server ${this.pid} serves ${owner}, but holds ${left.join(', ')} of ${this.#lastOwner}`,
      );
    }
    this.#lastOwner = owner;
    this.#lastTransaction = state.transaction;
  }

  /** The connection is broken: what has arrived may still be executed, answers go nowhere. */
  #cutOff(): void {
    if (this.#gone) return;
    if (!this.#server.host.random.chance(0.5)) this.#inbox.length = 0;
    this.#ended = true;
    this.#awaitsDrain = false;
    this.#work();
  }

  #exit(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#interrupt = null;
    this.model?.close();
    this.#server.sessions.delete(this);
    this.socket.end();
  }
}

function describe({ type, body }: Message): string {
  return `${type} ${body
    .toString('latin1')
    .replaceAll(/[^ -~]+/g, ' ')
    .slice(0, 110)}`;
}
