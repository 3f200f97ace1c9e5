// Syntax trees to Template: what kind of text it is and what it may leave behind. A bit is left out only where the rule
// for the statement proves it; a statement without a rule here gets every effect. Reads no text but for the places of
// prepared statements' names.
import type { DefElem, Node } from 'libpg-query';
import { Effect, type EffectBits, type StatementKind, type Template, UNREAD_TEMPLATE } from '../plan/template.js';
import { utf16Offsets } from '../text/byte-offsets.js';
import { emptySurvey, type IsKnownFunction, type Survey, survey } from './ast-survey.js';
import { backendCallOf } from './backend-calls.js';
import { setsOtherIsolation } from './isolation.js';
import type { ParsedStatement } from './parse.js';
import { changeOfSetting, resetOfSetting, type SettingChange } from './setting-effects.js';
import { locateNames, type NamedStatement } from './statement-names.js';
import { utilityRule } from './utility-rules.js';

export interface Classification {
  readonly template: Template;
  /** Byte offsets of the constants in the trees; see Survey. */
  readonly constants: readonly number[];
}

/** One statement's part of the Template. */
interface Findings {
  kind: StatementKind;
  effects: EffectBits;
  settingNames: readonly string[];
  readOnly: boolean;
  showName: string | null;
  leavesBlock: Template['leavesBlock'];
  textDependent: boolean;
  neutral: boolean;
  readsCatalogue: boolean;
  releases: boolean;
  releasesUntilEnd: boolean;
  takesSnapshot: boolean;
  beginsBy: Template['beginsBy'];
  setsOtherIsolation: boolean;
  endsFailure: boolean;
}

type Named = Omit<NamedStatement, 'statement'>;

const CURSOR_OPT_HOLD = 0x20;

/**
 * @param text what was parsed
 * @param oldestServerMajor names that older servers of the cluster do not have in pg_catalog are not trusted
 */
export function classify(
  text: string,
  statements: readonly ParsedStatement[],
  oldestServerMajor: number,
  isKnown?: IsKnownFunction,
): Classification {
  const constants: number[] = [];
  const named: NamedStatement[] = [];
  const all: Findings[] = [];
  for (const statement of statements) {
    const found = emptySurvey();
    survey(statement.node, oldestServerMajor, found, isKnown);
    for (const place of found.constants) constants.push(place);
    const names: Named[] = [];
    const findings = findingsOf(statement.node, found, names);
    findings.readsCatalogue = isCatalogueRead(findings, found);
    findings.neutral = isNeutral(statement.node, findings, found);
    findings.releases = !findings.neutral && isRelease(statement.node, findings, found);
    findings.setsOtherIsolation = found.setsIsolation || setsOtherIsolation(statement.node);
    findings.releasesUntilEnd = isUndoneWithBlock(statement.node);
    findings.takesSnapshot = requiresSnapshot(statement.node);
    all.push(findings);
    for (const name of names) named.push({ ...name, statement });
  }
  const statementNames = named.length === 0 ? [] : locateNames(text, named);
  // A name that was not found would not be rewritten.
  if (statementNames.length < named.length) return { template: UNREAD_TEMPLATE, constants };
  const united = unite(all);
  const movable = all.every(isMovable);
  const saidAgain =
    movable && all.length > 1 && !united.readOnly && !united.releases ? partsSaidAgain(all, statements, text) : null;
  const backendCall = statements.length === 1 ? backendCallOf(statements[0]!.node) : null;
  return {
    template: {
      ...united,
      kinds: kindsOf(all),
      statementNames,
      // Which pid it is decides who answers.
      textDependent: united.textDependent || named.length > 0 || backendCall?.argument?.kind === 'literal',
      movable,
      saidAgain,
      kv: null,
      backendCall,
      copyOut: null,
      copyIn: null,
      explainsRoute: false,
      notice: null,
      bytes: 0,
    },
    constants,
  };
}

/** See Template.movable. */
const isMovable = ({ neutral, releases, kind }: Findings): boolean => neutral || releases || BLOCK_KINDS.has(kind);

const BLOCK_KINDS: ReadonlySet<StatementKind> = new Set(['begin', 'commit', 'rollback', 'savepoint']);

/** What is only read need not be said again, and what is given up on one connection is not there on another; null: nothing
 * of the kind stands in the text. */
function partsSaidAgain(
  all: readonly Findings[],
  statements: readonly ParsedStatement[],
  text: string,
): Template['saidAgain'] {
  const isLeftOut = ({ releases, readOnly }: Findings): boolean => releases || readOnly;
  if (!all.some(isLeftOut)) return null;
  const offset = utf16Offsets(text);
  return statements
    .filter((_, index) => !isLeftOut(all[index]!))
    .map(({ startByte, endByte }) => [offset(startByte), offset(endByte)] as const);
}

/** One array for all texts of one statement of a kind: there may be a hundred thousand templates. */
const SINGLE_KINDS = new Map<StatementKind, readonly StatementKind[]>();

function kindsOf(all: readonly Findings[]): readonly StatementKind[] {
  if (all.length !== 1) return all.map(({ kind }) => kind);
  const { kind } = all[0]!;
  const known = SINGLE_KINDS.get(kind);
  if (known !== undefined) return known;
  const kinds = [kind];
  SINGLE_KINDS.set(kind, kinds);
  return kinds;
}

/** See Template.readsCatalogue. What acts, too, or hangs on what was drawn from sequences, belongs to the transaction at hand. */
const isCatalogueRead = ({ kind, readOnly, effects }: Findings, found: Survey): boolean =>
  found.readsCatalogue && kind === 'read' && readOnly && effects === Effect.none;

/** Kinds that set something, or that look at it. */
const NEUTRAL_KINDS: ReadonlySet<StatementKind> = new Set(['empty', 'set', 'show', 'savepoint']);

function isNeutral(node: Node, { kind, readOnly, effects }: Findings, found: Survey): boolean {
  // A constraint by name is one of a table on the home shard.
  if ('ConstraintsSetStmt' in node) return node.ConstraintsSetStmt.constraints === undefined;
  // Plans are made anew: nobody can tell.
  if ('DiscardStmt' in node) return node.DiscardStmt.target === 'DISCARD_PLANS';
  if (NEUTRAL_KINDS.has(kind)) return (effects & ~Effect.settings) === Effect.none;
  if (kind !== 'read' || found.readsTables || found.changes) return false;
  if (readOnly) return effects === Effect.none;
  // The value may be a name of what is in the database, which is home's.
  return found.sets && !found.readsCatalogue && (effects & ~Effect.settings) === Effect.none;
}

/** See Template.releases. A cursor by name is one that the client knows to be open. */
function isRelease(node: Node, { kind }: Findings, found: Survey): boolean {
  if ('DeallocateStmt' in node || 'UnlistenStmt' in node) return true;
  if ('ClosePortalStmt' in node) return node.ClosePortalStmt.portalname === undefined;
  if ('DiscardStmt' in node) return node.DiscardStmt.target !== 'DISCARD_ALL';
  if (kind !== 'read' || found.readsTables || found.readsCatalogue || found.changes) return false;
  return found.unlocks && found.effects === Effect.none;
}

/** See Template.releasesUntilEnd. What else is given up is so at once, whatever becomes of the transaction. */
const isUndoneWithBlock = (node: Node): boolean =>
  'UnlistenStmt' in node || ('DiscardStmt' in node && node.DiscardStmt.target === 'DISCARD_TEMP');

/** As PlannedStmtRequiresSnapshot() in pquery.c has it. */
const requiresSnapshot = (node: Node): boolean => !Object.keys(node).some((name) => WITHOUT_SNAPSHOT.has(name));

const WITHOUT_SNAPSHOT: ReadonlySet<string> = new Set([
  'TransactionStmt',
  'LockStmt',
  'VariableSetStmt',
  'VariableShowStmt',
  'ConstraintsSetStmt',
  'FetchStmt',
  'ListenStmt',
  'NotifyStmt',
  'UnlistenStmt',
  'CheckPointStmt',
]);

function unite(all: readonly Findings[]): Findings {
  const [only] = all;
  if (only === undefined) return { ...findings('empty', Effect.none), readOnly: true, neutral: true };
  if (all.length === 1) return only;
  const names = new Set(all.flatMap((one) => one.settingNames));
  return {
    kind: 'multi',
    effects: all.reduce<EffectBits>((effects, one) => effects | one.effects, Effect.none),
    settingNames: [...names],
    readOnly: all.every((one) => one.readOnly),
    showName: null,
    leavesBlock: all.reduce<Template['leavesBlock']>((block, one) => one.leavesBlock ?? block, null),
    textDependent: all.some((one) => one.textDependent),
    neutral: all.every(isNeutralPart),
    readsCatalogue: all.some((one) => one.readsCatalogue),
    releases: all.some((one) => one.releases) && all.every((one) => one.releases || (one.neutral && one.readOnly)),
    beginsBy: null,
    setsOtherIsolation: all.some((one) => one.setsOtherIsolation),
    releasesUntilEnd: all.some((one) => one.releasesUntilEnd),
    takesSnapshot: all.some((one) => one.takesSnapshot),
    endsFailure: only.endsFailure,
  };
}

/** BEGIN chooses no shard: what follows it does. */
const isNeutralPart = ({ neutral, kind }: Findings): boolean => neutral || kind === 'begin';

const findings = (kind: StatementKind, effects: EffectBits, settingNames: readonly string[] = []): Findings => ({
  kind,
  effects,
  settingNames,
  readOnly: false,
  showName: null,
  leavesBlock: null,
  textDependent: false,
  neutral: false,
  readsCatalogue: false,
  releases: false,
  releasesUntilEnd: false,
  takesSnapshot: false,
  beginsBy: null,
  setsOtherIsolation: false,
  endsFailure: false,
});

/** What the survey found is what the statement does: queries, and utility statements that run expressions. */
function surveyed(kind: StatementKind, found: Survey, more: EffectBits = Effect.none): Findings {
  const names = new Set(found.settingNames);
  const released = found.unlocks ? Effect.state : Effect.none;
  return {
    ...findings(kind, found.effects | released | more, [...names]),
    textDependent: found.textDependent,
  };
}

function query(kind: StatementKind, found: Survey): Findings {
  const result = surveyed(kind, found);
  result.readOnly = !found.changes && !found.sets && (result.effects & ~Effect.readsSequenceState) === Effect.none;
  return result;
}

function findingsOf(node: Node, found: Survey, names: Named[]): Findings {
  if ('SelectStmt' in node) {
    if (found.createsTable) return query('schema', found);
    return query(found.writes ? 'write' : 'read', found);
  }
  if ('InsertStmt' in node || 'UpdateStmt' in node || 'DeleteStmt' in node || 'MergeStmt' in node) {
    return query('write', found);
  }
  if ('TransactionStmt' in node) return transaction(node.TransactionStmt.kind, node.TransactionStmt.chain === true);
  if ('VariableSetStmt' in node) return variableSet(node.VariableSetStmt);
  if ('VariableShowStmt' in node) {
    const showName = (node.VariableShowStmt.name ?? '').toLowerCase();
    return { ...findings('show', Effect.none), readOnly: true, showName };
  }
  if ('CopyStmt' in node) {
    const { is_from: isFrom, is_program: isProgram, filename } = node.CopyStmt;
    if (isProgram === true || filename !== undefined) return surveyed('other', found);
    return isFrom === true ? surveyed('copy-in', found) : query('copy-out', found);
  }
  if ('ExplainStmt' in node) return explain(node.ExplainStmt, found, names);
  if ('PrepareStmt' in node) {
    names.push({ verb: 'prepare', name: node.PrepareStmt.name ?? '' });
    return findings('other', Effect.state); // what it calls is called by EXECUTE
  }
  if ('ExecuteStmt' in node) {
    names.push({ verb: 'execute', name: node.ExecuteStmt.name ?? '' });
    return surveyed('other', found, Effect.unknown);
  }
  if ('DeallocateStmt' in node) {
    if (node.DeallocateStmt.isall === true) return findings('other', Effect.state | Effect.deallocatesAll);
    names.push({ verb: 'deallocate', name: node.DeallocateStmt.name ?? '' });
    return findings('other', Effect.state);
  }
  if ('CreateTableAsStmt' in node) {
    noteExecuted(node.CreateTableAsStmt.query, names);
    return surveyed('schema', found, Effect.schema | Effect.temporary);
  }
  if ('DeclareCursorStmt' in node) {
    const isHeld = ((node.DeclareCursorStmt.options ?? 0) & CURSOR_OPT_HOLD) !== 0;
    return surveyed('other', found, isHeld ? Effect.state : Effect.none);
  }
  if ('DiscardStmt' in node) {
    return node.DiscardStmt.target === 'DISCARD_ALL'
      ? findings('other', Effect.settings | Effect.state | Effect.deallocatesAll, ['*'])
      : findings('other', Effect.state);
  }
  const rule = utilityRule(Object.keys(node)[0] ?? '');
  if (rule === undefined) return findings('other', UNREAD_TEMPLATE.effects, ['*']);
  return surveyed(rule.kind, found, rule.effects);
}

function noteExecuted(node: Node | undefined, names: Named[]): void {
  if (node !== undefined && 'ExecuteStmt' in node) {
    names.push({ verb: 'execute', name: node.ExecuteStmt.name ?? '' });
  }
}

type Wrapped<Type extends string> = Extract<Node, Record<Type, unknown>>;
type Body<Type extends string> = Wrapped<Type> extends Record<Type, infer Content> ? Content : never;

function transaction(kind: Body<'TransactionStmt'>['kind'], chain: boolean): Findings {
  switch (kind) {
    case 'TRANS_STMT_BEGIN':
      return { ...findings('begin', Effect.none), leavesBlock: 'open', beginsBy: 'BEGIN' };
    case 'TRANS_STMT_START':
      return { ...findings('begin', Effect.none), leavesBlock: 'open', beginsBy: 'START TRANSACTION' };
    case 'TRANS_STMT_COMMIT':
      return { ...findings('commit', Effect.none), leavesBlock: chain ? 'open' : 'closed', endsFailure: true };
    case 'TRANS_STMT_ROLLBACK':
      return { ...findings('rollback', Effect.none), leavesBlock: chain ? 'open' : 'closed', endsFailure: true };
    case 'TRANS_STMT_SAVEPOINT':
    case 'TRANS_STMT_RELEASE':
      return findings('savepoint', Effect.none);
    case 'TRANS_STMT_ROLLBACK_TO':
      return { ...findings('savepoint', Effect.none), endsFailure: true };
    case 'TRANS_STMT_PREPARE':
      return { ...findings('other', Effect.none), leavesBlock: 'closed', endsFailure: true };
    case 'TRANS_STMT_COMMIT_PREPARED':
    case 'TRANS_STMT_ROLLBACK_PREPARED':
      return findings('other', Effect.none); // not allowed inside a block
    default:
      return findings('other', UNREAD_TEMPLATE.effects, ['*']);
  }
}

function variableSet(statement: Body<'VariableSetStmt'>): Findings {
  const name = statement.name ?? '';
  const isLocal = statement.is_local === true;
  switch (statement.kind) {
    case 'VAR_RESET_ALL':
      return findings('set', Effect.settings, ['*']);
    case 'VAR_RESET':
      return setting(resetOfSetting(name), false);
    case 'VAR_SET_DEFAULT':
      return setting(isLocal ? changeOfSetting(name, true) : resetOfSetting(name), false);
    case 'VAR_SET_VALUE':
    case 'VAR_SET_CURRENT':
      return setting(changeOfSetting(name, isLocal), true);
    case 'VAR_SET_MULTI': {
      // SET TRANSACTION and TRANSACTION SNAPSHOT end with the transaction.
      if (name !== 'SESSION CHARACTERISTICS') return { ...findings('set', Effect.none), textDependent: true };
      const settings = (statement.args ?? []).map(
        (arg) => `default_${('DefElem' in arg && arg.DefElem.defname) || ''}`,
      );
      return findings('set', Effect.settings, settings);
    }
    default:
      return findings('other', UNREAD_TEMPLATE.effects, ['*']);
  }
}

/** Values of SET are not in the template, but whoever tracks settings may take the template for the value's. */
const setting = (change: SettingChange, hasValue: boolean): Findings => ({
  ...findings('set', change.effects, change.name === null ? [] : [change.name]),
  textDependent: hasValue,
});

/** Without ANALYZE the statement is planned, not run: only functions that claim to be harmless may be called. */
function explain(statement: Body<'ExplainStmt'>, found: Survey, names: Named[]): Findings {
  const inner = statement.query;
  noteExecuted(inner, names);
  if (inner !== undefined && 'CreateTableAsStmt' in inner) noteExecuted(inner.CreateTableAsStmt.query, names);
  const runs = (statement.options ?? []).some((option) => 'DefElem' in option && mayAnalyze(option.DefElem));
  if (runs && inner !== undefined) return findingsOf(inner, found, []);
  const effects = found.effects & Effect.unknown;
  return { ...findings('read', effects), readOnly: effects === Effect.none };
}

function mayAnalyze(option: DefElem): boolean {
  if (option.defname !== 'analyze') return false;
  const { arg } = option;
  if (arg === undefined) return true;
  if ('Integer' in arg) return (arg.Integer.ival ?? 0) !== 0;
  return !('String' in arg && ['off', 'false'].includes((arg.String.sval ?? '').toLowerCase()));
}
