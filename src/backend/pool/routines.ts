// What the routines of a database may do to the session that calls them, read off their sources once per schema epoch:
// a statement's text does not show what its triggers do, and no view lists custom settings. Sources are searched for
// words, so this errs on the side of asking for state that is not there.
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import type { ControlQuery } from '../replies/reply-queue.js';

export interface Routines {
  readonly epoch: number;
  /** Custom settings ("app.user") that some routine names behind SET or set_config. */
  readonly customNames: readonly string[];
  /** Some routine makes up names of settings, or runs SQL it makes up: custom settings may be set that nobody can name. */
  readonly dynamicNames: boolean;
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

const CUSTOM_NAME = String.raw`(?:set_config\s*\(\s*'|\mset\s+(?:session\s+)?)([a-z_][a-z0-9_$]*\.[a-z0-9_$.]+)`;
const LEAVES_STATE = String.raw`set_config|pg_(try_)?advisory_lock|\mlisten\M|\mexecute\M|\mtemp(orary)?\M|\mload\M|setseed|(^|;|\mbegin|\mthen|\melse|\mloop)\s*(re)?set\s`;
const DYNAMIC = String.raw`set_config\s*\(\s*[^'\s]|\mexecute\M`;
const FROM_ROUTINES =
  'FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang';
/**
 * Routines that users made (OIDs below 16384 are Postgres's own) and that have a source: internal and C ones have none.
 * Those of the extension are known: they make up SQL where they make tables, and leave nothing in the session.
 */
const READABLE = [
  "p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND l.lanname OPERATOR(pg_catalog.<>) ALL (ARRAY['internal','c']::pg_catalog.name[])",
  "AND p.pronamespace OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'pgkv'))",
].join(' ');
/** Of one database; far above what programs use. */
const CUSTOM_NAMES_MAX = 200;

const SOURCE = 'CASE WHEN p.prosqlbody IS NULL THEN p.prosrc ELSE pg_catalog.pg_get_function_sqlbody(p.oid) END';
const classes = (...names: readonly string[]): string =>
  `ARRAY[${names.map((name) => `'pg_catalog.${name}'`).join(',')}]::pg_catalog.regclass[]`;
/**
 * `leaving`: routines that may leave state, and those that mention one that does; `uses`: what runs them without a
 * statement's naming them, which therefore depends on them.
 */
const HIDDEN_USES = [
  `WITH RECURSIVE sources AS MATERIALIZED (SELECT p.oid, pg_catalog.lower(p.proname::pg_catalog.text) AS name, pg_catalog.lower(${SOURCE}) AS source ${FROM_ROUTINES} WHERE ${READABLE}),`,
  `leaving AS (SELECT oid, name FROM sources WHERE source OPERATOR(pg_catalog.~) ${quoteLiteral(LEAVES_STATE)}`,
  'UNION SELECT s.oid, s.name FROM sources s JOIN leaving l ON pg_catalog.strpos(s.source, l.name) OPERATOR(pg_catalog.>) 0),',
  'uses AS (SELECT d.classid FROM leaving l JOIN pg_catalog.pg_depend d ON d.refobjid OPERATOR(pg_catalog.=) l.oid',
  `WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass)`,
  `SELECT 't' AS kind WHERE EXISTS (SELECT FROM uses WHERE classid OPERATOR(pg_catalog.<>) ALL (${classes('pg_proc')}))`,
  `UNION ALL SELECT 'r' WHERE EXISTS (SELECT FROM uses WHERE classid OPERATOR(pg_catalog.=) ANY (${classes('pg_rewrite', 'pg_policy', 'pg_operator', 'pg_cast', 'pg_type', 'pg_amproc')}))`,
  'OR EXISTS (SELECT FROM leaving l JOIN pg_catalog.pg_proc b ON b.proname OPERATOR(pg_catalog.=) l.name::pg_catalog.name',
  'WHERE b.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid)',
].join(' ');

const leaves = (text: string): string =>
  `pg_catalog.lower(${text}) OPERATOR(pg_catalog.~) ${quoteLiteral(LEAVES_STATE)}`;
const USERS_OWN = 'oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid';
/** What calls a built-in function by itself: pg_depend has no rows for those. Views and rules, policies; then writes. */
const DIRECT_USES = [
  `SELECT 'r' AS kind WHERE EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ${USERS_OWN} AND ${leaves('pg_catalog.pg_get_ruledef(oid)')})`,
  `OR EXISTS (SELECT FROM pg_catalog.pg_policy WHERE ${leaves("pg_catalog.concat(pg_catalog.pg_get_expr(polqual, polrelid), ' ', pg_catalog.pg_get_expr(polwithcheck, polrelid))")})`,
  `UNION ALL SELECT 't' WHERE EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ${USERS_OWN} AND ${leaves('pg_catalog.pg_get_ruledef(oid)')})`,
  `OR EXISTS (SELECT FROM pg_catalog.pg_policy WHERE ${leaves("pg_catalog.concat(pg_catalog.pg_get_expr(polqual, polrelid), ' ', pg_catalog.pg_get_expr(polwithcheck, polrelid))")})`,
  `OR EXISTS (SELECT FROM pg_catalog.pg_attrdef WHERE ${leaves('pg_catalog.pg_get_expr(adbin, adrelid)')})`,
  `OR EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype OPERATOR(pg_catalog.=) 'c' AND ${USERS_OWN} AND ${leaves('pg_catalog.pg_get_constraintdef(oid)')})`,
].join(' ');
/** Sequences of users, of whatever schema. */
const SEQUENCES = `SELECT 's', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_sequence)`;

/** Whether text of no other collation sorts by its bytes. */
const BYTE_ORDER = [
  `SELECT 'b', '' FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()`,
  `AND (datlocprovider::pg_catalog.text OPERATOR(pg_catalog.=) 'b' OR datlocprovider::pg_catalog.text OPERATOR(pg_catalog.=) 'c'`,
  `AND datcollate OPERATOR(pg_catalog.=) ANY (ARRAY['C', 'POSIX']))`,
].join(' ');

/** Rows: 'n' with a name, 'd' for dynamic names, 't' for writes that leave state unseen, 'r' for such reads, 's' for sequences, 'b' for byte order. */
export const ROUTINES_SQL = [
  `SELECT 'n', n FROM (SELECT DISTINCT pg_catalog.lower(m[1]) AS n ${FROM_ROUTINES}, LATERAL pg_catalog.regexp_matches(p.prosrc, ${quoteLiteral(CUSTOM_NAME)}, 'gi') m WHERE ${READABLE} LIMIT ${CUSTOM_NAMES_MAX}) q`,
  `SELECT 'd', '' WHERE EXISTS (SELECT ${FROM_ROUTINES} WHERE ${READABLE} AND p.prosrc OPERATOR(pg_catalog.~*) ${quoteLiteral(DYNAMIC)})`,
  `SELECT kind, '' FROM (${HIDDEN_USES}) h`,
  `SELECT kind, '' FROM (${DIRECT_USES}) d`,
  SEQUENCES,
  BYTE_ORDER,
].join(' UNION ALL ');

/** Reads the answer to ROUTINES_SQL; where it was refused, the worst is assumed. */
export function readRoutines(epoch: number, done: (routines: Routines, failure: Buffer | null) => void): ControlQuery {
  const customNames: string[] = [];
  let dynamicNames = false;
  let writesLeaveState = false;
  let readsLeaveState = false;
  let hasSequences = false;
  let byteOrder = false;
  let failure: Buffer | null = null;
  return {
    row([kind, name]) {
      if (kind === 't') writesLeaveState = true;
      else if (kind === 'r') readsLeaveState = true;
      else if (kind === 's') hasSequences = true;
      else if (kind === 'b') byteOrder = true;
      else if (kind === 'd') dynamicNames = true;
      else if (kind === 'n' && typeof name === 'string') customNames.push(name);
    },
    failed(message) {
      failure = message;
      writesLeaveState = readsLeaveState = dynamicNames = hasSequences = true;
    },
    ready() {
      done({ epoch, customNames, dynamicNames, writesLeaveState, readsLeaveState, hasSequences, byteOrder }, failure);
    },
  };
}

const CUSTOM_NAME_IN_TEXT = /(?:set_config\s*\(\s*'|\bset\s+(?:session\s+)?)([a-z_][a-z0-9_$]*\.[a-z0-9_$.]+)/gi;

const DYNAMIC_IN_TEXT = /set_config\s*\(\s*[^'\s]|\bexecute\b/i;

/** Whether a text that brings its code along (DO) makes up names of settings or SQL. */
export const hasDynamicNames = (text: string): boolean => DYNAMIC_IN_TEXT.test(text);

/** The custom settings such a text names. */
export function customNamesIn(text: string): string[] {
  return [...text.matchAll(CUSTOM_NAME_IN_TEXT)].map((match) => match[1]!.toLowerCase());
}
