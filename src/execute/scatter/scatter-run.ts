// A read on several shards, and the one answer made of it. Owns the legs, and the end: the client hears of it only when no
// leg holds a connection any longer. Which rows go out, and when, is RowDelivery's. Stages:
//   new        `start` was not called
//   settings   the server of the block beside which it runs is asked what is set in it; only where something may be
//   instant    one server is asked for the time that all shards are told; only where the statement asks for it
//   shards     legs on the shards send rows, which are passed on, merged, or collected as partial rows
//   final      the final statement of a CombinePlan runs on the home server
//   stopping   the answer is complete or lost; legs that are at work are drained or cancelled
//   over       reported, or abandoned
// Invariants: the first error is the answer; after the limit was reached errors no longer count.
import { assert } from '../../base/assert.js';
import type { Timer } from '../../base/clock.js';
import { messageOf, PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import { readErrorFields, withoutPosition } from '../../wire/error-fields.js';
import { type Column, sameColumns, withoutLastColumns } from '../../wire/row-description.js';
import { readRowValues } from '../../wire/row-values.js';
import { encodeError } from '../../wire/server-messages.js';
import { finalStatement, internFinal } from './combine-statement.js';
import { NO_PARAMETERS } from './extended-messages.js';
import { type Instant, readInstant, withInstant } from './instant.js';
import { type LegStatement, PLAIN_LEG } from './leg-batch.js';
import type { LocalSettings } from './local-settings.js';
import { RowDelivery } from './row-delivery.js';
import { RowMerge } from './row-merge.js';
import type { RowRun } from './row-queue.js';
import { type LegOwner, ScatterLeg } from './scatter-leg.js';
import type { InstantSource, ScatterClient, ScatterLimits, ScatterRequest, ScatterTarget } from './scatter-request.js';
import { sortOrder } from './sort-order.js';

const DEFAULT_LIMITS: ScatterLimits = {
  legBytesMax: 262_144,
  rowBytesMax: 268_435_456,
  partialBytesMax: 67_108_864,
};
/** A leg that is not wanted any more gets this long to end by itself before it is cancelled. */
const DRAIN_MS = 5;
/** And this long before its connection is closed. */
const STOP_MS = 5_000;
const QUERY_CANCELED = '57014';

type Stage = 'new' | 'settings' | 'instant' | 'shards' | 'final' | 'stopping' | 'over';

export class ScatterRun implements LegOwner {
  #stage: Stage = 'new';
  readonly #request: ScatterRequest;
  readonly #client: ScatterClient;
  readonly #limits: ScatterLimits;
  readonly #delivery: RowDelivery;
  #legs: readonly ScatterLeg[] = [];
  /** The leg whose description of the result is shown. */
  #teller!: ScatterLeg;
  /** Legs whose columns were found to be those of the teller. */
  #checked = new Set<ScatterLeg>();
  #described = false;
  /** What is set in the block. */
  #local: LocalSettings | null = null;
  /** How many of the shards' last columns are sort keys, which the client does not get. */
  #hidden = 0;
  #partials: RowRun[] = [];
  #partialBytes = 0;
  /** The answer in the end, where it is not "SELECT n". */
  #error: Buffer | null = null;
  /** The error is ours for a cancel of the client: a server's own wording of it is better. */
  #cancelling = false;
  #timers: Timer[] = [];
  #pumping = false;
  #pumpAgain = false;

  constructor(request: ScatterRequest, client: ScatterClient) {
    this.#request = request;
    this.#client = client;
    this.#limits = { ...DEFAULT_LIMITS, ...request.limits };
    this.#delivery = new RowDelivery(client, request);
  }

  /** @param rowsMax rows after which `suspended` is called; 0: never */
  start(rowsMax = 0): void {
    assert(this.#stage === 'new', 'a scattered read is started once');
    this.#delivery.ask(rowsMax);
    const { local } = this.#request;
    if (local === null) return this.#askServers();
    this.#stage = 'settings';
    local((told) => {
      if (this.#stage !== 'settings') return;
      if (Buffer.isBuffer(told)) return this.#stop(told);
      this.#local = told;
      this.#askServers();
    });
  }

  #askServers(): void {
    const { instant, parameters } = this.#request;
    if (instant === null) this.#askShards([parameters]);
    else this.#askInstant(instant);
  }

  #askInstant({ source, inBlock }: InstantSource): void {
    this.#stage = 'instant';
    if (inBlock !== null) {
      inBlock((told) => {
        if (this.#stage !== 'instant') return;
        if (Buffer.isBuffer(told)) this.#stop(told);
        else this.#toldInstant(told);
      });
      return;
    }
    source.uses++;
    const statement = { ...PLAIN_LEG, source, parameters: [NO_PARAMETERS], resultFormats: [] };
    this.#run([this.#leg(this.#request.home, statement)], 0);
  }

  /** The home server has told the time, once its leg is over. */
  #takeInstant(): void {
    const [leg] = this.#legs;
    if (leg === undefined || leg.phase !== 'settled' || !leg.ended) return;
    const { buffer, start, end } = leg.rows.take(Number.POSITIVE_INFINITY);
    this.#toldInstant(readInstant(readRowValues(buffer, start, end)));
  }

  #toldInstant(told: Instant): void {
    const { parameters, instant } = this.#request;
    this.#askShards(withInstant(parameters, instant!.settle(told)));
  }

  #askShards(parameters: readonly Buffer[]): void {
    const { plan, shardSource, final, resultFormats, targets, home, name } = this.#request;
    this.#stage = 'shards';
    shardSource.uses++;
    const combines = plan.kind === 'combine';
    this.#hidden = combines ? 0 : plan.sortKeys.length;
    // OIDs of tables and users' types differ between shards: clients look them up at home.
    const told = Math.max(
      targets.findIndex(({ shardName }) => shardName === home.shardName),
      0,
    );
    const statement: LegStatement = {
      ...PLAIN_LEG,
      source: shardSource,
      parameters,
      resultFormats: combines ? [1] : resultFormats,
      hidden: this.#hidden,
      name,
      local: this.#local,
    };
    const telling = {
      ...statement,
      asksParameterTypes: final !== null && final.parameters.length > NO_PARAMETERS.length,
      // Rows of others may go out, or be all that is wanted, before this shard has any.
      describesEarly: !combines && this.#hidden === 0,
    };
    this.#run(
      targets.map((target, index) => this.#leg(target, index === told ? telling : statement)),
      told,
    );
  }

  /** The client takes rows again. */
  resume(): void {
    this.#delivery.resume();
    this.changed();
  }

  /** After `suspended`: up to `rowsMax` rows more; 0: all. */
  continue(rowsMax: number): void {
    assert(this.#delivery.suspended || this.#stage === 'over', 'only a suspended read is continued');
    this.#delivery.ask(rowsMax);
    this.changed();
  }

  /** The client wants the read cancelled. Nothing happens while it is suspended: no statement is running then. */
  cancel(): void {
    if (this.#delivery.suspended || this.#stage === 'new' || this.#stage === 'over') return;
    if (this.#stage !== 'stopping') {
      this.#cancelling = true;
      this.#stop(encodeError(new PgkvError('cancelled'), 'ERROR'));
    }
    for (const leg of this.#unwanted) leg.cancel();
  }

  /** Legs that may be cancelled: one in a block would fail that, though the answer is whole. */
  get #unwanted(): readonly ScatterLeg[] {
    return this.#error === null ? this.#legs.filter(({ isInBlock }) => !isInBlock) : this.#legs;
  }

  /** Nobody wants the answer any more: the client is told nothing further, and the legs end by themselves. */
  abandon(): void {
    if (this.#stage === 'over') return;
    this.#stage = 'over';
    this.#endLegs();
    this.changed();
  }

  changed(): void {
    if (this.#pumping) {
      this.#pumpAgain = true;
      return;
    }
    this.#pumping = true;
    try {
      do {
        this.#pumpAgain = false;
        this.#step();
      } while (this.#pumpAgain);
    } catch (error) {
      this.#pumping = false;
      if (this.#stage === 'over') throw error;
      this.#stop(encodeError(asPgkvError(error), 'ERROR'));
    }
    this.#pumping = false;
  }

  failed(error: Buffer): void {
    // What one server has described before its error is told, as by that server alone.
    if (this.#stage === 'shards' && this.#legs.length === 1 && this.#teller.columns !== null && !this.#described)
      this.#describe();
    // A place in the final statement is none in the client's text.
    if (this.#isRunning) this.#stop(this.#stage === 'final' ? withoutPosition(error) : error);
    else if (this.#cancelling && readErrorFields(error, 0, error.length)['C'] === QUERY_CANCELED) this.#error = error;
  }

  notice(message: Buffer): void {
    if (this.#isRunning) this.#client.notice(message);
  }

  #leg(target: ScatterTarget, statement: LegStatement): ScatterLeg {
    const { session } = this.#request;
    const own = target.isInBlock === true ? { ...statement, isInBlock: true } : statement;
    return new ScatterLeg({ target, owner: this, session, statement: own, limits: this.#limits });
  }

  #run(legs: readonly ScatterLeg[], told: number): void {
    this.#legs = legs;
    this.#teller = legs[told]!;
    this.#checked.clear();
    // One that fails at once stops those before it; those behind it are not begun.
    for (const leg of legs) {
      if (this.#isRunning) leg.start();
      else leg.end();
    }
    this.changed();
  }

  get #unsettled(): number {
    return this.#legs.filter(({ phase }) => phase !== 'settled').length;
  }

  #step(): void {
    switch (this.#stage) {
      case 'instant':
        this.#takeInstant();
        return;
      case 'shards':
        if (!this.#compareColumns()) return;
        if (this.#request.plan.kind === 'combine') this.#collect();
        else this.#deliver();
        return;
      case 'final':
        if (this.#compareColumns()) this.#deliver();
        return;
      case 'stopping':
        this.#report();
        return;
      case 'new':
      case 'settings':
        return;
      case 'over':
        if (this.#unsettled === 0) this.#clearTimers();
    }
  }

  /** Checks that all legs told so far describe the same result. False: the one that is shown has not come. */
  #compareColumns(): boolean {
    const { columns, shardName } = this.#teller;
    if (columns === null) return false;
    if (this.#checked.size === this.#legs.length) return true;
    for (const leg of this.#legs) {
      if (leg.columns === null || this.#checked.has(leg)) continue;
      if (!sameColumns(columns, leg.columns)) {
        throw refusalError(refuse('shards_differ', { one: shardName, other: leg.shardName }));
      }
      this.#checked.add(leg);
    }
    return true;
  }

  /** Sends the description of the result once, and finds out how it is merged. */
  #describe(): void {
    this.#described = true;
    const columns = this.#teller.columns!;
    this.#delivery.take(this.#legs, this.#merge(columns), this.#hidden);
    const error = this.#client.described(withoutLastColumns(this.#teller.rowDescription!, columns, this.#hidden));
    if (error !== null) this.#stop(error);
  }

  /** By sort keys; null: rows go out as they come. */
  #merge(columns: readonly Column[]): RowMerge | null {
    const { plan, byteOrder, encoding } = this.#request;
    if (this.#hidden === 0 || plan.kind !== 'sorted') return null;
    const first = columns.length - this.#hidden;
    if (first < 0) throw new PgkvError('internal', { detail: 'a result without its sort keys' });
    const orders = plan.sortKeys.map((key, index) => sortOrder(columns[first + index]!.type, key, byteOrder, encoding));
    return new RowMerge(this.#legs, orders);
  }

  #deliver(): void {
    if (!this.#described) this.#describe();
    const delivered = this.#delivery.deliver();
    if (delivered === 'all' || (delivered === 'dry' && this.#isComplete)) this.#stop(null);
  }

  get #isRunning(): boolean {
    return (
      this.#stage === 'settings' || this.#stage === 'instant' || this.#stage === 'shards' || this.#stage === 'final'
    );
  }

  /** Every leg has sent its rows and has succeeded, and the rows are gone. */
  get #isComplete(): boolean {
    return this.#legs.every((leg) => leg.phase === 'settled' && leg.ended && leg.rows.empty);
  }

  #collect(): void {
    const { partialBytesMax } = this.#limits;
    for (const leg of this.#legs) {
      while (!leg.rows.empty) {
        const run = leg.rows.take(Number.POSITIVE_INFINITY);
        this.#partials.push(run);
        this.#partialBytes += run.end - run.start;
      }
      leg.taken();
    }
    if (this.#partialBytes > partialBytesMax) {
      throw new PgkvError('limit_exceeded', {
        detail: `the shards' partial results have more than ${partialBytesMax} bytes`,
        hint: 'group by fewer values, or name a tenant_id and key',
      });
    }
    if (this.#isComplete) this.#combine();
  }

  #combine(): void {
    const { plan, final, home, shardSource, resultFormats, encoding } = this.#request;
    assert(plan.kind === 'combine' && final !== null, 'only a CombinePlan has a final statement');
    const { text, parseTail, parameters } = finalStatement({
      final,
      partials: plan.partials,
      columns: this.#teller.columns!,
      rows: this.#partials,
      parameterTypes: this.#teller.parameterTypes,
      encoding,
    });
    this.#partials = [];
    const source = internFinal(shardSource, text, parseTail);
    source.uses++;
    this.#stage = 'final';
    this.#run([this.#leg(home, { ...PLAIN_LEG, source, parameters, resultFormats })], 0);
  }

  /** No more rows go out; the answer follows when the legs have ended. */
  #stop(error: Buffer | null): void {
    if (!this.#isRunning) return;
    this.#stage = 'stopping';
    this.#error = error;
    this.#endLegs();
    this.changed();
  }

  /** Legs that are still at work are read to their end or cancelled, whichever comes first. */
  #endLegs(): void {
    this.#partials = [];
    this.#delivery.end();
    for (const leg of this.#legs) leg.discard();
    if (this.#unsettled === 0) return;
    const after = (delayMs: number, act: (leg: ScatterLeg) => void): Timer =>
      this.#request.clock.after(delayMs, () => {
        for (const leg of this.#unwanted) act(leg);
      });
    this.#clearTimers();
    this.#timers = [after(DRAIN_MS, (leg) => leg.cancel()), after(STOP_MS, (leg) => leg.end())];
  }

  #report(): void {
    if (this.#unsettled > 0) return;
    this.#clearTimers();
    // A portal that is suspended fails when it is asked for more: nobody waits for a word before.
    if (this.#delivery.blocked || this.#delivery.suspended) return;
    this.#stage = 'over';
    if (this.#error === null) this.#client.completed(`SELECT ${this.#delivery.sent}`);
    else this.#client.failed(this.#error);
  }

  #clearTimers(): void {
    for (const timer of this.#timers) timer.cancel();
    this.#timers = [];
  }
}

const asPgkvError = (error: unknown): PgkvError =>
  error instanceof PgkvError ? error : new PgkvError('internal', { detail: messageOf(error), cause: error });
