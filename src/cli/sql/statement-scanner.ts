// Finds where statements and backslash commands end in text that arrives line by line, as psql's lexer does
// (psqlscan.l of 15): quotes, dollar quotes, nested comments, parentheses and BEGIN ATOMIC bodies span lines. Comments
// before a statement's first word are not part of it, so that error positions agree with psql's.

export type Scanned =
  /** A whole statement, its semicolon included. */
  | { readonly kind: 'statement'; readonly text: string }
  /** The rest of a line from behind its backslash; the statement so far stays in the scanner. */
  | { readonly kind: 'command'; readonly text: string }
  /** The line is used up and the statement is not finished. */
  | { readonly kind: 'more' };

/** What the text so far is inside of; `none` is plain SQL. Quotes are named by the character psql's prompt shows. */
type Inside =
  | { readonly kind: 'none' }
  | { readonly kind: 'quote'; readonly mark: "'" | '"'; readonly backslashEscapes: boolean }
  | { readonly kind: 'dollar'; readonly delimiter: string }
  | { readonly kind: 'comment'; readonly depth: number };

const PLAIN: Inside = { kind: 'none' };
const IDENTIFIER = /[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*/y;
const DOLLAR_DELIMITER = /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/y;
const NUMBER = /[0-9]+/y;
const SPACE = /[ \t\r\f\v\n]+/y;
const FUNCTION_WORDS = new Set(['create', 'or', 'replace', 'function', 'procedure']);

export class StatementScanner {
  /** `standard_conforming_strings`: off makes a backslash an escape in plain quotes. */
  standardStrings = true;

  #statement = '';
  #line = '';
  #offset = 0;
  #inside: Inside = PLAIN;
  #parentheses = 0;
  /** BEGIN ATOMIC … END nesting of a CREATE FUNCTION. */
  #bodyDepth = 0;
  /** The statement's first words as far as they could read CREATE [OR REPLACE] FUNCTION. */
  #firstWords: string[] = [];
  #words = 0;

  /** The statement so far. */
  get statement(): string {
    return this.#statement;
  }

  /** psql's `%R`: `=` before a statement, else what the text so far waits for. */
  get promptMark(): string {
    if (this.#inside.kind === 'quote') return this.#inside.mark;
    if (this.#inside.kind === 'dollar') return '$';
    if (this.#inside.kind === 'comment') return '*';
    if (this.#parentheses > 0) return '(';
    return this.#statement === '' ? '=' : '-';
  }

  /** Gives the next line, without its line end. Call `next` until it answers `more`. */
  addLine(line: string): void {
    this.#line = line;
    this.#offset = 0;
    if (line === '' && this.#inside.kind === 'none') return;
    if (this.#statement !== '') this.#statement += '\n';
  }

  next(): Scanned {
    while (this.#offset < this.#line.length) {
      const found = this.#inside.kind === 'none' ? this.#scanPlain() : this.#scanInside(this.#inside);
      if (found) return found;
    }
    return { kind: 'more' };
  }

  /** The unfinished statement, or undefined where there is none; the scanner starts afresh. */
  take(): string | undefined {
    const text = this.#statement;
    this.reset();
    return text === '' ? undefined : text;
  }

  /** Forgets the statement so far, but not the rest of the line. */
  reset(): void {
    this.#statement = '';
    this.#inside = PLAIN;
    this.#parentheses = 0;
    this.#bodyDepth = 0;
    this.#firstWords = [];
    this.#words = 0;
  }

  /** Forgets the rest of the line as well. */
  resetAll(): void {
    this.reset();
    this.#line = '';
    this.#offset = 0;
  }

  #keep(text: string): void {
    this.#statement += text;
    this.#offset += text.length;
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#offset;
    return pattern.exec(this.#line)?.[0];
  }

  #scanPlain(): Scanned | undefined {
    const rest = this.#line;
    const character = rest[this.#offset]!;
    const space = this.#match(SPACE);
    if (space !== undefined) {
      if (this.#statement === '') this.#offset += space.length;
      else this.#keep(space);
      return undefined;
    }
    const two = rest.slice(this.#offset, this.#offset + 2);
    if (two === '--') {
      if (this.#statement === '') this.#offset = rest.length;
      else this.#keep(rest.slice(this.#offset));
      return undefined;
    }
    if (two === '/*') {
      this.#inside = { kind: 'comment', depth: 1 };
      this.#keep(two);
      return undefined;
    }
    if (character === '\\') return this.#scanBackslash(two);
    const word = this.#match(IDENTIFIER);
    if (word !== undefined) {
      this.#keep(word);
      this.#noteWord(word.toLowerCase());
      // E'…' has escapes; a quote behind any other word (B'', X'', U&'', type 'text') is a plain one.
      if (word.toLowerCase() === 'e' && rest[this.#offset] === "'") this.#openQuote("'", true);
      return undefined;
    }
    const plainRun = this.#match(NUMBER) ?? character;
    switch (character) {
      case "'":
        this.#openQuote("'", !this.standardStrings);
        return undefined;
      case '"':
        this.#openQuote('"', false);
        return undefined;
      case '$': {
        const delimiter = this.#match(DOLLAR_DELIMITER);
        if (delimiter !== undefined) this.#inside = { kind: 'dollar', delimiter };
        this.#keep(delimiter ?? character);
        return undefined;
      }
      case '(':
        this.#parentheses++;
        break;
      case ')':
        if (this.#parentheses > 0) this.#parentheses--;
        break;
      case ';':
        if (this.#parentheses === 0 && this.#bodyDepth === 0) {
          const text = `${this.#statement};`;
          this.#offset++;
          this.reset();
          return { kind: 'statement', text };
        }
        break;
    }
    this.#keep(plainRun);
    return undefined;
  }

  /** `\;` puts a semicolon into the statement without ending it; anything else is a command. */
  #scanBackslash(two: string): Scanned | undefined {
    if (two === '\\;' || two === '\\:') {
      this.#statement += two[1];
      this.#offset += 2;
      return undefined;
    }
    const text = this.#line.slice(this.#offset + 1);
    this.#offset = this.#line.length;
    // A line that holds nothing but the command leaves no empty line in the statement.
    if (this.#statement.endsWith('\n')) this.#statement = this.#statement.slice(0, -1);
    return { kind: 'command', text };
  }

  #openQuote(mark: "'" | '"', backslashEscapes: boolean): void {
    this.#inside = { kind: 'quote', mark, backslashEscapes };
    this.#keep(mark);
  }

  #scanInside(inside: Exclude<Inside, { kind: 'none' }>): undefined {
    switch (inside.kind) {
      case 'quote':
        return this.#scanQuote(inside);
      case 'dollar': {
        const end = this.#line.indexOf(inside.delimiter, this.#offset);
        if (end >= 0) this.#inside = PLAIN;
        this.#keep(this.#line.slice(this.#offset, end < 0 ? undefined : end + inside.delimiter.length));
        return undefined;
      }
      case 'comment':
        return this.#scanComment(inside.depth);
    }
  }

  #scanQuote({ mark, backslashEscapes }: Extract<Inside, { kind: 'quote' }>): undefined {
    let end = this.#offset;
    while (end < this.#line.length && this.#line[end] !== mark) {
      end += backslashEscapes && this.#line[end] === '\\' ? 2 : 1;
    }
    if (end >= this.#line.length) {
      this.#keep(this.#line.slice(this.#offset));
      return undefined;
    }
    // A doubled mark reopens the same quote.
    if (this.#line[end + 1] === mark) end++;
    else this.#inside = PLAIN;
    this.#keep(this.#line.slice(this.#offset, end + 1));
    return undefined;
  }

  #scanComment(depth: number): undefined {
    const mark = /\/\*|\*\//g;
    mark.lastIndex = this.#offset;
    const found = mark.exec(this.#line);
    if (!found) {
      this.#keep(this.#line.slice(this.#offset));
      return undefined;
    }
    const left = found[0] === '/*' ? depth + 1 : depth - 1;
    this.#inside = left === 0 ? PLAIN : { kind: 'comment', depth: left };
    this.#keep(this.#line.slice(this.#offset, mark.lastIndex));
    return undefined;
  }

  /** psql's heuristic: semicolons between BEGIN and END of a CREATE FUNCTION or PROCEDURE end nothing. */
  #noteWord(word: string): void {
    if (this.#words < 4 && FUNCTION_WORDS.has(word)) this.#firstWords[this.#words] = word;
    this.#words++;
    if (this.#parentheses > 0 || !this.#createsFunction()) return;
    if (word === 'begin') this.#bodyDepth++;
    else if (word === 'case' && this.#bodyDepth > 0) this.#bodyDepth++;
    else if (word === 'end' && this.#bodyDepth > 0) this.#bodyDepth--;
  }

  #createsFunction(): boolean {
    const [first, second, third, fourth] = this.#firstWords;
    if (first !== 'create') return false;
    const made = second === 'or' && third === 'replace' ? fourth : second;
    return made === 'function' || made === 'procedure';
  }
}
