// What the client was told of a statement's result, once DDL has gone through: before the statement is bound, the server is asked
// whether that still holds, and where it does not, ExtendedProtocol has Postgres's error told. What was told is the session's.
// Invariant: nothing is bound that the client would read by a description that is known to be stale.
import { type StatementSource, unknownStatement } from '../../backend/replies/statement-source.js';
import type { Handling } from '../../execute/exchange.js';
import { stringEnd } from '../../wire/client-messages.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';
import type { LaneReadiness } from './lane-readiness.js';

/** A description is in doubt from when the schema epoch has left it behind until `#settle`: it holds, or it is stale for good. */
export class DescribedResults {
  readonly #context: ExchangeContext;
  readonly #readiness: LaneReadiness;

  constructor(context: ExchangeContext, readiness: LaneReadiness) {
    this.#context = context;
    this.#readiness = readiness;
  }

  /** Whether the Bind at hand can be sent: where what its client was told is in doubt, asks whether that still holds. */
  check(unit: Unit): Handling | 'ready' {
    const { lanes } = this.#context;
    const epoch = lanes.home.schemaEpoch;
    const doubtful = this.#doubtful(unit, epoch);
    if (doubtful === null) return 'ready';
    const lane = lanes.current;
    const replies = lane.connection?.replies;
    // In the middle of a batch pgkv cannot ask: its Sync would end the batch's transaction.
    if (replies?.unsynced() === true || replies?.isStopped === true) return 'ready';
    if (replies === undefined || replies.length === 0) {
      const ensured = this.#readiness.ensure(unit, doubtful.source.template);
      if (ensured !== 'ready') return ensured;
      lane.askShape(doubtful.source, (shape) => this.#settle(doubtful.name, shape, epoch));
    }
    return 'wait';
  }

  /**
   * The statement a Bind names where the client was told of its result before DDL went through and cannot notice what
   * has changed; else null.
   */
  #doubtful({ buffer, start, end }: Unit, epoch: number): { name: string; source: StatementSource } | null {
    const { session, named } = this.#context;
    const nameStart = stringEnd(buffer, start + 5, end) + 1;
    const nameEnd = nameStart === 0 ? -1 : stringEnd(buffer, nameStart, end);
    if (nameEnd < 0) return null;
    const name = named.name(buffer, nameStart, nameEnd);
    const description = session.description(name);
    if (description === undefined || description.stale || description.epoch === epoch) return null;
    const source = named.prepared(buffer, nameStart, nameEnd);
    return source === undefined || source === unknownStatement ? null : { name, source };
  }

  /** What the server says now of the result of a doubtful statement. */
  #settle(name: string, shape: string | null, epoch: number): void {
    const { session } = this.#context;
    const description = session.description(name);
    if (description === undefined) return;
    const stale = shape !== null && shape !== description.shape;
    session.setDescription(name, { ...description, epoch, stale });
  }
}
