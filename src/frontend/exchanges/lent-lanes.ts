// The lanes of the client's block that are lent to a statement that runs on several of them at once (D31). Invariant: once all are
// back, the block is what its branches say: the loss of one has ended it; where the server of one says that it has failed, the
// block is at that one, whose server answers what comes. Nothing of a block that is lost meanwhile is ended under who has its
// lane: what he sends behind that would be committed by itself.

import type { ShardView } from '../../cluster/cluster-view.js';
import type { ClientPort, LeasedLane } from '../../execute/leased/leased-lane.js';
import { LentLane } from '../../execute/leased/lent-lane.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import type { Transaction } from '../../session/transaction.js';
import { TransactionStatus } from '../../wire/protocol.js';
import type { OwnPortals } from './own-portals.js';

export class LentLanes {
  readonly #transaction: Transaction<LeasedLane>;
  readonly #lanes: SessionLanes;
  readonly #portals: OwnPortals;
  /** A branch of the block has no connection any more: whoever it was lent to closed it. */
  onLost: ((lane: LeasedLane) => void) | null = null;
  /** Lanes that were kept are to be rested now. */
  onReleased: ((lanes: readonly LeasedLane[]) => void) | null = null;
  /** All that were lent are back. */
  onBack: (() => void) | null = null;
  /** Of the statement under way, and the lanes that were lent to it. */
  #lent: LentLane[] = [];
  #out = 0;
  /** Cancels of it are to land before anything else runs on them. */
  #landing: readonly LentLane[] = [];
  /** Their block is lost, and they are to be rested. */
  readonly #kept = new Set<LeasedLane>();
  /** What waits for the cancels; no message is taken meanwhile. */
  #deed: (() => void) | null = null;

  constructor(transaction: Transaction<LeasedLane>, lanes: SessionLanes, portals: OwnPortals) {
    this.#transaction = transaction;
    this.#lanes = lanes;
    this.#portals = portals;
  }

  get areOut(): boolean {
    return this.#out > 0;
  }

  get areLanding(): boolean {
    if (this.#landing.length === 0) return false;
    this.#landing = this.#landing.filter(({ isLanding }) => isLanding);
    return this.#landing.length > 0;
  }

  /** Does it once the cancels under way have landed, or are lost with their connections; there is one at least. */
  whenLanded(deed: () => void): void {
    this.#deed = deed;
  }

  /** A lane has landed, or is lost. */
  landed(): void {
    const deed = this.#deed;
    if (deed === null || this.areLanding) return;
    this.#deed = null;
    deed();
  }

  /** Whether nothing may be sent on the lane for now, whose block is lost: it is released when that may be. */
  keeps(lane: LeasedLane): boolean {
    const isKept = this.#isAway(lane);
    if (isKept) this.#kept.add(lane);
    return isKept;
  }

  #isAway(lane: LeasedLane): boolean {
    const isAway = (lent: LentLane): boolean => lent.lane === lane && (lent.isOut || lent.isLanding);
    return this.#lent.some(isAway) || this.#landing.some(isAway);
  }

  /** Those that were kept and may be rested by now. */
  #release(): void {
    const released = [...this.#kept].filter((lane) => !this.#isAway(lane));
    for (const lane of released) this.#kept.delete(lane);
    if (released.length > 0) this.onReleased?.(released);
  }

  /** The lane's loss is told when all are back. */
  has(lane: LeasedLane): boolean {
    return this.#lent.some((lent) => lent.lane === lane) || this.#landing.some((lent) => lent.lane === lane);
  }

  /** Of the block's branch on that shard; null: it has none. */
  laneOf(shard: ShardView): LeasedLane | null {
    const lane = this.#lanes.of(shard);
    return this.#transaction.branches.includes(lane) ? lane : null;
  }

  /** The same of a block that stays where it is: one that can move has done nothing that could be missed. */
  boundOn(shard: ShardView): LeasedLane | null {
    return this.#transaction.movable ? null : this.laneOf(shard);
  }

  lend(lane: LeasedLane, borrower: ClientPort<LeasedLane>): LentLane {
    // None of the last statement's is kept: no message is taken before all are released, or lost.
    if (this.#out++ === 0) this.#kept.clear();
    if (lane === this.#lanes.current) this.#portals.leaveUnnamed();
    const lent = new LentLane(lane, borrower, {
      back: () => {
        if (--this.#out > 0) return;
        this.#allBack();
        this.onBack?.();
      },
      landed: () => {
        this.#release();
        this.landed();
      },
    });
    this.#lent.push(lent);
    return lent;
  }

  #allBack(): void {
    const lanes = this.#lent.map(({ lane }) => lane);
    this.#landing = this.#lent.filter(({ isLanding }) => isLanding);
    for (const lent of this.#lent) lent.tellLoss();
    const transaction = this.#transaction;
    for (const lane of lanes) if (lane.connection === null && transaction.branches.includes(lane)) this.onLost?.(lane);
    this.#lent = [];
    this.#release();
    if (transaction.phase !== 'open') return;
    const failed = transaction.branches.find(({ connection }) => connection?.status === TransactionStatus.failed);
    if (failed === undefined) return;
    if (failed !== this.#lanes.current) {
      transaction.turned(failed);
      this.#lanes.current = failed;
    }
    // What was set in the block is undone with it, and its borrower did not tell that.
    if (failed.mode === 'leased') failed.block.tell();
    transaction.answered(TransactionStatus.failed, failed);
    this.#portals.forgetElsewhere();
  }
}
