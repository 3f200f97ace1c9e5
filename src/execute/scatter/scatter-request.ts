// What a scattered read is asked for and whom it tells.
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { Clock } from '../../base/clock.js';
import type { Session } from '../../session/session.js';
import type { ScatterPlan } from '../../sql/plan/kv-plan.js';
import type { ClientEncoding } from '../../sql/text/client-encoding.js';
import type { ClientPort, LeasedLane } from '../leased/leased-lane.js';
import type { StatementLane } from '../leased/lent-lane.js';
import type { Instant } from './instant.js';
import type { LocalSettings } from './local-settings.js';

export interface ScatterTarget {
  readonly shardName: string;
  /** A lane of the session on that shard, made for this port and for one statement: the run ends it. */
  lane(client: ClientPort<LeasedLane>): StatementLane;
  /** It is the one that has the client's block there, lent: what fails or is cancelled on it fails the block. */
  readonly isInBlock?: boolean;
  /** Its own, in place of those of the request; then no instant is asked for. */
  readonly parameters?: Buffer;
}

/** What the final statement of a CombinePlan needs beside the partial rows. */
export interface FinalStatement {
  /** The plan's `finalText` with `substitute` applied to its strings and the literals put in as they are. */
  render(substitute: (part: string) => string): string;
  /**
   * The client's parameters where the text has any ($1 …), else `NO_PARAMETERS`. They keep their numbers, the partial
   * columns get those behind them. Types are those that the shards' text gives them.
   */
  readonly parameters: Buffer;
}

export interface ScatterRequest {
  readonly plan: ScatterPlan;
  /** What every shard runs. A source used again is prepared once per connection. */
  readonly shardSource: StatementSource;
  readonly targets: readonly ScatterTarget[];
  /** How the time is asked for that `shardSource` gets as its last two parameters; null: it gets none. */
  readonly instant: InstantSource | null;
  /** Runs the final statement of a CombinePlan; tells the shape of a merged result where it is one of the targets. */
  readonly home: ScatterTarget;
  /** Parameters of `shardSource` as they stand in a Bind (formats, then values); `NO_PARAMETERS` for none. */
  readonly parameters: Buffer;
  /** Null for a SortedPlan. */
  readonly final: FinalStatement | null;
  /** As in Bind: none, one for all, or one per column. */
  readonly resultFormats: readonly number[];
  /** Rows of a merged result wanted (null: all) and skipped. */
  readonly limit: bigint | null;
  readonly offset: bigint;
  /** The default collation of the databases is byte order (C, POSIX). */
  readonly byteOrder: boolean;
  /** In which text goes to the servers and comes from them. */
  readonly encoding: ClientEncoding;
  /** What the client calls the statement. */
  readonly name: string;
  /** How what is set in the block beside which it runs is asked for; null: nothing is. */
  readonly local: ((told: (settings: LocalSettings | Buffer) => void) => void) | null;
  readonly session: Session;
  readonly clock: Clock;
  readonly limits?: Partial<ScatterLimits>;
}

export interface InstantSource {
  /** INSTANT_SQL, for the home server. */
  readonly source: StatementSource;
  /** Asks the server that has the block beside which the read runs; null: `home` is asked. Told once. */
  readonly inBlock: ((told: (instant: Instant | Buffer) => void) => void) | null;
  /** What counts of the time that was told: the block's is what it was before. */
  settle(instant: Instant): Instant;
}

export interface ScatterLimits {
  /** Bytes of whole rows kept per shard before its connection is paused. */
  readonly legBytesMax: number;
  /** Longest row taken from a shard. */
  readonly rowBytesMax: number;
  /** Bytes of all partial rows of an aggregate. */
  readonly partialBytesMax: number;
}

/** All calls are synchronous and not nested; the run may be called from within them. */
export interface ScatterClient {
  /** The RowDescription of what `rows` brings. Called once, before any row. An error that is returned ends the read. */
  described(rowDescription: Buffer): Buffer | null;
  /** Whole DataRow messages, the client's to keep. False: nothing more until `resume`. */
  rows(bytes: Buffer): boolean;
  /** As many rows as `start` or `continue` asked for have been told; there may be more. */
  suspended(): void;
  /** "SELECT n"; n counts the rows since `start` or the last `continue`, as Postgres does. */
  completed(tag: string): void;
  /** ErrorResponse. Exactly one of `completed` and `failed` is called, when no connection is held any longer. */
  failed(error: Buffer): void;
  /** NoticeResponse of some shard. */
  notice(message: Buffer): void;
}
