// The only file that touches libpg-query: SQL text to syntax trees of Postgres 18's grammar. Positions in the trees are
// UTF-8 byte offsets. It knows nothing of what the trees mean.
//
// It drives the package's WebAssembly module itself instead of through the package's index: a deeply nested statement
// (20 KB of "1+1+1…") overflows the stack in the middle of C code, the module keeps what it had half done, and after 26
// such statements every parse in the process fails with "memory access out of bounds". So a module that threw is
// discarded and a spare one takes its place; likewise one that has grown large, since WebAssembly memory never shrinks.
// `npx tap run test/unit/sql/parse.test.ts` holds this.
import { createRequire } from 'node:module';
import type { Node } from 'libpg-query';
import { messageOf } from '../../base/errors.js';
import { lexShape } from '../text/shape-lexer.js';
import { tokensOf } from '../text/text-tokens.js';

/** What a module starts with (pages it never touched cost nothing); 40,000 rows of VALUES fit. */
const MODULE_BYTES_MAX = 128 * 1024 * 1024;

/** What Emscripten's wrapper exports, as far as it is used here. Pointers are numbers. */
interface ParserModule {
  readonly HEAPU8: Uint8Array;
  readonly _malloc: (byteCount: number) => number;
  readonly _free: (pointer: number) => void;
  readonly _wasm_parse_query_raw: (text: number) => number;
  readonly _wasm_free_parse_result: (result: number) => void;
  readonly _wasm_scan: (text: number) => number;
  readonly _wasm_free_string: (text: number) => void;
  readonly getValue: (pointer: number, type: 'i32') => number;
  readonly UTF8ToString: (pointer: number) => string;
}

export interface ParsedStatement {
  readonly node: Node;
  /** Byte offsets of its first token and behind its last, or behind the comments that follow at the end of the text. */
  readonly startByte: number;
  readonly endByte: number;
}

export interface ParsedText {
  readonly kind: 'parsed';
  readonly statements: readonly ParsedStatement[];
}

export interface ParseFailure {
  readonly kind: 'failed';
  /** `rejected`: not SQL of this grammar. `exhausted`: the parser could not cope; a server might. */
  readonly reason: 'rejected' | 'exhausted';
  readonly message: string;
}

export interface Token {
  readonly text: string;
  readonly startByte: number;
  readonly endByte: number;
}

const createModule = createRequire(import.meta.url)('libpg-query/wasm/libpg-query.js') as () => Promise<ParserModule>;

/** Every text's tree fits on the stack below this: 7 KB nested as deep as can be overflow it. In UTF-16 units. */
const SAFE_LENGTH_MAX = 4096;

/** Modules for texts of one kind, so that those that a long text may break are not missing to ordinary ones. */
class Modules {
  current: ParserModule | null = null;
  readonly #spares: ParserModule[] = [];
  readonly #sparesMax: number;
  #loading: Promise<void> | null = null;

  constructor(sparesMax: number) {
    this.#sparesMax = sparesMax;
  }

  get isComplete(): boolean {
    return this.current !== null && this.#spares.length >= this.#sparesMax;
  }

  load(): Promise<void> {
    this.#loading ??= createModule()
      .then((created) => {
        if (this.current === null) this.current = created;
        else this.#spares.push(created);
      })
      .finally(() => {
        this.#loading = null;
        if (!this.isComplete && this.current !== null) this.load().catch(() => undefined);
      });
    return this.#loading;
  }

  discard(): void {
    this.current = this.#spares.shift() ?? null;
    // Where this fails (no memory), `parse` answers "exhausted" when the spares are used up, and tries again.
    this.load().catch(() => undefined);
  }
}

const ordinary = new Modules(1);
/** Two spares: a text that breaks one may be tried in several forms, and by several clients. */
const forLongTexts = new Modules(2);

/** Must have settled before the first `parse`. Idempotent. */
export async function loadParser(): Promise<void> {
  while (!ordinary.isComplete) await ordinary.load();
  while (!forLongTexts.isComplete) await forLongTexts.load();
}

/** Synchronous; 20 to 40 µs for a usual statement, 13 ms for 1 MiB of one literal, 90 ms for 60,000 literals. */
export function parse(original: string): ParsedText | ParseFailure {
  const text = withBlankComments(original);
  const unfit = unfitText(text);
  if (unfit !== null) return { kind: 'failed', reason: 'rejected', message: unfit };
  const outcome = inModule(text, (module, pointer) => {
    const result = module._wasm_parse_query_raw(pointer);
    if (result === 0) throw new Error('out of memory');
    try {
      // PgQueryParseResult is { char *tree, char *stderr, PgQueryError *error }; PgQueryError begins with its message.
      const error = module.getValue(result + 8, 'i32');
      if (error !== 0) return { rejected: module.UTF8ToString(module.getValue(error, 'i32')) };
      return { tree: stringAt(module, module.getValue(result, 'i32')) };
    } finally {
      module._wasm_free_parse_result(result);
    }
  });
  if (typeof outcome === 'string') return { kind: 'failed', reason: 'exhausted', message: outcome };
  if (outcome.tree === undefined) {
    // "memory exhausted" is Bison's word for nesting deeper than its stack.
    const reason = outcome.rejected.startsWith('memory exhausted') ? 'exhausted' : 'rejected';
    return { kind: 'failed', reason, message: outcome.rejected };
  }
  return { kind: 'parsed', statements: statementsOf(outcome.tree, text) };
}

/** What UTF8ToString gives, in a third of the time for the megabytes that a long text's tree has. */
function stringAt({ HEAPU8: memory }: ParserModule, pointer: number): string {
  const end = memory.indexOf(0, pointer);
  return Buffer.from(memory.buffer, memory.byteOffset + pointer, end - pointer).toString('utf8');
}

/**
 * The text with spaces for its comments, byte for byte, so that places hold. libpg-query's scanner gives comments as tokens,
 * and the grammar's look-ahead does not skip them: it rejects `NULLS /* *\/ LAST`, `NOT -- …` before IN, and the like.
 */
function withBlankComments(text: string): string {
  if (!text.includes('--') && !text.includes('/*')) return text;
  const shape = lexShape(text, true);
  if (shape === null) return text;
  let blank = '';
  let at = 0;
  for (const token of tokensOf(text, shape.literals)) {
    blank += blankGap(text.slice(at, token.start)) + text.slice(token.start, token.end);
    at = token.end;
  }
  return blank + blankGap(text.slice(at));
}

/** Line ends stay: behind one, a string may go on. */
const blankGap = (gap: string): string =>
  /\S/.test(gap) ? gap.replace(/[^\r\n]/gu, (character) => ' '.repeat(Buffer.byteLength(character))) : gap;

/** Postgres's own tokens, comments left out. Takes 40 µs and more: for rare statements only. */
export function scanTokens(text: string): readonly Token[] {
  if (unfitText(text) !== null) return [];
  const json = inModule(text, (module, pointer) => {
    const result = module._wasm_scan(pointer);
    try {
      return { json: module.UTF8ToString(result) };
    } finally {
      module._wasm_free_string(result);
    }
  });
  // An error comes as plain text.
  if (typeof json === 'string' || !json.json.startsWith('{')) return [];
  const scanned = JSON.parse(json.json) as { tokens?: { start: number; end: number; text: string }[] };
  return (scanned.tokens ?? [])
    .filter((token) => !token.text.startsWith('--') && !token.text.startsWith('/*'))
    .map((token) => ({ text: token.text, startByte: token.start, endByte: token.end }));
}

/** C strings end at a NUL, and half a surrogate pair has no UTF-8 form: such a text would be read as another one. */
function unfitText(text: string): string | null {
  if (text.includes('\0')) return 'NUL in the text';
  return /\p{Surrogate}/u.test(text) ? 'half a surrogate pair in the text' : null;
}

/** Runs `use` on a copy of the text in the module's memory; a string instead of its result says why it could not. */
function inModule<Result extends object>(
  text: string,
  use: (module: ParserModule, textPointer: number) => Result,
): Result | string {
  const modules = text.length <= SAFE_LENGTH_MAX ? ordinary : forLongTexts;
  const module = modules.current;
  if (module === null) {
    modules.load().catch(() => undefined);
    return 'the parser is being loaded';
  }
  try {
    const bytes = Buffer.from(text);
    const pointer = module._malloc(bytes.length + 1);
    if (pointer === 0) throw new Error('out of memory');
    module.HEAPU8.set(bytes, pointer);
    module.HEAPU8[pointer + bytes.length] = 0;
    const result = use(module, pointer);
    module._free(pointer);
    if (module.HEAPU8.length > MODULE_BYTES_MAX) modules.discard();
    return result;
  } catch (error) {
    modules.discard();
    return `the parser gave up: ${messageOf(error)}`;
  }
}

function statementsOf(tree: string, text: string): ParsedStatement[] {
  const parsed = JSON.parse(tree) as { stmts?: { stmt?: Node; stmt_location?: number; stmt_len?: number }[] };
  const statements: ParsedStatement[] = [];
  for (const { stmt, stmt_location: startByte = 0, stmt_len: byteCount } of parsed.stmts ?? []) {
    if (stmt === undefined) continue;
    const endByte = byteCount === undefined ? Buffer.byteLength(text) : startByte + byteCount;
    statements.push({ node: stmt, startByte, endByte });
  }
  return statements;
}
