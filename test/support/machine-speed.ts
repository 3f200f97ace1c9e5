// How slow this machine is at the moment. What a test says of times ("at once") is meant for an idle machine as the one that
// the limits were found on; here they are stretched by what the same work takes now, other processes included.
import { createHash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';

/** What the work below took on the machine of reference, two cores of an AMD EPYC with nothing else to do. */
const REFERENCE_MS = 40;
const TURNS = 20;
const HASHES_EACH = 560;

/** Times as long as on the machine of reference; never below 1. */
async function slowness(): Promise<number> {
  const bytes = Buffer.alloc(4_096);
  const began = performance.now();
  // In many turns, so that whatever competes for the processor has its turns, too.
  for (let round = 0; round < TURNS; round++) {
    for (let n = 0; n < HASHES_EACH; n++) createHash('sha256').update(bytes).digest();
    await turn();
  }
  return Math.max(1, (performance.now() - began) / REFERENCE_MS);
}

/** @param ms what is allowed on an idle machine. Asked for behind what was measured, while the machine is as it was. */
export const stretched = async (ms: number): Promise<number> => ms * (await slowness());

/** Whether a time from now on is over, stretched by how slow the machine is once it is: what comes in time costs nothing. */
export function timeLimit(ms: number): () => Promise<boolean> {
  let end = performance.now() + ms;
  let isLast = false;
  return async () => {
    if (performance.now() <= end) return false;
    if (!isLast) {
      isLast = true;
      end += (await stretched(ms)) - ms;
    }
    return performance.now() > end;
  };
}
