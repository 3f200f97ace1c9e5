// What the routines of a database may do to the session that calls them, read off their sources once per schema epoch:
// a statement's text does not show what its triggers do, and no view lists custom settings. Sources are searched for
// words, so this errs on the side of asking for state that is not there.
import type { ControlQuery } from '../replies/reply-queue.js';
import { leavesState, makesUpNames } from './made-up-settings.js';
import { NAMES_MAX } from './routines-sql.js';

export interface Routines {
  /** Of the schema; an assumption's is none, so that it is looked for what is known before each lease. */
  readonly epoch: number;
  /** Nothing was read: the worst is assumed, and a session judges anew what it ran meanwhile when it is known. */
  readonly isAssumed: boolean;
  /** Custom settings ("app.user") that some routine names behind SET or set_config. */
  readonly customNames: readonly string[];
  /** Finds in a text the name of a routine that makes up names of settings, or SQL: nobody can ask for what it sets. */
  readonly mentionsMaker: RegExp | null;
  /** Finds in a text the name of a routine that leaves anything in its session; null: there is none. */
  readonly mentionsLeaving: RegExp | null;
  /** What makers do may be done by code that no text mentions: a trigger, a view, an operator … */
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

/** What is assumed of a database whose code cannot be read. */
const ANY_STATE = { writesLeaveState: true, readsLeaveState: true, makesUpUnseen: true, hasSequences: true };

/** Where an answer to ROUTINES_SQL can be gone on from. */
export interface Landmarks {
  /** Class and OID of what matters. */
  readonly marks: readonly string[];
  /** xid8: rows of transactions from here on may be news. */
  readonly snapshot: string;
}

type Read = (routines: Routines, failure: Buffer | null, landmarks: Landmarks) => void;

/** Reads the answer to ROUTINES_SQL; where it was refused, the worst is assumed. */
export function readRoutines(epoch: number, done: Read): ControlQuery {
  const customNames = new Set<string>();
  const makers: string[] = [];
  const leaving: string[] = [];
  const marks: string[] = [];
  const found = { writesLeaveState: false, readsLeaveState: false, makesUpUnseen: false, hasSequences: false };
  let byteOrder = false;
  let failure: Buffer | null = null;
  let snapshot = '';
  return {
    row([kind, name]) {
      if (name === 'm' && (kind === 't' || kind === 'r')) found.makesUpUnseen = true;
      if (kind === 't') found.writesLeaveState = true;
      else if (kind === 'r') found.writesLeaveState = found.readsLeaveState = true;
      else if (kind === 's') found.hasSequences = true;
      else if (kind === 'b') byteOrder = true;
      else if (kind === 'd') makers.push(name ?? '');
      else if (kind === 'l') leaving.push(name ?? '');
      else if (kind === 'k') marks.push(name ?? '');
      else if (kind === 'i') snapshot = name ?? '';
      else if (kind === 'n' && typeof name === 'string') customNames.add(name);
      else if (kind === 'x') {
        const setting = settingInCall(name ?? '');
        if (setting === null) found.makesUpUnseen = true;
        else if (setting.includes('.')) customNames.add(setting);
      }
    },
    failed(message) {
      failure = message;
      Object.assign(found, ANY_STATE);
    },
    ready() {
      const findable = isFindable(makers);
      if (!findable || customNames.size > NAMES_MAX) found.makesUpUnseen = true;
      const routines = {
        ...found,
        epoch,
        isAssumed: false,
        customNames: [...customNames],
        mentionsMaker: findable ? mentionOf(makers) : null,
        mentionsLeaving: isFindable(leaving) ? mentionOf(leaving) : ANYTHING,
        byteOrder,
      };
      done(routines, failure, { marks, snapshot });
    },
  };
}

const ANYTHING = /(?:)/;
/** A name in quotes or other letters can be written in ways that a search misses. */
const isFindable = (names: readonly string[]): boolean =>
  names.length <= NAMES_MAX && names.every((name) => /^[a-z0-9_$]+$/.test(name));
const mentionOf = (names: readonly string[]): RegExp | null =>
  names.length === 0 ? null : new RegExp(names.join('|').replaceAll('$', '\\$'), 'i');

const FIRST_ARGUMENT = /^:funcid \d+ [^({]*:args \(\{CONST :consttype 25 [^[\]{}]*:constvalue \d+ \[ ([-\d ]+)\]$/;
const PLAIN_NAME = /^[a-z_][a-z0-9_$]*(?:\.[a-z_][a-z0-9_$]*)*$/;
/** A text's length stands in front of it. */
const LENGTH_BYTES = 4;

/** The setting that a call of set_config sets, as a node tree shows the call; null: not in plain sight. */
export function settingInCall(call: string): string | null {
  const numbers = FIRST_ARGUMENT.exec(call)?.[1];
  if (numbers === undefined) return null;
  const bytes = Buffer.from(numbers.trim().split(' ').map(Number)).subarray(LENGTH_BYTES);
  const name = bytes.toString('utf8').toLowerCase();
  return PLAIN_NAME.test(name) ? name : null;
}

/** Where no routine of the database is known: what `text` itself does under names it makes up. */
export const mayHideSettingsItself = (text: string): boolean => text === '' || makesUpNames(text);

/** Whether code that `text` brings along or calls may set something under a name that nobody can ask for. */
export function mayHideSettings(text: string, routines: Routines | null): boolean {
  if (routines === null || routines.makesUpUnseen || text === '') return true;
  return routines.mentionsMaker?.test(text) === true || makesUpNames(text);
}

/** Whether DDL of this text may bring code that leaves something in the sessions that run it, or make such code run unseen. */
export const mayBringState = (text: string, routines: Routines): boolean =>
  routines.isAssumed || leavesState(text) || routines.mentionsLeaving?.test(text) === true;
