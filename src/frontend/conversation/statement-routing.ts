// Finds where a statement runs when there are key-value tables: on the lane of its key's shard, merged with other
// clients' statements, over several shards, or, refused, nowhere. Owns what runs beside the lanes (merged statements,
// reads of several shards) and what is remembered of the statement at hand while its place is looked for.
import type { RewrittenText } from '../../backend/replies/statement-source.js';
import type { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { NEUTRAL_TEMPLATE, type Template } from '../../sql/plan/template.js';
import { Frame, type FrameReader } from '../../wire/frame-reader.js';
import { Frontend } from '../../wire/protocol.js';
import { type MergedHost, type MergedServices, MergedStatements } from '../exchanges/merged-exchange.js';
import { ShardReads } from '../exchanges/scatter-exchange.js';
import { batchAhead } from '../unit/batch-ahead.js';
import type { KvStatement } from '../unit/kv-statements.js';
import type { ConversationContext, Handling } from './conversation-context.js';
import type { LocalAnswers } from './local-answers.js';

/** What routing needs of the conversation. */
export interface RoutingHost {
  /** The client's socket takes no more for now. */
  readonly clogged: boolean;
  /** Messages are taken again, after an answer to the client. */
  resume(): void;
  /** Messages are taken again, the one put back first, as if nothing had been answered. */
  takeMessages(): void;
}

const ON_HOME = 'the statement is for the home shard';
/** OIDs from here on are functions of users (FirstNormalObjectId). */
const USER_OID_MIN = 16_384;

/** OID in a FunctionCall message; 0 where it is cut short. */
const functionOf = ({ buffer, start, end }: FrameReader): number =>
  start + 9 <= end ? buffer.readUInt32BE(start + 5) : 0;

export class StatementRouting implements MergedHost {
  readonly #context: ConversationContext;
  readonly #answers: LocalAnswers;
  readonly #host: RoutingHost;
  readonly #reads: ShardReads;
  readonly #merged: MergedStatements | null;
  /** The statement at hand was given back by the merged lane, and runs on a lease. */
  #unmerged = false;
  /** Bytes of the messages that the merged lane is answering. */
  #mergedBytes = 0;
  /** What the Bind behind the Parse at hand binds belongs to the lane that the Parse was given. */
  #bindIsPlaced = true;
  #abandoned = false;

  /** @param merged null where statements are not merged */
  constructor(context: ConversationContext, answers: LocalAnswers, host: RoutingHost, merged: MergedServices | null) {
    this.#context = context;
    this.#answers = answers;
    this.#host = host;
    const { session, services, lanes, kv, extended, output } = context;
    this.#merged = merged === null ? null : new MergedStatements(this, session, merged, kv, extended);
    this.#reads = new ShardReads(
      {
        send: (bytes) => output.send(bytes),
        flush: () => output.flush(),
        clogged: () => host.clogged,
        resume: () => host.resume(),
        failed: () => answers.failed(),
        skip: () => {
          answers.skipping = true;
        },
        ready: () => answers.ready,
      },
      { session, lanes, kv, clock: services.clock, sources: services.sources, merges: merged !== null },
    );
  }

  /** A statement runs beside the lanes: messages wait for its answer. */
  get busy(): boolean {
    return this.#reads.busy || this.#merged?.busy === true;
  }

  /** CancelRequest: false where nothing runs beside the lanes. */
  cancel(): boolean {
    if (this.#merged?.busy !== true) return this.#reads.cancel();
    this.#merged.cancel();
    return true;
  }

  clientDrained(): void {
    this.#reads.clientDrained();
  }

  /** The client is gone. */
  abandon(): void {
    this.#abandoned = true;
    this.#reads.abandon();
    this.#merged?.abandon();
  }

  /** What was given back by the merged lane, if anything was, has been run, or other statements follow it unasked. */
  rerunEnded(): void {
    this.#merged?.rerunEnded();
  }

  /** Not `wait` nor `taken`: the simple query is to be sent on the current lane, rewritten or not. */
  query(template: Template, text: string): RewrittenText | null | 'wait' | 'taken' {
    if (this.#answerBlock(template, text)) return 'taken';
    const { placement, reader, lanes, kv, services } = this.#context;
    const plan = template.kv;
    if (placement.blockFailed) return null;
    if (template.explainsRoute) {
      if (placement.settle('') === 'wait') return 'wait';
      this.#reads.explainRoute(template, plan?.kind === 'kv' ? kv.simple(plan, text) : null);
      return 'taken';
    }
    if (plan === null) {
      const placed = this.#place(Frontend.query, placement.laneFor(template), ON_HOME);
      return placed === 'ready' ? null : placed;
    }
    if (plan.kind === 'refused') {
      return plan.asksServer
        ? this.#askServer(text, refusalError(plan))
        : this.#refuse(Frontend.query, refusalError(plan));
    }
    const statement = kv.simple(plan, text);
    const route = kv.route(statement);
    if (route.kind === 'refused') return this.#refuse(Frontend.query, refusalError(route));
    if (route.kind === 'keyed') {
      if (this.#mayMerge() && this.#merged!.offerQuery(statement, template, route)) {
        this.#mergedBytes = reader.end - reader.start;
        return 'wait';
      }
      const why = `the statement's key is on shard ${route.shard.name}`;
      const placed = this.#place(Frontend.query, lanes.of(route.shard), why);
      return placed === 'ready' ? kv.rewrite(statement) : placed;
    }
    const obstacle = placement.settle('the statement reads several shards') ?? placement.mayScatter();
    if (obstacle === 'wait') return 'wait';
    if (obstacle !== null) return this.#refuse(Frontend.query, obstacle);
    services.counters.statements++;
    this.#reads.query(statement, route.shards);
    return 'taken';
  }

  /** Which function a FunctionCall calls, and with which key, is not known here. */
  functionCall(): Handling {
    const { reader, lanes } = this.#context;
    if (functionOf(reader) >= USER_OID_MIN) {
      return this.#refuse(Frontend.functionCall, refusalError(refuse('function_call')));
    }
    const lane = lanes.current.busy ? lanes.current : lanes.home;
    return this.#place(Frontend.functionCall, lane, ON_HOME);
  }

  /** Finds the place of a message of the extended protocol. */
  message(type: number): Handling {
    if (this.#offerBatch(type)) return 'wait';
    const { placement, reader, lanes, kv, extended } = this.#context;
    const { buffer, start, end } = reader;
    if (placement.blockFailed) return 'ready';
    if (this.#reads.take(type, buffer, start, end)) return 'taken';
    if (type !== Frontend.parse && type !== Frontend.bind) {
      return lanes.current.connection === null ? this.#place(type, lanes.home, ON_HOME) : 'ready';
    }
    const source = extended.namedSource(type, buffer, start, end);
    const template = source === null ? NEUTRAL_TEMPLATE : source.template;
    const plan = template.kv;
    if (template.explainsRoute) {
      return this.#refuse(type, refusalError(refuse('explain_route_extended')));
    }
    if (plan?.kind === 'refused' && !(plan.asksServer && type === Frontend.parse)) {
      return this.#refuse(type, refusalError(plan));
    }
    if (type === Frontend.parse) {
      this.#bindIsPlaced = true;
      return this.#place(type, this.#laneForParse(template, plan !== null), ON_HOME);
    }
    if (plan === null || plan.kind === 'refused' || source === null) {
      return this.#place(type, this.#laneForParse(template, false), ON_HOME);
    }
    return this.#placeBind(kv.bound(plan, source, buffer, start, end));
  }

  /** Whether what begins at hand, if it is one batch, may go to the current lane as a whole. */
  mayBatch(type: number): boolean {
    const { placement, lanes } = this.#context;
    const isPlaced = type === Frontend.bind || (type === Frontend.parse && this.#bindIsPlaced);
    return isPlaced && !lanes.current.busy && !placement.blockHeld;
  }

  /** A batch is about to be sent as a whole. */
  noteBatch(): void {
    // The one behind the rerun: its answer is not awaited.
    if (!this.#unmerged) this.rerunEnded();
    this.#unmerged = false;
  }

  /** A statement is about to be sent on the current lane. */
  note(template: Template, text: string): void {
    const { placement, kv } = this.#context;
    if (!kv.exist) return;
    this.noteBatch();
    if (placement.note(template, text)) this.#reads.sync(false);
  }

  /** A Sync, or what stands in its place, is about to be answered. */
  sync(): void {
    const { placement } = this.#context;
    this.#reads.sync(placement.blockOpen);
    placement.endBatch();
  }

  /** BEGIN is held back until it is known which shard it is for; a block that no server knows of is ended here. */
  #answerBlock(template: Template, text: string): boolean {
    const { placement, kv } = this.#context;
    const { kind } = template;
    let tag: string | null = null;
    if (kind === 'begin' && kv.view.shards.length > 1) tag = placement.holdBegin(template, text);
    else if (placement.blockHeld && (kind === 'commit' || kind === 'rollback')) {
      tag = placement.endHeld(text);
      this.#reads.sync(false);
    }
    if (tag === null) return false;
    this.#answers.completed(tag);
    return true;
  }

  /** Has the home server word the error of a text that pgkv could not parse. */
  #askServer(text: string, error: PgkvError): 'wait' | 'taken' {
    const placed = this.#place(Frontend.query, this.#context.lanes.home, ON_HOME);
    if (placed !== 'ready') return placed;
    const ensured = this.#answers.ensure(NEUTRAL_TEMPLATE);
    if (ensured !== 'ready') return ensured;
    this.note(NEUTRAL_TEMPLATE, '');
    this.#answers.askServer(text, error);
    return 'taken';
  }

  /** Goes on with the lane `target`; see ShardPlacement.move. */
  #place(type: number, target: LeasedLane, why: string): Handling {
    const placed = this.#context.placement.move(target, why);
    return placed === 'ready' || placed === 'wait' ? placed : this.#refuse(type, placed);
  }

  #refuse(type: number, error: PgkvError | Buffer): 'taken' {
    this.#unmerged = false;
    this.#answers.refuse(type, error);
    return 'taken';
  }

  /** A batch begins where its first key is, as far as it has arrived. */
  #laneForParse(template: Template, isKv: boolean): LeasedLane {
    const { placement, reader, lanes, kv, extended } = this.#context;
    if (placement.batchOpen && isKv) return lanes.current;
    if (!placement.batchOpen && (isKv || template.neutral || template.kind === 'begin')) {
      const shard = batchAhead(reader.buffer, reader.start, extended, kv);
      if (shard !== null) return lanes.of(shard);
      this.#bindIsPlaced = !isKv;
      if (isKv) return placement.inBlock ? lanes.current : lanes.home;
    }
    return placement.laneFor(template);
  }

  #placeBind(statement: KvStatement): Handling {
    const { placement, reader, lanes, kv } = this.#context;
    const route = kv.route(statement);
    if (route.kind === 'refused') return this.#refuse(Frontend.bind, refusalError(route));
    if (route.kind === 'keyed') {
      return this.#place(Frontend.bind, lanes.of(route.shard), `the statement's key is on shard ${route.shard.name}`);
    }
    const obstacle = placement.settle('the statement reads several shards') ?? placement.mayScatter();
    if (obstacle === 'wait') return 'wait';
    if (obstacle !== null) return this.#refuse(Frontend.bind, obstacle);
    const { buffer, start, end } = reader;
    const error = this.#reads.bind(statement, route.shards, buffer, start, end);
    return error === null ? 'taken' : this.#refuse(Frontend.bind, error);
  }

  /** Whether the statement at hand stands for itself: outside blocks and batches, with nothing owed and nothing kept. */
  #mayMerge(): boolean {
    const { placement, lanes } = this.#context;
    if (this.#merged === null || this.#unmerged || placement.blockHeld) return false;
    return lanes.current.unused && !placement.batchOpen;
  }

  /** Gives a batch of one statement on one key, seen before, to the merged lane; the usual case under load. */
  #offerBatch(type: number): boolean {
    if ((type !== Frontend.parse && type !== Frontend.bind) || !this.#mayMerge()) return false;
    const { buffer, start } = this.#context.reader;
    this.#mergedBytes = this.#merged!.offer(buffer, start);
    return this.#mergedBytes > 0;
  }

  answered(answer: Buffer): void {
    const { reader, services, output } = this.#context;
    // It was put back when it was offered.
    if (this.#abandoned || reader.next() === Frame.none) return;
    reader.skipTo(reader.start + this.#mergedBytes);
    services.counters.statements++;
    output.send(answer);
    this.#host.takeMessages();
  }

  rerun(): void {
    this.#unmerged = true;
    this.#host.takeMessages();
  }
}
