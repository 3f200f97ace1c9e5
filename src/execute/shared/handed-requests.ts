// What a worker has handed to the owner of a lane, until that has answered, and what becomes of each then. Invariant: each comes back
// once; an answer to one that was taken back is passed over. One whose key the owner keeps is remembered until it has run by itself.
import { ERRORS, type ErrorName, PgkvError } from '../../base/errors.js';
import type { Counters } from '../../telemetry/counters.js';
import type { MergedRequest } from '../merged/merged-request.js';
import { Outcome } from './share-frames.js';

/** Where a request came from that was handed over (sharing-queue.ts). */
export interface HandingQueue {
  /** The owner does not take its statement any more. */
  refused(): void;
  /** One that was handed over is no longer with the owner. */
  cameBack(): void;
  /** The same, and nothing was done of it. @param cancelled its client does not want it any more */
  takeBack(request: MergedRequest, cancelled: boolean): void;
}

const queueOf = ({ queue }: MergedRequest): HandingQueue => queue as unknown as HandingQueue;

export class HandedRequests {
  /** By number, oldest first. */
  readonly #under = new Map<number, MergedRequest>();
  readonly #counters: Counters;
  /** Tells the owner that it need not keep the key of that one. */
  readonly #letGo: (number: number) => void;
  #lastNumber = 0;
  /** Of their values. */
  bytes = 0;
  /** Those among them that their clients have cancelled. */
  readonly #cancelled = new Set<MergedRequest>();
  /** Those that run by themselves, and whose keys the owner keeps for them. */
  readonly #holding = new Map<MergedRequest, number>();

  constructor(counters: Counters, letGo: (number: number) => void) {
    this.#counters = counters;
    this.#letGo = letGo;
  }

  get size(): number {
    return this.#under.size;
  }

  /** The number that was given out last; numbers go round. */
  get lastNumber(): number {
    return this.#lastNumber;
  }

  /** @returns the number by which it will be answered */
  add(request: MergedRequest): number {
    const number = (this.#lastNumber + 1) | 0;
    this.#lastNumber = number;
    this.#under.set(number, request);
    this.bytes += request.bytes;
    this.#counters.mergedHanded++;
    return number;
  }

  /** Its client has cancelled it. @returns its number; null: it is not among them */
  cancel(request: MergedRequest): number | null {
    for (const [number, under] of this.#under) {
      if (under !== request) continue;
      this.#cancelled.add(request);
      return number;
    }
    return null;
  }

  /** It has run by itself. @returns the number by which the owner keeps its key, or null */
  release(request: MergedRequest): number | null {
    const number = this.#holding.get(request);
    if (number === undefined) return null;
    this.#holding.delete(request);
    request.holdsKey = false;
    return number;
  }

  /** Takes a frame of answers. */
  answers(buffer: Buffer, start: number, end: number): void {
    let at = start;
    while (at < end) {
      const number = buffer.readInt32BE(at);
      const outcome = buffer[at + 4]!;
      const rows = buffer.readInt32BE(at + 5);
      const bytes = buffer.readInt32BE(at + 9);
      const from = at + 13;
      at = from + Math.max(0, bytes);
      const request = this.#under.get(number);
      if (request === undefined) {
        // It was taken back: nobody runs it by itself for whom a key would have to be kept.
        if (outcome === Outcome.rerunHolding) this.#letGo(number);
      } else if (outcome === Outcome.completed) {
        this.#forget(number, request);
        queueOf(request).cameBack();
        if (request.dropped) continue;
        request.rows = rows;
        request.answers = buffer;
        request.start = bytes < 0 ? -1 : from;
        request.end = at;
        request.sink.completed(request);
      } else if (outcome === Outcome.refused) {
        queueOf(request).refused();
        this.#takeBack(number, request);
      } else this.#notDone(number, request, outcome, buffer.toString('utf8', from, at));
    }
  }

  #notDone(number: number, request: MergedRequest, outcome: number, error: string): void {
    this.#forget(number, request);
    queueOf(request).cameBack();
    if (request.dropped) {
      if (outcome === Outcome.rerunHolding) this.#letGo(number);
    } else if (outcome === Outcome.failed) {
      const [name = '', message = '', detail = ''] = error.split('\0');
      const known: ErrorName = Object.hasOwn(ERRORS, name) ? (name as ErrorName) : 'outcome_unknown';
      request.sink.failed(new PgkvError(known, { message, ...(detail === '' ? {} : { detail }) }), request);
    } else {
      if (outcome === Outcome.rerunHolding) {
        request.holdsKey = true;
        this.#holding.set(request, number);
      }
      request.sink.rerun(request);
    }
  }

  /** Reading twice harms nobody: the owner is not awaited for that. */
  takeReadsBack(): void {
    for (const [number, request] of [...this.#under]) if (!request.form!.plan.writes) this.#takeBack(number, request);
  }

  /**
   * The owner is lost.
   * @param sentNumber the last that it may have got: writes up to that may have been done
   */
  lost(sentNumber: number, reason: string): void {
    for (const request of this.#holding.keys()) request.holdsKey = false;
    this.#holding.clear();
    for (const [number, request] of [...this.#under]) {
      const wasSent = ((number - sentNumber) | 0) <= 0;
      if (!request.form!.plan.writes || !wasSent) this.#takeBack(number, request);
      else {
        this.#forget(number, request);
        queueOf(request).cameBack();
        if (!request.dropped) request.sink.failed(unknownOutcome(reason), request);
      }
    }
  }

  #takeBack(number: number, request: MergedRequest): void {
    const cancelled = this.#forget(number, request);
    this.#counters.mergedTakenBack++;
    queueOf(request).takeBack(request, cancelled);
  }

  /** @returns whether its client has cancelled it */
  #forget(number: number, request: MergedRequest): boolean {
    this.#under.delete(number);
    this.bytes -= request.bytes;
    return this.#cancelled.size > 0 && this.#cancelled.delete(request);
  }
}

const unknownOutcome = (detail: string): PgkvError =>
  new PgkvError('outcome_unknown', {
    message: 'the outcome of the write is unknown: the worker that ran it with others was lost',
    detail,
  });
