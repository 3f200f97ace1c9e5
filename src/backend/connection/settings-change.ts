// The one way from the settings a server session has to those its next user needs. Time-outs that its last user has set are
// taken off first, so that neither the change nor a question of pgkv's own runs under them: what they cut off is asked again
// and told to nobody. Owns these statements and their repetition; what becomes of a connection that could not be
// changed is its holder's to say.
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { readErrorFields } from '../../wire/error-fields.js';
import { IGNORED, untilDone } from '../replies/control-answers.js';
import type { ReportedParameters } from '../replies/parameter-status.js';
import type { ControlQuery } from '../replies/reply-queue.js';
import type { SettingsGroup } from './settings-group.js';

/** What statements of pgkv's own are sent on. */
export interface ControlSender {
  readonly parameters: ReportedParameters;
  sendControl(sql: string, control: ControlQuery): void;
  readonly output: { flush(): void };
}

/** Settings that end a statement, or the session in the midst of one. */
export const TIME_OUTS = ['lock_timeout', 'statement_timeout', 'transaction_timeout'] as const;
const TRANSACTION_TIMEOUT_SINCE = 17;
/** Statement or lock timed out; the third kind ends the session. */
const TIMED_OUT: ReadonlySet<string> = new Set(['57014', '55P03']);
/**
 * A time-out of 1 ms cuts off even the SET that takes it off where the server process has to wait for a processor: one
 * in a hundred on a loaded machine.
 */
export const TIMED_OUT_TRIES_MAX = 20;

/** Those that a server with these parameters knows. */
export function timeOutsOf(parameters: ReportedParameters): readonly string[] {
  const knowsAll = Number.parseInt(parameters.get('server_version') ?? '', 10) >= TRANSACTION_TIMEOUT_SINCE;
  return knowsAll ? TIME_OUTS : TIME_OUTS.slice(0, 2);
}

export const isTimeOut = (name: string): boolean => (TIME_OUTS as readonly string[]).includes(name);

/** The server session would be ended while nobody uses it. */
export const endsWhenIdle = ({ values }: SettingsGroup): boolean => (values.get('idle_session_timeout') ?? '0') !== '0';

export function hasTimedOut(failure: Buffer): boolean {
  return TIMED_OUT.has(readErrorFields(failure, 0, failure.length)['C'] ?? '');
}

/** Takes time-outs off for what follows. Short: it is read while they still hold. */
export const reliefSql = (names: Iterable<string>): string => [...names].map((name) => `SET ${name} TO 0`).join(';');

/**
 * SQL that takes a connection from one group to another, or null where nothing has to be done: one SELECT of set_config
 * calls, evaluated in order; a NULL value resets (guc.c, set_config_by_name).
 * @param relieved time-outs that were taken off, or should have been: whether they were makes no difference
 */
export function settingsChangeSql(
  from: SettingsGroup,
  to: SettingsGroup,
  relieved: readonly string[] = [],
): string | null {
  const calls: string[] = [];
  const set = (name: string, value: string | null): void => {
    calls.push(`pg_catalog.set_config(${quoteLiteral(name)}, ${value === null ? 'NULL' : quoteLiteral(value)}, false)`);
  };
  // A role may lack the right to change a setting, so it is taken off first and put on last.
  const role = to.values.get('role');
  const roleChanges = from.values.get('role') !== role;
  if (roleChanges && from.values.has('role')) set('role', null);
  for (const name of new Set([...from.values.keys(), ...relieved])) {
    if (name !== 'role' && !to.values.has(name)) set(name, null);
  }
  for (const [name, value] of to.values) {
    const differs = from.values.get(name) !== value || relieved.includes(name);
    // That of transactions counts from the moment it is set.
    if (name !== 'role' && name !== 'transaction_timeout' && differs) set(name, value);
  }
  if (roleChanges && role !== undefined) set('role', role);
  const perTransaction = to.values.get('transaction_timeout');
  if (
    perTransaction !== undefined &&
    (from.values.get('transaction_timeout') !== perTransaction || relieved.includes('transaction_timeout'))
  ) {
    set('transaction_timeout', perTransaction);
  }
  return calls.length === 0 ? null : `SELECT ${calls.join(', ')}`;
}

/**
 * Brings a connection at rest from one group of settings to another.
 * @param first a statement that goes before the change, '' for none
 * @param done hears of the server's refusal, or of null when they hold
 * @returns whether nothing had to be sent; `done` is then not called
 */
export function changeSettings(
  connection: ControlSender,
  from: SettingsGroup,
  to: SettingsGroup,
  first: string,
  done: (failure: Buffer | null) => void,
): boolean {
  if (settingsChangeSql(from, to) === null && first === '') return true;
  const set = timeOutsOf(connection.parameters).filter((name) => (from.values.get(name) ?? '0') !== '0');
  attempt(connection, { from, to, first, relieved: set }, TIMED_OUT_TRIES_MAX, done);
  return false;
}

interface Change {
  readonly from: SettingsGroup;
  readonly to: SettingsGroup;
  readonly first: string;
  readonly relieved: readonly string[];
}

function attempt(
  connection: ControlSender,
  change: Change,
  triesLeft: number,
  done: (failure: Buffer | null) => void,
): void {
  const { from, to, first, relieved } = change;
  if (relieved.length > 0) connection.sendControl(reliefSql(relieved), IGNORED);
  const statements = [first, settingsChangeSql(from, to, relieved) ?? ''].filter((sql) => sql !== '');
  connection.sendControl(
    statements.join(';'),
    untilDone((failure) => {
      if (failure === null || triesLeft === 0 || !hasTimedOut(failure)) return done(failure);
      // It may be the role's own time-out, which no group tells of.
      const all = { ...change, relieved: timeOutsOf(connection.parameters) };
      attempt(connection, all, triesLeft - 1, done);
    }),
  );
  connection.output.flush();
}
