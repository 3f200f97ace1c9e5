// Stands in for a server whose connection broke inside a transaction: the client sees what Postgres shows of a failed
// transaction (25P02 until it ends it), and learns by 40001 that nothing of it was committed. D20.
import { PgkvError } from '../../base/errors.js';
import type { Template } from '../../sql/plan/template.js';
import { Frontend } from '../../wire/protocol.js';
import {
  BIND_COMPLETE,
  CLOSE_COMPLETE,
  encodeCommandComplete,
  encodeError,
  NO_DATA,
  NO_PARAMETERS,
  PARSE_COMPLETE,
  READY_FAILED,
  READY_IDLE,
} from '../../wire/server-messages.js';

const ROLLED_BACK = encodeCommandComplete('ROLLBACK');

/** AND CHAIN would have to begin another transaction here; the client has to end this one first. */
const endsTransaction = (template: Template): boolean =>
  (template.kind === 'commit' || template.kind === 'rollback') && template.leavesBlock === 'closed';

export class LostTransaction {
  /** The client has been told by an error. */
  #reported: boolean;
  /** The statement parsed without a name while the transaction is lost. */
  #unnamed: Template | null = null;
  /** The transaction has been ended by the client. */
  over = false;

  constructor(reported: boolean) {
    this.#reported = reported;
  }

  /** Answer to a simple query. */
  query(template: Template): Buffer {
    const failure = this.#failureOf(template);
    if (failure !== null && !this.over) return Buffer.concat([failure, READY_FAILED]);
    return Buffer.concat([failure ?? ROLLED_BACK, READY_IDLE]);
  }

  sync(): Buffer {
    if (this.over) return READY_IDLE;
    // The transaction must not be found to have failed without a word.
    return this.#reported ? READY_FAILED : Buffer.concat([this.#failure(), READY_FAILED]);
  }

  /**
   * Answer to a message of the extended protocol; `failed` means that everything up to the next Sync is skipped.
   * @param template of the statement that a Parse brings or the message names; null where it names none
   */
  extended(type: number, template: Template | null): { bytes: Buffer; failed: boolean } {
    const named = template ?? this.#unnamed;
    if (type === Frontend.parse) this.#unnamed = template;
    if (named !== null && endsTransaction(named)) {
      switch (type) {
        case Frontend.parse:
          return { bytes: PARSE_COMPLETE, failed: false };
        case Frontend.bind:
          this.#unnamed = named;
          return { bytes: BIND_COMPLETE, failed: false };
        case Frontend.describe:
          return { bytes: template === null ? NO_DATA : Buffer.concat([NO_PARAMETERS, NO_DATA]), failed: false };
        case Frontend.execute: {
          const failure = this.#failureOf(named);
          return { bytes: failure ?? ROLLED_BACK, failed: failure !== null };
        }
      }
    }
    // A function call is answered like a simple query, with a ReadyForQuery of its own.
    if (type === Frontend.functionCall) return { bytes: Buffer.concat([this.#failure(), READY_FAILED]), failed: false };
    if (type === Frontend.close) return { bytes: CLOSE_COMPLETE, failed: false };
    return { bytes: this.#failure(), failed: true };
  }

  #failureOf(template: Template): Buffer | null {
    if (!endsTransaction(template)) return this.#failure();
    this.over = true;
    // A COMMIT must not look as if it had been one, unless the client has already been told.
    return template.kind === 'commit' && !this.#reported ? this.#failure() : null;
  }

  #failure(): Buffer {
    if (this.#reported) return encodeError(new PgkvError('transaction_failed'), 'ERROR');
    this.#reported = true;
    return encodeError(new PgkvError('transaction_lost'), 'ERROR');
  }
}
