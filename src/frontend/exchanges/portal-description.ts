// What a portal of pgkv's own returns, where it is asked for before it is run: the home shard describes its statement, and the
// formats are those of the Bind.
import type { StatementSource } from '../../backend/replies/statement-source.js';
import { PrepareRun } from '../../execute/scatter/prepare-run.js';
import { Backend } from '../../wire/protocol.js';
import { withFormats } from '../../wire/row-description.js';
import type { ExchangeContext } from './exchange-context.js';
import { atHome } from './scatter-request-of.js';

export class PortalDescription {
  readonly #run: PrepareRun;

  /** @param told RowDescription, or the ErrorResponse */
  constructor(
    { session, lanes, kv, output }: ExchangeContext,
    source: StatementSource,
    formats: readonly number[],
    told: (message: Buffer, isError: boolean) => void,
  ) {
    this.#run = new PrepareRun(atHome(kv.view, lanes), session, source, new Map(), {
      notice: (message) => output.send(message),
      done: (description) => {
        if (Buffer.isBuffer(description)) told(description, true);
        else told(formatted(description.at(-1)!, formats), false);
      },
    });
  }

  start(): void {
    this.#run.start();
  }

  cancel(): void {
    this.#run.cancel();
  }

  abandon(): void {
    this.#run.abandon();
  }
}

/** NoData stays what it is. */
const formatted = (described: Buffer, formats: readonly number[]): Buffer =>
  described[0] === Backend.rowDescription ? withFormats(described, formats) : described;
