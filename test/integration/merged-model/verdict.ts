// Whether what clients saw of a key can be true, and at what price.
import type { KeyEvent } from './key-events.js';
import { KeyHistory } from './key-history.js';

export interface Verdict {
  /** What is wrong with a key's history; empty where nothing is. */
  readonly problems: readonly string[];
  /** It is right only if a life began behind another of a higher version, whose birth it met. */
  readonly isBornLate: boolean;
}

/** @param events in the order of each client's program */
export function judge(events: readonly KeyEvent[]): Verdict {
  const history = new KeyHistory(events);
  const problems = history.judge();
  if (problems.length === 0) return { problems, isBornLate: false };
  for (const late of history.lateBirths()) {
    if (new KeyHistory(events, late).judge().length === 0) return { problems: [], isBornLate: true };
  }
  return { problems, isBornLate: false };
}
