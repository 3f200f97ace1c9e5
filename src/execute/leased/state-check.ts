// Asks a server session what state it holds, after statements that may have left some. The server's own word replaces
// any guessing: what a ROLLBACK undid, what a function set, which lock is still held. One statement, one row per fact.

import type { ControlQuery } from '../../backend/replies/reply-queue.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';

/** Settings whose session value belongs to the transaction, or cannot be set again by set_config. */
const NOT_CARRIED = [
  'transaction_isolation',
  'transaction_read_only',
  'transaction_deferrable',
  'session_authorization',
  'is_superuser',
];

/**
 * @param customNames settings pg_settings does not list (custom ones) that may have been set
 * @param resetAfter also RESET ALL: unseen custom settings lose their values before the connection changes hands
 */
export function stateCheckSql(customNames: Iterable<string>, resetAfter: boolean): string {
  const names = ['role', ...customNames].map(quoteLiteral).join(',');
  const pins = [
    ['prepared', 'FROM pg_catalog.pg_prepared_statements WHERE from_sql'],
    ['cursors', 'FROM pg_catalog.pg_cursors WHERE is_holdable'],
    ['channels', 'FROM pg_catalog.pg_listening_channels()'],
    [
      'locks',
      "FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()",
    ],
    // Whatever stands in the temporary schema depends on it: that is how Postgres itself finds it at the end.
    [
      'temporary objects',
      "FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()",
    ],
  ];
  const sql = [
    `SELECT 's', name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session' AND name OPERATOR(pg_catalog.<>) ALL (ARRAY[${NOT_CARRIED.map(quoteLiteral).join(',')}])`,
    `SELECT 'c', n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest(ARRAY[${names}]) n`,
    ...pins.map(([name, from]) => `SELECT 'p', '${name}', pg_catalog.count(*)::pg_catalog.text ${from}`),
  ].join(' UNION ALL ');
  return resetAfter ? `${sql}; RESET ALL` : sql;
}

export interface SessionState {
  readonly settings: Map<string, string>;
  /** Kinds of state that cannot be carried to another connection, empty if none. */
  readonly pins: readonly string[];
}

/** Reads the answer to `stateCheckSql`; `done(null)` where the server refused it. */
export function readStateCheck(done: (state: SessionState | null) => void): ControlQuery {
  const settings = new Map<string, string>();
  const pins: string[] = [];
  let failed = false;
  return {
    row([kind, name, value]) {
      if (name === null || name === undefined || value === null || value === undefined) return;
      if (kind === 'p') {
        if (value !== '0') pins.push(name);
      } else if (name !== 'role' || value !== 'none') settings.set(name.toLowerCase(), value);
    },
    failed() {
      failed = true;
    },
    ready() {
      done(failed ? null : { settings, pins });
    },
  };
}
