// The error catalogue: every error pgkv itself raises, with its SQLSTATE, HTTP status, retry class and text.
// Postgres's own errors never pass through here: they are forwarded byte for byte. Retry classes:
// never = the request is wrong; backoff = safe to retry later; reroute = safe to retry at once, elsewhere or again;
// unknown = the outcome of a write is not known, a blind retry may apply it twice.

export type RetryClass = 'never' | 'backoff' | 'reroute' | 'unknown';

export interface ErrorKind {
  readonly sqlstate: string;
  readonly http: number;
  readonly retry: RetryClass;
  readonly message: string;
}

const kind = (sqlstate: string, http: number, retry: RetryClass, message: string): ErrorKind => ({
  sqlstate,
  http,
  retry,
  message,
});

export const ERRORS = {
  protocol_violation: kind('08P01', 400, 'never', 'protocol violation'),
  // Raised by refusals.ts only, which has its rules.
  refused: kind('0A000', 501, 'never', 'not supported by pgkv'),
  unsupported_protocol: kind('0A000', 400, 'never', 'unsupported by the protocol as pgkv speaks it'),
  invalid_authorization: kind('28000', 403, 'never', 'this connection is not allowed'),
  authentication_failed: kind('28P01', 401, 'never', 'password authentication failed'),
  insufficient_privilege: kind('42501', 403, 'never', 'permission denied'),
  transaction_failed: kind(
    '25P02',
    409,
    'never',
    'current transaction is aborted, commands ignored until end of transaction block',
  ),
  transaction_lost: kind('40001', 409, 'reroute', 'the transaction was rolled back: its server connection was lost'),
  too_many_connections: kind('53300', 503, 'backoff', 'too many connections'),
  pool_wait_timeout: kind('53300', 503, 'backoff', 'no server connection became free in time'),
  pool_queue_full: kind('53300', 503, 'backoff', 'too many statements are waiting for a server connection'),
  prepared_slots_full: kind('53200', 503, 'backoff', 'too many transactions over several shards are being committed'),
  limit_exceeded: kind('54000', 413, 'never', 'a limit of pgkv was exceeded'),
  shutting_down: kind('57P01', 503, 'reroute', 'pgkv is shutting down'),
  startup_timeout: kind('08P01', 408, 'backoff', 'the connection was not set up in time'),
  cancelled: kind('57014', 499, 'never', 'canceling statement due to user request'),
  server_unreachable: kind('08006', 503, 'reroute', 'the server could not be reached; nothing was sent'),
  server_silent: kind('08006', 503, 'reroute', 'the server takes statements and does not answer'),
  wrong_server: kind('08006', 503, 'backoff', 'the server is not the one that is expected; nothing was sent'),
  outcome_unknown: kind('08007', 503, 'unknown', 'the server connection was lost; the outcome is unknown'),
  idle_timeout: kind('57P05', 408, 'reroute', 'terminating connection due to idle timeout'),
  idle_in_transaction_timeout: kind(
    '25P03',
    408,
    'reroute',
    'terminating connection due to idle-in-transaction timeout',
  ),
  transaction_timeout: kind('25P04', 408, 'reroute', 'terminating connection due to transaction timeout'),
  internal: kind('XX000', 500, 'never', 'internal error'),
} as const satisfies Record<string, ErrorKind>;

export type ErrorName = keyof typeof ERRORS;

export interface ErrorDetails {
  /** Replaces the catalogue's text; says what happened and to which key or node. */
  readonly message?: string;
  readonly detail?: string;
  readonly hint?: string;
  readonly cause?: unknown;
}

/** An error of the catalogue. `sqlstate`, `http` and `retry` follow from its name. */
export class PgkvError extends Error {
  readonly errorName: ErrorName;
  readonly sqlstate: string;
  readonly http: number;
  readonly retry: RetryClass;
  readonly detail: string | undefined;
  readonly hint: string | undefined;

  constructor(name: ErrorName, details: ErrorDetails = {}) {
    const entry = ERRORS[name];
    super(details.message ?? entry.message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'PgkvError';
    this.errorName = name;
    this.sqlstate = entry.sqlstate;
    this.http = entry.http;
    this.retry = entry.retry;
    this.detail = details.detail;
    this.hint = details.hint;
  }
}

/** The message of anything thrown, without assuming that it is an Error. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
