// What the routines of a database may do to the session that calls them, read off their sources once per schema epoch:
// a statement's text does not show what its triggers do, and no view lists custom settings. Sources are searched for
// words, so this errs on the side of asking for state that is not there.
import { quoteLiteral } from './quote-literal.js';
import type { ControlQuery } from './reply-queue.js';

export interface Routines {
  readonly epoch: number;
  /** Custom settings ("app.user") that some routine names behind SET or set_config. */
  readonly customNames: readonly string[];
  /** Some routine makes up names of settings, or runs SQL it makes up: custom settings may be set that nobody can name. */
  readonly dynamicNames: boolean;
  /** Some trigger function may leave settings, locks, channels or temporary objects behind. */
  readonly triggersLeaveState: boolean;
}

const CUSTOM_NAME = String.raw`(?:set_config\s*\(\s*'|\mset\s+(?:session\s+)?)([a-z_][a-z0-9_$]*\.[a-z0-9_$.]+)`;
const LEAVES_STATE = String.raw`set_config|pg_(try_)?advisory_lock|\mlisten\M|\mexecute\M|\mtemp(orary)?\M|\mload\M|setseed|(;|\mbegin|\mthen|\melse|\mloop)\s*(re)?set\s`;
const DYNAMIC = String.raw`set_config\s*\(\s*[^'\s]|\mexecute\M`;
const FROM_ROUTINES =
  'FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang';
const READABLE = "l.lanname OPERATOR(pg_catalog.<>) ALL (ARRAY['internal','c']::pg_catalog.name[])";
/** Of one database; far above what programs use. */
const CUSTOM_NAMES_MAX = 200;

/** Rows: 'n' with a name, 'd' for dynamic names, 't' for triggers. Internal and C routines have no source to read. */
export const ROUTINES_SQL = [
  `SELECT 'n', n FROM (SELECT DISTINCT pg_catalog.lower(m[1]) AS n ${FROM_ROUTINES}, LATERAL pg_catalog.regexp_matches(p.prosrc, ${quoteLiteral(CUSTOM_NAME)}, 'gi') m WHERE ${READABLE} LIMIT ${CUSTOM_NAMES_MAX}) q`,
  `SELECT 'd', '' WHERE EXISTS (SELECT ${FROM_ROUTINES} WHERE ${READABLE} AND p.prosrc OPERATOR(pg_catalog.~*) ${quoteLiteral(DYNAMIC)})`,
  `SELECT 't', '' WHERE EXISTS (SELECT ${FROM_ROUTINES} JOIN pg_catalog.pg_trigger t ON t.tgfoid OPERATOR(pg_catalog.=) p.oid WHERE ${READABLE} AND NOT t.tgisinternal AND p.prosrc OPERATOR(pg_catalog.~*) ${quoteLiteral(LEAVES_STATE)})`,
].join(' UNION ALL ');

/** Reads the answer to ROUTINES_SQL; where it was refused, the worst is assumed. */
export function readRoutines(epoch: number, done: (routines: Routines, failure: Buffer | null) => void): ControlQuery {
  const customNames: string[] = [];
  let dynamicNames = false;
  let triggersLeaveState = false;
  let failure: Buffer | null = null;
  return {
    row([kind, name]) {
      if (kind === 't') triggersLeaveState = true;
      else if (kind === 'd') dynamicNames = true;
      else if (kind === 'n' && typeof name === 'string') customNames.push(name);
    },
    failed(message) {
      failure = message;
      triggersLeaveState = dynamicNames = true;
    },
    ready() {
      done({ epoch, customNames, dynamicNames, triggersLeaveState }, failure);
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
