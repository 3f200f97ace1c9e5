// The bytes of one conversation on their way to its client. Messages of lanes at rest (a notification, a notice) come
// between the messages of an answer of the current lane, never inside one: until it ends they are kept aside.
import type { Output } from '../../wire/output.js';
import type { ProtocolTap } from './protocol-tap.js';

const ASIDE_BYTES_MAX = 1024 * 1024;

export class ClientOutput {
  readonly #output: Output;
  readonly #tap: ProtocolTap | null;
  readonly #aside: Buffer[] = [];
  #asideBytes = 0;

  constructor(output: Output, tap: ProtocolTap | null) {
    this.#output = output;
    this.#tap = tap;
  }

  /** The client's socket takes no more for now. */
  get blocked(): boolean {
    return this.#output.blocked;
  }

  /** Bytes sent are still to be read from where they were. */
  get holdsBytes(): boolean {
    return this.#tap !== null || this.#output.holdsBytes;
  }

  send(bytes: Buffer): void {
    this.#tap?.toClient(bytes);
    this.#output.push(bytes);
  }

  flush(): void {
    this.#output.flush();
  }

  /** Keeps a copy of `bytes` until `sendAside`. False: there is too much of it. */
  keepAside(bytes: Buffer): boolean {
    if (this.#asideBytes + bytes.length > ASIDE_BYTES_MAX) return false;
    this.#asideBytes += bytes.length;
    this.#aside.push(Buffer.from(bytes));
    return true;
  }

  /** Something was kept aside. */
  get hasAside(): boolean {
    return this.#aside.length > 0;
  }

  sendAside(): void {
    for (const bytes of this.#aside) this.send(bytes);
    this.#aside.length = 0;
    this.#asideBytes = 0;
  }
}
