// COPY's text format as lines of bytes, held as latin1 strings: what is passed on from one server to another, and compared, stays
// as servers write it. Only what pgkv itself has to read is unescaped.
// https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2

export const NONE = '\\N';

/** Puts lines together from messages cut anywhere. Line ends inside fields are escaped, so that each line is a row. */
export class LineCutter {
  readonly #take: (line: string) => void;
  #rest = '';

  constructor(take: (line: string) => void) {
    this.#take = take;
  }

  push(chunk: Buffer): void {
    const text = this.#rest + chunk.toString('latin1');
    let start = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
      this.#take(text.slice(start, end));
      start = end + 1;
    }
    this.#rest = text.slice(start);
  }
}

const ESCAPES: Readonly<Record<string, string>> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };

/** The text that a field stands for; null: NULL. */
export function fieldText(field: string): string | null {
  if (field === NONE) return null;
  const bytes = field.includes('\\')
    ? field.replace(/\\(.)/gs, (_all, character: string) => ESCAPES[character] ?? character)
    : field;
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** A literal for a session whose standard_conforming_strings is on. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** An array of texts as a literal. */
export const arrayLiteral = (texts: readonly string[]): string =>
  `${literal(`{${texts.map((text) => `"${text.replace(/["\\]/g, '\\$&')}"`).join(',')}}`)}::text[]`;
