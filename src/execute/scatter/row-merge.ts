// Merges sorted rows of several shards by their hidden last columns: a binary heap of the shards whose first row is known.
// A shard without rows that has not ended holds everything up, since its next row may be the first of all.
import { messageEnd, type RowQueue } from './row-queue.js';
import type { SortOrder } from './sort-order.js';

export interface SortedRows {
  readonly rows: RowQueue;
  /** No more rows will come. */
  readonly ended: boolean;
  /** Called when a row was taken. */
  taken(): void;
}

/** A shard's rows with what is known of its first one. */
class Input {
  readonly source: SortedRows;
  /** Its place among the inputs decides between equal rows, so that an answer is the same each time. */
  readonly place: number;
  buffer: Buffer = Buffer.alloc(0);
  start = 0;
  /** End of the visible columns. */
  visibleEnd = 0;
  /** Offset and length of each key; length -1 is NULL. */
  readonly keys: Int32Array;

  constructor(source: SortedRows, place: number, keyCount: number) {
    this.source = source;
    this.place = place;
    this.keys = new Int32Array(keyCount * 2);
  }

  /** Finds the keys of the first row. */
  locate(): void {
    const { buffer, start } = this.source.rows.head;
    this.buffer = buffer;
    this.start = start;
    const end = messageEnd(buffer, start);
    const { keys } = this;
    const hidden = keys.length / 2;
    let offset = start + 7;
    for (let left = buffer.readUInt16BE(start + 5); left > 0; left--) {
      if (left === hidden) this.visibleEnd = offset;
      const length = buffer.readInt32BE(offset);
      offset += 4;
      if (left <= hidden) {
        const key = (hidden - left) * 2;
        keys[key] = offset;
        keys[key + 1] = length;
      }
      if (length > 0) offset += length;
    }
    if (offset !== end) throw new RangeError('malformed row');
  }
}

export class RowMerge {
  readonly #orders: readonly SortOrder[];
  readonly #heap: Input[] = [];
  /** Inputs whose first row is not known. */
  #dry: Input[];

  constructor(sources: readonly SortedRows[], orders: readonly SortOrder[]) {
    this.#orders = orders;
    this.#dry = sources.map((source, place) => new Input(source, place, orders.length));
  }

  /** The least row of all; null where none is left or it is not known yet. */
  first(): { readonly buffer: Buffer; readonly start: number; readonly visibleEnd: number } | null {
    if (this.#dry.length > 0) this.#refill();
    return this.#dry.length > 0 ? null : (this.#heap[0] ?? null);
  }

  /** Drops the row that `first` found. */
  drop(): void {
    const heap = this.#heap;
    const input = heap[0]!;
    input.source.rows.dropRow();
    input.source.taken();
    if (!input.source.rows.empty) {
      input.locate();
      this.#sink(input);
      return;
    }
    this.#dry.push(input);
    const last = heap.pop()!;
    if (last !== input) this.#sink(last);
  }

  #refill(): void {
    this.#dry = this.#dry.filter((input) => {
      if (input.source.rows.empty) return !input.source.ended;
      input.locate();
      this.#rise(input);
      return false;
    });
  }

  #rise(input: Input): void {
    const heap = this.#heap;
    let index = heap.length;
    heap.push(input);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (this.#compare(heap[parent]!, input) <= 0) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = input;
  }

  /** Puts `input` in the place of the root and from there where it belongs. */
  #sink(input: Input): void {
    const heap = this.#heap;
    let index = 0;
    for (;;) {
      let child = index * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#compare(heap[child + 1]!, heap[child]!) < 0) child++;
      if (this.#compare(input, heap[child]!) <= 0) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = input;
  }

  #compare(a: Input, b: Input): number {
    const orders = this.#orders;
    for (let index = 0; index < orders.length; index++) {
      const { compare, descending, nullsFirst } = orders[index]!;
      const aBytes = a.keys[index * 2 + 1]!;
      const bBytes = b.keys[index * 2 + 1]!;
      if (aBytes < 0 || bBytes < 0) {
        if (aBytes < 0 && bBytes < 0) continue;
        return aBytes < 0 === nullsFirst ? -1 : 1;
      }
      const order = compare(a.buffer, a.keys[index * 2]!, aBytes, b.buffer, b.keys[index * 2]!, bBytes);
      if (order !== 0) return descending ? -order : order;
    }
    return a.place - b.place;
  }
}
