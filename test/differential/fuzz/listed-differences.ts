// Where the fuzzer lets pgkv answer other than Postgres, each with its reason. An entry sees the lines of one part that
// differ, and has to account for all of them.
import type { FuzzMessage } from './script.js';

interface ListedDifference {
  readonly reason: string;
  applies(part: readonly FuzzMessage[], wanted: readonly string[], told: readonly string[]): boolean;
}

const LISTED: readonly ListedDifference[] = [
  {
    // It would have to be prepared on the server that has the block, which prepares nothing in a failed one.
    reason: 'in a failed block, a Bind with too few or too many values is told that the block has failed',
    applies(_part, wanted, told) {
      const at = wanted.findIndex((line) => line.startsWith('ERROR 08P01 bind message supplies'));
      return (
        at >= 0 &&
        (told[at]?.startsWith('ERROR 25P02') ?? false) &&
        isSame(wanted.toSpliced(at, 1), told.toSpliced(at, 1))
      );
    },
  },
  {
    // docs/DIFFERENCES.md: its values are looked at when the shards are asked, and then nothing is described.
    reason:
      'a read over several shards that fails comes without its RowDescription, its Bind error behind BindComplete',
    applies(_part, wanted, told) {
      const at = told.findIndex((line) => line.startsWith('ERROR '));
      if (at < 0) return false;
      const isBindError = told[at - 1] === 'BindComplete' && isSame(wanted, told.toSpliced(at - 1, 1));
      return isBindError || (wanted[at]?.startsWith('columns ') === true && isSame(wanted.toSpliced(at, 1), told));
    },
  },
];

const isSame = (wanted: readonly string[], told: readonly string[]): boolean => wanted.join('\n') === told.join('\n');

export const isListed = (part: readonly FuzzMessage[], wanted: readonly string[], told: readonly string[]): boolean =>
  LISTED.some((entry) => entry.applies(part, wanted, told));
