// What another worker hands to this one, which owns the lane: each request waits among those of the own clients, and its answer goes
// back with all others of the same turn of the event loop. One for each connection. Invariants: a request that was taken is answered
// once, unless the connection ends before; one whose key is kept for it stays known until it is released, or the connection ends.
import type { Socket } from 'node:net';
import type { Clock } from '../../base/clock.js';
import type { PgkvError } from '../../base/errors.js';
import type { Counters } from '../../telemetry/counters.js';
import { type BatchSink, MergedRequest, VALUES_MAX } from '../merged/merged-request.js';
import { HANDED_BYTES_MAX } from './owner-link.js';
import type { RemoteStatement } from './remote-statements.js';
import {
  FrameCutter,
  FrameError,
  FrameWriter,
  FromOwner,
  Outcome,
  readTexts,
  SHARE_VERSION,
  ToOwner,
} from './share-frames.js';

/** Requests that are kept to be used again. */
const FREE_MAX = 512;
/** Answers that the other worker has not read; beyond, nothing more is read from it. */
const UNREAD_BYTES_MAX = 4 * 1024 * 1024;
/** A frame of answers ends there, so that the other worker can begin. */
const FRAME_BYTES = 256 * 1024;
const EMPTY: Buffer = Buffer.alloc(0);

export interface OwnerServices {
  /** Among what this worker runs for its own clients; null: it does not. */
  find(texts: readonly string[]): RemoteStatement | null;
  readonly clock: Clock;
  stamp(): number;
  epoch(): number;
  readonly counters: Counters;
  /** Older requests are not begun: whoever sent them may have told their clients by now that they were lost. */
  readonly staleMs: number;
  readonly later: (task: () => void) => void;
}

class RemoteRequest extends MergedRequest {
  number = 0;
}

export class RemoteRequests implements BatchSink {
  readonly #socket: Socket;
  readonly #services: OwnerServices;
  readonly #gone: (requests: RemoteRequests) => void;
  readonly #writer = new FrameWriter();
  readonly #cutter = new FrameCutter((...frame) => this.#took(...frame));
  /** By handle. */
  readonly #statements = new Map<number, RemoteStatement>();
  readonly #requests = new Map<number, RemoteRequest>();
  readonly #free: RemoteRequest[] = [];
  #bytes = 0;
  #isScheduled = false;
  #isPaused = false;
  /** The other worker sends no more. */
  #ended = false;
  #closed = false;
  /** It has sent frames of this version. */
  #greeted = false;

  constructor(socket: Socket, services: OwnerServices, gone: (requests: RemoteRequests) => void) {
    this.#socket = socket;
    this.#services = services;
    this.#gone = gone;
    socket.on('data', (chunk) => this.#received(chunk));
    socket.on('drain', () => this.#resume());
    socket.on('end', () => {
      this.#ended = true;
      // Nobody can release them any more.
      for (const request of [...this.#requests.values()]) if (request.holdsKey) this.#release(request);
      this.#schedule();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => this.#close());
  }

  /** Wants no more; ends when what is under way is answered. */
  end(): void {
    if (this.#closed) return;
    this.#writer.small(FromOwner.closing);
    this.#schedule();
  }

  destroy(): void {
    this.#socket.destroy();
    this.#close();
  }

  #received(chunk: Buffer): void {
    try {
      this.#cutter.push(chunk);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.destroy();
    }
  }

  #took(type: number, buffer: Buffer, start: number, end: number): void {
    if (this.#closed) return;
    if (type === ToOwner.hello) this.#greeted = buffer.readInt32BE(start) === SHARE_VERSION;
    // A worker that began behind an update of the program may speak otherwise.
    if (!this.#greeted) throw new FrameError('frames of another version');
    switch (type) {
      case ToOwner.requests:
        this.#take(buffer, start, end);
        return;
      case ToOwner.statement: {
        const handle = buffer.readInt32BE(start);
        const found = this.#services.find(readTexts(buffer, start + 4, end));
        if (found !== null) this.#statements.set(handle, found);
        this.#writer.small(found === null ? FromOwner.declined : FromOwner.accepted, handle);
        this.#schedule();
        return;
      }
      case ToOwner.cancel: {
        const request = this.#requests.get(buffer.readInt32BE(start));
        // It still stands in its queue, to be passed over.
        if (request !== undefined && !request.holdsKey && request.withdraw()) {
          this.#answer(request.number, Outcome.withdrawn);
          this.#forget(request, false);
        }
        return;
      }
      case ToOwner.release: {
        const request = this.#requests.get(buffer.readInt32BE(start));
        if (request !== undefined) this.#release(request);
        return;
      }
      case ToOwner.ping:
        this.#writer.small(FromOwner.pong);
        this.#schedule();
        return;
    }
  }

  /** Takes a frame of requests. */
  #take(buffer: Buffer, start: number, end: number): void {
    const { epoch, stamp, staleMs, clock, counters } = this.#services;
    const left = buffer.readDoubleBE(start + 4) + staleMs - stamp();
    const isOfUse = buffer.readInt32BE(start) === epoch() && left > 0;
    // It may wait here for others, or this process stand still.
    const sendBefore = clock.now() + left;
    let at = start + 12;
    while (at < end) {
      const number = buffer.readInt32BE(at);
      const statement = this.#statements.get(buffer.readInt32BE(at + 4));
      const slot = buffer.readUInt16BE(at + 8);
      const count = buffer[at + 10]!;
      if (count > VALUES_MAX) throw new FrameError(`a statement of ${count} values`);
      const request = this.#free.pop() ?? new RemoteRequest(this);
      let from = at + 11 + 4 * count;
      const valuesAt = from;
      for (let value = 0; value < count; value++) {
        const length = buffer.readInt32BE(at + 11 + 4 * value);
        request.offsets[2 * value] = from;
        request.offsets[2 * value + 1] = length;
        if (length > 0) from += length;
      }
      at = from;
      const fits = statement !== undefined && statement.form.plan.refs.length === count;
      if (!isOfUse || !fits || this.#bytes > HANDED_BYTES_MAX || !statement.isAsNamed(clock)) {
        this.#free.push(request);
        this.#answer(number, Outcome.refused);
        continue;
      }
      request.number = number;
      request.sendBefore = sendBefore;
      request.slot = slot;
      request.bytes = from - valuesAt;
      request.buffer = buffer;
      request.queue = statement.queue;
      this.#requests.set(number, request);
      this.#bytes += request.bytes;
      counters.mergedOwned++;
      statement.queue.offer(request);
    }
  }

  completed(request: MergedRequest): void {
    const { number } = request as RemoteRequest;
    const { start, end, answers } = request;
    this.#answer(number, Outcome.completed, request.rows, start < 0 ? -1 : end - start, answers, start);
    this.#forget(request as RemoteRequest, true);
  }

  rerun(request: MergedRequest): void {
    const { number } = request as RemoteRequest;
    this.#answer(number, request.holdsKey ? Outcome.rerunHolding : Outcome.rerun);
    // Of one that has ended nobody hears when it has run.
    if (this.#ended && request.holdsKey) request.releaseKey();
    if (request.holdsKey) request.forgetAnswer();
    else this.#forget(request as RemoteRequest, true);
  }

  failed(error: PgkvError, request: MergedRequest): void {
    const text = Buffer.from([error.errorName, error.message, error.detail ?? ''].join('\0'));
    this.#answer((request as RemoteRequest).number, Outcome.failed, 0, text.length, text, 0);
    this.#forget(request as RemoteRequest, true);
  }

  #answer(number: number, outcome: number, rows = 0, bytes = -1, answer = EMPTY, start = 0): void {
    const writer = this.#writer;
    if (!writer.isOpen(FromOwner.answers) || writer.bytes > FRAME_BYTES) writer.open(FromOwner.answers, 0);
    writer.room(13 + Math.max(0, bytes));
    writer.int(number);
    writer.byte(outcome);
    writer.int(rows);
    writer.int(bytes);
    if (bytes > 0) writer.copy(answer, start, start + bytes);
    this.#schedule();
  }

  #release(request: RemoteRequest): void {
    request.releaseKey();
    this.#forget(request, true);
  }

  /** @param isFree no queue has it any more */
  #forget(request: RemoteRequest, isFree: boolean): void {
    this.#requests.delete(request.number);
    this.#bytes -= request.bytes;
    request.forgetAnswer();
    if (isFree && this.#free.length < FREE_MAX) this.#free.push(request);
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#services.later(this.#flush);
  }

  readonly #flush = (): void => {
    this.#isScheduled = false;
    const socket = this.#socket;
    const writer = this.#writer;
    if (this.#closed) return;
    if (writer.bytes > 0) {
      if (socket.writable) socket.write(writer.take());
      writer.taken(socket.writableLength === 0);
    }
    if (socket.writableLength > UNREAD_BYTES_MAX && !this.#isPaused) {
      this.#isPaused = true;
      socket.pause();
    }
    if (this.#ended && this.#requests.size === 0) socket.end();
  };

  #resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#socket.resume();
  }

  /** What was not sent is dropped; nobody awaits the rest. */
  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const request of this.#requests.values()) {
      request.releaseKey();
      request.dropped = true;
    }
    this.#requests.clear();
    this.#gone(this);
  }
}
