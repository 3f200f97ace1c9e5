// The syntax of SCRAM messages (RFC 5802 §7): attribute=value pairs between commas. Messages are handled as latin1
// strings, in which every byte is one character: nothing is lost, and HMACs over them are HMACs over the bytes.
import type { PgkvError } from '../base/errors.js';

export const SCRAM_SHA_256 = 'SCRAM-SHA-256';
export const SCRAM_SHA_256_PLUS = 'SCRAM-SHA-256-PLUS';

/** What follows "p=" in the gs2 header; the one channel binding type of Postgres. */
export const BINDING_TYPE = 'tls-server-end-point';

/** Longest SASL message a server takes (Postgres's PG_MAX_SASL_MESSAGE_LENGTH). */
export const SASL_MESSAGE_BYTES_MAX = 1024;

export interface ChannelBinding {
  readonly type: typeof BINDING_TYPE;
  /** Hash of the server's certificate: tlsServerEndPoint(). */
  readonly data: Buffer;
}

/** Builds the error for a message of the other side; `detail` has Postgres's words. */
export type Malformed = (detail: string) => PgkvError;

/** The three parts both sides sign, joined (RFC 5802 §3: AuthMessage). */
export const authMessage = (clientFirstBare: string, serverFirst: string, clientFinalWithoutProof: string): Buffer =>
  Buffer.from(`${clientFirstBare},${serverFirst},${clientFinalWithoutProof}`, 'latin1');

/** The gs2 header, which opens client-first and comes back, with the binding data, in client-final's "c=". */
export function bindingInput(flag: 'n' | 'y' | 'p', data: Buffer | null): Buffer {
  const header = Buffer.from(flag === 'p' ? `p=${BINDING_TYPE},,` : `${flag},,`, 'latin1');
  return data === null ? header : Buffer.concat([header, data]);
}

/**
 * Strict base64: null for anything but the one text that encoding the bytes gives. Postgres lets stray bits in the last
 * character pass; no client sends them, and without them any changed byte of a message is a refusal.
 */
export function decodeBase64(text: string): Buffer | null {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : null;
}

/** RFC 5802's "printable": visible ASCII without the comma. */
export const isPrintable = (text: string): boolean => /^[\x21-\x2b\x2d-\x7e]*$/.test(text);

/** One character as Postgres shows it in error details: 'x', or 0x1b where it is not visible ASCII; the end is 0x00. */
export function showCharacter(character: string): string {
  if (/^[\x21-\x7e]$/.test(character)) return `'${character}'`;
  const code = character === '' ? 0 : character.charCodeAt(0);
  return `0x${code.toString(16).padStart(2, '0')}`;
}

/** Walks the attributes of one message from left to right. */
export class AttributeReader {
  readonly #text: string;
  readonly #malformed: Malformed;
  #at: number;

  constructor(text: string, malformed: Malformed) {
    this.#text = text;
    this.#malformed = malformed;
    this.#at = 0;
  }

  /** Index of the next unread character. */
  get at(): number {
    return this.#at;
  }

  get done(): boolean {
    return this.#at >= this.#text.length;
  }

  /** The next character without reading it; '' at the end. */
  peek(): string {
    return this.#text.charAt(this.#at);
  }

  skip(): void {
    this.#at++;
  }

  rest(): string {
    return this.#text.slice(this.#at);
  }

  /** The value of the attribute that must come next; the comma behind it is read too. */
  expect(name: string): string {
    const found = this.peek();
    if (found !== name) {
      throw this.#malformed(`Expected attribute "${name}" but found "${showCharacter(found)}".`);
    }
    return this.#valueOf(name);
  }

  /** Whatever attribute comes next. */
  next(): { name: string; value: string } {
    const name = this.peek();
    if (name === '') throw this.#malformed('Attribute expected, but found end of string.');
    if (!/^[A-Za-z]$/.test(name)) {
      throw this.#malformed(`Attribute expected, but found invalid character "${showCharacter(name)}".`);
    }
    return { name, value: this.#valueOf(name) };
  }

  #valueOf(name: string): string {
    if (this.#text.charAt(this.#at + 1) !== '=') {
      throw this.#malformed(`Expected character "=" for attribute "${name}".`);
    }
    const from = this.#at + 2;
    const comma = this.#text.indexOf(',', from);
    const to = comma === -1 ? this.#text.length : comma;
    this.#at = comma === -1 ? to : to + 1;
    return this.#text.slice(from, to);
  }
}

/** The message as a latin1 string; refuses what is empty, too long or holds a NUL (a C string would end there). */
export function messageText(message: Buffer, bytesMax: number, malformed: Malformed): string {
  if (message.length === 0) throw malformed('The message is empty.');
  if (message.length > bytesMax) throw malformed(`The message is longer than ${bytesMax} bytes.`);
  if (message.includes(0)) throw malformed('Message length does not match input length.');
  return message.toString('latin1');
}
