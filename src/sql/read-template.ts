// One text to its Template, without any cache, and whether the Template holds for every text of the same shape.
import { refuse } from '../base/refusals.js';
import { NO_TABLES, type TableScope } from '../cluster/table-scope.js';
import { compactTemplate } from './compact-template.js';
import { explainsRoute, planKv } from './keyed/kv-analysis.js';
import { dependsOnPositions } from './keyed/kv-positions.js';
import { type Concern, concernOf } from './keyed/unnamed-tables.js';
import { readMany } from './many-statements.js';
import { classify } from './meaning/classify.js';
import { copyIn } from './meaning/copy-in.js';
import { copyOut } from './meaning/copy-out.js';
import { isKvFunction } from './meaning/kv-references.js';
import { type ParsedStatement, parse } from './meaning/parse.js';
import { setsReservedSetting } from './meaning/reserved-setting.js';
import { type Template, UNPARSED_TEMPLATE, UNREAD_TEMPLATE } from './plan/template.js';
import { concernsByWords } from './text/concerning-words.js';
import {
  hasLongRowOfSigns,
  LITERAL_STRIDE,
  LiteralKind,
  lexShape,
  type Shape,
  TOO_MANY_PIECES,
  tokensInShape,
} from './text/shape-lexer.js';
import { originalOffset, type SourceText, toStandardStrings, withShortLiterals } from './text/source-text.js';
import { tokensOf } from './text/text-tokens.js';

/** Above this, in UTF-16 units, literals are shortened before the parser sees the text. */
const PARSED_IN_FULL_MAX = 64 * 1024;
/** What is longer than this then is not parsed. What reading costs is bounded by the tokens. */
const PARSED_SHORTENED_MAX = 512 * 1024;
/** Default of limits.statement_tokens. */
export const TOKENS_MAX = 16_384;

/** Words and literals of a text that is looked through for statements that concern key-value tables: a few megabytes. */
const TOLD_APART_MAX = 16 * TOKENS_MAX;

/** Byte of the sign before a number. */
const MINUS = 45;

export interface ReadTemplate {
  readonly template: Template;
  readonly holdsForShape: boolean;
}

const UNPARSED: ReadTemplate = { template: UNPARSED_TEMPLATE, holdsForShape: false };
const UNREAD: ReadTemplate = { template: UNREAD_TEMPLATE, holdsForShape: false };

/**
 * @param shape of the text under the setting, null if it has none
 * @param scope the key-value tables that names in it may stand for
 */
export function readTemplate(
  text: string,
  standardConformingStrings: boolean,
  shape: Shape | null,
  oldestServerMajor: number,
  scope: TableScope = NO_TABLES,
  tokensMax = TOKENS_MAX,
): ReadTemplate {
  const many = shape === null ? null : readMany(text, shape, tokensMax, readAlone);
  if (many !== null) return { template: many, holdsForShape: true };
  return readWhole(text, standardConformingStrings, shape, oldestServerMajor, scope, tokensMax);

  function readAlone(statement: string): Template | null {
    const alone = lexShape(statement, standardConformingStrings);
    const read = readWhole(statement, standardConformingStrings, alone, oldestServerMajor, scope, tokensMax);
    return read.holdsForShape ? read.template : null;
  }
}

/** All statements of the text together. */
export function readWhole(
  text: string,
  standardConformingStrings: boolean,
  shape: Shape | null,
  oldestServerMajor: number,
  scope: TableScope,
  tokensMax: number,
): ReadTemplate {
  if (shape !== null && tokensInShape(shape.key, tokensMax) > tokensMax) {
    return { template: tooManyTokens(text, tokensMax, scope), holdsForShape: false };
  }
  // What is too long for the parser has no source without a shape.
  if (shape === null && (text.length > PARSED_IN_FULL_MAX || hasLongRowOfSigns(text))) return unread(text, scope);
  const source = sourceText(text, standardConformingStrings, shape);
  if (source === null) return unparsed(text, scope);
  if (source.text.length <= PARSED_IN_FULL_MAX) return readSource(source, oldestServerMajor, scope);
  const sourceShape = lexShape(source.text, true);
  if (sourceShape === null) return unread(text, scope);
  const short = withShortLiterals(source.text, sourceShape.literals);
  if (short.length > PARSED_SHORTENED_MAX) return unread(text, scope);
  const read = readSource({ text: short, insertions: [] }, oldestServerMajor, scope);
  // What depends on the values that were taken away is not known.
  return read.holdsForShape ? read : unread(text, scope);
}

/** Whether a text that is not read may mean key-value tables: by name, or, outside of its literals, by what it does. */
function mayConcern(text: string, scope: TableScope): boolean {
  if (scope === NO_TABLES) return false;
  const lowerText = text.toLowerCase();
  if (scope.mentions(lowerText)) return true;
  if (!concernsByWords(lowerText)) return false;
  // Words inside literals do not count, unless the text is too long to tell them apart.
  const shape = lexShape(text, true, TOLD_APART_MAX);
  return shape === null || shape === TOO_MANY_PIECES || concernsByWords(shape.key.toLowerCase());
}

/** What is no SQL here may be some to a server: then it must not run unread on a key-value table (D10). */
function unparsed(text: string, scope: TableScope): ReadTemplate {
  if (!mayConcern(text, scope)) return UNPARSED;
  return { template: { ...UNPARSED_TEMPLATE, kv: refuse('unparsed') }, holdsForShape: false };
}

/** A text that is not read for the time it would take. */
export function tooManyTokens(text: string, tokensMax: number, scope: TableScope): Template {
  if (!mayConcern(text, scope)) return UNREAD_TEMPLATE;
  return { ...UNREAD_TEMPLATE, kv: refuse('too_many_tokens', { max: tokensMax }) };
}

/** What cannot be read may do anything but touch a key-value table. */
function unread(text: string, scope: TableScope): ReadTemplate {
  if (!mayConcern(text, scope)) return UNREAD;
  return { template: { ...UNREAD_TEMPLATE, kv: refuse('unread') }, holdsForShape: false };
}

function sourceText(text: string, standardConformingStrings: boolean, shape: Shape | null): SourceText | null {
  if (standardConformingStrings) return { text, insertions: [] };
  return shape === null ? null : toStandardStrings(text, shape.literals);
}

function readSource(source: SourceText, oldestServerMajor: number, scope: TableScope): ReadTemplate {
  const parsed = parse(source.text);
  if (parsed.kind === 'failed') {
    return parsed.reason === 'exhausted' ? unread(source.text, scope) : unparsed(source.text, scope);
  }
  const { statements } = parsed;
  const isKnown = (path: readonly string[]): boolean => isKvFunction(path, scope.find);
  const { template: classified, constants } = classify(source.text, statements, oldestServerMajor, isKnown);
  const planned = scope === NO_TABLES ? classified : withKvPlan(classified, source.text, statements, scope);
  // Where the text was changed for the parser, places in it are not those of the client's.
  const template = source.insertions.length === 0 ? withCopy(planned, source.text, statements, scope) : planned;
  if (template.textDependent || template.saidAgain !== null) {
    const statementNames = template.statementNames.map((reference) => ({
      ...reference,
      start: originalOffset(source, reference.start),
      end: originalOffset(source, reference.end),
    }));
    const saidAgain =
      template.saidAgain?.map(
        ([start, end]) => [originalOffset(source, start), originalOffset(source, end)] as const,
      ) ?? null;
    return {
      template: compactTemplate({ ...template, textDependent: true, statementNames, saidAgain }),
      holdsForShape: false,
    };
  }
  if (allAreConstants(source.text, constants)) return { template: compactTemplate(template), holdsForShape: true };
  return { template: compactTemplate({ ...template, textDependent: true }), holdsForShape: false };
}

function withKvPlan(
  template: Template,
  text: string,
  statements: readonly ParsedStatement[],
  scope: TableScope,
): Template {
  const literals = lexShape(text, true)?.literals ?? [];
  const concerns = statements.map(({ node }) => concernOf(node, scope));
  const beside = setsReservedSetting(template, text, statements)
    ? refuse('routerSetting')
    : (concerns.find(({ refusal }) => refusal !== null)?.refusal ?? null);
  const kv = beside ?? planKv({ text, statements, literals, scope });
  const isRead = concerns.some((concern) => concern.textDependent);
  const textDependent = template.textDependent || isRead || (kv !== null && dependsOnPositions(statements));
  const common = {
    ...template,
    kv,
    textDependent,
    explainsRoute: explainsRoute(statements),
    notice: kv?.kind === 'refused' ? null : noticeOf(concerns),
  };
  if (kv === null) return common;
  // Nothing of it is said again.
  const placed = { neutral: false, releases: false, movable: false, saidAgain: null };
  if (kv.kind === 'refused') return { ...common, ...placed };
  return {
    ...common,
    ...placed,
    kind: template.kind === 'multi' ? 'multi' : kv.writes ? 'write' : 'read',
    readOnly: template.readOnly && !kv.writes,
  };
}

const COPIES = refuse('copy').code;

function withCopy(
  template: Template,
  text: string,
  statements: readonly ParsedStatement[],
  scope: TableScope,
): Template {
  if (template.kv?.kind !== 'refused' || template.kv.code !== COPIES) return template;
  const tokens = tokensOf(text, lexShape(text, true)?.literals ?? []);
  const into = copyIn(text, tokens, statements, scope.find);
  if (into !== null) return { ...template, copyIn: into, textDependent: true };
  const copied = copyOut(text, tokens, statements);
  return copied === null ? template : { ...template, copyOut: copied, textDependent: true };
}

/** Of several statements each says its own once. */
function noticeOf(concerns: readonly Concern[]): string | null {
  const notices = new Set(concerns.flatMap(({ notice }) => (notice === null ? [] : [notice])));
  return notices.size === 0 ? null : [...notices].join('; ');
}

/**
 * Whether every literal of the text is a constant in the tree. One that is not has gone into something else, and its
 * value may decide what the text means: FLOAT(24) and FLOAT(25), EXPLAIN (ANALYZE 'off'), COPY … (FORMAT 'csv').
 */
function allAreConstants(text: string, constants: readonly number[]): boolean {
  const literals = lexShape(text, true)?.literals;
  if (literals === undefined) return false;
  if (literals.length === 0) return true;
  const bytes = Buffer.from(text);
  const places = new Set(constants);
  const signs = constants.filter((place) => bytes[place] === MINUS).sort((one, other) => one - other);
  let place = 0;
  let measured = 0;
  let usedSigns = 0;
  let previousPlace = 0;
  for (let i = 0; i < literals.length; i += LITERAL_STRIDE) {
    const start = literals[i]!;
    const kind = literals[i + 2]!;
    previousPlace = place;
    place += Buffer.byteLength(text.slice(measured, start));
    measured = start;
    if (kind === LiteralKind.opaque || places.has(place)) continue;
    // A folded sign stands before its number, with nothing but blanks, signs and parentheses between.
    const isNumber = kind === LiteralKind.integer || kind === LiteralKind.numeric;
    const sign = signs[usedSigns++];
    if (!isNumber || sign === undefined || sign > place || sign < previousPlace) return false;
  }
  return true;
}
