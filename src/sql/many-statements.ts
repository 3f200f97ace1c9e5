// Texts of very many statements, as pg_dump --inserts makes them: statements of one shape are read once (D30), and what the
// text does is put together from what each of them does alone. Reading such a text as a whole took 0.1 to 0.2 ms a statement,
// this takes 3 µs. Only what adds up is put together here: reads and writes whose shape tells all, and control of the block;
// for anything else there is no answer, and the text is read as a whole (test/property/sql/many-statements.test.ts compares the two).
//
// That a text may be cut at its semicolons: a statement that parses by itself is complete in front of its semicolon, and the
// grammar is deterministic, so that it cannot be the beginning of a longer one there (rules, BEGIN ATOMIC).
import { refuse } from '../base/refusals.js';
import { compactTemplate } from './compact-template.js';
import type { KeyRef, KvPlan, ValueRef } from './plan/kv-plan.js';
import type { StatementKind, Template } from './plan/template.js';
import { LITERAL_STRIDE, type Shape, tokensInShape } from './text/shape-lexer.js';
import type { TextParts } from './text/text-parts.js';
import { statementEnds } from './text/token-ends.js';

/** Fewer are read as a whole. */
const STATEMENTS_MIN = 32;
/** Unlike statements of a text that are read one by one; with more of them, the text is read as a whole. */
const SHAPES_MAX = 64;

/** Longer ones are not looked through. In UTF-16 units. */
const SHAPE_LENGTH_MAX = 1024 * 1024;

/** What one statement alone does; null where that does not hold for its whole shape. */
export type ReadStatement = (text: string) => Template | null;

interface Statement {
  readonly shape: string;
  /** UTF-16 offsets into the text. */
  readonly start: number;
  readonly end: number;
  /** Its first literal's number in the text, and how many it has. */
  readonly literal: number;
  readonly literals: number;
}

/**
 * @param tokensMax for one statement of each shape
 * @returns null where the text has to be read as a whole
 */
export function readMany(text: string, shape: Shape, tokensMax: number, read: ReadStatement): Template | null {
  const statements = statementsOf(text, shape);
  if (statements === null || statements.length < STATEMENTS_MIN) return null;
  const examples = new Map<string, Statement>();
  for (const statement of statements) {
    if (examples.has(statement.shape)) continue;
    if (examples.size === SHAPES_MAX) return null;
    examples.set(statement.shape, statement);
  }
  let tokens = 0;
  const templates = new Map<string, Template>();
  for (const key of examples.keys()) tokens += tokensInShape(key, tokensMax);
  if (tokens > tokensMax) return null;
  for (const [key, { start, end }] of examples) {
    const template = read(text.slice(start, end));
    if (template === null || !addsUp(template)) return null;
    templates.set(key, template);
  }
  return unite(
    statements.map((statement) => ({ statement, template: templates.get(statement.shape)! })),
    [...templates.values()],
  );
}

/** Null where it cannot be told where they end. */
function statementsOf(text: string, { key, literals }: Shape): readonly Statement[] | null {
  if (key.length > SHAPE_LENGTH_MAX) return null;
  const shapes = shapesOf(key);
  if (shapes === null || shapes.length < STATEMENTS_MIN) return null;
  const ends = statementEnds(text, literals);
  if (ends === null || ends.length !== shapes.length) return null;
  const statements: Statement[] = [];
  let literal = 0;
  let start = 0;
  for (const [index, shape] of shapes.entries()) {
    const end = ends[index]!;
    if (shape.key !== '') statements.push({ shape: shape.key, start, end, literal, literals: shape.literals });
    literal += shape.literals;
    start = end + 1;
  }
  return literal * LITERAL_STRIDE === literals.length ? statements : null;
}

const QUOTE = 39;
const DOUBLE_QUOTE = 34;
const SEMICOLON = 59;
const SPACE = 32;

/** The shape of a text, cut at its semicolons; null where the value of a literal is part of it. */
function shapesOf(key: string): { readonly key: string; readonly literals: number }[] | null {
  const shapes: { key: string; literals: number }[] = [];
  let start = 0;
  let literals = 0;
  for (let at = 0; at <= key.length; at++) {
    const code = at < key.length ? key.charCodeAt(at) : SEMICOLON;
    if (code === DOUBLE_QUOTE) {
      at = key.indexOf('"', at + 1);
      if (at < 0) return null;
    } else if (code === QUOTE) {
      const mark = key[++at];
      if (mark === 'e' || mark === 'u') return null;
      literals++;
    } else if (code === SEMICOLON) {
      shapes.push({ key: withoutSpaces(key, start, at), literals });
      start = at + 1;
      literals = 0;
    }
  }
  return shapes;
}

/** Of a shape, in which every blank is a space: what else JavaScript would trim is part of a name to Postgres. */
function withoutSpaces(key: string, from: number, to: number): string {
  let start = from;
  let end = to;
  while (start < end && key.charCodeAt(start) === SPACE) start++;
  while (end > start && key.charCodeAt(end - 1) === SPACE) end--;
  return key.slice(start, end);
}

const KINDS: ReadonlySet<StatementKind> = new Set(['read', 'write', 'begin', 'commit', 'rollback', 'savepoint']);

/** What it does beside others is what it does alone. */
function addsUp({ kind, kinds, kv, ...template }: Template): boolean {
  if (!KINDS.has(kind) || kinds.length !== 1 || template.textDependent) return false;
  if (template.statementNames.length > 0 || template.saidAgain !== null || template.releases) return false;
  if (template.backendCall !== null || template.explainsRoute || template.notice !== null) return false;
  return kv === null || (kv.kind === 'kv' && kv.keys !== null);
}

interface Read {
  readonly statement: Statement;
  readonly template: Template;
}

/** @param unlike the templates, each once; all add up */
function unite(all: readonly Read[], unlike: readonly Template[]): Template | null {
  const hasKeys = unlike.some(({ kv }) => kv !== null);
  const readOnly = unlike.every((one) => one.readOnly);
  const movable = unlike.every((one) => one.movable);
  // Which parts would have to be said again is found in the text.
  if (!hasKeys && movable && !readOnly) return null;
  // What runs beside statements on keys has rules that ask its tree; control of the block has none.
  if (hasKeys && unlike.some(({ kv, kind }) => kv === null && (kind === 'read' || kind === 'write'))) return null;
  const kv = hasKeys ? planOf(all) : null;
  if (hasKeys && kv === null) return null;
  return compactTemplate({
    ...all[0]!.template,
    kind: 'multi',
    effects: unlike.reduce((effects, one) => effects | one.effects, 0),
    settingNames: [...new Set(all.flatMap(({ template }) => template.settingNames))],
    kinds: all.map(({ template }) => template.kinds[0]!),
    readOnly,
    showName: null,
    beginsBy: null,
    setsOtherIsolation: unlike.some((one) => one.setsOtherIsolation),
    leavesBlock: all.reduce<Template['leavesBlock']>((block, { template }) => template.leavesBlock ?? block, null),
    neutral: !hasKeys && unlike.every(({ neutral, kind }) => neutral || kind === 'begin'),
    readsCatalogue: unlike.some((one) => one.readsCatalogue),
    takesSnapshot: unlike.some((one) => one.takesSnapshot),
    movable: !hasKeys && movable,
    kv,
  });
}

/** All on the shard of their keys, in one implicit transaction; null: a statement beside them has literals. */
function planOf(all: readonly Read[]): KvPlan | null {
  const keys: KeyRef[] = [];
  const slots: KvPlan['slots'][number][] = [];
  const parts: (string | number)[] = [];
  let first: KvPlan | null = null;
  let writes = false;
  for (const [index, { statement, template }] of all.entries()) {
    if (index > 0) append(parts, ';');
    const { kv } = template;
    if (kv?.kind !== 'kv') {
      if (statement.literals > 0) return null;
      append(parts, statement.shape);
      continue;
    }
    first ??= kv;
    writes ||= kv.writes;
    for (const { value, keyIndex } of kv.slots) {
      slots.push({ value: moved(value, statement.literal), keyIndex: keyIndex + keys.length });
    }
    for (const { kind, tenant, key } of kv.keys ?? []) {
      keys.push({ kind, tenant: moved(tenant, statement.literal), key: moved(key, statement.literal) });
    }
    for (const part of kv.text) append(parts, typeof part === 'number' ? part + statement.literal : part);
  }
  if (first === null) return null;
  const { table, verb } = first;
  const text: TextParts = parts;
  return {
    kind: 'kv',
    table,
    verb,
    writes,
    keys,
    slots,
    text,
    scatter: refuse('several_shards_text'),
    spread: null,
    explainRoute: false,
  };
}

/** Strings that touch become one. */
function append(parts: (string | number)[], part: string | number): void {
  const last = parts.at(-1);
  if (typeof part === 'string' && typeof last === 'string') parts[parts.length - 1] = last + part;
  else parts.push(part);
}

/** As the literal is numbered in the whole text. */
const moved = (value: ValueRef, by: number): ValueRef =>
  value.kind === 'literal' && by > 0 ? { ...value, index: value.index + by } : value;
