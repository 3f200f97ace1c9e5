// Templates by text and by shape, in bounded memory: a text seen before costs a look-up, a text of a shape seen before
// a lexer pass, and only a new shape a parse. Literal-free and text-dependent texts are kept by their text; the others,
// of which a client may send a million, leave nothing behind.
import { NO_TABLES, type TableScope } from '../cluster/table-scope.js';
import { flat } from './compact-template.js';
import type { Template } from './plan/template.js';
import { type ReadTemplate, readTemplate, TOKENS_MAX, tooManyTokens } from './read-template.js';
import { lexShape, type Shape, TOO_MANY_PIECES } from './text/shape-lexer.js';
import { TextBudget, type TextCache, type Weight } from './text-budget.js';

/** Longer texts are not kept: comparing them costs about what lexing them does. In UTF-16 units. */
const KEPT_TEXT_MAX = 16 * 1024;
/** Of the bytes that entries have for themselves; the sources of prepared statements have the rest (statement-source.ts). */
const TEXT_SHARE = 0.2;
const SHAPE_SHARE = 0.3;
const OLDEST_SUPPORTED_MAJOR = 15;

export interface TemplateCacheOptions {
  /** A bound of its own, or one that it shares with other caches. */
  readonly bytesMax: number | TextBudget;
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
  readonly budget: TextBudget;
  readonly #byText: TextCache<Template>;
  readonly #byShape: TextCache<Template>;
  readonly #oldestServerMajor: number;
  readonly #tokensMax: number;
  #lexedText = '';
  #lexedAsStandard = true;
  #lexed: Shape | null = null;

  constructor(options: TemplateCacheOptions) {
    const { bytesMax } = options;
    this.budget = typeof bytesMax === 'number' ? new TextBudget(bytesMax) : bytesMax;
    this.#byText = this.budget.cache(TEXT_SHARE, weightOf);
    this.#byShape = this.budget.cache(SHAPE_SHARE, weightOf);
    this.#oldestServerMajor = options.oldestServerMajor ?? OLDEST_SUPPORTED_MAJOR;
    this.#tokensMax = options.tokensMax ?? TOKENS_MAX;
  }

  get entries(): number {
    return this.#byText.size + this.#byShape.size;
  }

  /** Upper estimate of the memory held. */
  get bytes(): number {
    return this.budget.bytes;
  }

  /** The parser must be loaded. Never throws: a text that is no SQL has a Template, too. */
  get(text: string, standardConformingStrings: boolean, scope: TableScope = NO_TABLES): Template {
    // Without a backslash the setting makes no difference. NUL is in no text, so this is no other text's key.
    const standard = standardConformingStrings || !text.includes('\\');
    const textKey = standard ? `${scope.key}${text}` : `\0${scope.key}${text}`;
    // A text with a string in it is seldom kept as it is, so that its shape is looked for first.
    const mayHaveShapeOnly = text.includes("'");
    const isKept = text.length <= KEPT_TEXT_MAX;
    const known = mayHaveShapeOnly || !isKept ? undefined : this.#getByText(textKey);
    if (known !== undefined) return known;
    const shape = lexShape(text, standard, 2 * this.#tokensMax);
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
    const byText = mayHaveShapeOnly && isKept ? this.#getByText(textKey) : undefined;
    if (byText !== undefined) return byText;
    const { template, holdsForShape } = this.#read(text, standard, shape, scope);
    if (holdsForShape && shape !== null) this.#byShape.set(flat(shapeKey), template);
    if (!holdsForShape || shape?.literals.length === 0) this.#keepText(textKey, template);
    return template;
  }

  /** The same for a text that its caller keeps, with the Template: here it is kept by its shape only. */
  getForKept(text: string, standardConformingStrings: boolean, scope: TableScope = NO_TABLES): Template {
    const standard = standardConformingStrings || !text.includes('\\');
    const shape = lexShape(text, standard, this.#tokensMax);
    if (shape === TOO_MANY_PIECES) return tooManyTokens(text, this.#tokensMax, scope);
    const shapeKey = shape === null ? '' : `${scope.key}${shape.key}`;
    const byShape = shape === null ? undefined : this.#byShape.get(shapeKey);
    if (byShape !== undefined) {
      this.shapeHits++;
      return byShape;
    }
    const { template, holdsForShape } = this.#read(text, standard, shape, scope);
    if (holdsForShape && shape !== null) this.#byShape.set(flat(shapeKey), template);
    return template;
  }

  #read(text: string, standard: boolean, shape: Shape | null, scope: TableScope): ReadTemplate {
    this.misses++;
    return readTemplate(text, standard, shape, this.#oldestServerMajor, scope, this.#tokensMax);
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
    // Templates that are one for many texts say nothing that is worth a place.
    if (textKey.length <= KEPT_TEXT_MAX && template.kind !== 'unparsed') this.#byText.set(flat(textKey), template);
  }
}

const weightOf = (template: Template): Weight => ({ own: 0, shared: template, sharedBytes: template.bytes });
