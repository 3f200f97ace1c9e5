// Receivers of answers to pgkv's own statements of which only the end counts.
import type { ControlQuery } from './reply-queue.js';

const nothing = (): void => undefined;

/** Nobody waits for it. */
export const IGNORED: ControlQuery = { row: nothing, failed: nothing, ready: nothing };

/** `ready` is called at its ReadyForQuery, whether it has failed or not. */
export const untilReady = (ready: () => void): ControlQuery => ({ row: nothing, failed: nothing, ready });

/** `done` is called at its ReadyForQuery, with the server's ErrorResponse if it has failed, else with null. */
export function untilDone(done: (failure: Buffer | null) => void): ControlQuery {
  let failure: Buffer | null = null;
  return {
    row: nothing,
    failed(message) {
      failure = message;
    },
    ready: () => done(failure),
  };
}
