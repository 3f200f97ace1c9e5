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
import { messageOf, PgkvError } from '../../base/errors.js';
import { type RefusalName, refusalError, refuse } from '../../base/refusals.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import { type SpreadClient, type SpreadResult, SpreadWrite } from '../../execute/two-phase/spread-write.js';
import { Frontend } from '../../wire/protocol.js';
import { encodeCommandComplete, encodeError, NO_DATA, PORTAL_SUSPENDED } from '../../wire/server-messages.js';
import { portalIn } from '../unit/named-statements.js';
import { ShardsAhead } from '../unit/shards-ahead.js';
import { scanSingleBatch } from '../unit/single-batch.js';
import type { Unit } from '../unit/unit.js';
import { crossShard } from './cross-shard.js';
import type { ExchangeContext } from './exchange-context.js';
import type { ExtendedProtocol } from './extended-protocol.js';
import { GroupedInserts, type GroupedState, type GroupServices } from './grouped-inserts.js';
import type { OwnAnswers } from './own-answers.js';
import { cannotBeRun, noPortal, type OwnPortal, type OwnPortals } from './own-portals.js';
import { PortalDescription } from './portal-description.js';
import { type BoundParts, boundParts, NOTHING_BOUND } from './scatter-request-of.js';
import { type SpreadAnswer, type SpreadStatement, spreadStatement } from './spread-request.js';

const INVALID_BIND = new PgkvError('protocol_violation', { message: 'invalid Bind message' });
/** May follow in the batch: they run nothing. */
const RUNS_NOTHING: ReadonlySet<number> = new Set([Frontend.parse, Frontend.describe, Frontend.close, Frontend.flush]);

const nothing = (): void => undefined;
const refused = (name: RefusalName): PgkvError => refusalError(refuse(name));

const IN_BLOCK = encodeError(refused('several_shards_write'), 'ERROR');

/** The error where it cannot be put together. */
function answerOf(statement: SpreadStatement, result: SpreadResult): SpreadAnswer | Buffer {
  try {
    return statement.answer(result);
  } catch (error) {
    return encodeError(new PgkvError('internal', { detail: messageOf(error), cause: error }), 'ERROR');
  }
}

type State =
  | { readonly kind: 'none' }
  | { readonly kind: 'running'; readonly run: Pick<SpreadWrite, 'cancel' | 'abandon'> }
  | { readonly kind: 'held'; readonly run: SpreadWrite }
  | { readonly kind: 'refused'; readonly error: PgkvError };

const NONE: State = { kind: 'none' };

export class SpreadExchange implements Exchange<Unit>, GroupedState {
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  readonly #portals: OwnPortals;
  readonly #grouped: GroupedInserts | null;
  /** Portals of what is run so. */
  readonly #own = new WeakSet<OwnPortal>();
  /** The batch at hand writes on several shards. */
  #isBatch = false;
  /** It has been looked at. */
  #hasBound = false;
  /** As far as it has arrived, from that place in all that the client has sent on. */
  #ahead: { readonly position: number; readonly shards: ShardsAhead } | null = null;
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
    this.#grouped = groups === null ? null : new GroupedInserts(context, groups, extended, this);
    this.#answers = answers;
    this.#portals = portals;
  }

  get busy(): boolean {
    return this.#state.kind === 'running';
  }

  /** Something is written that the Sync of the batch commits. */
  get holds(): boolean {
    return this.#state.kind === 'held';
  }

  /** Why the unit may not run so; null: it may. */
  obstacle({ type, view, template }: Unit): PgkvError | null {
    const { transaction, batch, session } = this.#context;
    const isInBlock = transaction.phase === 'open' || transaction.phase === 'held';
    const isAlone = template.kinds.length === 1 && (type === Frontend.bind || batch.begins || isInBlock);
    if (!isAlone || view.clusterId === null || transaction.phase === 'ending') return refused('several_shards_write');
    // Where the client does not know yet that it is lost, that is what it is told.
    if (transaction.phase === 'failed' || transaction.phase === 'lost') return new PgkvError('transaction_failed');
    const wanted = crossShard(session);
    return wanted.kind === 'refused' ? refused('several_shards_write') : null;
  }

  /** A whole batch of the extended protocol, or a simple query, that is written together with those of other clients. */
  takeBatch(): boolean {
    return this.#grouped !== null && this.#state.kind === 'none' && this.#grouped.takeBatch();
  }

  /** A Bind: looks what its batch is for, if it is the first. @returns it has to be seen whole */
  awaitsBatch(): boolean {
    const { kv, batch, named, reader, transaction, session, services } = this.#context;
    const { view } = kv;
    if (this.#hasBound) return false;
    this.#hasBound = true;
    const begins = !batch.hasBegunElsewhere && this.#state.kind === 'none';
    if (!begins || view.shards.length < 2 || view.clusterId === null || transaction.inBlock) return false;
    if (scanSingleBatch(reader.buffer, reader.start) !== null || crossShard(session).kind !== '2pc') return false;
    const { position } = reader;
    const isSame = this.#ahead?.position === position && this.#ahead.shards.view === view;
    const { shards } = isSame ? this.#ahead! : { shards: new ShardsAhead(named, kv, view) };
    const ahead = shards.look(reader.buffer, reader.start);
    this.#isBatch = ahead === 'several';
    // Of more than that nothing is read from the client until some of it is taken.
    const isBounded = reader.buffer.length - reader.start <= services.bufferBytesMax;
    this.#hasBound = ahead !== 'open' || !isBounded || reader.ended;
    this.#ahead = this.#hasBound ? null : { position, shards };
    return !this.#hasBound;
  }

  /** Its Sync is taken, or a simple query, which ends it without one. */
  batchEnds(): void {
    this.#isBatch = this.#hasBound = false;
    this.#ahead = null;
  }

  /** Whether a statement that one shard can run is one of a batch over several. */
  takesKeyed(unit: Unit): boolean {
    return (this.#isBatch || this.holds) && unit.statement !== null && crossShard(this.#context.session).kind === '2pc';
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
    if (parts === null) return this.#answers.refuse(unit, INVALID_BIND);
    const statement = spreadStatement(unit, parts, this.#context);
    if (statement instanceof PgkvError) return this.#answers.refuse(unit, statement);
    if (isQuery) return this.#query(statement);
    const name = portalIn(unit);
    const obstacle = this.#portals.obstacle(name);
    if (obstacle !== null) return this.#answers.refuse(unit, obstacle);
    this.#portals.bind(name, this.#portal(name, unit, parts, statement));
    return 'taken';
  }

  /** What becomes of a unit behind what is held, or was; null: it may go on. */
  behind(unit: Unit): Handling | null {
    const state = this.#state;
    if (state.kind === 'refused') {
      this.#state = NONE;
      return this.#answers.refuse(unit, state.error);
    }
    if (state.kind !== 'held' || RUNS_NOTHING.has(unit.type)) return null;
    const isQuery = unit.type === Frontend.query || unit.type === Frontend.functionCall;
    if (unit.type === Frontend.execute) {
      const portal = this.#portals.named(unit);
      if (portal !== null && this.#own.has(portal)) return null;
      if (portal === null) {
        const left = this.#portals.leftBehind(unit);
        return this.#answers.refuse(unit, left ?? noPortal(portalIn(unit)));
      }
    }
    // The session's own answer is one, too.
    const isOnKeys = unit.route.kind === 'keyed' || unit.route.kind === 'spread' || unit.route.kind === 'refused';
    if (unit.type === Frontend.bind && isOnKeys && crossShard(this.#context.session).kind === '2pc') return null;
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

  drained(): void {
    // What it returns is sent at once.
  }

  lost(): void {
    // Its branches have lanes of their own.
  }

  abandon(): void {
    const state = this.#state;
    this.#state = NONE;
    if (state.kind === 'running' || state.kind === 'held') state.run.abandon();
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

  #portal(name: string, unit: Unit, { formats }: BoundParts, statement: SpreadStatement): OwnPortal {
    const { output, transaction } = this.#context;
    const { source } = unit;
    let answer: SpreadAnswer | null = null;
    /** Rows that have been told. */
    let told = 0;
    let isDescribed = false;
    const deliver = ({ rows, count }: SpreadAnswer, rowsMax: number): void => {
      const before = told;
      const end = rowsMax === 0 ? rows.length : Math.min(rows.length, told + rowsMax);
      for (; told < end; told++) output.send(rows[told]!);
      // As in Postgres, which looks for one more only when it is asked to.
      const sent = told - before;
      if (rowsMax > 0 && sent === rowsMax) output.send(PORTAL_SUSPENDED);
      else output.send(encodeCommandComplete(statement.tag(answer?.description === null ? count : sent)));
    };
    const portal: OwnPortal = {
      endsBlock: false,
      describe: (executeFollows) => {
        if (statement.returns === false) return output.send(NO_DATA);
        if (answer !== null) return output.send(answer.description ?? NO_DATA);
        isDescribed = executeFollows;
        if (executeFollows) return;
        // What others of the batch have written is held meanwhile.
        const before = this.#state;
        const asked = new PortalDescription(this.#context, source!, formats, (described, isError) => {
          if (isError) this.#answers.error(Frontend.describe, described);
          else output.send(described);
          this.#end(before);
        });
        const abandon = (): void => {
          asked.abandon();
          if (before.kind === 'held') before.run.abandon();
        };
        this.#state = { kind: 'running', run: { cancel: () => asked.cancel(), abandon } };
        asked.start();
      },
      execute: (rowsMax) => {
        if (portal.isGone) return this.#answers.error(Frontend.execute, noPortal(name));
        if (answer !== null) {
          if (answer.description !== null) return deliver(answer, rowsMax);
          return this.#answers.error(Frontend.execute, cannotBeRun(name));
        }
        // A block has begun behind its Bind.
        if (transaction.inBlock !== statement.isInBlock) return this.#answers.error(Frontend.execute, IN_BLOCK);
        const state = this.#state;
        const run = this.#run(statement, state.kind === 'held' ? state.run : null, {
          written: (given) => {
            if (this.#state.kind !== 'running') return run.rollBack(nothing);
            answer = given;
            if (isDescribed) output.send(given.description ?? NO_DATA);
            deliver(given, rowsMax);
            this.#end(statement.isInBlock ? NONE : { kind: 'held', run });
          },
          committed: () => this.#end(NONE),
          failed: (error) => {
            portal.isGone = true;
            this.#fail(Frontend.execute, error);
          },
        });
      },
      close: nothing,
    };
    this.#own.add(portal);
    return portal;
  }

  #end(next: State): void {
    this.#state = next;
    this.#context.output.flush();
    this.#context.resume();
  }
}
