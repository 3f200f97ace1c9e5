// The portal of a read over several shards. Outside its block's branches it is run as far as the client asks; on a lane of the block,
// which cannot be at a portal that is suspended, to its end, and its rows are kept here.
import type { ScatterClient, ScatterRequest } from '../../execute/scatter/scatter-request.js';
import type { ScatterRun } from '../../execute/scatter/scatter-run.js';
import { Frontend } from '../../wire/protocol.js';
import { encodeCommandComplete, PORTAL_SUSPENDED } from '../../wire/server-messages.js';
import type { ClientOutput } from './client-output.js';
import { type KeptBytes, KeptRows } from './kept-rows.js';
import { noPortal, type OwnPortal } from './own-portals.js';

/** What may follow the start of a read. */
export type RunClient = Omit<ScatterClient, 'rows' | 'notice'>;

/** Who has it run. */
export interface PortalRunner {
  /** @param kept gets the rows; null: the client does */
  begin(client: RunClient, kept: KeptRows | null): ScatterRun;
  /** The run that was suspended is under way again. */
  goOn(run: ScatterRun): void;
  /** Has it described without being run. */
  described(told: (description: Buffer) => void): void;
  /** The answer to a message of that type. */
  error(type: number, error: Buffer): void;
  /** Messages are taken again. */
  end(): void;
}

const nothing = (): void => undefined;

export class ScatterPortal implements OwnPortal {
  readonly endsBlock = false;
  isGone = false;
  readonly #name: string;
  readonly #output: ClientOutput;
  readonly #runner: PortalRunner;
  readonly #kept: KeptRows | null;
  /** RowDescription, once it is known; and whether the client asked for it and has not had it yet. */
  #description: Buffer | null = null;
  #isAsked = false;
  #run: ScatterRun | null = null;
  #ended = false;

  constructor(
    name: string,
    { targets }: ScatterRequest,
    output: ClientOutput,
    budget: KeptBytes,
    runner: PortalRunner,
  ) {
    this.#name = name;
    this.#output = output;
    this.#runner = runner;
    this.#kept = targets.some(({ isInBlock }) => isInBlock === true) ? new KeptRows(budget) : null;
  }

  describe(executeFollows: boolean): void {
    if (this.isGone) return this.#runner.error(Frontend.describe, noPortal(this.#name));
    if (this.#description !== null) return this.#output.send(this.#description);
    this.#isAsked = true;
    // Nearly always Execute is next, and brings the description along.
    if (executeFollows) return;
    if (this.#kept !== null) return this.#runner.described((told) => void this.#described(told));
    const asking = this.#runner.begin(
      {
        described: (told) => {
          this.#described(told);
          asking.abandon();
          this.#runner.end();
          return null;
        },
        suspended: nothing,
        completed: nothing,
        failed: (error) => this.#failed(error),
      },
      null,
    );
    asking.start();
  }

  execute(rowsMax: number): void {
    const kept = this.#kept;
    // As Postgres answers a portal that has been run to its end.
    if (this.isGone) return this.#runner.error(Frontend.execute, noPortal(this.#name));
    if (this.#ended) return this.#output.send(encodeCommandComplete('SELECT 0'));
    if (this.#run === null) return this.#start(rowsMax);
    if (kept?.isUsed === true) return this.#deliver(kept, rowsMax === 0 ? Number.POSITIVE_INFINITY : rowsMax);
    this.#runner.goOn(this.#run);
    this.#run.continue(rowsMax);
  }

  close(): void {
    this.#run?.abandon();
    this.#kept?.drop();
  }

  #start(rowsMax: number): void {
    const kept = rowsMax > 0 ? this.#kept : null;
    this.#run = this.#runner.begin(
      {
        described: (told) => this.#described(told),
        suspended: () => {
          this.#output.send(PORTAL_SUSPENDED);
          this.#runner.end();
        },
        completed: (tag) => {
          if (kept !== null) return this.#deliver(kept, rowsMax);
          this.#ended = true;
          this.#output.send(encodeCommandComplete(tag));
        },
        failed: (error) => this.#failed(error),
      },
      kept,
    );
    this.#run.start(kept === null ? rowsMax : 0);
  }

  #deliver(kept: KeptRows, rowsMax: number): void {
    const { bytes, count } = kept.take(rowsMax);
    if (count > 0) this.#output.send(bytes);
    if (count === rowsMax) return this.#output.send(PORTAL_SUSPENDED);
    this.#ended = true;
    this.#output.send(encodeCommandComplete(`SELECT ${count}`));
  }

  #failed(error: Buffer): void {
    // The block may go on behind it, from a savepoint: without the portal.
    this.isGone = true;
    this.#kept?.drop();
    this.#runner.error(Frontend.execute, error);
  }

  #described(told: Buffer): null {
    this.#description = told;
    if (this.#isAsked) this.#output.send(told);
    this.#isAsked = false;
    return null;
  }
}
