// Where the fuzzer lets pgkv answer other than Postgres, each with its reason. An entry sees the lines of one part that
// differ, and has to account for all of them.
import type { FuzzMessage } from './script.js';

interface ListedDifference {
  readonly reason: string;
  applies(part: readonly FuzzMessage[], wanted: readonly string[], told: readonly string[]): boolean;
}

const LISTED: readonly ListedDifference[] = [];

export const isListed = (part: readonly FuzzMessage[], wanted: readonly string[], told: readonly string[]): boolean =>
  LISTED.some((entry) => entry.applies(part, wanted, told));
