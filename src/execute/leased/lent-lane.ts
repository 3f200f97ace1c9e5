// The lane of a client's block, lent to who runs one statement of the block on several shards: answers are that one's until the
// lane is given back. Invariants: it is given back once; what it loses meanwhile its borrower hears of at once, and the session
// when all that are lent are back; one that is given back in the midst of an answer is closed, and the block lost with it; one
// that is given back with a cancel under way takes nothing before that has landed.
import type { ServerConnection, ServerLoss } from '../../backend/connection/server-connection.js';
import type { ReportedParameters } from '../../backend/replies/parameter-status.js';
import type { PgkvError } from '../../base/errors.js';
import type { Session } from '../../session/session.js';
import type { EffectBits, Template } from '../../sql/plan/template.js';
import type { ClientPort, LeasedLane } from './leased-lane.js';

/** What running a statement takes of a lane. */
export interface StatementLane {
  readonly mode: LeasedLane['mode'];
  readonly connection: ServerConnection | null;
  readonly session: Session;
  readonly busy: boolean;
  shapeIsTold: boolean;
  ensure(template: Template): boolean;
  note(template: Template, text: string): EffectBits;
  cancel(): void;
  /** It waits for a connection no longer. */
  giveUp(error: PgkvError): void;
  clientDrained(): void;
  /** It is given back. */
  end(): void;
}

/** Who lends it. */
export interface Lender {
  back(): void;
  /** It is back, and cancels of what ran on it have landed. */
  landed(): void;
}

export class LentLane implements StatementLane, ClientPort<LeasedLane> {
  readonly lane: LeasedLane;
  readonly #owner: ClientPort<LeasedLane>;
  readonly #borrower: ClientPort<LeasedLane>;
  readonly #lender: Lender;
  /** What the client has been told of settings: it hears of others when the session is at the lane. */
  readonly #told: ReportedParameters;
  #isBack = false;
  #awaitsCancels = false;
  #loss: { readonly loss: ServerLoss; readonly hadState: boolean } | null = null;

  /** @param lane owes nothing, or has lost its connection */
  constructor(lane: LeasedLane, borrower: ClientPort<LeasedLane>, lender: Lender) {
    this.lane = lane;
    this.#owner = lane.port;
    this.#borrower = borrower;
    this.#lender = lender;
    this.#told = lane.session.told;
    lane.port = this;
  }

  get isOut(): boolean {
    return !this.#isBack;
  }

  /** It is back, and cancels of what ran on it are under way. */
  get isLanding(): boolean {
    return this.#awaitsCancels && this.lane.mode === 'preparing';
  }

  get mode(): LeasedLane['mode'] {
    return this.#isBack ? 'ended' : this.lane.mode;
  }

  get connection(): ServerConnection | null {
    return this.#isBack ? null : this.lane.connection;
  }

  get session(): Session {
    return this.lane.session;
  }

  giveUp(): void {
    // A lane that is lent has its connection.
  }

  /** A block is open on it all the time: what matters is whether its server owes something. */
  get busy(): boolean {
    return this.lane.mode !== 'leased' || this.lane.connection!.replies.length > 0;
  }

  set shapeIsTold(_told: boolean) {
    // Nothing is repeated in a block.
  }

  ensure(template: Template): boolean {
    return this.lane.mode === 'leased' && this.lane.ensure(template);
  }

  note(template: Template, text: string): EffectBits {
    return this.lane.note(template, text);
  }

  cancel(): void {
    if (!this.#isBack) this.lane.cancel();
  }

  clientDrained(): void {
    if (!this.#isBack) this.lane.clientDrained();
  }

  end(): void {
    if (this.#isBack) return;
    const { lane } = this;
    this.#isBack = true;
    lane.port = this.#owner;
    lane.session.told = this.#told;
    const { connection } = lane;
    if (connection !== null) {
      connection.resume();
      // What it owes while it takes no messages is for pgkv.
      if (lane.mode === 'leased') this.#leave(connection);
    }
    this.#lender.back();
  }

  #leave({ replies, cancelsUnderWay }: ServerConnection): void {
    if (replies.length > 0) this.lane.block.discard('the answer of a branch of a transaction is not awaited');
    else if (cancelsUnderWay > 0) {
      this.#awaitsCancels = true;
      this.lane.awaitCancels(() => {
        this.#awaitsCancels = false;
        this.#lender.landed();
      });
    }
  }

  /** Once it is back: the session hears what became of it meanwhile. The borrower has had what the server has said. */
  tellLoss(): void {
    if (this.#loss === null) return;
    const { loss, hadState } = this.#loss;
    this.#loss = null;
    this.#owner.lost({ ...loss, midMessage: false }, hadState, this.lane);
  }

  // Called by the lane.

  get clogged(): boolean {
    return this.#borrower.clogged;
  }

  get holdsBytes(): boolean {
    return this.#borrower.holdsBytes;
  }

  send(bytes: Buffer, lane: LeasedLane): void {
    this.#borrower.send(bytes, lane);
  }

  /** What the session listens for. */
  notified(message: Buffer, lane: LeasedLane): void {
    this.#owner.notified(message, lane, true);
  }

  flush(): void {
    this.#borrower.flush();
  }

  ready(status: number, lane: LeasedLane): void {
    this.#borrower.ready(status, lane);
  }

  resume(): void {
    this.#borrower.resume();
  }

  refused(error: PgkvError, message: Buffer | null): void {
    this.#borrower.refused(error, message);
  }

  lost(loss: ServerLoss, hadState: boolean, lane: LeasedLane): void {
    this.#loss = { loss, hadState };
    this.#borrower.lost(loss, hadState, lane);
  }

  repeat(): void {
    this.#borrower.repeat();
  }

  tag(tag: string): void {
    this.#borrower.tag(tag);
  }
}
