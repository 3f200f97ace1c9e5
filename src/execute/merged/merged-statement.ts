// Whether the merged lane runs one statement on one server for many clients, and what it has learnt of it. Stages:
//   unknown    its clients use leases; what has to be known is being asked for (merged-learner.ts)
//   merged     it is run for many at once, but for a while after it has failed too often
//   single     it cannot be merged; its clients use leases
// From any of them back to unknown where the schema, or a plan, is no longer what was learnt.
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import type { Clock } from '../../base/clock.js';
import type { KvTable } from '../../cluster/kv-table.js';
import { ExpiredRows } from './expired-rows.js';
import type { MergedForm } from './merged-form.js';
import type { RequestQueue } from './merged-request.js';

/** What a form holds beside its sources and its RowDescription. */
const FORM_BYTES = 700;

/** Failed batches in a row after which the statement leaves the lane, and for how long (rule 5). */
const FAILURES_MAX = 3;
const BANNED_MS = 10_000;
const STREAMED_BYTES = 256 * 1024;
const UNKNOWN_BYTES = 32 * 1024;

/** A client that waits for a lease because the statement is not merged yet. */
export interface Awaiting {
  /** It is merged now. */
  learnt(): void;
}

type Queues = readonly [Map<SettingsGroup, RequestQueue>, Map<SettingsGroup, RequestQueue>];
/** Of statements that are not merged, as most that are run once. */
const NO_QUEUES: Queues = [new Map(), new Map()];

export class MergedStatement {
  /** The table it is on. */
  table: KvTable = { schema: '', name: '', valueType: 'jsonb' };
  stage: 'unknown' | 'merged' | 'single' = 'unknown';
  form: MergedForm | null = null;
  /** Epoch of the schema in which it was learnt. */
  schemaEpoch = -1;
  learning = false;
  /** Who began to wait for a lease while it was being learnt: leases may all be held by clients that are idle in blocks. */
  readonly #awaiting = new Set<Awaiting>();
  /** It is not asked about before. */
  retryAt = 0;
  /** By result format (0 text, 1 binary) and settings. */
  queues: Queues = NO_QUEUES;
  /** What is learnt of it holds so much; see StatementSources.learnt. */
  formBytes = 0;
  /** Bytes of an answer, a moving average: bounds how many are asked for at once. */
  answerBytes = 200;
  /** Null: its form has one text for any row. */
  expiredRows: ExpiredRows | null = null;
  #failures = 0;
  #bannedUntil = 0;

  /** Whether it may be merged now. */
  usable(clock: Clock): boolean {
    if (this.answerBytes > STREAMED_BYTES) {
      // Answers that long are better streamed; it is tried again after a while.
      this.answerBytes = STREAMED_BYTES / 2;
      this.#bannedUntil = clock.now() + BANNED_MS;
    }
    return this.stage === 'merged' && (this.#bannedUntil === 0 || clock.now() >= this.#bannedUntil);
  }

  /** While it is being learnt. */
  await(client: Awaiting): void {
    if (this.learning) this.#awaiting.add(client);
  }

  /** Nobody asks about it any more. */
  learningEnded(): void {
    this.learning = false;
    if (this.#awaiting.size === 0) return;
    const clients = [...this.#awaiting];
    this.#awaiting.clear();
    if (this.stage === 'merged') for (const client of clients) client.learnt();
  }

  /** @returns how much more it holds than what was learnt before */
  learnt(form: MergedForm): number {
    this.form = form;
    this.stage = 'merged';
    const before = this.formBytes;
    const { one, many, optimistic, types, plan, description } = form;
    this.formBytes = FORM_BYTES + one.shape.length + many.shape.length + 8 * types.length + 64 * plan.refs.length;
    // The shapes are those of the others.
    if (optimistic !== null) this.formBytes += FORM_BYTES / 2;
    this.expiredRows = optimistic === null ? null : (this.expiredRows ?? new ExpiredRows());
    // Answers begin with it, in some forms.
    this.formBytes += 3 * (description?.length ?? 0);
    // What is written cannot be given up because it is long: the first batches are small, until it is known how long it is.
    if (plan.writes && form.columnCount > 0) this.answerBytes = UNKNOWN_BYTES;
    return this.formBytes - before;
  }

  /** The queues of a format, to which one is to be added. */
  ownQueues(format: 0 | 1): Map<SettingsGroup, RequestQueue> {
    if (this.queues === NO_QUEUES) this.queues = [new Map(), new Map()];
    return this.queues[format];
  }

  succeeded(): void {
    this.#failures = 0;
  }

  failed(now: number): void {
    if (++this.#failures < FAILURES_MAX) return;
    this.#failures = 0;
    this.#bannedUntil = now + BANNED_MS;
  }
}
