// Notices of a statement that may be run again: they are told once it is known that it is not. Bound: what does not fit is told at once.
const BYTES_MAX = 1024 * 1024;

export class HeldNotices {
  readonly messages: Buffer[] = [];
  #bytes = 0;

  /** @returns it is kept */
  hold(message: Buffer): boolean {
    if (this.#bytes + message.length > BYTES_MAX) return false;
    this.#bytes += message.length;
    this.messages.push(message);
    return true;
  }
}
