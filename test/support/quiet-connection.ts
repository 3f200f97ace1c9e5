// A connection whose server says what a test has it say.
import { Duplex } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { ServerConnection } from '../../src/backend/connection/server-connection.js';
import { SettingsRegistry } from '../../src/backend/connection/settings-group.js';
import { createPoolCounters } from '../../src/backend/pool/pool-limits.js';
import { internParameters } from '../../src/backend/replies/parameter-status.js';
import { forwarded, Reply } from '../../src/backend/replies/reply-queue.js';
import type { ReplyReceiver } from '../../src/backend/replies/reply-receiver.js';
import { encodeQuery } from '../../src/wire/client-messages.js';
import { encodeErrorResponse } from '../../src/wire/error-fields.js';
import { encodeCommandComplete } from '../../src/wire/server-messages.js';

export const READY = Buffer.from('Z\0\0\0\x05I', 'latin1');
export const DONE = Buffer.concat([encodeCommandComplete('SELECT 1'), READY]);
export const CANCELLED = Buffer.concat([
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '57014', M: 'canceling statement' }),
  READY,
]);

export class QuietConnection {
  readonly connection: ServerConnection;
  readonly receiver: ReplyReceiver;
  readonly #stream: Duplex;
  #told: Buffer[] = [];

  constructor(pid: number) {
    this.#stream = new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
    this.connection = new ServerConnection({
      stream: this.#stream,
      readBuffer: null,
      address: 'h:1',
      pid,
      secretKey: Buffer.alloc(4),
      parameters: internParameters(new Map()),
      settings: new SettingsRegistry().empty,
      createdAt: 0,
      preparedMax: 10,
      errorCounts: createPoolCounters().errors,
      messageBytesMax: 10_000,
    });
    this.receiver = {
      heldFor: 'a test',
      holdsBytes: false,
      serverBytes: (bytes) => this.#told.push(Buffer.from(bytes)),
      serverNotified: () => undefined,
      serverPaused: () => undefined,
      serverReady: () => undefined,
      serverParameter: () => undefined,
      serverTag: () => undefined,
      clientStatementName: () => undefined,
      guardedError: () => false,
      guardedReady: () => undefined,
      serverLost: () => undefined,
    };
    this.connection.attach(this.receiver);
  }

  ask(): void {
    this.connection.send(encodeQuery('SELECT 1'), forwarded(Reply.query));
    this.connection.output.flush();
  }

  /** @returns what the client has been told by then */
  async says(...messages: readonly Buffer[]): Promise<string> {
    this.#stream.push(Buffer.concat(messages));
    await turn();
    const told = Buffer.concat(this.#told).toString('latin1');
    this.#told = [];
    return told;
  }
}
