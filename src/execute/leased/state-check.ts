// Asks a server session what state it holds, after statements that may have left some. The server's own word replaces
// any guessing: what a ROLLBACK undid, what a function set, which lock is still held. One statement, one row per fact.
// The session's own time-outs do not cut it off: they are read, taken off, and told as what they were.

import {
  type ControlSender,
  hasTimedOut,
  reliefSql,
  TIME_OUTS,
  TIMED_OUT_TRIES_MAX,
  timeOutsOf,
} from '../../backend/connection/settings-change.js';
import { untilReady } from '../../backend/replies/control-answers.js';
import { milliseconds } from '../../session/milliseconds.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';

/** Settings whose session value belongs to the transaction, or cannot be set again by set_config. */
const NOT_CARRIED = [
  'transaction_isolation',
  'transaction_read_only',
  'transaction_deferrable',
  'session_authorization',
  'is_superuser',
];

export const TEMPORARY_OBJECTS = 'temporary objects';
/** Whatever stands in the temporary schema depends on it: that is how Postgres itself finds it at the end. */
const FROM_TEMPORARY =
  "FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()";
const pinSql = (name: string, from: string): string =>
  `SELECT 'p', '${name}', pg_catalog.count(*)::pg_catalog.text ${from}`;
const TEMPORARY_SQL = pinSql(TEMPORARY_OBJECTS, FROM_TEMPORARY);

/** All that is set in the session or its transaction. @param names settings pg_settings does not list (custom ones) among them */
export function settingsSql(names: Iterable<string>): string {
  const asked = ['role', ...names].map(quoteLiteral).join(',');
  return [
    `SELECT 's', name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session' AND name OPERATOR(pg_catalog.<>) ALL (ARRAY[${NOT_CARRIED.map(quoteLiteral).join(',')}])`,
    `SELECT 'c', n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest(ARRAY[${asked}]) n`,
  ].join(' UNION ALL ');
}

/** @param customNames settings pg_settings does not list (custom ones) that may have been set */
export function stateCheckSql(customNames: Iterable<string>): string {
  const pins: readonly (readonly [string, string])[] = [
    ['prepared', 'FROM pg_catalog.pg_prepared_statements WHERE from_sql'],
    ['cursors', 'FROM pg_catalog.pg_cursors WHERE is_holdable'],
    ['channels', 'FROM pg_catalog.pg_listening_channels()'],
    [
      'locks',
      "FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()",
    ],
    [TEMPORARY_OBJECTS, FROM_TEMPORARY],
  ];
  return [
    settingsSql(customNames),
    `SELECT 'u', '', session_user::pg_catalog.text`,
    `SELECT 'd', name, reset_val FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY[${TIME_OUTS.map(quoteLiteral).join(',')}])`,
    ...pins.map(([name, from]) => pinSql(name, from)),
  ].join(' UNION ALL ');
}

export interface SessionState {
  readonly settings: Map<string, string>;
  /** What is in force on the connection: without the session's time-outs, where they were taken off. */
  readonly inForce: Map<string, string>;
  /** Kinds of state that cannot be carried to another connection, empty if none. */
  readonly pins: readonly string[];
  /** Whom the session belongs to now. The role it has taken, if any, is among the settings. */
  readonly sessionUser: string | null;
}

export interface StateQuestion {
  readonly customNames: ReadonlySet<string>;
  /** The session may have time-outs: they are taken off at once, not only when one has cut the question off. */
  readonly relieve: boolean;
}

/** Only at rest, of a session without time-outs. `done(null)` where the server will not say. */
export function askTemporary(connection: ControlSender, done: (exist: boolean | null) => void): void {
  let exist: boolean | null = null;
  connection.sendControl(TEMPORARY_SQL, {
    row: ([kind, , count]) => {
      if (kind === 'p') exist = count !== '0';
    },
    failed: () => {
      exist = null;
    },
    ready: () => done(exist),
  });
  connection.output.flush();
}

/** Only at rest. `done(null)` where the server will not say; time-outs are then as they were. */
export function askState(
  connection: ControlSender,
  question: StateQuestion,
  done: (state: SessionState | null) => void,
): void {
  new StateAnswer(connection, question, done).ask(question.relieve, TIMED_OUT_TRIES_MAX);
}

class StateAnswer {
  readonly #connection: ControlSender;
  readonly #sql: string;
  readonly #done: (state: SessionState | null) => void;
  readonly #timeOuts: readonly string[];
  #settings = new Map<string, string>();
  #pins: string[] = [];
  #sessionUser: string | null = null;
  /** What the time-outs of the session start with, milliseconds. */
  #defaults = new Map<string, number>();
  /** What the session had of each, before they were taken off; null: they were not. */
  #relieved: (string | null)[] | null = null;

  constructor(connection: ControlSender, question: StateQuestion, done: (state: SessionState | null) => void) {
    this.#connection = connection;
    this.#timeOuts = timeOutsOf(connection.parameters);
    this.#sql = stateCheckSql(question.customNames);
    this.#done = done;
  }

  ask(relieve: boolean, triesLeft: number): void {
    this.#settings = new Map();
    this.#pins = [];
    if (relieve) this.#relieve();
    let failure: Buffer | null = null;
    this.#connection.sendControl(this.#sql, {
      row: (values) => this.#take(values),
      failed: (message) => {
        failure = message;
      },
      ready: () => {
        if (failure === null) return this.#done(this.#state());
        if (triesLeft > 0 && hasTimedOut(failure)) return this.ask(this.#relieved === null, triesLeft - 1);
        this.#putBack(() => this.#done(null));
      },
    });
    this.#connection.output.flush();
  }

  /** Two messages and one write: read while they still hold, the texts must be short. */
  #relieve(): void {
    const values = this.#timeOuts.map((name) => `pg_catalog.current_setting('${name}')`).join(',');
    let read: (string | null)[] | null = null;
    this.#connection.sendControl(`SELECT ${values};${reliefSql(this.#timeOuts)}`, {
      row: (row) => {
        read = row;
      },
      failed: () => {
        read = null;
      },
      ready: () => {
        this.#relieved = read;
      },
    });
  }

  #take([kind, name, value]: (string | null)[]): void {
    if (name === null || name === undefined || value === null || value === undefined) return;
    if (kind === 'p') {
      if (value !== '0') this.#pins.push(name);
    } else if (kind === 'u') this.#sessionUser = value;
    else if (kind === 'd') this.#defaults.set(name, Number(value));
    else if (name !== 'role' || value !== 'none') this.#settings.set(name.toLowerCase(), value);
  }

  #state(): SessionState {
    const inForce = this.#settings;
    const known = { inForce, pins: this.#pins, sessionUser: this.#sessionUser };
    if (this.#relieved === null) return { ...known, settings: inForce };
    const settings = new Map(inForce);
    for (const [index, name] of this.#timeOuts.entries()) {
      const value = this.#relieved[index] ?? '0';
      if (milliseconds(value) === this.#defaults.get(name)) settings.delete(name);
      else settings.set(name, value);
    }
    return { ...known, settings };
  }

  #putBack(done: () => void): void {
    if (this.#relieved === null) return done();
    const calls = this.#timeOuts.map(
      (name, index) => `pg_catalog.set_config('${name}', ${quoteLiteral(this.#relieved![index] ?? '0')}, false)`,
    );
    this.#connection.sendControl(`SELECT ${calls.join(',')}`, untilReady(done));
    this.#connection.output.flush();
  }
}
