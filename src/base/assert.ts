// Assertions stay on in production: a broken invariant is reported as XX000 and costs one session, never an answer.
import { PgkvError } from './errors.js';

export function assert(condition: unknown, invariant: string): asserts condition {
  if (!condition) throw new PgkvError('internal', { message: `internal error: invariant broken: ${invariant}` });
}
