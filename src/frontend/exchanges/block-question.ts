// What pgkv asks the server that has the client's block, for what runs beside it. Invariant: whoever asks is told once, also where
// the connection breaks or the question itself is refused: the block has failed then.
import type { ServerLoss } from '../../backend/replies/reply-receiver.js';
import { PgkvError } from '../../base/errors.js';
import { encodeError } from '../../wire/server-messages.js';
import type { ExchangeContext } from './exchange-context.js';

/** Rows, or the ErrorResponse. */
type Answer = (string | null)[][] | Buffer;

export class BlockQuestion {
  readonly #context: ExchangeContext;
  /** Who waits for the block's server. */
  #asking: ((answer: Answer) => void) | null = null;

  constructor(context: ExchangeContext) {
    this.#context = context;
  }

  /** Only where a block is open on a server. */
  ask(sql: string, told: (answer: Answer) => void): void {
    const { lanes, transaction } = this.#context;
    const lane = lanes.current;
    const connection = lane.connection!;
    const rows: (string | null)[][] = [];
    let failure: Buffer | null = null;
    this.#asking = told;
    connection.runControl(sql, {
      row: (values) => rows.push(values),
      failed: (message) => {
        failure = message;
      },
      ready: () => {
        // The client may have cancelled meanwhile, and gone on.
        if (connection.replies.length === 0) transaction.answered(connection.status, lane);
        if (this.#asking !== told) return;
        this.#asking = null;
        told(failure ?? rows);
      },
    });
  }

  /** The connection of the block broke. */
  lost({ error: { detail } }: ServerLoss): void {
    const asking = this.#asking;
    if (asking === null) return;
    this.#asking = null;
    this.#context.transaction.lose(true);
    asking(encodeError(new PgkvError('transaction_lost', detail === undefined ? {} : { detail }), 'ERROR'));
  }
}
