// Chooses the lane for each message of a conversation: by the keys of its statement, by the transaction block or batch
// that is open, and else the home shard. It moves the conversation from one lane to another when nothing is owed there,
// so that answers stay in the client's order; where a transaction would have to leave its shard, it refuses (D13). Owns
// what is known of the open block and batch to that end.
import type { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import { heldBeginTag, plainEndTag, TransactionBlock } from '../../session/transaction-block.js';
import type { Template } from '../../sql/plan/template.js';
import { TransactionStatus } from '../../wire/protocol.js';

/** The current lane is the right one; or the message has to wait until `resume`; or it cannot be served. */
export type Placement = 'ready' | 'wait' | PgkvError;

const LEAVES_SHARD = (why: string): PgkvError => refusalError(refuse('leaves_shard', { why }));

export class ShardPlacement {
  readonly #lanes: SessionLanes;
  readonly #errorTold: () => void;
  readonly #block = new TransactionBlock();
  /** A statement of the open batch may have written, so that its implicit transaction cannot be split. */
  #batchWrites = false;
  /** COMMIT or ROLLBACK was sent, and its answer has not come. */
  #blockEnds = false;

  /** @param errorTold the rest of the open batch is to be skipped, since the client was sent an error */
  constructor(lanes: SessionLanes, errorTold: () => void) {
    this.#lanes = lanes;
    this.#errorTold = errorTold;
  }

  /** Where a statement that names no key-value table belongs. */
  laneFor(template: Template): LeasedLane {
    const { current, home } = this.#lanes;
    if (!current.busy) return home;
    const staysInBlock = template.neutral || template.leavesBlock !== null || template.kind === 'savepoint';
    return staysInBlock ? current : home;
  }

  /** Whether messages of the extended protocol were sent on the current lane and no Sync behind them yet. */
  get batchOpen(): boolean {
    return this.#lanes.current.connection?.replies.unsynced() === true;
  }

  /** A transaction block is open on the current lane, as far as its answers tell. */
  get inBlock(): boolean {
    const { connection } = this.#lanes.current;
    return connection !== null && connection.status !== TransactionStatus.idle;
  }

  /** BEGIN was answered here, and no server has heard of it. */
  get blockHeld(): boolean {
    return this.#block.held;
  }

  /** A block is open for the client, whether or not a server knows of it. */
  get blockOpen(): boolean {
    return this.#block.held || this.inBlock;
  }

  /** Every statement is answered by 25P02, wherever it would belong; unless what ends the block is under way. */
  get blockFailed(): boolean {
    const { connection } = this.#lanes.current;
    if (connection === null || connection.status !== TransactionStatus.failed) return false;
    return connection.replies.length === 0 || !this.#blockEnds;
  }

  /** Holds a BEGIN back until it is known which shard it is for; its command tag, or null where it has to be sent. */
  holdBegin(template: Template, text: string): string | null {
    if (this.#block.held || this.#lanes.current.busy) return null;
    const tag = heldBeginTag(text);
    if (tag !== null) this.#block.begin(template, text, true);
    return tag;
  }

  /** Ends a held block, of which no server knows; the command tag, or null where a server has to end it. */
  endHeld(text: string): string | null {
    const tag = plainEndTag(text);
    if (tag !== null) this.#block.bind();
    return tag;
  }

  /** An error of pgkv's own was the answer. True: the open block has failed by it, and no server has it any more. */
  failBlock(): boolean {
    const block = this.#block;
    const lane = this.#lanes.current;
    const rests = !block.held && this.inBlock && lane.connection!.replies.length === 0;
    const fails = block.held || rests;
    if (rests) lane.leaveBlock();
    block.bind();
    return fails;
  }

  /**
   * A statement is about to be sent on the current lane: opens the held block there, and keeps what moves with it.
   * @returns whether the statement may end the block
   */
  note(template: Template, text: string): boolean {
    const block = this.#block;
    const lane = this.#lanes.current;
    if (block.held) {
      lane.openBlock(block.prologue);
      block.held = false;
    } else if (!lane.busy) block.bind();
    if (template.kind === 'begin') {
      if (!block.movable) block.begin(template, text, false);
      return false;
    }
    const ends = template.leavesBlock !== null || template.kind === 'multi';
    if (ends) block.bind();
    else block.note(template, text);
    return ends;
  }

  /** The statement noted is one of an extended batch. */
  noteBound(template: Template): void {
    const ends = template.leavesBlock === 'closed';
    const { connection } = this.#lanes.current;
    this.#blockEnds = ends || (this.#blockEnds && connection !== null && connection.replies.length > 0);
    // What stands before the end of a block is decided by it.
    if (ends) this.#batchWrites = false;
    else if (!template.readOnly) this.#batchWrites = true;
  }

  /** A Sync ends the open batch. */
  endBatch(): void {
    this.#batchWrites = false;
  }

  /**
   * Makes `target` the current lane.
   * @param why it has to be that one, for an error's DETAIL
   */
  move(target: LeasedLane, why: string): Placement {
    const lane = this.#lanes.current;
    if (lane === target) return 'ready';
    const { connection } = lane;
    if (lane.mode === 'free' || connection === null) return this.#take(target);
    const { replies } = connection;
    if (replies.unsynced()) {
      if (this.#batchWrites || connection.copyIn) return LEAVES_SHARD(why);
      return this.#endSegment(lane);
    }
    if (replies.length > 0) return 'wait';
    if (connection.status === TransactionStatus.failed) return 'ready';
    if (connection.status === TransactionStatus.idle) {
      lane.restIfUnused();
      return (lane.mode as string) === 'preparing' ? 'wait' : this.#take(target);
    }
    if (!this.#block.movable) return LEAVES_SHARD(why);
    this.#block.held = true;
    lane.leaveBlock();
    return 'wait';
  }

  /** Ends the open batch here, so that what follows can run elsewhere; null: nothing is owed any more. */
  settle(why: string): 'wait' | PgkvError | null {
    const lane = this.#lanes.current;
    const { connection } = lane;
    if (connection === null) return null;
    if (connection.replies.unsynced()) {
      if (this.#batchWrites || connection.copyIn) return LEAVES_SHARD(why);
      return this.#endSegment(lane);
    }
    return connection.replies.length > 0 ? 'wait' : null;
  }

  /** Whether a read over several shards may run beside the open block: it must not miss anything the block has done. */
  mayScatter(): PgkvError | null {
    if (!this.blockOpen) return null;
    const { isReadCommitted, movable } = this.#block;
    if (movable && isReadCommitted) return null;
    return LEAVES_SHARD(
      movable
        ? 'a read over several shards has no common snapshot, as this isolation level would need'
        : 'the statement reads several shards, and the transaction has begun on one',
    );
  }

  #endSegment(lane: LeasedLane): 'wait' {
    lane.endSegment((told) => {
      if (told) this.#errorTold();
    });
    return 'wait';
  }

  #take(target: LeasedLane): Placement {
    this.#lanes.current = target;
    return target.takeUp() ? 'ready' : 'wait';
  }
}
