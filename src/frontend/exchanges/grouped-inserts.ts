// INSERTs over several shards that can be written together with those of other clients (execute/two-phase/write-groups.ts). As in
// the merged lane the messages stay unread until they are answered, so that a statement that has to be run by itself after all is
// simply taken up again: then, whatever is wrong with it, it is spread-exchange.ts that finds out. States:
//   idle       nothing is under way
//   offered    a statement waits, or is being written
//   returned   the message that stands there came back
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import { PgkvError } from '../../base/errors.js';
import type { ClusterView, ShardView } from '../../cluster/cluster-view.js';
import type { GroupMember } from '../../execute/two-phase/group-write.js';
import type { AllWriteGroups, WriteGroups } from '../../execute/two-phase/write-groups.js';
import { Effect, type Template } from '../../sql/plan/template.js';
import { canBeSaidInUtf8 } from '../../sql/text/client-encoding.js';
import { BindMessage } from '../../wire/bind-message.js';
import {
  BIND_COMPLETE,
  encodeCommandComplete,
  encodeError,
  NO_DATA,
  PARSE_COMPLETE,
  READY_IDLE,
} from '../../wire/server-messages.js';
import type { KvStatement } from '../unit/kv-statements.js';
import { type SingleBatch, scanSingleBatch } from '../unit/single-batch.js';
import type { Unit } from '../unit/unit.js';
import { crossShard } from './cross-shard.js';
import type { ExchangeContext } from './exchange-context.js';
import type { ExtendedProtocol } from './extended-protocol.js';
import { groupable, groupedParts } from './grouped-parts.js';

/** By whom and under what a session's statements may be written with those of others. */
export interface GroupServices {
  /** Its identity is the log-in's. */
  lane(shard: ShardView): object;
  settings(of: SettingsGroup): SettingsGroup | null;
  readonly groups: AllWriteGroups;
}

/** What the state of the exchange is told. */
export interface GroupedState {
  begun(): void;
  ended(): void;
}

/** The Bind at hand. */
const bind = new BindMessage();
/** `in`, as INSERT begins. */
const INSERT = [0x69, 0x6e];
const LOWER_CASE = 0x20;
const CANCELLED = encodeError(new PgkvError('cancelled'), 'ERROR');
const NOTHING = Buffer.alloc(0);

/** A statement at hand. */
interface Offer {
  readonly statement: KvStatement;
  readonly template: Template;
  /** Its Bind, read; null: it is a simple query. */
  readonly values: BindMessage | null;
  readonly bytes: number;
  /** Of its answer. */
  readonly prefix: Buffer;
  /** Its Parse is answered. */
  parsed(): void;
}

export class GroupedInserts {
  readonly #context: ExchangeContext;
  readonly #services: GroupServices;
  readonly #extended: ExtendedProtocol;
  readonly #state: GroupedState;
  #offered: { readonly member: GroupMember; readonly groups: WriteGroups; parsed(): void } | null = null;
  /** The buffer is the reader's to keep. */
  #returned: { readonly buffer: WeakRef<Buffer>; readonly start: number } | null = null;
  #isAbandoned = false;

  constructor(context: ExchangeContext, services: GroupServices, extended: ExtendedProtocol, state: GroupedState) {
    this.#context = context;
    this.#services = services;
    this.#extended = extended;
    this.#state = state;
  }

  /** [Parse] Bind [Describe] Execute Sync, the last messages there are. */
  takeBatch(): boolean {
    const { kv, reader, session } = this.#context;
    const { buffer, start } = reader;
    if (this.#context.batch.state !== 'none' || !this.#standsAlone()) return false;
    const batch = scanSingleBatch(buffer, start);
    if (batch === null || batch.end !== buffer.length || !batch.all) return false;
    const { textStart } = batch;
    if (batch.parses && INSERT.some((letter, nth) => (buffer[textStart + nth]! | LOWER_CASE) !== letter)) return false;
    if (this.#cameBack(buffer, start)) return false;
    const source = this.#extended.batchSource(buffer, batch, 0);
    const plan = source?.template.kv ?? null;
    if (source === null || plan?.kind !== 'kv' || plan.spread?.insert == null) return false;
    const own = { ...batch };
    if (!canBeSaidInUtf8(source.rewritten ?? source)) return false;
    if (!bind.readBehindNames(buffer, own.formatsAt, own.bindEnd) || bind.resultFormatCount > 1) return false;
    const statement = kv.bound(plan, source, buffer, own.bindStart, own.bindEnd);
    const parsed = (): void => {
      if (!own.parses) return;
      session.dropDescription('');
      session.unnamed.set(source);
    };
    const { template } = source;
    return this.#offer({ statement, template, values: bind, bytes: own.end - start, prefix: prefixOf(own), parsed });
  }

  /** A simple query. */
  offerQuery({ statement, template, buffer, start, end }: Unit): boolean {
    if (statement === null || template.kinds.length !== 1 || template.effects !== Effect.none) return false;
    if (!this.#standsAlone()) return false;
    if (this.#cameBack(buffer, start) || !canBeSaidInUtf8(statement)) return false;
    const parsed = (): void => undefined;
    return this.#offer({ statement, template, values: null, bytes: end - start, prefix: NOTHING, parsed });
  }

  /** What is under way is not cancelled: others' statements are in it. */
  cancel(): void {
    const offered = this.#offered;
    if (offered === null || !offered.groups.withdraw(offered.member)) return;
    // One server would have been at its Execute.
    offered.parsed();
    this.#answer(offered.member.bytes, Buffer.concat([CANCELLED, READY_IDLE]));
  }

  abandon(): void {
    this.#isAbandoned = true;
    const offered = this.#offered;
    this.#offered = null;
    offered?.groups.withdraw(offered.member);
  }

  /** Outside blocks and batches, with nothing owed. */
  #standsAlone(): boolean {
    const { batch, lanes, transaction, kv, session } = this.#context;
    const { current } = lanes;
    if (batch.hasBegunElsewhere || transaction.inBlock || kv.view.shards.length < 2 || kv.view.clusterId === null)
      return false;
    return current.unused && current.connection?.replies.unsynced() !== true && crossShard(session).kind === '2pc';
  }

  /** The message that stands there was offered before. */
  #cameBack(buffer: Buffer, start: number): boolean {
    const returned = this.#returned;
    if (returned === null) return false;
    if (returned.buffer.deref() === buffer && returned.start === start) return true;
    this.#returned = null;
    return false;
  }

  #offer(offer: Offer): boolean {
    const { statement, values, parsed } = offer;
    const { kv, lanes, services, session } = this.#context;
    const { view } = kv;
    const settings = this.#services.settings(session.settings);
    if (settings === null) return false;
    const owner = { clusterId: view.clusterId!, role: session.user };
    const groups = this.#services.groups.of(this.#services.lane(view.shards[0]!), settings, owner, services);
    const route = kv.route(statement, view);
    if (route.kind !== 'spread') return false;
    const found = groupable(statement, route.slots, values, view);
    if (found === null || !groups.takes()) return false;
    const member = this.#member(offer, groupedParts(found, view, lanes), view);
    this.#offered = { member, groups, parsed };
    this.#state.begun();
    groups.offer(member);
    return true;
  }

  #member({ template, bytes, prefix, parsed }: Offer, parts: GroupMember['parts'], view: ClusterView): GroupMember {
    const { reader } = this.#context;
    return {
      parts,
      template,
      bytes,
      view,
      committed: (rows) => {
        if (!this.#isStillThere()) return;
        parsed();
        this.#answer(bytes, Buffer.concat([prefix, encodeCommandComplete(`INSERT 0 ${rows}`), READY_IDLE]));
      },
      failed: (error) => {
        if (!this.#isStillThere()) return;
        parsed();
        this.#answer(bytes, Buffer.concat([error, READY_IDLE]));
      },
      alone: () => {
        if (!this.#isStillThere()) return;
        reader.next();
        this.#returned = { buffer: new WeakRef(reader.buffer), start: reader.start };
        reader.unread();
        this.#end();
        this.#context.takeMessages();
      },
    };
  }

  #isStillThere(): boolean {
    return !this.#isAbandoned && this.#offered !== null;
  }

  #answer(bytes: number, answer: Buffer): void {
    const { reader, services, output, takeMessages } = this.#context;
    // It was put back when it was offered: the reader stands in front of it.
    reader.next();
    reader.skipTo(reader.start + bytes);
    services.counters.statements++;
    output.send(answer);
    this.#end();
    takeMessages();
  }

  #end(): void {
    this.#offered = null;
    this.#state.ended();
  }
}

function prefixOf({ parses, describes }: SingleBatch): Buffer {
  return Buffer.concat([...(parses ? [PARSE_COMPLETE] : []), BIND_COMPLETE, ...(describes ? [NO_DATA] : [])]);
}
