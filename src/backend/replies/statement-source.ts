// What a Parse message says, interned: text and parameter types. Sessions that prepare the same statement share one
// StatementSource, and a server connection prepares each source once, under a name of its own.

import { isUtf8 } from 'node:buffer';
import { LRUCache } from 'lru-cache';
import { refuse } from '../../base/refusals.js';
import { NO_TABLES, type TableScope } from '../../cluster/table-scope.js';
import { NEUTRAL_TEMPLATE, type Template, UNPARSED_TEMPLATE } from '../../sql/plan/template.js';
import { originalPosition, renderText } from '../../sql/text/kv-text.js';
import { lexShape } from '../../sql/text/shape-lexer.js';
import type { TextParts } from '../../sql/text/text-parts.js';

export interface StatementSource {
  /** Everything behind the name in the Parse message: text, NUL, parameter type count and OIDs. */
  readonly parseTail: Buffer;
  readonly text: string;
  readonly template: Template;
  /** How the text was changed for shards; null where servers get the client's own. */
  readonly rewritten: RewrittenText | null;
  /** Types the client gave its parameters; 0 or none: the server's choice. */
  readonly parameterTypes: readonly number[];
  /** Parsing it gives notices, which a client must get each time it parses. */
  noisy: boolean;
  /** How often its Parse was sent to a server; a text sent once is not worth a named statement. */
  uses: number;
}

/** A statement on a key-value table as servers get it, and what it was made from. */
export interface RewrittenText {
  readonly parts: TextParts;
  readonly text: string;
  /** See Shape.literals. */
  readonly literals: readonly number[];
}

/** Text to template; what a backslash means in a string depends on `standardStrings`, what a name means on `scope`. */
export type ReadTemplate = (text: string, standardStrings: boolean, scope: TableScope) => Template;

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
  rewritten: null,
  parameterTypes: [],
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
   * @param scope which key-value tables names stand for
   */
  intern(
    buffer: Buffer,
    start: number,
    textEnd: number,
    end: number,
    reading: TextReading,
    scope: TableScope,
  ): StatementSource {
    const bytes = buffer.toString('latin1', start, end);
    const key = scope.key + (reading === 'standard' ? bytes : KEY_PREFIX[reading] + bytes);
    const known = this.#sources.get(key);
    if (known !== undefined) return known;
    const text = buffer.toString('utf8', start, textEnd);
    // What is no UTF-8 is not rewritten: decoding would change it, and the server has to say that it is invalid.
    const readable = scope === NO_TABLES || isUtf8(buffer.subarray(start, textEnd));
    const template = readable ? templateIn(this.#templateOf, text, reading, scope) : UNPARSED_TEMPLATE;
    const { kv } = template;
    const clientTail = buffer.subarray(start, end);
    const rewritten = kv?.kind === 'kv' ? rewrite(text, reading, kv.text) : null;
    const source: StatementSource = {
      parseTail: rewritten === null ? Buffer.from(clientTail) : tailFor(rewritten, buffer.subarray(textEnd, end)),
      text,
      template,
      rewritten,
      parameterTypes: kv?.kind === 'kv' ? typesIn(buffer, textEnd + 1, end) : [],
      noisy: false,
      uses: 0,
    };
    this.#sources.set(key, source);
    return source;
  }

  /** A read of pgkv's own making: it leaves nothing in the session. */
  ownText(text: string, parameterTypes: readonly number[]): StatementSource {
    const types = Buffer.alloc(3 + 4 * parameterTypes.length);
    types.writeInt16BE(parameterTypes.length, 1);
    for (const [index, type] of parameterTypes.entries()) types.writeUInt32BE(type >>> 0, 3 + 4 * index);
    const key = `\u0002${parameterTypes.join(',')}\u0002${text}`;
    let source = this.#sources.get(key);
    if (source === undefined) {
      const parseTail = Buffer.concat([Buffer.from(text, 'utf8'), types]);
      source = { parseTail, text, template: OWN_READ, rewritten: null, parameterTypes, noisy: false, uses: 0 };
      this.#sources.set(key, source);
    }
    return source;
  }
}

const OWN_READ: Template = { ...NEUTRAL_TEMPLATE, kind: 'read' };

/**
 * The template of a text that may be unreadable: in an encoding that hides ASCII it is read where it is all ASCII, and
 * refused where it may mean a key-value table.
 */
export function templateIn(templateOf: ReadTemplate, text: string, reading: TextReading, scope: TableScope): Template {
  if (reading !== 'opaque') return templateOf(text, reading === 'standard', scope);
  // Without backslashes both other readings are the same.
  if (scope !== NO_TABLES && ASCII_ONLY.test(text)) return templateOf(text, false, scope);
  return scope.mentions(text) ? { ...UNPARSED_TEMPLATE, kv: UNREADABLE } : UNPARSED_TEMPLATE;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: every ASCII character but the backslash
const ASCII_ONLY = /^[\x00-\x5b\x5d-\x7f]*$/;

const UNREADABLE = refuse('encoding');

/** The text as servers get it. */
export const rewrittenText = ({ parts, text, literals }: RewrittenText): string => renderText(parts, text, literals);

/** Place of a character, counted from 1 as in error messages, in the client's own text. */
export function positionInOriginal({ parts, text, literals }: RewrittenText, position: number): number {
  return originalPosition(parts, text, literals, position);
}

export function rewrite(text: string, reading: TextReading, parts: TextParts): RewrittenText {
  return { parts, text, literals: lexShape(text, reading === 'standard')?.literals ?? [] };
}

function tailFor({ parts, text, literals }: RewrittenText, typesTail: Buffer): Buffer {
  return Buffer.concat([Buffer.from(renderText(parts, text, literals), 'utf8'), typesTail]);
}

function typesIn(buffer: Buffer, start: number, end: number): number[] {
  const types: number[] = [];
  const count = start + 2 <= end ? buffer.readInt16BE(start) : 0;
  for (let offset = start + 2; types.length < count && offset + 4 <= end; offset += 4) {
    types.push(buffer.readInt32BE(offset));
  }
  return types;
}
