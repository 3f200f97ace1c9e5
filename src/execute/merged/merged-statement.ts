// What the merged lane knows of one statement on one server: the types of its parameters and the shape of its result, as
// the server told them, and the statement that does the work of many (see sql/merge-statement.ts). Stages:
//   unknown    its clients use leases; what has to be known is being asked for
//   merged     it is run for many at once
//   single     it cannot be merged, or has failed too often; its clients use leases
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { KvTable } from '../../cluster/kv-table.js';
import type { MergeStatement } from '../../sql/batch/batch-statement.js';
import { BIND_COMPLETE, NO_DATA, PARSE_COMPLETE } from '../../wire/server-messages.js';
import type { MergedQueue } from './merged-lane.js';

export interface MergedForm {
  readonly plan: MergeStatement;
  /** The statement for many, and the one for a single member. */
  readonly many: StatementSource;
  readonly one: StatementSource;
  /** What their results looked like (see row-shape.ts): a connection on which they look otherwise must not run them. */
  readonly manyShape: string;
  readonly oneShape: string;
  /** Types of the values, as the server found them. */
  readonly types: readonly number[];
  /** RowDescription with all columns in text, or null: no rows. */
  readonly description: Buffer | null;
  readonly columnCount: number;
}

/** Failed batches in a row after which the statement leaves the lane, and for how long (rule 5). */
const FAILURES_MAX = 3;
const BANNED_MS = 10_000;
const STREAMED_BYTES = 256 * 1024;
const UNKNOWN_BYTES = 32 * 1024;

export class MergedStatement {
  /** The table it is on. */
  table: KvTable = { schema: '', name: '', valueType: 'jsonb' };
  stage: 'unknown' | 'merged' | 'single' = 'unknown';
  form: MergedForm | null = null;
  /** Epoch of the schema in which it was learnt. */
  schemaEpoch = -1;
  learning = false;
  /** It is not asked about before. */
  retryAt = 0;
  /** By result format (0 text, 1 binary), of the settings that nearly all sessions have. */
  readonly queues: (MergedQueue | null)[] = [null, null];
  /** Bytes of an answer, a moving average: bounds how many are asked for at once. */
  answerBytes = 200;
  #failures = 0;
  #bannedUntil = 0;
  /** Answers begin with one of these: by parses (1), describes (2), binary (4), simple (8). */
  readonly #prefixes: (Buffer | undefined)[] = new Array(16);

  /** Whether it may be merged now. */
  usable(now: number): boolean {
    if (this.answerBytes > STREAMED_BYTES) {
      // Answers that long are better streamed; it is tried again after a while.
      this.answerBytes = STREAMED_BYTES / 2;
      this.#bannedUntil = now + BANNED_MS;
    }
    return this.stage === 'merged' && now >= this.#bannedUntil;
  }

  /** `form` is new. */
  learnt(): void {
    this.stage = 'merged';
    // What is written cannot be given up because it is long: the first batches are small, until it is known how long it is.
    if (this.form!.plan.writes && this.form!.columnCount > 0) this.answerBytes = UNKNOWN_BYTES;
    this.#prefixes.fill(undefined);
  }

  succeeded(): void {
    this.#failures = 0;
  }

  failed(now: number): void {
    if (++this.#failures < FAILURES_MAX) return;
    this.#failures = 0;
    this.#bannedUntil = now + BANNED_MS;
  }

  /** What an answer begins with. */
  prefix(parses: boolean, describes: boolean, format: number, simple: boolean): Buffer {
    const index = (parses ? 1 : 0) | (describes ? 2 : 0) | (format === 1 ? 4 : 0) | (simple ? 8 : 0);
    let prefix = this.#prefixes[index];
    if (prefix === undefined) {
      prefix = this.#makePrefix(parses, describes, format, simple);
      this.#prefixes[index] = prefix;
    }
    return prefix;
  }

  #makePrefix(parses: boolean, describes: boolean, format: number, simple: boolean): Buffer {
    const { description } = this.form!;
    if (simple) return description ?? Buffer.alloc(0);
    const parts: Buffer[] = [];
    if (parses) parts.push(PARSE_COMPLETE);
    parts.push(BIND_COMPLETE);
    if (describes) parts.push(description === null ? NO_DATA : inFormat(description, format));
    return Buffer.concat(parts);
  }
}

/** The RowDescription with another format for all its columns. */
function inFormat(description: Buffer, format: number): Buffer {
  if (format === 0) return description;
  const changed = Buffer.from(description);
  let at = 7;
  for (let left = changed.readUInt16BE(5); left > 0; left--) {
    at = changed.indexOf(0, at) + 1 + 18;
    changed.writeInt16BE(format, at - 2);
  }
  return changed;
}
