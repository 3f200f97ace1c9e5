// One statement that is parsed, and described, on another server than that of the client's block, by a leg of its own. It is
// kept nowhere: the server says what is wrong with it, or what its parameters and its result are.
// Invariant: `done` is called once, when no connection is held any longer; not behind `abandon`.
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { Session } from '../../session/session.js';
import { NO_PARAMETERS } from './extended-messages.js';
import { PLAIN_LEG } from './leg-batch.js';
import type { LocalSettings } from './local-settings.js';
import { type LegOwner, ScatterLeg } from './scatter-leg.js';
import type { ScatterTarget } from './scatter-request.js';

const LIMITS = { legBytesMax: 262_144, rowBytesMax: 268_435_456, partialBytesMax: 0 };

export interface PrepareClient {
  notice(message: Buffer): void;
  /** ParameterDescription and RowDescription (or NoData); or else the ErrorResponse. */
  done(description: readonly Buffer[] | Buffer): void;
}

export class PrepareRun implements LegOwner {
  readonly #client: PrepareClient;
  readonly #leg: ScatterLeg;
  #error: Buffer | null = null;
  #isOver = false;

  constructor(
    target: ScatterTarget,
    session: Session,
    source: StatementSource,
    local: LocalSettings,
    client: PrepareClient,
  ) {
    this.#client = client;
    const statement = {
      ...PLAIN_LEG,
      source,
      parameters: [NO_PARAMETERS],
      resultFormats: [],
      isPreparedOnly: true,
      local,
    };
    this.#leg = new ScatterLeg({ target, owner: this, session, statement, limits: LIMITS });
  }

  start(): void {
    this.#leg.start();
  }

  cancel(): void {
    this.#leg.cancel();
  }

  /** No rows wait for the client. */
  resume(): void {
    this.#leg.taken();
  }

  abandon(): void {
    this.#isOver = true;
    this.#leg.end();
  }

  changed(): void {
    if (this.#isOver || this.#leg.phase !== 'settled') return;
    this.#isOver = true;
    this.#client.done(this.#error ?? this.#leg.statementDescription);
  }

  failed(error: Buffer): void {
    this.#error ??= error;
  }

  notice(message: Buffer): void {
    if (!this.#isOver) this.#client.notice(message);
  }
}
