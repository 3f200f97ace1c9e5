// A client of the fuzzer: sends a packet, waits for what the packet is owed, and has a protocol oracle of its own.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { ProtocolOracle } from '../../oracle/protocol-oracle.js';
import { type BackendMessage, BackendMessageReader } from '../../support/backend-message.js';
import { encodeStartup } from '../../support/frontend-message.js';
import type { Target } from '../../support/target.js';
import { ENDS, owedIn, partsOf } from './answers.js';
import { bytesOf, type FuzzMessage } from './script.js';

const PROTOCOL_3_0 = 3 << 16;
const PATIENCE_MS = 20_000;
export interface Answers {
  readonly messages: readonly BackendMessage[];
  /** `hangs`: what is owed did not come. */
  readonly outcome: 'whole' | 'hangs' | 'closed';
}

export class FuzzClient {
  readonly oracle = new ProtocolOracle();
  /** The last ReadyForQuery. */
  status = '';
  /** An error was told since the last ReadyForQuery of a batch: nothing up to a Sync is run. */
  skipping = false;
  readonly #socket: Socket;
  readonly #reader = new BackendMessageReader();
  #received: BackendMessage[] = [];
  #closed = false;
  #noticed: (() => void) | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.oracle.fromServer(chunk);
      this.#received.push(...this.#reader.push(chunk));
      this.#noticed?.();
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.oracle.serverEnded();
      this.#closed = true;
      this.#noticed?.();
    });
  }

  static async connect({ host, port, user, database }: Target): Promise<FuzzClient> {
    const socket = connect({ host, port, noDelay: true });
    await once(socket, 'connect');
    const client = new FuzzClient(socket);
    client.#write(encodeStartup(PROTOCOL_3_0, { user, database }));
    const { outcome } = await client.#until((messages) => messages.some(({ type }) => type === 'ReadyForQuery'));
    if (outcome !== 'whole') throw new Error(`no log-in: ${outcome} ${JSON.stringify(client.#received)}`);
    client.status = 'I';
    return client;
  }

  /** Settings told at log-in and since, by name. */
  readonly told = new Map<string, string>();

  async send(messages: readonly FuzzMessage[]): Promise<Answers> {
    this.#write(Buffer.concat(messages.map(bytesOf)));
    const isOver = this.#owed(messages);
    const answers = await this.#until(isOver);
    for (const message of answers.messages) {
      if (message.type === 'ReadyForQuery') {
        this.status = message.status;
        this.skipping = false;
      } else if (message.type === 'ErrorResponse') this.skipping = true;
    }
    return answers;
  }

  /** Terminate; resolves when the server has closed. */
  async end(): Promise<void> {
    this.oracle.clientEnded();
    if (!this.#closed) this.#socket.end(Buffer.from([0x58, 0, 0, 0, 4]));
    await this.#until(() => false, 2_000);
    this.destroy();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #write(bytes: Buffer): void {
    this.oracle.fromClient(bytes);
    this.#socket.write(bytes);
  }

  /** True for a list of answers once nothing more is owed. */
  #owed(messages: readonly FuzzMessage[]): (answers: readonly BackendMessage[]) => boolean {
    const parts = partsOf(messages);
    const ends = (part: readonly FuzzMessage[] | undefined): FuzzMessage | undefined => part?.at(-1);
    const behindSync = (from: number): number => {
      let part = from;
      while (part < parts.length && ends(parts[part]) !== 'sync') part++;
      return part;
    };
    // An error in an earlier packet: nothing up to the Sync is run.
    const first = this.skipping ? behindSync(0) : 0;
    const last = ends(parts.at(-1));
    const isWhole = last === 'sync' || (last !== undefined && typeof last !== 'string' && 'query' in last);
    return (answers) => {
      let part = first;
      let answered = 0;
      for (const { type } of answers) {
        if (type === 'ReadyForQuery') {
          part++;
          answered = 0;
        } else if (type === 'ErrorResponse' && answered < owedIn(parts[part])) {
          part = behindSync(part);
          answered = Number.POSITIVE_INFINITY;
        } else if (ENDS.has(type)) answered++;
      }
      if (part >= parts.length) return true;
      return !isWhole && part === parts.length - 1 && answered >= owedIn(parts[part]);
    };
  }

  #until(isOver: (messages: readonly BackendMessage[]) => boolean, patienceMs = PATIENCE_MS): Promise<Answers> {
    return new Promise((resolve) => {
      const finish = (outcome: Answers['outcome']) => {
        clearTimeout(timer);
        this.#noticed = null;
        const messages = this.#received;
        this.#received = [];
        for (const message of messages) {
          if (message.type === 'ParameterStatus') this.told.set(message.name, message.value);
        }
        resolve({ messages, outcome });
      };
      const timer = setTimeout(() => finish('hangs'), patienceMs);
      this.#noticed = () => {
        if (isOver(this.#received)) finish('whole');
        else if (this.#closed) finish('closed');
      };
      this.#noticed();
    });
  }
}
