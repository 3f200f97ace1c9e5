// What writes on several shards (D14), outside of blocks: a statement, or all of a batch of the extended protocol. A simple query is
// committed when all shards have run it; what portals have run is held until the Sync of their batch, which commits it, as it does
// in Postgres. Of a batch that is seen to write on several shards (unit/shards-ahead.ts) all runs so from its first statement on.
// Until the Sync nothing else may run: only statements on keys, whose shards are known. In a block a statement runs on the lanes
// of the block's branches, and is told when all have run it (R60). What is sent to the shards is spread-request.ts's, how it is
// made one execute/two-phase's. States:
//   none      nothing is under way
//   running   shards are asked: no message is taken
//   held      written, and not committed: more may be, and the Sync decides
//   refused   taken back for the sake of a message that was put back, whose answer is the error
import type { StatementSource } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import { type RefusalName, refusalError, refuse } from '../../base/refusals.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import { SpreadWrite } from '../../execute/two-phase/spread-write.js';
import type { SpreadClient, SpreadResult } from '../../execute/two-phase/write-request.js';
import { Frontend } from '../../wire/protocol.js';
import { encodeCommandComplete } from '../../wire/server-messages.js';
import { portalIn } from '../unit/named-statements.js';
import type { Unit } from '../unit/unit.js';
import { BatchOutlook } from './batch-outlook.js';
import { crossShard, obstacleTo } from './cross-shard.js';
import type { ExchangeContext } from './exchange-context.js';
import type { ExtendedProtocol } from './extended-protocol.js';
import { type Gathered, type GatheredStatement, GatheredWindow, GatheringPause } from './gathered-window.js';
import { GroupedInserts, type GroupedState, type GroupServices } from './grouped-inserts.js';
import type { OwnAnswers } from './own-answers.js';
import { isRunNext, noPortal, noStatement, type OwnPortals } from './own-portals.js';
import { PortalDescription } from './portal-description.js';
import { boundParts, NOTHING_BOUND } from './scatter-request-of.js';
import { answerOf, SpreadPortal, type SpreadRunner } from './spread-portal.js';
import { type SpreadAnswer, type SpreadStatement, spreadStatement } from './spread-request.js';

const INVALID_BIND = new PgkvError('protocol_violation', { message: 'invalid Bind message' });
/** May follow in the batch: they run nothing. */
const RUNS_NOTHING: ReadonlySet<number> = new Set([Frontend.parse, Frontend.describe, Frontend.close, Frontend.flush]);

const nothing = (): void => undefined;
const refused = (name: RefusalName): PgkvError => refusalError(refuse(name));

type State =
  | { readonly kind: 'none' }
  /** Behind what is written; null: they are the first. */
  | { readonly kind: 'gathering'; readonly run: SpreadWrite | null; readonly window: GatheredWindow }
  | { readonly kind: 'running'; readonly run: Pick<SpreadWrite, 'cancel' | 'abandon'> }
  | { readonly kind: 'held'; readonly run: SpreadWrite }
  | { readonly kind: 'refused'; readonly error: PgkvError };

const NOTHING_LEFT: Gathered[] = []; // Nothing is ever put into it.
const NONE: State = { kind: 'none' };

export class SpreadExchange implements Exchange<Unit>, GroupedState, SpreadRunner {
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  readonly #portals: OwnPortals;
  readonly #grouped: GroupedInserts | null;
  /** What was gathered and is run by itself. */
  #left: Gathered[] = NOTHING_LEFT;
  /** What it returns is sent at once. */
  readonly drained = nothing;
  /** Its branches have lanes of their own. */
  readonly lost = nothing;
  readonly #pause = new GatheringPause();
  readonly #outlook: BatchOutlook;
  #state: State = NONE;

  /** @param groups null: nothing is written together with what others write */
  constructor(
    context: ExchangeContext,
    answers: OwnAnswers,
    portals: OwnPortals,
    groups: GroupServices | null,
    extended: ExtendedProtocol,
  ) {
    this.#context = context;
    this.#outlook = new BatchOutlook(context);
    this.#grouped = groups === null ? null : new GroupedInserts(context, groups, extended, this);
    this.#answers = answers;
    this.#portals = portals;
  }

  get busy(): boolean {
    return this.#state.kind === 'running';
  }

  /** Something is written, or about to be, that the Sync of the batch commits. */
  get holds(): boolean {
    return this.#state.kind === 'held' || this.#state.kind === 'gathering';
  }

  /** No further message can be taken for now: what is gathered is run. */
  pumped(): void {
    const state = this.#state;
    if (state.kind !== 'gathering') return;
    const { run, window } = state;
    const { statements, entries } = window;
    this.#left = entries;
    if (statements.length === 1) return this.#goOn(run);
    const requests = statements.map(({ request }) => request);
    const write = run ?? new SpreadWrite(requests[0]!, this.#endOfWindows());
    this.#state = { kind: 'running', run: write };
    write.window(requests, {
      written: (results) => this.#tellAll(write, results),
      undone: () => {
        this.#pause.begins();
        this.#goOn(write);
      },
      failed: (error) => this.#fail(Frontend.execute, error),
    });
  }

  /** Of what has begun with statements side by side. */
  #endOfWindows(): SpreadClient {
    const failed = (error: Buffer): void => this.#fail(Frontend.execute, error);
    const notice = (message: Buffer): void => this.#context.output.send(message);
    return { written: nothing, committed: () => this.#end(NONE), failed, notice };
  }

  /** Of what has run side by side. */
  #tellAll(run: SpreadWrite, results: readonly SpreadResult[]): void {
    if (this.#state.kind !== 'running') return run.rollBack(nothing);
    const { output, services } = this.#context;
    let at = 0;
    for (const entry of this.#left) {
      const error = Buffer.isBuffer(entry) ? output.send(entry) : entry.tell(results[at++]!);
      if (Buffer.isBuffer(error)) return run.rollBack(() => this.#fail(Frontend.execute, error));
    }
    services.counters.statements += at;
    this.#left = NOTHING_LEFT;
    this.#end({ kind: 'held', run });
  }

  /** With what is gathered and not told or run yet, one behind the other. */
  #goOn(run: SpreadWrite | null): void {
    for (let entry = this.#left.shift(); entry !== undefined; entry = this.#left.shift()) {
      if (!Buffer.isBuffer(entry)) return entry.alone(run);
      this.#context.output.send(entry);
    }
    this.#end(run === null ? NONE : { kind: 'held', run });
  }

  /** Why the unit may not run so; null: it may. */
  obstacle(unit: Unit): PgkvError | null {
    return obstacleTo(unit, this.#context);
  }

  /** A whole batch of the extended protocol, or a simple query, that is written together with those of other clients. */
  takeBatch(): boolean {
    return this.#grouped !== null && this.#state.kind === 'none' && this.#grouped.takeBatch();
  }

  /** A Bind. @returns its batch has to be seen whole */
  awaitsBatch(): boolean {
    return this.#outlook.awaits(this.#state.kind === 'none');
  }

  /** Its Sync is taken, or a simple query, which ends it without one. */
  batchEnds(): void {
    this.#outlook.ends();
    this.#pause.ends();
  }

  /** Whether a statement that one shard can run is one of a batch over several. */
  takesKeyed(unit: Unit): boolean {
    return (
      (this.#outlook.isSeveral || this.holds) &&
      unit.statement !== null &&
      crossShard(this.#context.session).kind === '2pc'
    );
  }

  offerQuery(unit: Unit): boolean {
    return this.#grouped !== null && this.#state.kind === 'none' && this.#grouped.offerQuery(unit);
  }

  begun(): void {
    this.#state = { kind: 'running', run: this.#grouped! };
  }

  ended(): void {
    this.#state = NONE;
  }

  /** A Query or Bind. */
  take(unit: Unit): Handling {
    const isQuery = unit.type === Frontend.query;
    const parts = isQuery ? NOTHING_BOUND : boundParts(unit.buffer, unit.start, unit.end);
    if (parts === null) return this.#refuse(unit, INVALID_BIND);
    const statement = spreadStatement(unit, parts, this.#context);
    if (statement instanceof PgkvError) return this.#refuse(unit, statement);
    if (isQuery) return this.#query(statement);
    const name = portalIn(unit);
    const obstacle = this.#portals.obstacle(name);
    if (obstacle !== null) return this.#refuse(unit, obstacle);
    const { kept } = this.#portals;
    const portal = new SpreadPortal(this.#context, this.#answers, this, name, unit, parts.formats, statement, kept);
    this.#portals.bind(name, portal, (message) => this.tell(message));
    return 'taken';
  }

  /** What is gathered is answered before. */
  #refuse(unit: Unit, error: PgkvError | Buffer): Handling {
    return this.#state.kind === 'gathering' ? 'wait' : this.#answers.refuse(unit, error);
  }

  tell(message: Buffer): void {
    if (this.#state.kind === 'gathering') this.#state.window.tell(message);
    else this.#context.output.send(message);
  }

  /** Whether a message may be among what is gathered; else it waits until that has run. */
  #mayGather(unit: Unit, window: GatheredWindow): boolean {
    if (unit.type === Frontend.bind) {
      if (window.isFull || unit.route.kind !== 'keyed' || !this.takesKeyed(unit)) return false;
      return this.#portals.obstacle(portalIn(unit)) === null && this.obstacle(unit) === null;
    }
    if (unit.type !== Frontend.execute && unit.type !== Frontend.describe) return false;
    const portal = this.#portals.named(unit);
    if (!(portal instanceof SpreadPortal)) return false;
    return unit.type === Frontend.execute ? portal.runsBeside : portal.isDescribedBeside(isRunNext(unit));
  }

  /** What becomes of a unit behind what is held, or was; null: it may go on. */
  behind(unit: Unit): Handling | null {
    const state = this.#state;
    if (state.kind === 'refused') {
      this.#state = NONE;
      return this.#answers.refuse(unit, state.error);
    }
    if (state.kind === 'gathering') return this.#mayGather(unit, state.window) ? null : 'wait';
    if (state.kind !== 'held' || RUNS_NOTHING.has(unit.type)) return null;
    const isQuery = unit.type === Frontend.query || unit.type === Frontend.functionCall;
    if (unit.type === Frontend.execute) {
      const portal = this.#portals.named(unit);
      if (portal instanceof SpreadPortal) return null;
      if (portal === null) {
        const left = this.#portals.leftBehind(unit);
        return this.#answers.refuse(unit, left ?? noPortal(portalIn(unit)));
      }
    }
    if (unit.type === Frontend.bind) {
      if (unit.source === null) return this.#answers.refuse(unit, noStatement(this.#context.named.missing(unit) ?? ''));
      // The session's own answer is one, too.
      const isOnKeys = unit.route.kind === 'keyed' || unit.route.kind === 'spread' || unit.route.kind === 'refused';
      if (isOnKeys && crossShard(this.#context.session).kind === '2pc') return null;
    }
    // The Sync takes it back; behind a simple query there may be none.
    const error = refused('several_shards_batch');
    if (!isQuery) return this.#answers.refuse(unit, error);
    this.#takeBack(state.run, { kind: 'refused', error });
    return 'wait';
  }

  /** A Sync is at hand, which waits until the end is told. @param failed the batch has failed */
  sync(failed: boolean): 'wait' {
    const state = this.#state;
    if (state.kind !== 'held') return 'wait';
    if (failed) this.#takeBack(state.run, NONE);
    else {
      this.#state = { kind: 'running', run: state.run };
      state.run.commit();
    }
    return 'wait';
  }

  cancel(): void {
    if (this.#state.kind === 'running') this.#state.run.cancel();
  }

  abandon(): void {
    const state = this.#state;
    this.#state = NONE;
    if (state.kind !== 'none' && state.kind !== 'refused') state.run?.abandon();
  }

  #takeBack(run: SpreadWrite, next: State): void {
    this.#state = { kind: 'running', run };
    run.rollBack(() => this.#end(next));
  }

  #query(statement: SpreadStatement): Handling {
    let answer: SpreadAnswer | null = null;
    const run = this.#run(statement, null, {
      written: (told) => {
        answer = told;
        if (statement.isInBlock) done();
        else run.commit();
      },
      committed: () => done(),
      failed: (error) => this.#fail(Frontend.query, error),
    });
    const done = (): void => {
      const { output } = this.#context;
      const { description, rows, count } = answer!;
      if (description !== null) output.send(description);
      for (const row of rows) output.send(row);
      output.send(encodeCommandComplete(statement.tag(count)));
      this.#answers.ready();
      this.#end(NONE);
    };
    return 'taken';
  }

  #fail(type: number, error: Buffer): void {
    this.#answers.error(type, error);
    this.#end(NONE);
  }

  /** @param behind runs it behind what that has written; null: it is the first */
  #run(
    statement: SpreadStatement,
    behind: SpreadWrite | null,
    told: { written(answer: SpreadAnswer): void; committed(): void; failed(error: Buffer): void },
  ): SpreadWrite {
    const { services, output } = this.#context;
    services.counters.statements++;
    const client: SpreadClient = {
      notice: (message) => output.send(message),
      written: (result) => {
        const answer = answerOf(statement, result);
        if (!Buffer.isBuffer(answer)) told.written(answer);
        else run.rollBack(() => told.failed(answer));
      },
      committed: () => told.committed(),
      failed: (error) => told.failed(error),
    };
    const run = behind ?? new SpreadWrite(statement.request, client);
    this.#state = { kind: 'running', run };
    if (behind === null) run.start();
    else run.more(statement.request, client);
    return run;
  }

  get hasInstant(): boolean {
    const state = this.#state;
    return (state.kind === 'gathering' || state.kind === 'held') && state.run?.hasInstant === true;
  }

  runHeld(statement: GatheredStatement): void {
    statement.alone(this.#state.kind === 'held' ? this.#state.run : null);
  }

  runBehind(
    statement: SpreadStatement,
    behind: SpreadWrite | null,
    written: (answer: SpreadAnswer) => Buffer | null,
    failed: () => void,
  ): void {
    const run = this.#run(statement, behind, {
      written: (given) => {
        if (this.#state.kind !== 'running') return run.rollBack(nothing);
        const error = written(given);
        if (error !== null) return run.rollBack(() => this.#fail(Frontend.execute, error));
        this.#end(statement.isInBlock ? NONE : { kind: 'held', run });
      },
      committed: () => this.#end(NONE),
      failed: (error) => {
        failed();
        this.#fail(Frontend.execute, error);
      },
    });
  }

  askDescription(source: StatementSource, formats: readonly number[]): void {
    // What others of the batch have written is held meanwhile.
    const before = this.#state;
    const asked = new PortalDescription(this.#context, source, formats, (described, isError) => {
      if (isError) this.#answers.error(Frontend.describe, described);
      else this.#context.output.send(described);
      this.#end(before);
    });
    const abandon = (): void => {
      asked.abandon();
      if (before.kind === 'held') before.run.abandon();
    };
    this.#state = { kind: 'running', run: { cancel: () => asked.cancel(), abandon } };
    asked.start();
  }

  gather(statement: GatheredStatement): boolean {
    const { kind } = this.#state;
    if (kind === 'gathering') this.#state.window.add(statement);
    else {
      const isOfBatch = this.#outlook.isSeveral || kind === 'held';
      if (!isOfBatch || (kind !== 'held' && kind !== 'none') || this.#pause.counts()) return false;
      const window = new GatheredWindow();
      window.add(statement);
      this.#state = { kind: 'gathering', run: kind === 'held' ? this.#state.run : null, window };
    }
    return true;
  }

  #end(next: State): void {
    this.#state = next;
    if (next.kind === 'held' && this.#left.length > 0) return this.#goOn(next.run);
    this.#left = NOTHING_LEFT;
    this.#context.output.flush();
    this.#context.resume();
  }
}
