// Walks a whole syntax tree once and notes what may have an effect wherever it stands: function calls, row locks, data
// changes in WITH, operators and sampling methods of other schemas. It does not ask which statement it is in. Trees can
// be some thousand nodes deep, so the walk keeps its own stack.
import type {
  A_Const,
  CollateClause,
  FuncCall,
  InsertStmt,
  Node,
  RangeVar,
  SQLValueFunction,
  TypeName,
} from 'libpg-query';
import { Effect, type EffectBits } from '../plan/template.js';
import { collationIsLookedUp, looksUpCatalogue, typeIsLookedUp } from './catalogue-lookups.js';
import {
  functionChanges,
  functionEffects,
  isAdvisoryUnlock,
  isSetConfig,
  readsWholeTables,
} from './function-effects.js';
import { isIsolationSetting } from './isolation.js';
import { namePath } from './name-path.js';
import { changeOfSetting, type SettingChange } from './setting-effects.js';

export interface Survey {
  /** Without what `unlocks` tells. */
  effects: EffectBits;
  /** An advisory lock of the session is released. */
  unlocks: boolean;
  readonly settingNames: string[];
  /** Something besides session state may change: rows locked or written, sequences, other sessions … */
  changes: boolean;
  /** A setting is changed. */
  sets: boolean;
  /** Among them may be the isolation level. */
  setsIsolation: boolean;
  /** INSERT, UPDATE, DELETE or MERGE stands in it. */
  writes: boolean;
  /** SELECT … INTO stands in it. */
  createsTable: boolean;
  /** A literal's value had a say in the above. */
  textDependent: boolean;
  /** A table, view or function result other than a catalogue stands in it. */
  readsTables: boolean;
  /** Catalogues that tell of what is in the database, not of the session. */
  readsCatalogue: boolean;
  /** Byte offsets of the constants. Of a folded negative number (`-1`) it is the sign's. */
  readonly constants: number[];
}

export const emptySurvey = (): Survey => ({
  effects: Effect.none,
  unlocks: false,
  settingNames: [],
  changes: false,
  sets: false,
  setsIsolation: false,
  writes: false,
  createsTable: false,
  textDependent: false,
  readsTables: false,
  readsCatalogue: false,
  constants: [],
});

/** Whether a function's effects are known to be none for the session: those of key-value tables. */
export type IsKnownFunction = (path: readonly string[]) => boolean;
const NONE_KNOWN: IsKnownFunction = () => false;

/** Since 17 these are syntax; to 15 and 16 json_value(…) and the others are calls of a user's functions. */
const SYNTAX_SINCE_17: ReadonlySet<string> = new Set([
  'JsonFuncExpr',
  'JsonParseExpr',
  'JsonScalarExpr',
  'JsonSerializeExpr',
  'JsonArrayConstructor',
  'JsonArrayAgg',
  'MergeSupportFunc',
]);

/** Adds what `root` holds to `found`. */
export function survey(
  root: unknown,
  oldestServerMajor: number,
  found: Survey,
  isKnown: IsKnownFunction = NONE_KNOWN,
): void {
  const stack: unknown[] = [root];
  while (stack.length > 0) {
    const item = stack.pop();
    if (Array.isArray(item)) {
      for (const element of item) if (typeof element === 'object') stack.push(element);
      continue;
    }
    for (const key in item as object) {
      const value: unknown = (item as Record<string, unknown>)[key];
      if (typeof value !== 'object' || value === null) continue;
      noteNode(key, value, oldestServerMajor, found, isKnown);
      stack.push(value);
    }
  }
}

function noteNode(
  key: string,
  value: object,
  oldestServerMajor: number,
  found: Survey,
  isKnown: IsKnownFunction,
): void {
  switch (key) {
    case 'A_Const':
      noteConstant(value as A_Const, found);
      return;
    case 'FuncCall':
      if (!isKnown(namePath((value as FuncCall).funcname ?? []))) noteCall(value as FuncCall, oldestServerMajor, found);
      return;
    case 'InsertStmt':
    case 'UpdateStmt':
    case 'DeleteStmt':
    case 'MergeStmt':
      found.writes = true;
      found.changes = true;
      noteTarget((value as InsertStmt).relation, found);
      return;
    case 'RangeVar':
    case 'relation':
      if (!isCatalogue(value as RangeVar)) found.readsTables = true;
      else if (!OF_THE_SESSION.has((value as RangeVar).relname ?? '')) found.readsCatalogue = true;
      return;
    case 'typeName':
      if (typeIsLookedUp(value as TypeName)) found.readsCatalogue = true;
      return;
    case 'CollateClause':
      if (collationIsLookedUp(value as CollateClause)) found.readsCatalogue = true;
      return;
    case 'SQLValueFunction':
      if ((value as SQLValueFunction).op === 'SVFOP_CURRENT_SCHEMA') found.readsCatalogue = true;
      return;
    case 'lockingClause':
      found.changes = true;
      return;
    case 'intoClause':
      found.createsTable = true;
      found.effects |= Effect.schema | Effect.temporary;
      found.changes = true;
      return;
    case 'ExecuteStmt':
      found.effects |= Effect.unknown;
      return;
    case 'name': // of A_Expr
    case 'operName':
    case 'useOp':
      if (Array.isArray(value) && isForeignOperator(value as Node[])) found.effects |= Effect.unknown;
      return;
    case 'method': // of TABLESAMPLE
      if (Array.isArray(value) && !['system', 'bernoulli'].includes(namePath(value as Node[]).join('.'))) {
        found.effects |= Effect.unknown;
      }
      return;
    default:
      if (oldestServerMajor < 17 && SYNTAX_SINCE_17.has(key)) found.effects |= Effect.unknown;
  }
}

/** Views that tell of the server session that is asked. */
const OF_THE_SESSION: ReadonlySet<string> = new Set([
  'pg_backend_memory_contexts',
  'pg_cursors',
  'pg_locks',
  'pg_prepared_statements',
  'pg_settings',
]);

const isCatalogue = ({ schemaname, relname }: RangeVar): boolean =>
  schemaname === 'pg_catalog' ||
  schemaname === 'information_schema' ||
  (schemaname === undefined && (relname ?? '').startsWith('pg_'));

/** UPDATE pg_settings is set_config() by a rule of the view; other system tables are the schema itself. */
function noteTarget(target: RangeVar | undefined, found: Survey): void {
  const name = target?.relname ?? '';
  if (!name.startsWith('pg_') || (target?.schemaname ?? 'pg_catalog') !== 'pg_catalog') return;
  if (name === 'pg_settings') {
    found.effects |= Effect.settings;
    found.settingNames.push('*');
  } else found.effects |= Effect.schema;
}

function noteConstant(constant: A_Const, found: Survey): void {
  const isLiteral = constant.ival ?? constant.fval ?? constant.sval ?? constant.bsval;
  if (isLiteral !== undefined && (constant.location ?? 0) >= 0) found.constants.push(constant.location ?? 0);
}

function noteCall(call: FuncCall, oldestServerMajor: number, found: Survey): void {
  const path = namePath(call.funcname ?? []);
  if (isAdvisoryUnlock(path)) {
    found.unlocks = true;
    return;
  }
  if (!isSetConfig(path)) {
    if (functionChanges(path)) found.changes = true;
    if (readsWholeTables(path)) found.readsTables = true;
    if (looksUpCatalogue(path)) found.readsCatalogue = true;
    found.effects |= functionEffects(path, oldestServerMajor);
    return;
  }
  found.sets = true;
  const change = changeBySetConfig(call);
  const name = nameBySetConfig(call);
  if (name === undefined || isIsolationSetting(name)) found.setsIsolation = true;
  if (change === null) {
    // A custom setting shows in no list of the server's: one whose name is not known cannot be carried over. A local one leaves a
    // trace ('' instead of nothing), which RESET ALL leaves, too.
    found.effects |= Effect.settings | Effect.sticky;
    found.settingNames.push('*');
    return;
  }
  found.textDependent = true;
  found.effects |= change.effects;
  if (change.name !== null) found.settingNames.push(change.name);
}

/** Null where the name is no literal: it may be any setting. */
function changeBySetConfig(call: FuncCall): SettingChange | null {
  const name = nameBySetConfig(call);
  return name === undefined ? null : changeOfSetting(name, isLocalCall(call));
}

function nameBySetConfig(call: FuncCall): string | undefined {
  const [node] = call.args ?? [];
  return node !== undefined && 'A_Const' in node ? node.A_Const.sval?.sval : undefined;
}

function isLocalCall(call: FuncCall): boolean {
  const localNode = call.args?.[2];
  return localNode !== undefined && 'A_Const' in localNode && localNode.A_Const.boolval?.boolval === true;
}

const isForeignOperator = (path: readonly Node[]): boolean => {
  const names = namePath(path);
  return names.length > 1 && !(names.length === 2 && names[0] === 'pg_catalog');
};
