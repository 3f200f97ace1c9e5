// What pgkv itself does of a block: it holds a BEGIN back, ends a block that no server has (D13), and commits one that has
// branches on several shards (D14).
import { declaredTypes } from '../../backend/replies/statement-source.js';
import { beginOf } from '../../session/branch-script.js';
import { endTag } from '../../session/transaction.js';
import { highestParameter } from '../../sql/text/text-parts.js';
import { valueCount } from '../../wire/bind-message.js';
import { Frontend } from '../../wire/protocol.js';
import { saidAsQuery } from '../unit/said-again.js';
import type { Unit } from '../unit/unit.js';
import type { BlockBranches } from './block-branches.js';
import type { ExchangeContext } from './exchange-context.js';
import { readOwnBind, type Takes } from './own-bind.js';
import { atOnce, type OwnStatement, tagOnly } from './own-statement.js';

/** What BEGIN, COMMIT or the like does here; null where it goes to a server. @param ended portals are gone with the block */
export function controlStatement(
  unit: Unit,
  context: ExchangeContext,
  branches: BlockBranches,
  ended: () => void,
): OwnStatement | null {
  const { session, transaction } = context;
  const { template, text } = unit;
  const { kind } = transaction.state;
  const begun = kind === 'none' && holdsBlocks(unit, context) ? template.beginsBy : null;
  if (begun !== null) {
    return atOnce(null, () => {
      transaction.hold(template, text, saidAsQuery(template, text, session));
      return tagOnly(begun);
    });
  }
  if (kind === 'open' && transaction.isSpread) return togetherCommit(unit, context, branches, ended);
  const tag = kind === 'held' ? endTag(template) : null;
  // Under a name it may be run when a server has the block.
  if (tag === null || (unit.type === Frontend.bind && unit.buffer[unit.start + 5] !== 0)) return null;
  return atOnce(null, () => {
    endBlock(context);
    ended();
    return tagOnly(tag);
  });
}

/** COMMIT of a block that has branches on several shards. */
function togetherCommit(
  { template }: Unit,
  context: ExchangeContext,
  branches: BlockBranches,
  ended: () => void,
): OwnStatement | null {
  const { transaction, batch } = context;
  if (template.kinds.length !== 1 || template.kind !== 'commit' || template.leavesBlock === null) return null;
  const chained = template.leavesBlock === 'open' ? beginOf(transaction.script ?? []) : null;
  if (template.leavesBlock === 'open' && chained === null) return null;
  return {
    column: null,
    run: (done) => {
      branches.commit((error) => {
        batch.transactionEnded();
        ended();
        if (error !== null) return done({ kind: 'error', error, runs: true });
        if (chained !== null) transaction.hold(chained.template, chained.text, chained.said);
        done(tagOnly('COMMIT'));
      });
    },
  };
}

/** The client ends a block that no server has. */
export function endBlock({ transaction, batch }: ExchangeContext): void {
  transaction.endedHere();
  batch.transactionEnded();
}

/** BEGIN is held back where it can go to one shard or another, and nothing is under way. */
function holdsBlocks(unit: Unit, { lanes, batch }: ExchangeContext): boolean {
  // Values make a server take a snapshot, behind which BEGIN may set no isolation level.
  if (hasValues(unit) && !('error' in readOwnBind(unit.buffer, unit.start, unit.end, takesOf(unit), false)))
    return false;
  const { placed, view } = unit;
  // Options are too late behind what has run in its batch, as a server says that is told of it.
  return placed && view.shards.length > 1 && !lanes.current.busy && !batch.hasBegunElsewhere;
}

export const hasValues = ({ type, buffer, start, end }: Unit): boolean =>
  type === Frontend.bind && valueCount(buffer, start, end) > 0;

/** How many values a Bind of it has to bring. */
export function takesOf({ route, template: { kv }, source }: Unit): Takes {
  // What does not fit has been left to the server.
  if (route.kind === 'backend') return { count: 0, isLeast: true };
  const declared = declaredTypes(source!).length;
  if (route.kind !== 'explain') return { count: declared, isLeast: false };
  if (kv?.kind !== 'kv') return { count: declared, isLeast: true };
  return { count: Math.max(declared, highestParameter(kv.text)), isLeast: false };
}
