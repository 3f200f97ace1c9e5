// A client of the fuzzer: sends a packet, waits for what the packet is owed, and has a protocol oracle of its own.
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { ProtocolOracle } from '../../oracle/protocol-oracle.js';
import { type BackendMessage, BackendMessageReader } from '../../support/backend-message.js';
import { encodeStartup } from '../../support/frontend-message.js';
import type { Target } from '../../support/target.js';
import { bytesOf, type FuzzMessage } from './script.js';

const PROTOCOL_3_0 = 3 << 16;
const PATIENCE_MS = 6_000;
/** Messages that end what a Parse, Bind, Describe, Execute or Close is answered with. */
const ENDS = new Set([
  'ParseComplete',
  'BindComplete',
  'CloseComplete',
  'NoData',
  'RowDescription',
  'CommandComplete',
  'EmptyQueryResponse',
  'PortalSuspended',
]);

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
  #skipping = false;
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
        this.#skipping = false;
      } else if (message.type === 'ErrorResponse') this.#skipping = true;
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
    const syncs = messages.map((message) => message === 'sync' || (typeof message !== 'string' && 'query' in message));
    const last = syncs.lastIndexOf(true);
    const trailing = messages.slice(last + 1).filter((message) => typeof message !== 'string').length;
    let readies = syncs.filter(Boolean).length;
    if (this.#skipping) {
      const firstSync = messages.indexOf('sync');
      if (firstSync < 0) return () => true;
      readies -= messages
        .slice(0, firstSync)
        .filter((message) => typeof message !== 'string' && 'query' in message).length;
    }
    return (answers) => {
      let ready = 0;
      let ends = 0;
      for (const { type } of answers) {
        if (type === 'ReadyForQuery') {
          ready++;
          ends = 0;
        } else if (type === 'ErrorResponse') ends = trailing;
        else if (ENDS.has(type)) ends++;
      }
      return ready >= readies && ends >= trailing;
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
