// The time of a transaction block, for reads that run beside it: now() is when the block began, for all of its statements. Where
// a server has the block, that one is asked; of a block that is held back, the first answer counts from then on.
import { PgkvError } from '../../base/errors.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { INSTANT_SQL, type Instant, readInstant } from '../../execute/scatter/instant.js';
import type { InstantSource } from '../../execute/scatter/scatter-request.js';
import type { Transaction } from '../../session/transaction.js';
import { encodeError } from '../../wire/server-messages.js';
import type { BlockQuestion } from './block-question.js';
import type { ExchangeContext } from './exchange-context.js';

/** A query of the block, if one is open, runs beside its server. */
export function readBeside({ transaction, lanes }: ExchangeContext): void {
  const lane = lanes.current;
  if (!transaction.noteRead()) return;
  lane.block.readBeside((status) => {
    // The client may have gone on meanwhile, and ended the block: the answer to that says where it stands.
    if (lane.connection!.replies.length === 0) transaction.answered(status, lane);
  });
}

/** now(), by what stands for the block: its prologue as long as reads may run beside it, then the script of its branches. */
const begunAt = new WeakMap<object, Buffer>();

/** The time that a server has told, with that of the block's beginning as it was before. */
export function asBegun({ state }: Transaction<LeasedLane>, instant: Instant): Instant {
  if (state.kind !== 'held' && state.kind !== 'open') return instant;
  const block = state.kind === 'held' ? state.prologue : (state.prologue ?? state.script);
  if (block === null) return instant;
  const begun = begunAt.get(block) ?? instant.transaction;
  begunAt.set(block, begun);
  return { ...instant, transaction: begun };
}

const NO_TIME = encodeError(new PgkvError('internal', { detail: 'a server gave no time' }), 'ERROR');

export class BlockInstant {
  readonly #context: ExchangeContext;
  readonly #question: BlockQuestion;

  constructor(context: ExchangeContext, question: BlockQuestion) {
    this.#context = context;
    this.#question = question;
  }

  /** As it is asked for at present. */
  source(source: InstantSource['source']): InstantSource {
    const { transaction } = this.#context;
    const isOpen = transaction.state.kind === 'open';
    return {
      source,
      inBlock: isOpen ? (told) => this.#ask(told) : null,
      settle: (instant) => asBegun(transaction, instant),
    };
  }

  #ask(told: (instant: Instant | Buffer) => void): void {
    this.#question.ask(INSTANT_SQL, (answer) => {
      if (Buffer.isBuffer(answer)) return told(answer);
      const [row] = answer;
      told(row === undefined ? NO_TIME : readInstant(row));
    });
  }
}
