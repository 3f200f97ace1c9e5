// Which of the errors of several shards the client is told: the one that a single server would have come to first.
import { readErrorFields } from '../../wire/error-fields.js';
import type { BranchFailure } from './branch.js';

/** In the context of an error about a value of a Bind; servers translate what stands around it. */
const PARAMETER = /\$(\d+)/;

/**
 * What is wrong with the text comes before the values of its Bind, by their numbers, and those before anything that comes of running it.
 * @returns the lower, the earlier
 */
export function placeOf(failure: BranchFailure): number {
  if (failure.kind !== 'failed') return Number.MAX_SAFE_INTEGER;
  const { P: position, W: context = '' } = readErrorFields(failure.error, 0, failure.error.length);
  if (position !== undefined) return -1;
  if (failure.isBound) return Number.MAX_SAFE_INTEGER;
  return Number(PARAMETER.exec(context)?.[1] ?? 0);
}
