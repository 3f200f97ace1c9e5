// What a statement may do to rows and to the open block, read off its Template: whether the loss of its answer is told as
// nothing done, as a block that was rolled back, or as an outcome that nobody knows (R5). Errs on the side of `anything`.
import type { Deed, Deeds } from '../../backend/replies/deeds.js';
import type { TransactionPhase } from '../../session/transaction.js';
import { Effect, type StatementKind, type Template } from '../../sql/plan/template.js';

const COMMITS_NOTHING: ReadonlySet<StatementKind> = new Set([
  'begin',
  'commit',
  'rollback',
  'savepoint',
  'read',
  'set',
  'show',
]);

/** What only gives up what its session holds on a connection ends with that anyway. */
const writesByItself = ({ kinds, effects, kv, releases }: Template): boolean =>
  (!releases && kinds.some((one) => !COMMITS_NOTHING.has(one))) ||
  (kv?.kind === 'kv' && kv.writes) ||
  (effects & Effect.unknown) !== 0;

export const mayWrite = (template: Template): boolean =>
  !template.readOnly && (template.kinds.length === 0 || writesByItself(template));

/** Whether the text, sent in a block of that phase, may commit it. */
export function mayCommit(template: Template, phase: TransactionPhase): boolean {
  const { kind, kinds, leavesBlock, endsFailure } = template;
  if (phase === 'failed' && !endsFailure) return false;
  if (kind === 'unparsed') return true;
  if (leavesBlock === null) return false;
  // COMMIT of a failed block rolls it back; what follows in the same text stands for itself.
  if (phase !== 'failed' && kinds.includes('commit')) return true;
  return writesByItself(template);
}

/** @param reads as far as the text as a whole tells, what looks like a read is one */
function deedOfKind(kind: StatementKind, reads: boolean): Deed {
  switch (kind) {
    case 'begin':
      return 'begins';
    case 'commit':
      return 'commits';
    case 'rollback':
      return 'rolls back';
    case 'savepoint':
      return 'recovers';
    case 'set':
    case 'show':
    case 'empty':
      return 'reads';
    case 'read':
    case 'copy-out':
      return reads ? 'reads' : 'anything';
    default:
      return 'anything';
  }
}

/** @param rollsBack it ends a block, which cannot have been committed by it */
export function deedOf(template: Template, rollsBack: boolean): Deed {
  const { kind, readOnly, leavesBlock, releases } = template;
  if (rollsBack && leavesBlock === 'closed') return 'rolls back';
  if (readOnly || releases) return 'reads';
  const ends = kind === 'commit' || kind === 'rollback';
  // AND CHAIN: another block is open behind it.
  if (ends && leavesBlock !== 'closed') return 'recovers';
  // PREPARE TRANSACTION.
  return leavesBlock === 'closed' && !ends ? 'commits' : deedOfKind(kind, false);
}

/** Of each statement of a text of several. */
export function deedsOf(template: Template): Deeds {
  const { kinds } = template;
  if (kinds.length === 0) return null;
  if (template.releases) return kinds.map(() => 'reads');
  const reads = !mayWrite(template);
  return kinds.map((kind) => deedOfKind(kind, reads));
}
