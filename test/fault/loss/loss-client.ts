// A client that sends bytes and hears answers unit by unit.
import { type BackendMessage, BackendMessageReader } from '../../support/backend-message.js';
import { encodeAll, type FrontendMessage } from '../../support/frontend-message.js';
import { WireClient, type WireClientOptions } from '../../support/wire-client.js';
import { type Answer, isAside } from './answer.js';

interface Waiter {
  readonly isOver: () => boolean;
  readonly resolve: () => void;
}

/** Longer than any time-out that a lost connection can run into. */
const SILENCE_MS = 8_000;

export class LossClient {
  readonly #wire: WireClient;
  readonly #reader = new BackendMessageReader();
  /** What no unit has been given yet. */
  #received: BackendMessage[] = [];
  #waiter: Waiter | null = null;
  closed = false;

  private constructor(wire: WireClient) {
    this.#wire = wire;
    wire.socket.removeAllListeners('data');
    wire.socket.on('data', (chunk: Buffer) => {
      this.#received.push(...this.#reader.push(chunk).filter((message) => !isAside(message)));
      this.#settle();
    });
    wire.socket.on('close', () => {
      this.closed = true;
      this.#settle();
    });
  }

  static async connect(port: number, options: WireClientOptions): Promise<LossClient> {
    return new LossClient(await WireClient.connect({ host: '127.0.0.1', port }, options));
  }

  send(messages: readonly FrontendMessage[]): void {
    this.#wire.sendBytes(encodeAll(messages));
  }

  /** Waits for a message among those no unit has been given: it stays there. */
  async hears(isWanted: (message: BackendMessage) => boolean): Promise<boolean> {
    await this.#until(() => this.#received.some(isWanted));
    return this.#received.some(isWanted);
  }

  /** The answers of so many units. */
  async answers(units: number): Promise<Answer[]> {
    await this.#until(() => this.#readies() >= units);
    const ended = this.closed ? 'closed' : 'silence';
    return Array.from({ length: units }, () => {
      const at = this.#received.findIndex(({ type }) => type === 'ReadyForQuery');
      const messages = this.#received.splice(0, at < 0 ? this.#received.length : at + 1);
      return {
        messages,
        ended: at < 0 ? ended : 'ready',
        isInMessage: at < 0 && this.#reader.pendingBytes > 0,
      } as const;
    });
  }

  async ask(messages: readonly FrontendMessage[]): Promise<Answer> {
    this.send(messages);
    return (await this.answers(1))[0]!;
  }

  /** As a client that has gone. */
  destroy(): void {
    this.#wire.destroy();
  }

  #readies(): number {
    return this.#received.filter(({ type }) => type === 'ReadyForQuery').length;
  }

  async #until(isOver: () => boolean): Promise<void> {
    if (isOver() || this.closed) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      timer = setTimeout(resolve, SILENCE_MS);
      this.#waiter = { isOver, resolve };
    });
    clearTimeout(timer);
    this.#waiter = null;
  }

  #settle(): void {
    const waiter = this.#waiter;
    if (waiter !== null && (this.closed || waiter.isOver())) waiter.resolve();
  }
}
