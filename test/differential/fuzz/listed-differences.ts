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
      'what runs on several shards and fails comes without its RowDescription, its Bind error behind BindComplete and what a Describe is told',
    applies(_part, wanted, told) {
      const at = told.findIndex((line) => line.startsWith('ERROR '));
      if (at < 0) return false;
      const before = told[at - 1] ?? '';
      const isDescribed = before === 'NoData' || before.startsWith('columns ');
      const bind = isDescribed ? at - 2 : at - 1;
      const isBindError = told[bind] === 'BindComplete' && isSame(wanted, told.toSpliced(bind, at - bind));
      const isDescription = /^(?:columns |NoData$|CopyOutResponse$)/.test(wanted[at] ?? '');
      return isBindError || (isDescription && isSame(wanted.toSpliced(at, 1), told));
    },
  },
  {
    // docs/DIFFERENCES.md: which portals a block has had may be known on no server, or on one that the block has left.
    reason: 'a portal that is gone, or was run, is refused by one of the errors that there are for it',
    applies(_part, wanted, told) {
      const at = told.findIndex((line) => NO_SUCH_PORTAL.test(line));
      if (at < 0 || !NO_SUCH_PORTAL.test(wanted[at] ?? '')) return false;
      const isOfPortal = [wanted[at]!, told[at]!].some((line) => !line.startsWith('ERROR 25P02'));
      return isOfPortal && isSame(wanted.toSpliced(at, 1), told.toSpliced(at, 1));
    },
  },
  {
    // docs/DIFFERENCES.md: the portal may be pgkv's, or on the server that the block has left.
    reason: 'the warning that the cleanup of a portal is skipped comes only from the server that has the portal',
    applies(_part, wanted, told) {
      const rest = (lines: readonly string[]) => lines.filter((line) => !SKIPPED_CLEANUP.test(line));
      return isSame(rest(wanted), rest(told));
    },
  },
];

/** What a server says of a portal that is gone, that was run, or that a failed block has. */
const NO_SUCH_PORTAL = /^ERROR (?:34000 portal |55000 portal .* cannot be run$|25P02 )/;

/** Of a portal that was bound in a failed block and never executed; a server says so when the block ends (AtCleanup_Portals). */
const SKIPPED_CLEANUP = /^WARNING 01000 skipping cleanup for portal /;

const isSame = (wanted: readonly string[], told: readonly string[]): boolean => wanted.join('\n') === told.join('\n');

export const isListed = (part: readonly FuzzMessage[], wanted: readonly string[], told: readonly string[]): boolean =>
  LISTED.some((entry) => entry.applies(part, wanted, told));
