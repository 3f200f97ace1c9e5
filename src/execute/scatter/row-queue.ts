// Whole DataRow messages waiting to be used, as runs of bytes that follow one another: as many objects as chunks came
// from the socket, not as rows. The bytes are the queue's own copy: whoever takes them may keep them.

/** `rows` DataRow messages at `buffer[start, end)`. */
export interface RowRun {
  readonly buffer: Buffer;
  start: number;
  end: number;
  rows: number;
}

const TYPE_BYTES = 1;

/** The end of the message that begins at `start`. */
export const messageEnd = (buffer: Buffer, start: number): number =>
  start + TYPE_BYTES + buffer.readInt32BE(start + TYPE_BYTES);

export class RowQueue {
  bytes = 0;
  #runs: RowRun[] = [];
  #first = 0;

  get empty(): boolean {
    return this.#first === this.#runs.length;
  }

  /** The run that holds the first row, at its start. Only where there is one. */
  get head(): RowRun {
    return this.#runs[this.#first]!;
  }

  /** Adds the row at `buffer[start, end)`. */
  push(buffer: Buffer, start: number, end: number): void {
    this.bytes += end - start;
    const last = this.empty ? undefined : this.#runs.at(-1);
    if (last !== undefined && last.buffer === buffer && last.end === start) {
      last.end = end;
      last.rows++;
    } else this.#runs.push({ buffer, start, end, rows: 1 });
  }

  dropRow(): void {
    const run = this.head;
    this.#advance(run, messageEnd(run.buffer, run.start), 1);
  }

  /** Takes up to `rowsMax` (at least one) of the first rows that lie together. */
  take(rowsMax: number): RowRun {
    const run = this.head;
    const { buffer, start } = run;
    if (run.rows <= rowsMax) {
      const { end, rows } = run;
      this.#advance(run, end, rows);
      return { buffer, start, end, rows };
    }
    let end = start;
    for (let row = 0; row < rowsMax; row++) end = messageEnd(buffer, end);
    this.#advance(run, end, rowsMax);
    return { buffer, start, end, rows: rowsMax };
  }

  clear(): void {
    this.#runs = [];
    this.#first = 0;
    this.bytes = 0;
  }

  #advance(run: RowRun, to: number, rows: number): void {
    this.bytes -= to - run.start;
    run.start = to;
    run.rows -= rows;
    if (run.rows > 0) return;
    this.#first++;
    if (this.#first < this.#runs.length) return;
    this.#runs.length = 0;
    this.#first = 0;
  }
}
