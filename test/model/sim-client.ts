// A client on the simulated network: logs in to pgkv, plays its script, and holds every answer against what it expects.
import { ProtocolOracle } from '../oracle/protocol-oracle.js';
import { describeViolation } from '../oracle/watch.js';
import { encode, encodeCancel, encodeStartup } from '../support/frontend-message.js';
import type { SeededRandom } from '../support/seeded-random.js';
import { type Expectations, type SentMessage, show } from './expectations.js';
import { BodyReader, type Message, MessageSplitter } from './frames.js';
import type { Scheduler } from './scheduler.js';
import type { Script } from './script.js';
import type { SimSocket } from './sim-socket.js';

/** Not by default: where several blocks are under way when a connection is lost, the status told is of the last alone. */
const JUDGES = process.env['PGKV_ORACLE'] === '1';
const PROTOCOL_3_0 = 3 << 16;

export interface ClientOptions {
  readonly scheduler: Scheduler;
  readonly random: SeededRandom;
  readonly script: Script;
  readonly expectations: Expectations;
  readonly startup: Readonly<Record<string, string>>;
  /** Share of chunks behind which the client stops reading for a while. */
  readonly dawdles: number;
  /** Opens a connection to pgkv. */
  connect(name: string): SimSocket;
  traced(what: () => string): void;
  /** Ends the run. */
  violated(what: string): void;
}

export class SimClient {
  readonly expectations: Expectations;
  /** Its connection is closed on both sides. */
  gone = false;
  readonly socket: SimSocket;
  readonly #options: ClientOptions;
  readonly #splitter = new MessageSplitter();
  readonly #oracle = new ProtocolOracle();
  #pid = 0;
  #key: Buffer | null = null;
  #loggedIn = false;
  #step = 0;
  #waiting = false;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.expectations = options.expectations;
    const socket = options.connect(options.expectations.owner);
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => this.#received(chunk));
    socket.on('end', () => {
      // Else the connection is broken, and what was on its way may be lost with it: nobody can say that it was silent.
      this.#oracle.serverEnded();
      this.#closed();
    });
    socket.on('error', () => this.#closed());
    socket.on('close', () => this.#closed());
    this.#write(encodeStartup(PROTOCOL_3_0, options.startup));
  }

  /** What keeps it from being done, null once it is. */
  get unfinished(): string | null {
    if (this.gone) return null;
    if (!this.#loggedIn) return 'the log-in is not answered';
    return this.expectations.isAnswered()
      ? `at step ${this.#step}`
      : `statements are not answered, at step ${this.#step}`;
  }

  #write(bytes: Buffer): void {
    this.#oracle.fromClient(bytes);
    this.socket.write(bytes);
  }

  #judge(): void {
    const { violation } = this.#oracle;
    if (JUDGES && violation !== null) {
      this.#options.violated(`${this.expectations.owner}: ${describeViolation(violation)}`);
    }
  }

  #received(chunk: Buffer): void {
    if (this.gone) return;
    this.#oracle.fromServer(chunk);
    this.#judge();
    for (const message of this.#splitter.push(chunk)) {
      this.#options.traced(() => `${this.expectations.owner} gets ${show(message.bytes)}`);
      if (this.#loggedIn) this.expectations.received(message);
      else this.#greeted(message);
    }
    if (this.#waiting && this.expectations.isAnswered()) {
      this.#waiting = false;
      this.#next();
    }
    this.#dawdle();
  }

  /** Reads no more for a while. */
  #dawdle(): void {
    const { scheduler, random, dawdles } = this.#options;
    if (!random.chance(dawdles)) return;
    this.socket.pause();
    scheduler.after(random.fraction() * 30, () => this.socket.resume());
  }

  #greeted(message: Message): void {
    const { expectations } = this;
    switch (message.type) {
      case 'K': {
        this.#pid = new BodyReader(message.body).int32();
        this.#key = message.body.subarray(4);
        return;
      }
      case 'S':
        expectations.received(message);
        return;
      case 'E':
        expectations.refused(message);
        return;
      case 'Z':
        this.#loggedIn = true;
        this.#next();
    }
  }

  #next(): void {
    const { scheduler, random, script } = this.#options;
    if (this.gone) return;
    const step = script.steps[this.#step++];
    if (step === undefined) return this.#leave();
    switch (step.kind) {
      case 'send':
        this.#send(step.messages, () => {
          if (step.waits && !this.expectations.isAnswered()) this.#waiting = true;
          else if (random.chance(0.5)) this.#next();
          else scheduler.after(random.fraction() * 5, () => this.#next());
        });
        return;
      case 'pause':
        scheduler.after(step.ms, () => this.#next());
        return;
      case 'cancel':
        this.#cancel();
        this.#next();
    }
  }

  /** In one write or in several, with pauses between. */
  #send(messages: readonly SentMessage[], sent: () => void): void {
    const { scheduler, random, traced } = this.#options;
    const count = random.chance(0.6) ? messages.length : random.between(1, messages.length);
    const now = messages.slice(0, count);
    for (const message of now) {
      traced(
        () =>
          `${this.expectations.owner} sends ${message.message.bytes.toString('latin1').replaceAll(/[^ -~]+/g, ' ')}`,
      );
      this.expectations.sent(message);
    }
    this.#write(Buffer.concat(now.map(({ message }) => message.bytes)));
    if (count === messages.length) return sent();
    const pauseMs = random.chance(0.1) ? random.fraction() * 300 : random.fraction() * 10;
    scheduler.after(pauseMs, () => {
      if (!this.gone) this.#send(messages.slice(count), sent);
    });
  }

  #cancel(): void {
    const { connect, scheduler } = this.#options;
    const { expectations } = this;
    expectations.cancelsSent++;
    this.#options.traced(() => `${expectations.owner} sends a cancel`);
    const socket = connect(`${expectations.owner} cancel`);
    socket.on('error', () => socket.destroy());
    socket.on('end', () => socket.destroy());
    socket.write(encodeCancel(this.#pid, this.#key!));
    scheduler.after(1000, () => socket.destroy());
  }

  #leave(): void {
    const { script } = this.#options;
    const { expectations } = this;
    this.#options.traced(() => `${expectations.owner} leaves: ${script.farewell}`);
    switch (script.farewell) {
      case 'tear':
        expectations.settle();
        this.gone = true;
        this.socket.destroy();
        return;
      case 'abandon':
        expectations.settle();
        this.gone = true;
        this.#write(encode('terminate'));
        this.socket.end();
        return;
      case 'terminate at once':
        expectations.leaving = true;
        this.#write(encode('terminate'));
        return;
      case 'half-close at once':
        expectations.leaving = true;
        this.socket.end();
        return;
      default:
        if (!expectations.isAnswered()) {
          this.#waiting = true;
          return;
        }
        expectations.leaving = true;
        if (script.farewell === 'terminate') this.#write(encode('terminate'));
        this.socket.end();
    }
  }

  #closed(): void {
    if (this.gone) return;
    this.gone = true;
    if (this.expectations.leaving) this.#oracle.clientEnded();
    this.#judge();
    this.#options.traced(() => `${this.expectations.owner} is closed`);
    if (this.#loggedIn) this.expectations.closed();
    this.socket.destroy();
  }
}
