// What the routines of a database may do to the session that calls them, read off their sources once per schema epoch:
// a statement's text does not show what its triggers do, and no view lists custom settings. Sources are searched for
// words, so this errs on the side of asking for state that is not there.
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import type { ControlQuery } from '../replies/reply-queue.js';
import { CUSTOM_NAMES_SQL, MADE_UP_NAMES_SQL, makesUpNames } from './made-up-settings.js';

export interface Routines {
  readonly epoch: number;
  /** Custom settings ("app.user") that some routine names behind SET or set_config. */
  readonly customNames: readonly string[];
  /** Finds in a text the name of a routine that makes up names of settings, or SQL: nobody can ask for what it sets. */
  readonly mentionsMaker: RegExp | null;
  /** The same may be done by code that no text mentions: a trigger, a view, an operator … */
  readonly makesUpUnseen: boolean;
  /**
   * Settings, locks, channels or temporary objects may be left behind by a write that does not show it: by a trigger, a
   * default, a constraint, a policy …
   */
  readonly writesLeaveState: boolean;
  /** The same by a read: by a view, a policy, an operator, a cast, a routine that shares its name with a built-in one. */
  readonly readsLeaveState: boolean;
  /** The database's default collation compares bytes. */
  readonly byteOrder: boolean;
  /** There are sequences, so that what a session drew has to be kept from the next one. */
  readonly hasSequences: boolean;
}

/** Statements of code, and calls, that leave something in the session which a probe can see. */
const LEAVES_STATE = [
  String.raw`set_config|pg_settings|pg_(?:try_)?advisory_lock|\ylisten\y|\yexecute\y|\ytemp(?:orary)?\y`,
  // SET and RESET where a statement begins, which may be behind a comment.
  String.raw`(?:^|;|\ybegin|\yatomic|\ythen|\yelse|\yloop|>>|\*/|--[^\n]*\n)\s*(?:re)?set(?:\s|/|-|")`,
].join('|');
/** Of one database; far above what programs use. Beyond, any name may be meant. */
const NAMES_MAX = 200;
const USERS_OWN = 'oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid';
/** Each stands in the text once: it is sent after every change of the schema. */
const PATTERNS = `patterns AS (SELECT ${quoteLiteral(LEAVES_STATE)} AS leaves, ${quoteLiteral(MADE_UP_NAMES_SQL)} AS made, ${quoteLiteral(CUSTOM_NAMES_SQL)} AS names),`;
const matches = (text: string, pattern: 'leaves' | 'made'): string =>
  `${text} OPERATOR(pg_catalog.~) (SELECT ${pattern} FROM patterns)`;
const classes = (...names: readonly string[]): string =>
  `ARRAY[${names.map((name) => `'pg_catalog.${name}'`).join(',')}]::pg_catalog.regclass[]`;
const PROC = `'pg_catalog.pg_proc'::pg_catalog.regclass`;

/**
 * Routines that users made; of those in C the symbol stands for the source. Those of the extension are known: they make up
 * SQL where they make tables, and leave nothing in the session.
 */
const SOURCES = [
  'sources AS MATERIALIZED (SELECT p.oid, pg_catalog.lower(p.proname::pg_catalog.text) AS name, p.proconfig AS config,',
  'pg_catalog.lower(CASE WHEN p.prosqlbody IS NULL THEN p.prosrc ELSE pg_catalog.pg_get_function_sqlbody(p.oid) END) AS source,',
  `l.lanname OPERATOR(pg_catalog.<>) ALL (ARRAY['sql','plpgsql','internal','c']::pg_catalog.name[]) AS unreadable,`,
  // table.routine and value.routine look like columns.
  'p.pronargs OPERATOR(pg_catalog.>) 0 AND p.pronargs OPERATOR(pg_catalog.-) p.pronargdefaults OPERATOR(pg_catalog.<=) 1',
  `AND (SELECT typtype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['c','p']) FROM pg_catalog.pg_type a WHERE a.oid OPERATOR(pg_catalog.=) p.proargtypes[0]) AS column_like`,
  'FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang',
  `WHERE p.${USERS_OWN}`,
  "AND p.pronamespace OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'pgkv'))),",
].join(' ');

/** What calls functions without being one: pg_depend has no rows for built-in functions in it. `reads`: a read runs it. */
const EXPRESSIONS = [
  'expressions AS MATERIALIZED (SELECT reads, pg_catalog.lower(source) AS source FROM (',
  `SELECT true AS reads, pg_catalog.pg_get_ruledef(oid) AS source FROM pg_catalog.pg_rewrite WHERE ${USERS_OWN}`,
  `UNION ALL SELECT true, pg_catalog.concat(pg_catalog.pg_get_expr(polqual, polrelid), ' ', pg_catalog.pg_get_expr(polwithcheck, polrelid)) FROM pg_catalog.pg_policy`,
  'UNION ALL SELECT false, pg_catalog.pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef',
  `UNION ALL SELECT contypid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid, pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint WHERE contype OPERATOR(pg_catalog.=) 'c' AND ${USERS_OWN}`,
  ') e),',
].join(' ');

/** Routines that may leave state, and those that mention one, or aggregate by one, that does; `made`: under a name made up. */
const LEAVING = [
  `leaving AS (SELECT oid, name, column_like, ${matches('source', 'made')} OR unreadable AS made FROM sources WHERE ${matches('source', 'leaves')} OR ${matches('source', 'made')} OR unreadable OR config IS NOT NULL AND pg_catalog.array_to_string(config, ',') OPERATOR(pg_catalog.~) '(^|,)[^=,]*[.]'`,
  'UNION SELECT s.oid, s.name, s.column_like, l.made FROM sources s JOIN leaving l ON pg_catalog.strpos(s.source, l.name) OPERATOR(pg_catalog.>) 0',
  `OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid OPERATOR(pg_catalog.=) ${PROC} AND d.objid OPERATOR(pg_catalog.=) s.oid AND d.refclassid OPERATOR(pg_catalog.=) ${PROC} AND d.refobjid OPERATOR(pg_catalog.=) l.oid)),`,
].join(' ');

/** What runs them without a statement's naming them, which therefore depends on them. */
const USES = [
  'uses AS (SELECT d.classid, d.objid, l.made FROM leaving l JOIN pg_catalog.pg_depend d ON d.refobjid OPERATOR(pg_catalog.=) l.oid',
  `WHERE d.refclassid OPERATOR(pg_catalog.=) ${PROC} AND d.classid OPERATOR(pg_catalog.<>) ${PROC}),`,
  'hidden AS (SELECT false AS reads, made FROM uses',
  `UNION SELECT true, made FROM uses WHERE classid OPERATOR(pg_catalog.=) ANY (${classes('pg_rewrite', 'pg_policy', 'pg_operator', 'pg_cast', 'pg_type', 'pg_amproc')})`,
  `UNION SELECT true, u.made FROM uses u JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) u.objid WHERE u.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.contypid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid`,
  // A name that is a built-in one's, too, is not seen in a text.
  'UNION SELECT true, l.made FROM leaving l WHERE l.column_like OR EXISTS (SELECT FROM pg_catalog.pg_proc b WHERE b.proname OPERATOR(pg_catalog.=) l.name::pg_catalog.name',
  'AND b.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid)',
  `UNION SELECT e.reads, ${matches('e.source', 'made')} FROM expressions e WHERE ${matches('e.source', 'leaves')} OR ${matches('e.source', 'made')})`,
].join(' ');

const NAMES = [
  `SELECT m[1] AS n FROM sources, LATERAL pg_catalog.regexp_matches(source, (SELECT names FROM patterns), 'g') m`,
  `UNION SELECT m[1] FROM expressions, LATERAL pg_catalog.regexp_matches(source, (SELECT names FROM patterns), 'g') m`,
  // Settings of a function's own leave a trace: '' where there was none.
  `UNION SELECT pg_catalog.lower(pg_catalog.split_part(c, '=', 1)) FROM sources, LATERAL pg_catalog.unnest(config) c WHERE pg_catalog.split_part(c, '=', 1) OPERATOR(pg_catalog.~) '[.]'`,
].join(' ');

/** Sequences of users, of whatever schema. Nobody draws from those of the extension. */
const SEQUENCES = [
  "SELECT 's', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.seqrelid",
  "JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace WHERE n.nspname OPERATOR(pg_catalog.<>) 'pgkv')",
].join(' ');

/** Whether text of no other collation sorts by its bytes. */
const BYTE_ORDER = [
  `SELECT 'b', '' FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()`,
  `AND (datlocprovider::pg_catalog.text OPERATOR(pg_catalog.=) 'b' OR datlocprovider::pg_catalog.text OPERATOR(pg_catalog.=) 'c'`,
  `AND datcollate OPERATOR(pg_catalog.=) ANY (ARRAY['C', 'POSIX']))`,
].join(' ');

/**
 * Rows: 'n' with the name of a custom setting, 'd' with that of a routine that makes names up, 's' for sequences, 'b' for byte
 * order, 't' where writes leave state unseen, 'r' where reads do, with 'm' where it may be under a name that is made up.
 */
export const ROUTINES_SQL = [
  `WITH RECURSIVE ${PATTERNS} ${SOURCES} ${EXPRESSIONS} ${LEAVING} ${USES}`,
  `SELECT 'n', n FROM (${NAMES} LIMIT ${NAMES_MAX + 1}) q`,
  `UNION ALL SELECT 'd', name FROM (SELECT DISTINCT name FROM leaving WHERE made LIMIT ${NAMES_MAX + 1}) q`,
  `UNION ALL SELECT DISTINCT CASE WHEN reads THEN 'r' ELSE 't' END, CASE WHEN made THEN 'm' ELSE '' END FROM hidden`,
  `UNION ALL ${SEQUENCES}`,
  `UNION ALL ${BYTE_ORDER}`,
].join(' ');

/** What is assumed of a database whose code cannot be read. */
const ANY_STATE = { writesLeaveState: true, readsLeaveState: true, makesUpUnseen: true, hasSequences: true };

/** Reads the answer to ROUTINES_SQL; where it was refused, the worst is assumed. */
export function readRoutines(epoch: number, done: (routines: Routines, failure: Buffer | null) => void): ControlQuery {
  const customNames: string[] = [];
  const makers: string[] = [];
  const found = { writesLeaveState: false, readsLeaveState: false, makesUpUnseen: false, hasSequences: false };
  let byteOrder = false;
  let failure: Buffer | null = null;
  return {
    row([kind, name]) {
      if (name === 'm' && (kind === 't' || kind === 'r')) found.makesUpUnseen = true;
      if (kind === 't') found.writesLeaveState = true;
      else if (kind === 'r') found.writesLeaveState = found.readsLeaveState = true;
      else if (kind === 's') found.hasSequences = true;
      else if (kind === 'b') byteOrder = true;
      else if (kind === 'd') makers.push(name ?? '');
      else if (kind === 'n' && typeof name === 'string') customNames.push(name);
    },
    failed(message) {
      failure = message;
      Object.assign(found, ANY_STATE);
    },
    ready() {
      // A name in quotes or other letters can be written in ways that a search misses.
      const findable = makers.length <= NAMES_MAX && makers.every((name) => /^[a-z0-9_$]+$/.test(name));
      if (!findable || customNames.length > NAMES_MAX) found.makesUpUnseen = true;
      const mentionsMaker =
        makers.length === 0 || !findable ? null : new RegExp(makers.join('|').replaceAll('$', '\\$'), 'i');
      done({ ...found, epoch, customNames, mentionsMaker, byteOrder }, failure);
    },
  };
}

/** Whether code that `text` brings along or calls may set something under a name that nobody can ask for. */
export function mayHideSettings(text: string, routines: Routines | null): boolean {
  if (routines === null || routines.makesUpUnseen || text === '') return true;
  return routines.mentionsMaker?.test(text) === true || makesUpNames(text);
}
