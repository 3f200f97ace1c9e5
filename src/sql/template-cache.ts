// Templates by text and by shape, in bounded memory: a text seen before costs a look-up, a text of a shape seen before
// a lexer pass, and only a new shape a parse. Literal-free and text-dependent texts are kept by their text; the others,
// of which a client may send a million, leave nothing behind.
import { LRUCache } from 'lru-cache';
import { isRefusal } from '../base/refusals.js';
import { NO_TABLES, type TableScope } from '../cluster/table-scope.js';
import type { Template } from './plan/template.js';
import { readTemplate, TOKENS_MAX, tooManyTokens } from './read-template.js';
import { lexShape, type Shape, TOO_MANY_PIECES } from './text/shape-lexer.js';

/** Longer texts are not kept: comparing them costs about what lexing them does. In UTF-16 units. */
const KEPT_TEXT_MAX = 16 * 1024;
/** Share of the bytes for texts; the rest is for shapes. */
const TEXT_SHARE = 0.25;
/** A Template, its arrays and the cache's own bookkeeping: 575 bytes of heap, seen over 30,000 entries. */
const ENTRY_BYTES = 600;
const OLDEST_SUPPORTED_MAJOR = 15;

export interface TemplateCacheOptions {
  readonly bytesMax: number;
  /** The oldest server in use; decides which pg_catalog functions are known. */
  readonly oldestServerMajor?: number;
  /** Tokens of a text at which it is not read: reading is synchronous, and takes 2 to 3 µs for each (D30). */
  readonly tokensMax?: number;
}

export class TemplateCache {
  /** Counters, in calls of `get`: answered by the text, by the shape, and by parsing. */
  textHits = 0;
  shapeHits = 0;
  misses = 0;
  readonly #byText: LRUCache<string, Template>;
  readonly #byShape: LRUCache<string, Template>;
  readonly #oldestServerMajor: number;
  readonly #tokensMax: number;
  #lexedText = '';
  #lexedAsStandard = true;
  #lexed: Shape | null = null;

  constructor(options: TemplateCacheOptions) {
    const sizeCalculation = (template: Template, key: string): number => entryBytes(template, key);
    const textBytesMax = Math.max(1, Math.floor(options.bytesMax * TEXT_SHARE));
    this.#byText = new LRUCache({ maxSize: textBytesMax, sizeCalculation });
    this.#byShape = new LRUCache({ maxSize: Math.max(1, options.bytesMax - textBytesMax), sizeCalculation });
    this.#oldestServerMajor = options.oldestServerMajor ?? OLDEST_SUPPORTED_MAJOR;
    this.#tokensMax = options.tokensMax ?? TOKENS_MAX;
  }

  get entries(): number {
    return this.#byText.size + this.#byShape.size;
  }

  /** Upper estimate of the memory held. */
  get bytes(): number {
    return this.#byText.calculatedSize + this.#byShape.calculatedSize;
  }

  /** The parser must be loaded. Never throws: a text that is no SQL has a Template, too. */
  get(text: string, standardConformingStrings: boolean, scope: TableScope = NO_TABLES): Template {
    // Without a backslash the setting makes no difference. NUL is in no text, so this is no other text's key.
    const standard = standardConformingStrings || !text.includes('\\');
    const textKey = standard ? `${scope.key}${text}` : `\0${scope.key}${text}`;
    // A text with a string in it is seldom kept as it is, so that its shape is looked for first.
    const mayHaveShapeOnly = text.includes("'");
    const known = mayHaveShapeOnly ? undefined : this.#getByText(textKey);
    if (known !== undefined) return known;
    const shape = lexShape(text, standard, this.#tokensMax);
    if (shape === TOO_MANY_PIECES) return tooManyTokens(text, this.#tokensMax, scope);
    this.#lexedText = text;
    this.#lexedAsStandard = standard;
    this.#lexed = shape;
    const shapeKey = shape === null ? '' : `${scope.key}${shape.key}`;
    const byShape = shape === null ? undefined : this.#byShape.get(shapeKey);
    if (byShape !== undefined) {
      this.shapeHits++;
      if (shape!.literals.length === 0) this.#keepText(textKey, byShape);
      return byShape;
    }
    const byText = mayHaveShapeOnly ? this.#getByText(textKey) : undefined;
    if (byText !== undefined) return byText;
    this.misses++;
    const { template, holdsForShape } = readTemplate(
      text,
      standard,
      shape,
      this.#oldestServerMajor,
      scope,
      this.#tokensMax,
    );
    if (template.kind === 'unparsed') return template;
    if (holdsForShape && shape !== null) this.#byShape.set(flat(shapeKey), template);
    if (!holdsForShape || shape?.literals.length === 0) this.#keepText(textKey, template);
    return template;
  }

  /** Literals of a text, see Shape.literals. The one that `get` has lexed last is not lexed again. */
  literalsOf(text: string, standardConformingStrings: boolean): readonly number[] {
    const standard = standardConformingStrings || !text.includes('\\');
    const isLast = text === this.#lexedText && standard === this.#lexedAsStandard;
    return (isLast ? this.#lexed : lexShape(text, standard))?.literals ?? [];
  }

  #getByText(textKey: string): Template | undefined {
    const template = this.#byText.get(textKey);
    if (template !== undefined) this.textHits++;
    return template;
  }

  #keepText(textKey: string, template: Template): void {
    if (textKey.length <= KEPT_TEXT_MAX) this.#byText.set(textKey, template);
  }
}

/** Two bytes a character is what V8 needs at most. */
function entryBytes(template: Template, key: string): number {
  let characters = key.length;
  for (const name of template.settingNames) characters += name.length;
  characters += planCharacters(template);
  for (const reference of template.statementNames) characters += reference.name.length + 32;
  return ENTRY_BYTES + 2 * characters;
}

/** Bytes of a plan's texts, and some for its objects. */
function planCharacters({ kv }: Template): number {
  if (kv === null) return 0;
  if (kv.kind === 'refused') return kv.reason.length + kv.hint.length;
  let characters = 256 + (kv.keys?.length ?? 0) * 64;
  const texts = [kv.text];
  if (!isRefusal(kv.scatter)) {
    texts.push(kv.scatter.shardText);
    if (kv.scatter.kind === 'combine') texts.push(kv.scatter.finalText);
  }
  for (const parts of texts) for (const part of parts) characters += typeof part === 'string' ? part.length + 16 : 8;
  return characters;
}

/** V8 builds a shape's key from slices, which would keep the whole text they were cut from alive. */
const flat = (key: string): string => Buffer.from(key).toString();
