// What a statement asks of a session by its pid, where that is all it does: the pid of this session, or a cancel or the end of
// another one. Read off the syntax (meaning/backend-calls.ts); which pids are pgkv's, the door knows.

export type BackendArgument =
  | { readonly kind: 'literal'; readonly value: number | null }
  /** From 1, as `$1`. */
  | { readonly kind: 'parameter'; readonly number: number };

export interface BackendCall {
  readonly function: 'pg_backend_pid' | 'pg_cancel_backend' | 'pg_terminate_backend';
  /** Null for pg_backend_pid(). */
  readonly argument: BackendArgument | null;
  /** How long pg_terminate_backend() may wait for the end, milliseconds; null where none is given. */
  readonly timeout: BackendArgument | null;
  /** Name of the only column. */
  readonly column: string;
  /** The schema is written: without it a search_path that names pg_catalog behind others may mean another function. */
  readonly isQualified: boolean;
}
