// Where each key of a TOML document stands: smol-toml gives values without positions, and a problem without its line
// is half a problem. Reads text that smol-toml has accepted, so that it need not check syntax, only never loop:
// every step moves forward, whatever the text. Covers tables, arrays of tables, dotted and quoted keys, inline tables,
// arrays and multi-line strings. https://toml.io/en/v1.1.0

export type KeyPath = readonly (string | number)[];

export interface KeyLines {
  /** 1-based line of the key, or of its nearest parent that stands in the text; 1 where nothing does. */
  lineOf(path: KeyPath): number;
}

const pathId = (path: KeyPath): string => JSON.stringify(path.map(String));

export function keyLines(text: string): KeyLines {
  const scanner = new TomlScanner(text);
  scanner.scan();
  return {
    lineOf(path) {
      for (let length = path.length; length > 0; length--) {
        const line = scanner.lines.get(pathId(path.slice(0, length)));
        if (line !== undefined) return line;
      }
      return 1;
    },
  };
}

class TomlScanner {
  readonly lines = new Map<string, number>();
  readonly #text: string;
  /** Number of elements so far of each array of tables. */
  readonly #elements = new Map<string, number>();
  #position = 0;
  #line = 1;
  /** How far `#line` has been counted. */
  #counted = 0;

  constructor(text: string) {
    this.#text = text;
  }

  scan(): void {
    let table: KeyPath = [];
    for (;;) {
      this.#skipBlank();
      if (this.#position >= this.#text.length) return;
      if (this.#peek() === '[') table = this.#header();
      else this.#keyAndValue(table);
    }
  }

  /** `[a.b]` or `[[a.b]]`; a name that is an array of tables means its newest element. */
  #header(): KeyPath {
    const line = this.#currentLine();
    const isArray = this.#text.startsWith('[[', this.#position);
    this.#position += isArray ? 2 : 1;
    const names = this.#dottedKey();
    const path: (string | number)[] = [];
    names.forEach((name, index) => {
      path.push(name);
      const id = pathId(path);
      if (!this.lines.has(id)) this.lines.set(id, line);
      if (isArray && index === names.length - 1) this.#elements.set(id, (this.#elements.get(id) ?? 0) + 1);
      const elements = this.#elements.get(id);
      if (elements !== undefined) path.push(elements - 1);
    });
    this.lines.set(pathId(path), line);
    this.#skipUntil('\n');
    return path;
  }

  #keyAndValue(table: KeyPath): void {
    const line = this.#currentLine();
    const path = [...table];
    for (const name of this.#dottedKey()) {
      path.push(name);
      const id = pathId(path);
      if (!this.lines.has(id)) this.lines.set(id, line);
    }
    // Behind the key stands '='; anything else is skipped too, so that the scan moves on.
    this.#position++;
    this.#value(path);
  }

  #value(path: KeyPath): void {
    this.#skipBlank();
    switch (this.#peek()) {
      case '"':
      case "'":
        this.#string();
        return;
      case '[':
        this.#array(path);
        return;
      case '{':
        this.#inlineTable(path);
        return;
      default:
        this.#scalar();
    }
  }

  #scalar(): void {
    const start = this.#position;
    this.#skipUntil(',]}#\n');
    // Never empty in TOML; in other text a bracket that closes nothing must not hold the scan up.
    if (this.#position === start) this.#position++;
  }

  #array(path: KeyPath): void {
    this.#position++;
    for (let index = 0; this.#moreUntil(']'); index++) {
      const element = [...path, index];
      this.lines.set(pathId(element), this.#currentLine());
      this.#value(element);
    }
  }

  #inlineTable(path: KeyPath): void {
    this.#position++;
    while (this.#moreUntil('}')) this.#keyAndValue(path);
  }

  /** Skips to the next element; false once `close` has been consumed or the text has ended. */
  #moreUntil(close: string): boolean {
    this.#skipBlank();
    if (this.#peek() === ',') {
      this.#position++;
      this.#skipBlank();
    }
    if (this.#peek() !== close) return this.#position < this.#text.length;
    this.#position++;
    return false;
  }

  /** `a."b c".'d'`: its names, with the position behind the last one and behind spaces. */
  #dottedKey(): string[] {
    const names: string[] = [];
    for (;;) {
      this.#skipSpaces();
      const quote = this.#peek();
      if (quote === '"' || quote === "'") names.push(this.#string());
      else {
        const start = this.#position;
        while (/[A-Za-z0-9_-]/.test(this.#peek())) this.#position++;
        names.push(this.#text.slice(start, this.#position));
      }
      this.#skipSpaces();
      if (this.#peek() !== '.') return names;
      this.#position++;
    }
  }

  /** Any of the four kinds of string; gives its content (of escapes, those that JSON knows). */
  #string(): string {
    const quote = this.#peek();
    const fence = this.#text.startsWith(quote.repeat(3), this.#position) ? quote.repeat(3) : quote;
    const start = this.#position + fence.length;
    let end = start;
    while (end < this.#text.length && !this.#text.startsWith(fence, end)) {
      end += quote === '"' && this.#text[end] === '\\' ? 2 : 1;
    }
    // A multi-line string may end in up to two quotes of its own before the fence.
    if (fence.length === 3) while (this.#text[end + 3] === quote) end++;
    this.#position = Math.min(end + fence.length, this.#text.length);
    const content = this.#text.slice(start, end);
    if (quote === "'" || !content.includes('\\')) return content;
    try {
      return JSON.parse(`"${content}"`) as string;
    } catch {
      return content;
    }
  }

  /** Spaces, line ends and comments. */
  #skipBlank(): void {
    for (;;) {
      while (/\s/.test(this.#peek())) this.#position++;
      if (this.#peek() !== '#') return;
      this.#skipUntil('\n');
    }
  }

  #skipSpaces(): void {
    while (this.#peek() === ' ' || this.#peek() === '\t') this.#position++;
  }

  #skipUntil(stops: string): void {
    while (this.#position < this.#text.length && !stops.includes(this.#peek())) this.#position++;
  }

  /** The character at the position, '' at the end of the text. */
  #peek(): string {
    return this.#text[this.#position] ?? '';
  }

  #currentLine(): number {
    for (; this.#counted < this.#position; this.#counted++) if (this.#text[this.#counted] === '\n') this.#line++;
    return this.#line;
  }
}
