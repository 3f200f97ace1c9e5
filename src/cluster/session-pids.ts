// The process ids that clients are told for their cancel keys, and what can be done by them. With several data processes each hands out a range of
// its own, so that a CancelRequest which lands on any of them says whose session it means.

/** 16 million sessions of one worker; above it, below the sign of the protocol's Int32, the worker's number. */
const SERIAL_BITS = 24;

export interface PidRange {
  readonly first: number;
  /** Inclusive. */
  readonly last: number;
}

/** Smaller ones are servers' own (Linux gives none above 2^22). */
export const FIRST_SESSION_PID = 2 ** SERIAL_BITS;
export const ALL_PIDS: PidRange = { first: FIRST_SESSION_PID, last: 0x7fffffff };

/** @param worker 1 to 127 */
export function pidsOf(worker: number): PidRange {
  const first = worker << SERIAL_BITS;
  return { first, last: first + 2 ** SERIAL_BITS - 1 };
}

/** The worker that hands out `pid`; 0 or a negative number where none does. */
export function workerOf(pid: number): number {
  return pid >> SERIAL_BITS;
}

/** What SQL can ask to be done to a session by its pid. */
export type SessionSignal = 'cancel' | 'terminate';

/**
 * What became of it. `not callable`: the role has no right to call the function. `unanswered`: whether it has the rights
 * could not be found out.
 */
export type SignalOutcome = 'done' | 'absent' | 'not callable' | 'no superuser' | 'no member' | 'unanswered';
