// What a server answers to a branch's questions: a result for each statement that has run, or failed. Kept until all are there.
import { PgkvError } from '../../base/errors.js';
import { isNotReplicated, readErrorFields } from '../../wire/error-fields.js';
import { Frame, FrameReader } from '../../wire/frame-reader.js';
import { Backend, backendLimits } from '../../wire/protocol.js';
import { readRowValues } from '../../wire/row-values.js';
import { encodeError } from '../../wire/server-messages.js';

export interface BranchResult {
  readonly tag: string;
  /** Whole DataRow messages. */
  readonly rows: readonly Buffer[];
  /** RowDescription or NoData, where it was asked for. */
  readonly description: Buffer | null;
  /** Its values were taken. */
  readonly isBound: boolean;
  /** ErrorResponse; null: it succeeded. */
  readonly error: Buffer | null;
  readonly sqlstate: string;
  readonly message: string;
  /** The server has not waited for its standbys as it should (D11 rule 2). */
  readonly isLocal: boolean;
}

interface Growing extends BranchResult {
  tag: string;
  rows: Buffer[];
  description: Buffer | null;
  isBound: boolean;
  error: Buffer | null;
  sqlstate: string;
  message: string;
  isLocal: boolean;
}

const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
/** Rows that a statement returns are kept until all shards have run it. */
const ROWS_BYTES_MAX = 16 * 1024 * 1024;
const TOO_LARGE = encodeError(
  new PgkvError('limit_exceeded', {
    message: `a limit of pgkv was exceeded: a statement that writes on several shards returns more than ${ROWS_BYTES_MAX} bytes from one`,
    hint: 'Return less, or name fewer keys in each statement.',
  }),
  'ERROR',
);

const nothingYet = (): Growing => ({
  tag: '',
  rows: [],
  description: null,
  isBound: false,
  error: null,
  sqlstate: '',
  message: '',
  isLocal: false,
});

/** Values of the last row; null: there is none. */
export function lastRow(result: BranchResult | undefined): readonly (string | null)[] | null {
  const row = result?.rows.at(-1);
  return row === undefined ? null : readRowValues(row, 0, row.length);
}

export class BranchReader {
  readonly results: BranchResult[] = [];
  readonly #count: number;
  readonly #notice: (message: Buffer) => void;
  readonly #reader = new FrameReader(backendLimits(MESSAGE_BYTES_MAX), 0, 'backend');
  /** What the statement under way has said. */
  #growing = nothingYet();
  /** It has said all, but for what stands in front of ReadyForQuery. */
  #isEnded = false;
  #ready = 0;
  #rowBytes = 0;

  /** @param count of ReadyForQuery messages that will come */
  constructor(count: number, notice: (message: Buffer) => void) {
    this.#count = count;
    this.#notice = notice;
  }

  get isComplete(): boolean {
    return this.#ready === this.#count;
  }

  /** @returns false where it cannot be read any further */
  push(bytes: Buffer): boolean {
    const reader = this.#reader;
    try {
      // Copied, since the connection reads into that memory again.
      reader.push(Buffer.from(bytes));
      while (reader.next() !== Frame.none) this.#message(reader.type, reader.buffer, reader.start, reader.end);
      return true;
    } catch {
      // A message that is too long, or none.
      return false;
    }
  }

  #message(type: number, buffer: Buffer, start: number, end: number): void {
    // In a batch there is no ReadyForQuery between statements.
    if (this.#isEnded && type !== Backend.readyForQuery && type !== Backend.noticeResponse) this.#endResult();
    const growing = this.#growing;
    switch (type) {
      case Backend.dataRow:
        return this.#row(buffer, start, end);
      case Backend.rowDescription:
      case Backend.noData:
        growing.description = Buffer.from(buffer.subarray(start, end));
        return;
      case Backend.bindComplete:
        growing.isBound = true;
        return;
      case Backend.commandComplete:
        growing.tag = buffer.toString('latin1', start + 5, end - 1);
        this.#isEnded = true;
        return;
      case Backend.errorResponse: {
        const { C: sqlstate = '', M: message = '' } = readErrorFields(buffer, start, end);
        Object.assign(growing, { error: Buffer.from(buffer.subarray(start, end)), sqlstate, message });
        return;
      }
      case Backend.noticeResponse:
        if (isNotReplicated(readErrorFields(buffer, start, end))) growing.isLocal = true;
        this.#notice(Buffer.from(buffer.subarray(start, end)));
        return;
      case Backend.readyForQuery:
        this.#ready++;
        return this.#endResult();
    }
  }

  #endResult(): void {
    this.results.push(this.#growing);
    this.#growing = nothingYet();
    this.#isEnded = false;
  }

  #row(buffer: Buffer, start: number, end: number): void {
    const growing = this.#growing;
    this.#rowBytes += end - start;
    if (this.#rowBytes <= ROWS_BYTES_MAX) growing.rows.push(Buffer.from(buffer.subarray(start, end)));
    else {
      growing.rows = [];
      growing.error ??= TOO_LARGE;
    }
  }
}
