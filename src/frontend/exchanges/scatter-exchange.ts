// Reads over several shards on behalf of a conversation, by simple query or through a portal that no server knows. One at a
// time; while one is under way the conversation takes no messages. What is asked of the shards is put together in
// scatter-request-of.ts.
import type { ServerLoss } from '../../backend/replies/reply-receiver.js';
import type { RewrittenText, StatementSource } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { ShardView } from '../../cluster/cluster-view.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import { type LocalSettings, localSettings, localSettingsSql } from '../../execute/scatter/local-settings.js';
import { PrepareRun } from '../../execute/scatter/prepare-run.js';
import type { ScatterRequest } from '../../execute/scatter/scatter-request.js';
import { ScatterRun } from '../../execute/scatter/scatter-run.js';
import type { RunningCopy } from '../../telemetry/running-copies.js';
import { CopyWriter, FRAME_BYTES } from '../../wire/copy-format.js';
import { encodeErrorResponse } from '../../wire/error-fields.js';
import { Frontend } from '../../wire/protocol.js';
import { rowShape } from '../../wire/row-shape.js';
import { encodeCommandComplete, encodeError, PARSE_COMPLETE } from '../../wire/server-messages.js';
import type { CopiedStatement } from '../unit/kv-statements.js';
import { portalIn } from '../unit/named-statements.js';
import type { Unit } from '../unit/unit.js';
import { BlockInstant, readBeside } from './block-instant.js';
import { BlockQuestion } from './block-question.js';
import { copyOf } from './copy-of.js';
import type { ExchangeContext } from './exchange-context.js';
import { KeptRows } from './kept-rows.js';
import type { OwnAnswers } from './own-answers.js';
import type { OwnPortal, OwnPortals } from './own-portals.js';
import { PortalDescription } from './portal-description.js';
import { type RunClient, ScatterPortal } from './scatter-portal.js';
import {
  atHome,
  boundParts,
  homeReadRequest,
  NOTHING_BOUND,
  placedError,
  shardReadRequest,
  shardTextOf,
} from './scatter-request-of.js';

const INVALID_BIND = new PgkvError('protocol_violation', { message: 'invalid Bind message' });

const NOTHING_LOCAL: LocalSettings = new Map();
const nothing = (): void => undefined;
const SETTINGS_UNKNOWN = encodeError(
  refusalError(refuse('leaves_shard', { why: 'the settings of the transaction are not known on the home shard' })),
  'ERROR',
);

/** In Postgres's words. */
const statementExists = (name: string): Buffer =>
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '42P05', M: `prepared statement "${name}" already exists` });

/** What is under way. */
type BesideRun = Pick<ScatterRun, 'cancel' | 'resume' | 'abandon'>;

export class ScatterExchange implements Exchange<Unit> {
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  readonly #portals: OwnPortals;
  readonly #question: BlockQuestion;
  readonly #blockInstant: BlockInstant;
  #run: BesideRun | null = null;
  /** That of the run, if it is one. */
  #copying: RunningCopy | null = null;

  constructor(context: ExchangeContext, answers: OwnAnswers, portals: OwnPortals) {
    this.#context = context;
    this.#answers = answers;
    this.#portals = portals;
    this.#question = new BlockQuestion(context);
    this.#blockInstant = new BlockInstant(context, this.#question);
  }

  get busy(): boolean {
    return this.#run !== null;
  }

  /** A Query or Bind of a read that runs on the home shard, beside the lanes. */
  takeAtHome(unit: Unit): Handling {
    const isQuery = unit.type === Frontend.query;
    const parts = isQuery ? NOTHING_BOUND : boundParts(unit.buffer, unit.start, unit.end);
    if (parts === null) return this.#answers.refuse(unit, INVALID_BIND);
    const request = homeReadRequest(unit, parts, this.#context, (told) => this.#askLocal(told));
    return isQuery ? this.#runQuery(request, null) : this.#makePortal(unit, request, null);
  }

  /** A Parse of such a read, or a Describe of it. */
  prepareAtHome(unit: Unit): Handling {
    const { named } = this.#context;
    if (unit.type === Frontend.parse) this.#parse(unit.source!, named.parsedName(unit));
    else this.#describe(unit.source!, named.closedName(unit));
    return 'taken';
  }

  /** As in Postgres, a Parse without a name drops the statement before it whatever becomes of it. */
  #parse(source: StatementSource, name: string): void {
    const { session, named, output } = this.#context;
    const isTaken = name !== '' && session.statement(name) !== undefined;
    source.uses++;
    if (name === '') {
      session.dropDescription('');
      session.unnamed.set(null);
    } else if (!isTaken) named.keep(name, source);
    this.#prepare(source, (description) => {
      const error = Buffer.isBuffer(description) ? description : isTaken ? statementExists(name) : null;
      if (error !== null) {
        if (name !== '' && !isTaken) session.dropStatement(name);
        return this.#answers.error(Frontend.parse, error);
      }
      if (name === '') session.unnamed.set(source);
      output.send(PARSE_COMPLETE);
    });
  }

  #describe(source: StatementSource, name: string): void {
    const { session, lanes, output } = this.#context;
    const epoch = lanes.home.schemaEpoch;
    this.#prepare(source, (description) => {
      if (Buffer.isBuffer(description)) return this.#answers.error(Frontend.describe, description);
      for (const message of description) output.send(message);
      const result = description.at(-1)!;
      session.setDescription(name, { source, shape: rowShape(result, 0, result.length), epoch, stale: false });
    });
  }

  /** @param done is told what the home server says, before messages are taken again */
  #prepare(source: StatementSource, done: (description: readonly Buffer[] | Buffer) => void): void {
    const context = this.#context;
    const { session, lanes, kv, output } = context;
    readBeside(context);
    const ended = (description: readonly Buffer[] | Buffer): void => {
      done(description);
      this.#end();
    };
    const asking = { cancel: nothing, resume: nothing, abandon: nothing };
    this.#run = asking;
    this.#askLocal((local) => {
      if (this.#run !== asking) return;
      if (Buffer.isBuffer(local)) return ended(local);
      const run = new PrepareRun(atHome(kv.view, lanes), session, source, local, {
        notice: (message) => output.send(message),
        done: ended,
      });
      this.#run = run;
      run.start();
    });
  }

  /** What is set in the block, in whose midst something runs beside it. */
  #askLocal(told: (settings: LocalSettings | Buffer) => void): void {
    const { transaction, session } = this.#context;
    const { settings } = transaction;
    if (settings === 'nothing') return told(NOTHING_LOCAL);
    if (settings === 'anything' || transaction.state.kind !== 'open') return told(SETTINGS_UNKNOWN);
    this.#question.ask(localSettingsSql(session, settings), (answer) =>
      told(Buffer.isBuffer(answer) ? answer : localSettings(session, answer)),
    );
  }

  /** A Query or Bind of a statement whose route is several shards. */
  take(unit: Unit): Handling {
    const { route } = unit;
    if (route.kind !== 'multi-keyed' && route.kind !== 'scattered') {
      return this.#answers.refuse(
        unit,
        new PgkvError('internal', { detail: 'a read of one shard was to be scattered' }),
      );
    }
    if (unit.copied !== null) return this.#copy(unit, unit.copied, route.shards);
    return unit.type === Frontend.query ? this.#query(unit, route.shards) : this.#bind(unit, route.shards);
  }

  cancel(): void {
    this.#run?.cancel();
  }

  drained(): void {
    this.#run?.resume();
  }

  lost(loss: ServerLoss): void {
    // Its legs have lanes of their own; what is lost beside them owed nothing but the time.
    this.#question.lost(loss);
  }

  abandon(): void {
    this.#run?.abandon();
    this.#forget();
    this.#portals.closeAll();
  }

  #query(unit: Unit, shards: readonly ShardView[]): Handling {
    const request = shardReadRequest(unit.statement!, shards, unit.view, NOTHING_BOUND, this.#context);
    if (request instanceof PgkvError) return this.#answers.refuse(unit, request);
    return this.#runQuery(request, shardTextOf(unit.statement!, request.parameters));
  }

  #runQuery(request: ScatterRequest, rewritten: RewrittenText | null): Handling {
    const { services, output } = this.#context;
    services.counters.statements++;
    this.#begin(request, {
      described: (description) => {
        output.send(description);
        return null;
      },
      suspended: () => undefined,
      completed: (tag) => {
        output.send(encodeCommandComplete(tag));
        this.#answers.ready();
      },
      failed: (error) => this.#answers.error(Frontend.query, placedError(error, rewritten)),
    }).start();
    return 'taken';
  }

  /** COPY … TO STDOUT: the rows of a read, written as COPY writes them. */
  #copy(unit: Unit, { copy, statement }: CopiedStatement, shards: readonly ShardView[]): Handling {
    const { services, output } = this.#context;
    const writer = new CopyWriter(copy.format!, statement.encoding.write);
    const bound = { ...NOTHING_BOUND, formats: writer.resultFormats };
    const request = shardReadRequest(statement, shards, unit.view, bound, this.#context);
    if (request instanceof PgkvError) return this.#answers.refuse(unit, request);
    const rewritten = shardTextOf(statement, request.parameters);
    services.counters.statements++;
    this.#copying = services.copies.begin(copyOf(this.#context.session, statement.plan.table, 'out'));
    this.#begin(
      request,
      {
        described: (description) => {
          const fault = writer.fault(description);
          if (fault === null) output.send(writer.begin(description));
          return fault;
        },
        suspended: () => undefined,
        completed: (tag) => {
          output.send(writer.end());
          output.send(encodeCommandComplete(tag.replace('SELECT', 'COPY')));
          this.#answers.ready();
        },
        failed: (error) => this.#answers.error(Frontend.query, placedError(error, rewritten, copy)),
      },
      writer,
    ).start();
    return 'taken';
  }

  #bind(unit: Unit, shards: readonly ShardView[]): Handling {
    const parts = boundParts(unit.buffer, unit.start, unit.end);
    if (parts === null) return this.#answers.refuse(unit, INVALID_BIND);
    const request = shardReadRequest(unit.statement!, shards, unit.view, parts, this.#context);
    if (request instanceof PgkvError) return this.#answers.refuse(unit, request);
    return this.#makePortal(unit, request, shardTextOf(unit.statement!, request.parameters));
  }

  #makePortal(unit: Unit, request: ScatterRequest, rewritten: RewrittenText | null): Handling {
    const name = portalIn(unit);
    const obstacle = this.#portals.obstacle(name);
    if (obstacle !== null) return this.#answers.refuse(unit, obstacle);
    this.#context.services.counters.statements++;
    this.#context.batch.begunElsewhere(false);
    this.#portals.bind(name, this.#portal(name, unit.source, request, rewritten));
    return 'taken';
  }

  #portal(
    name: string,
    source: StatementSource | null,
    request: ScatterRequest,
    rewritten: RewrittenText | null,
  ): OwnPortal {
    return new ScatterPortal(name, request, this.#context.output, this.#portals.kept, {
      begin: (client, kept) => this.#begin(request, client, kept),
      goOn: (run) => {
        this.#run = run;
      },
      described: (described) => this.#describePortal(source!, request.resultFormats, described),
      error: (type, error) =>
        this.#answers.error(type, type === Frontend.execute ? placedError(error, rewritten) : error),
      end: () => this.#end(),
    });
  }

  /** By the home shard: what runs in the block is run once. */
  #describePortal(source: StatementSource, formats: readonly number[], described: (told: Buffer) => void): void {
    const run = new PortalDescription(this.#context, source, formats, (told, isError) => {
      if (isError) this.#answers.error(Frontend.describe, told);
      else described(told);
      this.#end();
    });
    this.#run = { cancel: () => run.cancel(), resume: nothing, abandon: () => run.abandon() };
    run.start();
  }

  /** A run whose rows go to the client; the conversation waits until it ends. */
  #begin(request: ScatterRequest, client: RunClient, writer: CopyWriter | KeptRows | null = null): ScatterRun {
    const { output } = this.#context;
    const { instant } = request;
    readBeside(this.#context);
    const timed = instant === null ? request : { ...request, instant: this.#blockInstant.source(instant.source) };
    const run = new ScatterRun(timed, {
      described: client.described,
      suspended: client.suspended,
      rows: (bytes) => {
        if (writer instanceof KeptRows) return writer.keep(bytes);
        output.send(writer === null ? bytes : this.#written(writer, bytes));
        output.flush();
        return !output.blocked;
      },
      notice: (message) => output.send(message),
      completed: (tag) => {
        client.completed(tag);
        this.#end();
      },
      failed: (error) => {
        client.failed(error);
        this.#end();
      },
    });
    this.#run = run;
    return run;
  }

  #written(writer: CopyWriter, bytes: Buffer): Buffer {
    const before = writer.rowsWritten;
    const written = writer.rows(bytes);
    if (this.#copying === null) return written;
    this.#copying.rows = writer.rowsWritten;
    this.#copying.bytes += written.length - FRAME_BYTES * (writer.rowsWritten - before);
    return written;
  }

  #forget(): void {
    this.#run = null;
    this.#context.services.copies.end(this.#copying);
    this.#copying = null;
  }

  #end(): void {
    this.#forget();
    this.#context.output.flush();
    this.#context.resume();
  }
}
