// Assertions stay on in production: a broken invariant is reported as XX000 and costs one session, never an answer.
import { PgkvError } from './errors.js';

export function assert(condition: unknown, invariant: string): asserts condition {
  if (!condition) throw new PgkvError('internal', { message: `internal error: invariant broken: ${invariant}` });
}

/** Ends a switch over a tagged union: a missing case is a type error, and XX000 if it happens all the same. */
export function unreachable(value: never, where: string): never {
  throw new PgkvError('internal', { message: `internal error: unexpected ${JSON.stringify(value)} in ${where}` });
}
