// What the exchanges of one conversation work on together. Each of them has state of its own beside it; what that is says the
// head of its file.
import type { ReadTemplate, StatementSources } from '../../backend/replies/statement-source.js';
import type { Clock, Random } from '../../base/clock.js';
import type { PgkvError } from '../../base/errors.js';
import type { ClusterView } from '../../cluster/cluster-view.js';
import type { SessionSignal, SignalOutcome } from '../../cluster/session-pids.js';
import type { ClientBatch } from '../../execute/exchange.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import type { LockContention } from '../../execute/two-phase/lock-contention.js';
import type { LockWatch } from '../../execute/two-phase/lock-watch.js';
import type { PreparedSlots } from '../../execute/two-phase/prepared-slots.js';
import type { Session } from '../../session/session.js';
import type { Transaction } from '../../session/transaction.js';
import type { Counters } from '../../telemetry/counters.js';
import type { RunningCopies } from '../../telemetry/running-copies.js';
import type { FrameReader } from '../../wire/frame-reader.js';
import type { KvStatements } from '../unit/kv-statements.js';
import type { NamedStatements } from '../unit/named-statements.js';
import type { ClientOutput } from './client-output.js';
import type { LentLanes } from './lent-lanes.js';
import type { ProtocolTap } from './protocol-tap.js';

export interface ConversationServices {
  readonly clock: Clock;
  readonly random: Random;
  readonly sources: StatementSources;
  readonly templateOf: ReadTemplate;
  /** Literals of a text, under its reading of backslashes; cheap right after `templateOf`. */
  literalsOf(text: string, standardStrings: boolean): readonly number[];
  /** The map in force. */
  view(): ClusterView;
  /** The answer to `SHOW pgkv.<name>`, or null where there is no such thing. */
  show(name: string, user: string): readonly string[] | PgkvError | null;
  /** Does something to the session with that pid for a client with the role `by`; `done` is called once, later. */
  signal(pid: number, what: SessionSignal, by: string, done: (outcome: SignalOutcome) => void): void;
  readonly counters: Counters;
  readonly copies: RunningCopies;
  /** Of transactions over several shards. */
  readonly lockWatch: LockWatch;
  readonly lockContention: LockContention;
  readonly preparedSlots: PreparedSlots;
  readonly bufferBytesMax: number;
  readonly statementBytesMax: number;
  /** What writes down this session's messages, null where it is not traced. */
  tapFor(session: Session): ProtocolTap | null;
}

export interface ExchangeContext {
  readonly session: Session;
  readonly services: ConversationServices;
  /** Stands at the message at hand. */
  readonly reader: FrameReader;
  readonly output: ClientOutput;
  readonly lanes: SessionLanes;
  readonly batch: ClientBatch;
  readonly transaction: Transaction<LeasedLane>;
  /** Those of its branches. */
  readonly lent: LentLanes;
  readonly kv: KvStatements;
  readonly named: NamedStatements;
  /** Messages are taken again, after an answer to the client. */
  resume(): void;
  /** The same, the message that was put back first, as if nothing had been answered. */
  takeMessages(): void;
}
