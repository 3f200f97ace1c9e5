// The lanes of the client's block that are lent to a statement that runs on several of them at once (D31). Invariant: once all are
// back, the block is what its branches say: the loss of one has ended it; where the server of one says that it has failed, the
// block is at that one, whose server answers what comes.

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
  /** Of the statement under way, and the lanes that were lent to it. */
  #lent: LentLane[] = [];
  #out = 0;
  /** Cancels of it are to land before anything else runs on them. */
  #landing: readonly LeasedLane[] = [];

  constructor(transaction: Transaction<LeasedLane>, lanes: SessionLanes, portals: OwnPortals) {
    this.#transaction = transaction;
    this.#lanes = lanes;
    this.#portals = portals;
  }

  get areLanding(): boolean {
    if (this.#landing.length === 0) return false;
    this.#landing = this.#landing.filter(({ mode }) => mode === 'preparing');
    return this.#landing.length > 0;
  }

  /** The lane's loss is told when all are back. */
  has(lane: LeasedLane): boolean {
    return this.#lent.some((lent) => lent.lane === lane) || this.#landing.includes(lane);
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
    this.#out++;
    if (lane === this.#lanes.current) this.#portals.leaveUnnamed();
    const lent = new LentLane(lane, borrower, () => {
      if (--this.#out === 0) this.#allBack();
    });
    this.#lent.push(lent);
    return lent;
  }

  #allBack(): void {
    const lanes = this.#lent.map(({ lane }) => lane);
    this.#landing = lanes.filter(({ mode }) => mode === 'preparing');
    for (const lent of this.#lent) lent.tellLoss();
    const transaction = this.#transaction;
    for (const lane of lanes) if (lane.connection === null && transaction.branches.includes(lane)) this.onLost?.(lane);
    this.#lent = [];
    if (transaction.phase !== 'open') return;
    const failed = transaction.branches.find(({ connection }) => connection?.status === TransactionStatus.failed);
    if (failed === undefined) return;
    if (failed !== this.#lanes.current) {
      transaction.turned(failed);
      this.#lanes.current = failed;
      if (failed.mode === 'leased') failed.block.tell();
    }
    transaction.answered(TransactionStatus.failed, failed);
    this.#portals.forgetElsewhere();
  }
}
