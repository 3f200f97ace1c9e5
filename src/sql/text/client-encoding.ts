// Texts and values in the encodings that clients may use, as strings and back. Servers read a text in their own encoding,
// UTF8, so that a key under another client_encoding is the UTF-8 that Postgres converts it to (D1). Characters of one byte are
// read as what Postgres makes of them. A character of several bytes becomes one placeholder in a private plane of Unicode, from
// which its bytes come back exactly: to lexer and parser it is a letter, as it is to Postgres. Whether such a character's
// Unicode is known exactly is asked only where a value is needed; where it is not, the value is unreadable, never a guess.
// https://github.com/postgres/postgres/blob/master/src/common/wchar.c
import { isAscii, isUtf8, transcode } from 'node:buffer';
import { SINGLE_BYTE_ENCODINGS } from './single-byte-encodings.js';

export interface ClientEncoding {
  /** As servers report it. */
  readonly name: string;
  /** Every byte below 128 is that ASCII character, wherever it stands. */
  readonly asciiSafe: boolean;
  /** Bytes are the server's own: strings are what they look like. */
  readonly isUtf8: boolean;
  /** Null where the bytes are no text in this encoding, or where pgkv cannot tell its characters apart. */
  read(bytes: Buffer): string | null;
  /** The bytes of a string that `read` gave, or that was put together from such ones and ASCII. */
  write(text: string): Buffer;
  /** What a part of a string that `read` gave says in Unicode; null where that is not known exactly. */
  exact(text: string): string | null;
}

/** Placeholders begin here: plane 15, private use. */
const PLANE = 0xf0000;
/** Behind those of two bytes, 15 bits, come those of one byte and of three that begin with 0x8f, 14 bits. */
const ONE_BYTE = PLANE + 0x8000;
const THREE_BYTES = PLANE + 0x9000;
const PLACEHOLDERS_END = THREE_BYTES + 0x4000;
const ANY_PLACEHOLDER = /[\u{f0000}-\u{fcfff}]/u;
const SS2 = 0x8e;
const SS3 = 0x8f;

const UTF8_ENCODINGS: readonly string[] = ['UTF8', 'SQL_ASCII'];

/** In bytes. Longer texts beyond ASCII take a way on which V8 has no part: 8 ms instead of 60 for 16 MiB. */
const SHORT_BYTES_MAX = 64 * 1024;

const utf8Text = (bytes: Buffer): string =>
  bytes.length <= SHORT_BYTES_MAX || isAscii(bytes)
    ? bytes.toString('utf8')
    : transcode(bytes, 'utf8', 'utf16le').toString('utf16le');

/** SQL_ASCII too: nothing is converted, and servers check the bytes as UTF-8. */
const utf8 = (name: string): ClientEncoding => ({
  name,
  asciiSafe: true,
  isUtf8: true,
  read: (bytes) => (isUtf8(bytes) ? utf8Text(bytes) : null),
  write: (text) => Buffer.from(text, 'utf8'),
  exact: (text) => text,
});

function singleByte(name: string, table: string): ClientEncoding {
  const characters = Array.from(table);
  const bytesOf = new Map(characters.map((character, index) => [character, 128 + index]));
  return {
    name,
    asciiSafe: true,
    isUtf8: false,
    read: (bytes) => {
      if (isAscii(bytes)) return bytes.toString('latin1');
      let text = '';
      for (const byte of bytes) text += byte < 128 ? String.fromCharCode(byte) : characters[byte - 128]!;
      // Servers refuse the whole text for such a byte.
      return text.includes('\ufffd') ? null : text;
    },
    write: (text) => {
      const bytes = Buffer.allocUnsafe(text.length);
      let at = 0;
      for (const character of text) {
        const code = character.charCodeAt(0);
        const byte = code < 128 ? code : bytesOf.get(character);
        if (byte === undefined) throw new RangeError(`a character that was not read from ${name}`);
        bytes[at++] = byte;
      }
      return bytes.subarray(0, at);
    },
    exact: (text) => text,
  };
}

interface MultiByte {
  /** Bytes of the character that begins with `first`, a byte from 128 on. */
  readonly lengthOf: (first: number, second: number) => number;
  readonly asciiSafe: boolean;
  /** Label of the decoder that knows the characters of two bytes, but for those of `differs`. */
  readonly decoder?: string;
  /** Characters to which Postgres gives another meaning than the decoder. */
  readonly differs?: (first: number, second: number) => boolean;
}

const eucLength = (first: number): number => (first === SS3 ? 3 : 2);
const eucTwLength = (first: number): number => (first === SS2 ? 4 : first === SS3 ? 3 : 2);
/** Half-width katakana have one byte. */
const sjisLength = (first: number): number => (first >= 0xa1 && first <= 0xdf ? 1 : 2);
const two = (): number => 2;
const gb18030Length = (_: number, second: number): number => (second >= 0x30 && second <= 0x39 ? 4 : 2);
const oneOf =
  (...codes: readonly number[]) =>
  (first: number, second: number): boolean =>
    codes.includes((first << 8) | second);

/** What differs was found by asking servers for every character: test/integration/client-encodings.test.ts. */
const MULTI_BYTE_ENCODINGS: Readonly<Record<string, MultiByte>> = {
  BIG5: {
    lengthOf: two,
    asciiSafe: false,
    decoder: 'big5',
    differs: (first, second) => first <= 0xa2 || (first === 0xc6 && second >= 0xa1) || first === 0xc7,
  },
  EUC_CN: { lengthOf: eucLength, asciiSafe: true, decoder: 'gbk', differs: oneOf(0xa1a4, 0xa1aa) },
  EUC_JIS_2004: { lengthOf: eucLength, asciiSafe: true },
  EUC_JP: { lengthOf: eucLength, asciiSafe: true, decoder: 'euc-jp' },
  EUC_KR: { lengthOf: eucLength, asciiSafe: true, decoder: 'euc-kr' },
  EUC_TW: { lengthOf: eucTwLength, asciiSafe: true },
  GB18030: {
    lengthOf: gb18030Length,
    asciiSafe: false,
    decoder: 'gbk',
    differs: (first) =>
      first === 0xa2 || first === 0xa3 || first === 0xa6 || first === 0xa8 || first === 0xa9 || first >= 0xfe,
  },
  GBK: { lengthOf: two, asciiSafe: false, decoder: 'gbk' },
  JOHAB: { lengthOf: eucLength, asciiSafe: false },
  SHIFT_JIS_2004: { lengthOf: sjisLength, asciiSafe: false },
  SJIS: { lengthOf: sjisLength, asciiSafe: false, decoder: 'shift_jis' },
  UHC: { lengthOf: two, asciiSafe: false },
};

function placeholder(length: number, first: number, second: number, third: number): number {
  if (length === 1) return ONE_BYTE + first;
  if (length === 2) return PLANE + ((first & 0x7f) << 8) + second;
  return first === SS3 && second >= 128 && third >= 128 ? THREE_BYTES + ((second & 0x7f) << 7) + (third & 0x7f) : 0;
}

function readMultiByte({ lengthOf }: MultiByte, bytes: Buffer): string | null {
  if (isAscii(bytes)) return bytes.toString('latin1');
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at]!;
    if (first < 128) {
      text += String.fromCharCode(first);
      at++;
      continue;
    }
    const length = lengthOf(first, bytes[at + 1] ?? 0);
    if (at + length > bytes.length) return null;
    const code = length > 3 ? 0 : placeholder(length, first, bytes[at + 1]!, bytes[at + 2]!);
    if (code === 0) return null;
    text += String.fromCodePoint(code);
    at += length;
  }
  return text;
}

function writePlaceholders(text: string): Buffer {
  const bytes = Buffer.allocUnsafe(text.length * 2);
  let at = 0;
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (code < 128) bytes[at++] = code;
    else if (code >= PLANE && code < ONE_BYTE) {
      bytes[at++] = 0x80 | ((code - PLANE) >> 8);
      bytes[at++] = (code - PLANE) & 0xff;
    } else if (code >= ONE_BYTE && code < THREE_BYTES) bytes[at++] = code - ONE_BYTE;
    else if (code >= THREE_BYTES && code < PLACEHOLDERS_END) {
      bytes[at++] = SS3;
      bytes[at++] = 0x80 | ((code - THREE_BYTES) >> 7);
      bytes[at++] = 0x80 | ((code - THREE_BYTES) & 0x7f);
    } else throw new RangeError('a character that was not read from a client');
  }
  return bytes.subarray(0, at);
}

function multiByte(name: string, rules: MultiByte): ClientEncoding {
  const { asciiSafe, decoder: label, differs } = rules;
  const decoder = label === undefined ? null : new TextDecoder(label, { fatal: true });
  const exactCharacter = (code: number): string | null => {
    // Of three bytes: JIS X 0212 and the planes of CNS 11643, which the decoders know in part.
    if (decoder === null || code >= THREE_BYTES) return null;
    const bytes = writePlaceholders(String.fromCodePoint(code));
    if (bytes.length === 2 && differs?.(bytes[0]!, bytes[1]!) === true) return null;
    try {
      const character = decoder.decode(bytes);
      // Bytes that are no character of it, but a shorter one and ASCII.
      return [...character].length === 1 ? character : null;
    } catch {
      return null;
    }
  };
  return {
    name,
    asciiSafe,
    isUtf8: false,
    read: (bytes) => readMultiByte(rules, bytes),
    write: writePlaceholders,
    exact: (text) => {
      if (!ANY_PLACEHOLDER.test(text)) return text;
      let said = '';
      for (const character of text) {
        const code = character.codePointAt(0)!;
        const exact = code < 128 ? character : exactCharacter(code);
        if (exact === null) return null;
        said += exact;
      }
      return said;
    },
  };
}

/** One that pgkv does not know: only ASCII is read. None is left among those that a UTF8 server can convert. */
const unknown = (name: string): ClientEncoding => ({
  name,
  asciiSafe: false,
  isUtf8: false,
  read: (bytes) => (isAscii(bytes) ? bytes.toString('latin1') : null),
  write: (text) => Buffer.from(text, 'latin1'),
  exact: (text) => text,
});

const ENCODINGS = new Map<string, ClientEncoding>();

function make(name: string): ClientEncoding {
  if (UTF8_ENCODINGS.includes(name)) return utf8(name);
  const table = SINGLE_BYTE_ENCODINGS[name];
  if (table !== undefined) return singleByte(name, table);
  const rules = MULTI_BYTE_ENCODINGS[name];
  return rules === undefined ? unknown(name) : multiByte(name, rules);
}

/** The one object for an encoding. @param name as servers report it in client_encoding */
export function clientEncoding(name: string): ClientEncoding {
  let encoding = ENCODINGS.get(name);
  if (encoding === undefined) {
    encoding = make(name);
    // Names come from servers, which know some forty.
    if (ENCODINGS.size < 256) ENCODINGS.set(name, encoding);
  }
  return encoding;
}

export const UTF8 = clientEncoding('UTF8');

/** For the names of tables: whether one that is not ASCII might stand in a text unseen. */
export const hasPlaceholders = (text: string): boolean => ANY_PLACEHOLDER.test(text);

/** The text of a value in bytes, in Unicode; null where it is not known exactly. */
export function exactText(encoding: ClientEncoding, bytes: Buffer): string | null {
  const text = encoding.read(bytes);
  return text === null ? null : encoding.exact(text);
}

/** Texts of batches, and the literals among their values, are written in UTF-8, which servers may read as something else. */
export function canBeSaidInUtf8(statement: { readonly text: string; readonly encoding?: ClientEncoding }): boolean {
  const encoding = statement.encoding ?? UTF8;
  return encoding.isUtf8 || !BEYOND_ASCII.test(statement.text);
}
const BEYOND_ASCII = /[\u0080-\uffff]/;
