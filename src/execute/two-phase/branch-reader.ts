// What a server answers to a branch's questions, one result up to each ReadyForQuery. Kept until all are there.
import { readErrorFields } from '../../wire/error-fields.js';
import { Frame, FrameReader } from '../../wire/frame-reader.js';
import { Backend, backendLimits } from '../../wire/protocol.js';
import { readRowValues } from '../../wire/row-values.js';

export interface BranchResult {
  readonly tag: string;
  /** The last one. */
  readonly row: readonly (string | null)[] | null;
  /** ErrorResponse; null: it succeeded. */
  readonly error: Buffer | null;
  readonly sqlstate: string;
  readonly message: string;
  /** The server has not waited for its standbys as it should (D11 rule 2). */
  readonly isLocal: boolean;
}

interface Growing {
  tag: string;
  row: readonly (string | null)[] | null;
  error: Buffer | null;
  sqlstate: string;
  message: string;
  isLocal: boolean;
}

/** A branch answers with counts and single values. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
const WARNING = '01000';

const nothingYet = (): Growing => ({ tag: '', row: null, error: null, sqlstate: '', message: '', isLocal: false });

export class BranchReader {
  readonly results: BranchResult[] = [];
  readonly #count: number;
  readonly #notice: (message: Buffer) => void;
  readonly #reader = new FrameReader(backendLimits(ANSWER_BYTES_MAX), 0, 'backend');
  #growing = nothingYet();

  constructor(count: number, notice: (message: Buffer) => void) {
    this.#count = count;
    this.#notice = notice;
  }

  get isComplete(): boolean {
    return this.results.length === this.#count;
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
    const growing = this.#growing;
    switch (type) {
      case Backend.dataRow:
        growing.row = readRowValues(buffer, start, end);
        return;
      case Backend.commandComplete:
        growing.tag = buffer.toString('latin1', start + 5, end - 1);
        return;
      case Backend.errorResponse: {
        const { C: sqlstate = '', M: message = '' } = readErrorFields(buffer, start, end);
        Object.assign(growing, { error: Buffer.from(buffer.subarray(start, end)), sqlstate, message });
        return;
      }
      case Backend.noticeResponse:
        if (readErrorFields(buffer, start, end)['C'] === WARNING) growing.isLocal = true;
        this.#notice(Buffer.from(buffer.subarray(start, end)));
        return;
      case Backend.readyForQuery:
        this.results.push(growing);
        this.#growing = nothingYet();
        return;
    }
  }
}
