// What a Parse message says, interned: text and parameter types. Sessions that prepare the same statement share one
// StatementSource, and a server connection prepares each source once, under a name of its own.
import { LRUCache } from 'lru-cache';
import { type Template, UNPARSED_TEMPLATE } from '../sql/template.js';

export interface StatementSource {
  /** Everything behind the name in the Parse message: text, NUL, parameter type count and OIDs. */
  readonly parseTail: Buffer;
  readonly text: string;
  readonly template: Template;
  /** Parsing it gives notices, which a client must get each time it parses. */
  noisy: boolean;
  /** How often its Parse was sent to a server; a text sent once is not worth a named statement. */
  uses: number;
}

/** Text to template; what a backslash means in a string depends on `standardStrings`. */
export type ReadTemplate = (text: string, standardStrings: boolean) => Template;

/**
 * How a session's texts are read: with standard_conforming_strings, without (a backslash in '…' escapes), or not at all,
 * as in an encoding where a byte of a character may look like ASCII.
 */
export type TextReading = 'standard' | 'escapes' | 'opaque';

/** No text begins with a NUL, so keys of different kinds cannot meet. */
const KEY_PREFIX: Readonly<Record<TextReading, string>> = { standard: '', escapes: '\0', opaque: '\0\0' };

/** Stands for an unnamed statement on a server of which only that it may exist is known. */
export const unknownStatement: StatementSource = {
  parseTail: Buffer.alloc(0),
  text: '',
  template: UNPARSED_TEMPLATE,
  noisy: false,
  uses: 0,
};

export class StatementSources {
  readonly #sources: LRUCache<string, StatementSource>;
  readonly #templateOf: ReadTemplate;

  /** @param bytesMax bound of the texts kept; a source pushed out merely is no longer shared */
  constructor(bytesMax: number, templateOf: ReadTemplate) {
    this.#sources = new LRUCache({ maxSize: bytesMax, sizeCalculation: (_, key) => key.length * 2 + 256 });
    this.#templateOf = templateOf;
  }

  /**
   * @param buffer holds the Parse message
   * @param start offset behind the NUL of the statement's name
   * @param textEnd offset of the NUL behind the text
   * @param end end of the message
   * @param reading how the session's texts are read
   */
  intern(buffer: Buffer, start: number, textEnd: number, end: number, reading: TextReading): StatementSource {
    const bytes = buffer.toString('latin1', start, end);
    const key = reading === 'standard' ? bytes : KEY_PREFIX[reading] + bytes;
    const known = this.#sources.get(key);
    if (known !== undefined) return known;
    const text = buffer.toString('utf8', start, textEnd);
    const source: StatementSource = {
      parseTail: Buffer.from(buffer.subarray(start, end)),
      text,
      template: reading === 'opaque' ? UNPARSED_TEMPLATE : this.#templateOf(text, reading === 'standard'),
      noisy: false,
      uses: 0,
    };
    this.#sources.set(key, source);
    return source;
  }
}
