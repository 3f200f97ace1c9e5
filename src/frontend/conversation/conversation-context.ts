// What the parts of one conversation work on together. Each of them has state of its own beside it; what that is says
// the head of its file.
import type { ReadTemplate, StatementSources } from '../../backend/replies/statement-source.js';
import type { Clock } from '../../base/clock.js';
import type { ClusterView } from '../../cluster/cluster-view.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import type { Session } from '../../session/session.js';
import type { Template } from '../../sql/plan/template.js';
import type { Counters } from '../../telemetry/counters.js';
import type { FrameReader } from '../../wire/frame-reader.js';
import type { KvStatements } from '../unit/kv-statements.js';
import type { ClientOutput } from './client-output.js';
import type { ExtendedProtocol } from './extended-protocol.js';
import type { ProtocolTap } from './protocol-tap.js';
import type { ShardPlacement } from './shard-placement.js';

export interface ConversationServices {
  readonly clock: Clock;
  readonly sources: StatementSources;
  readonly templateOf: ReadTemplate;
  /** Literals of a text, under its reading of backslashes; cheap right after `templateOf`. */
  literalsOf(text: string, standardStrings: boolean): readonly number[];
  /** The map in force. */
  view(): ClusterView;
  /** The answer to `SHOW pgkv.<name>`, or null where there is no such thing. */
  show(name: string): string | null;
  readonly counters: Counters;
  readonly bufferBytesMax: number;
  readonly statementBytesMax: number;
  /** What writes down this session's messages, null where it is not traced. */
  tapFor(session: Session): ProtocolTap | null;
}

export interface ConversationContext {
  readonly session: Session;
  readonly services: ConversationServices;
  /** Stands at the message at hand, which is looked at in `buffer[start, end)`. */
  readonly reader: FrameReader;
  readonly output: ClientOutput;
  readonly lanes: SessionLanes;
  readonly placement: ShardPlacement;
  readonly kv: KvStatements;
  readonly extended: ExtendedProtocol;
  /** What a text is, as this session's texts are to be read now. */
  readonly templateOf: (text: string) => Template;
}

/**
 * What has become of the message at hand: it can be sent on the current lane; it is to be put back until `resume`;
 * it was answered, or sent.
 */
export type Handling = 'ready' | 'wait' | 'taken';
