// What a Parse message says, interned: text and parameter types. Sessions that prepare the same statement share one
// StatementSource, and a server connection prepares each source once, under a name of its own.
import { isAscii } from 'node:buffer';
import { refuse } from '../../base/refusals.js';
import { NO_TABLES, type TableScope } from '../../cluster/table-scope.js';
import { NEUTRAL_TEMPLATE, type Template, UNPARSED_TEMPLATE } from '../../sql/plan/template.js';
import { type ClientEncoding, clientEncoding, hasPlaceholders, UTF8 } from '../../sql/text/client-encoding.js';
import { originalPosition, renderText } from '../../sql/text/kv-text.js';
import { LITERAL_STRIDE, lexShape } from '../../sql/text/shape-lexer.js';
import type { TextParts } from '../../sql/text/text-parts.js';
import { stringBytes, type TextBudget, type TextCache } from '../../sql/text-budget.js';

export interface StatementSource {
  /** Everything behind the name in the Parse message: text, NUL, parameter type count and OIDs; a byte a character. */
  readonly parseTail: string;
  readonly text: string;
  readonly template: Template;
  /** How the text was changed for shards; null where servers get the client's own. */
  readonly rewritten: RewrittenText | null;
  /** Types the client gave its parameters, where pgkv reads their values; 0 or none: the server's choice. */
  readonly parameterTypes: readonly number[];
  /** How it was read: null where it is pgkv's own text, or its bytes are none in the client's encoding. */
  readonly reading: TextReading | null;
  /** The key-value tables that its names stood for. */
  readonly scope: TableScope;
  /** Bytes at the end of `parseTail` that are not its text: NUL, parameter type count and OIDs. */
  readonly typeBytes: number;
  /** What it holds of V8's heap, without its template. */
  readonly ownBytes: number;
  /** A literal of it may stand for the time at which it is parsed ('now', 'tomorrow'). */
  readonly readsClock: boolean;
  /** Parsing it gives notices, which a client must get each time it parses. */
  noisy: boolean;
  /** How often its Parse was sent to a server; a text sent once is not worth a named statement. */
  uses: number;
  /** Names that sessions have for it now, and have had. */
  namesNow: number;
  namesEver: number;
}

/** The types that its Parse has declared, 0 for those left to the server. */
export function declaredTypes({ parseTail, typeBytes }: StatementSource): number[] {
  const tail = Buffer.from(parseTail.slice(parseTail.length - typeBytes), 'latin1');
  const types: number[] = [];
  for (let at = 3; at + 4 <= tail.length; at += 4) types.push(tail.readUInt32BE(at));
  return types;
}

/** What a source holds, as if its template were its own alone. */
export const bytesOfSource = ({ ownBytes, template }: StatementSource): number => ownBytes + template.bytes;

/** Whoever named it, one session only, has given it up, and nobody else has sent its text. */
export const isForsaken = ({ namesNow, namesEver, uses }: StatementSource): boolean =>
  namesNow === 0 && namesEver === 1 && uses === 0;

/** A statement on a key-value table as servers get it, and what it was made from. */
export interface RewrittenText {
  readonly parts: TextParts;
  readonly text: string;
  /** See Shape.literals. */
  readonly literals: readonly number[];
  /** In which servers get it. */
  readonly encoding: ClientEncoding;
}

/** Text to template; what a backslash means in a string depends on `standardStrings`, what a name means on `scope`. */
export type ReadTemplate = (text: string, standardStrings: boolean, scope: TableScope) => Template;

/** How a session's texts are read; one object for all sessions that read alike. */
export interface TextReading {
  readonly encoding: ClientEncoding;
  /** standard_conforming_strings: without, a backslash in '…' escapes. */
  readonly standardStrings: boolean;
  /** In front of a text in keys of caches. No text begins with a NUL, so that keys of different kinds cannot meet. */
  readonly key: string;
}

const READINGS = new Map<ClientEncoding, { readonly standard: TextReading; readonly escapes: TextReading }>();

/** @param encodingName client_encoding as the server reports it */
export function textReading(encodingName: string, standardStrings: boolean): TextReading {
  const encoding = clientEncoding(encodingName);
  let readings = READINGS.get(encoding);
  if (readings === undefined) {
    const key = encoding.isUtf8 ? '' : `\0\0${encoding.name}\0`;
    readings = {
      standard: { encoding, standardStrings: true, key },
      escapes: { encoding, standardStrings: false, key: `${key}\0` },
    };
    // As many as there are encodings; see clientEncoding.
    if (READINGS.size < 256) READINGS.set(encoding, readings);
  }
  return standardStrings ? readings.standard : readings.escapes;
}

/** Stands for an unnamed statement on a server of which only that it may exist is known. */
export const unknownStatement: StatementSource = {
  parseTail: '',
  text: '',
  template: UNPARSED_TEMPLATE,
  rewritten: null,
  parameterTypes: [],
  reading: null,
  scope: NO_TABLES,
  typeBytes: 0,
  ownBytes: 0,
  readsClock: false,
  noisy: false,
  uses: 0,
  namesNow: 0,
  namesEver: 0,
};

/** A statement of pgkv's own making. */
export const ownSource = (
  parseTail: Buffer,
  text: string,
  template: Template,
  parameterTypes: readonly number[],
): StatementSource => {
  const tail = parseTail.toString('latin1');
  const ownBytes = SOURCE_BYTES + stringBytes(tail) + stringBytes(text) + arrayBytes(parameterTypes);
  return { ...unknownStatement, parseTail: tail, text, template, parameterTypes, ownBytes };
};

/** Longer messages are not shared: looking one up by its bytes costs more than to read it, and each is sent once. In bytes. */
const SHARED_LENGTH_MAX = 256 * 1024;

/** A StatementSource, and the two slices of its key. */
const SOURCE_BYTES = 224;
/** A RewrittenText. */
const REWRITTEN_BYTES = 56;
const arrayBytes = (array: readonly number[]): number => (array.length === 0 ? 0 : 48 + 8 * array.length);
/** Of the bytes that entries have for themselves; see template-cache.ts for the rest. */
const SOURCE_SHARE = 0.5;

export class StatementSources {
  readonly #budget: TextBudget;
  readonly #sources: TextCache<StatementSource>;
  readonly #templateOf: ReadTemplate;

  /** @param budget what is kept counts against it; a source pushed out merely is no longer shared */
  constructor(budget: TextBudget, templateOf: ReadTemplate) {
    this.#budget = budget;
    this.#sources = budget.cache(SOURCE_SHARE, ({ ownBytes, template }) => ({
      own: ownBytes,
      shared: template,
      sharedBytes: template.bytes,
    }));
    this.#templateOf = templateOf;
  }

  get entries(): number {
    return this.#sources.size;
  }

  /** What was learnt of a statement, and is kept as long as its template, holds so much more (or less). */
  learnt(template: Template, bytes: number): void {
    this.#budget.grew(template, bytes);
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
    if (end - start > SHARED_LENGTH_MAX) return this.#read(null, buffer, start, textEnd, end, reading, scope);
    const bytes = buffer.toString('latin1', start, end);
    const key = scope.key + (reading.key === '' ? bytes : reading.key + bytes);
    const known = this.#sources.get(key);
    if (known !== undefined) return known;
    const source = this.#read(key.slice(key.length - bytes.length), buffer, start, textEnd, end, reading, scope);
    this.#sources.set(key, source);
    return source;
  }

  /** @param tail the message's bytes where they are kept anyway, as a part of a key: they are not kept twice */
  #read(
    tail: string | null,
    buffer: Buffer,
    start: number,
    textEnd: number,
    end: number,
    reading: TextReading,
    scope: TableScope,
  ): StatementSource {
    const bytes = buffer.subarray(start, textEnd);
    const { text, template, isText } = readText(this.#templateOf, bytes, reading, scope);
    const { kv } = template;
    const rewritten = kv?.kind === 'kv' ? rewrite(text, reading, kv.text) : null;
    const clientTail = tail ?? (rewritten === null ? buffer.toString('latin1', start, end) : null);
    const parseTail = rewritten === null ? clientTail! : tailFor(rewritten, buffer.subarray(textEnd, end));
    const isCut = clientTail !== null && isAscii(bytes);
    const ownText = isCut ? clientTail.slice(0, text.length) : text;
    const isTyped = kv?.kind === 'kv' || template.backendCall !== null;
    const parameterTypes = isTyped ? typesIn(buffer, textEnd + 1, end) : NO_TYPES;
    let ownBytes = SOURCE_BYTES + arrayBytes(parameterTypes);
    if (!isCut) ownBytes += tail === null ? 16 + 2 * text.length : stringBytes(text);
    // Bytes, a character for each.
    if (rewritten !== null) ownBytes += REWRITTEN_BYTES + arrayBytes(rewritten.literals);
    if (rewritten !== null || tail === null) ownBytes += 16 + parseTail.length;
    return {
      parseTail,
      text: ownText,
      template,
      rewritten: rewritten === null ? null : { ...rewritten, text: ownText },
      parameterTypes,
      reading: isText ? reading : null,
      scope,
      typeBytes: end - textEnd,
      ownBytes,
      // A long text is not looked through for it.
      readsClock: end - start > SHARED_LENGTH_MAX || readsClock(text, reading.standardStrings),
      noisy: false,
      uses: 0,
      namesNow: 0,
      namesEver: 0,
    };
  }

  /** A statement that was read when its names stood for other tables, as it reads now (D25). */
  renewed(source: StatementSource, reading: TextReading, scope: TableScope): StatementSource {
    const text = reading.encoding.write(source.text);
    const types = source.parseTail.slice(source.parseTail.length - source.typeBytes);
    const message = Buffer.concat([text, Buffer.from(types, 'latin1')]);
    return this.intern(message, 0, text.length, message.length, reading, scope);
  }

  /** A read of pgkv's own making: it leaves nothing in the session. */
  ownText(text: string, parameterTypes: readonly number[], encoding: ClientEncoding = UTF8): StatementSource {
    const key = `\u0002${encoding.isUtf8 ? '' : encoding.name}\u0002${parameterTypes.join(',')}\u0002${text}`;
    let source = this.#sources.get(key);
    if (source === undefined) {
      source = unsharedText(text, parameterTypes, encoding);
      this.#sources.set(key, source);
    }
    return source;
  }
}

/** The same of a text that will hardly come again. */
export function unsharedText(
  text: string,
  parameterTypes: readonly number[],
  encoding: ClientEncoding,
): StatementSource {
  const types = Buffer.alloc(3 + 4 * parameterTypes.length);
  types.writeUInt16BE(parameterTypes.length, 1);
  for (const [index, type] of parameterTypes.entries()) types.writeUInt32BE(type >>> 0, 3 + 4 * index);
  return ownSource(Buffer.concat([encoding.write(text), types]), text, OWN_READ, parameterTypes);
}

const NO_TYPES: readonly number[] = [];
const TIMES = /\b(?:now|today|tomorrow|yesterday)\b/i;
/** Longer ones are no dates (MAXDATELEN), with room for quotes. */
const DATE_LENGTH_MAX = 140;

/** Words of date input that mean another time each time they are read, in a literal that may be a date. */
function readsClock(text: string, standardStrings: boolean): boolean {
  if (!TIMES.test(text)) return false;
  const literals = lexShape(text, standardStrings)?.literals ?? [];
  for (let at = 0; at < literals.length; at += LITERAL_STRIDE) {
    const source = text.slice(literals[at], literals[at + 1]);
    if (source.length <= DATE_LENGTH_MAX && TIMES.test(source)) return true;
  }
  return false;
}

const OWN_READ: Template = { ...NEUTRAL_TEMPLATE, kind: 'read' };

/** What a client's text says, and how its bytes are read; the text is only good for being shown where they cannot be. */
export interface ReadBytes {
  readonly text: string;
  readonly template: Template;
  /** The bytes are a text in the client's encoding. */
  readonly isText: boolean;
}

/**
 * Reads the bytes of a client's text. Those that are no text in its encoding go to a server as they are, which refuses them in
 * Postgres's words before it looks at anything else (22021).
 */
export function readText(
  templateOf: ReadTemplate,
  bytes: Buffer,
  { encoding, standardStrings }: TextReading,
  scope: TableScope,
): ReadBytes {
  const text = encoding.read(bytes);
  if (text === null) return { text: bytes.toString('latin1'), template: UNPARSED_TEMPLATE, isText: false };
  const template = templateOf(text, standardStrings, scope);
  if (encoding.isUtf8 || isAscii(bytes)) return { text, template, isText: true };
  return { text, template: foreignTemplate(template, text, scope), isText: true };
}

/** What is known of a text with characters of an encoding that is not UTF-8. */
function foreignTemplate(template: Template, text: string, scope: TableScope): Template {
  const { kv } = template;
  if (kv === null && !scope.asciiNames && hasPlaceholders(text) && template.kind !== 'unparsed') {
    return { ...template, kv: UNREADABLE_NAMES };
  }
  // A server cannot be asked to parse it: the text is not sent in this form. Nor is it changed.
  if (kv?.kind === 'refused') return kv.asksServer ? { ...template, kv: { ...kv, asksServer: false } } : template;
  return kv === null && template.statementNames.length > 0 ? UNPARSED_TEMPLATE : template;
}

const UNREADABLE_NAMES = refuse('encoding');

/** The text as servers get it, in the client's characters. */
export const rewrittenText = ({ parts, text, literals }: RewrittenText): string => renderText(parts, text, literals);

/** The same in bytes. */
export const rewrittenBytes = (rewritten: RewrittenText): Buffer => rewritten.encoding.write(rewrittenText(rewritten));

/** Place of a character, counted from 1 as in error messages, in the client's own text. */
export function positionInOriginal({ parts, text, literals }: RewrittenText, position: number): number {
  return originalPosition(parts, text, literals, position);
}

export function rewrite(text: string, reading: TextReading, parts: TextParts): RewrittenText {
  // Copied: what was put together number by number has room for more.
  const literals = (lexShape(text, reading.standardStrings)?.literals ?? []).slice();
  return { parts, text, literals, encoding: reading.encoding };
}

const tailFor = (rewritten: RewrittenText, types: Buffer): string =>
  Buffer.concat([rewrittenBytes(rewritten), types]).toString('latin1');

function typesIn(buffer: Buffer, start: number, end: number): number[] {
  const types: number[] = [];
  const count = start + 2 <= end ? buffer.readInt16BE(start) : 0;
  for (let offset = start + 2; types.length < count && offset + 4 <= end; offset += 4) {
    types.push(buffer.readInt32BE(offset));
  }
  return types;
}
