// What a server makes of the extended protocol's messages that name statements, answer by answer: for tests of those who
// assume what it will make of them. Its answers go to the reply queue as the matcher of replies would take them.
import { Duplex } from 'node:stream';
import { forwarded, Reply, type ReplyQueue } from '../../../src/backend/replies/reply-queue.js';
import { type StatementSource, unknownStatement } from '../../../src/backend/replies/statement-source.js';
import { SYNC } from '../../../src/wire/client-messages.js';
import { Output } from '../../../src/wire/output.js';

/** One of many statements, told apart by a number. */
export const numberedSource = (n: number): StatementSource => ({
  ...unknownStatement,
  text: `select ${n}`,
  parseTail: `select ${n}\0\0\0`,
});

export class ExtendedServer {
  /** Names of prepared statements, '' the unnamed one, with their texts. */
  readonly statements = new Map<string, string>();
  readonly output: Output;
  readonly #replies: ReplyQueue;
  readonly #inbox: Buffer[] = [];
  #skipping = false;

  constructor(replies: ReplyQueue) {
    this.#replies = replies;
    const inbox = this.#inbox;
    this.output = new Output(
      new Duplex({
        write(chunk: Buffer, _encoding, done) {
          for (let at = 0; at < chunk.length; at += 1 + chunk.readInt32BE(at + 1))
            inbox.push(chunk.subarray(at, at + 1 + chunk.readInt32BE(at + 1)));
          done();
        },
      }),
    );
  }

  /** Messages sent and not answered. */
  get waiting(): number {
    return this.#inbox.length;
  }

  sync(): void {
    this.output.push(SYNC);
    this.#replies.push(forwarded(Reply.sync));
  }

  /** Answers the next message. @param fails it is refused, if it can be */
  answer(fails: boolean): void {
    const message = this.#inbox.shift()!;
    const type = String.fromCharCode(message[0]!);
    if (type === 'S') {
      this.#skipping = false;
      this.#replies.pop();
    } else if (!this.#skipping && fails && type === 'P') {
      // A Parse that fails has dropped the unnamed statement.
      if (message[5] === 0) this.statements.delete('');
      this.#skipping = true;
      this.#replies.failExtended();
    } else if (!this.#skipping) {
      this.#take(type, message);
      this.#replies.pop();
    }
  }

  #take(type: string, message: Buffer): void {
    const [name, text] = message.toString('latin1', type === 'C' ? 6 : 5).split('\0');
    if (type === 'P') this.statements.set(name!, text!);
    else if (type === 'C') this.statements.delete(name!);
  }
}
