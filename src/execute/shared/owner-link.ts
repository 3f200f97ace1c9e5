// A worker's line to the owner of a lane: hands it requests, those of one turn of the event loop in one write, and takes the answers.
// Phases:
//   closed     not connected; not tried again before `#retryAt`
//   opening    connects
//   open       takes requests, where the owner has accepted the statement
//   silent     nothing was heard for a while that was owed: reads were taken back, nothing more is handed over
//   closing    the owner, or this worker, is ending: what is under way is awaited, nothing more is handed over
// Invariants: what was handed over and is lost with the connection is read again, or, where it writes, told as unknown (08007): the
// owner may have sent it. Each request comes back once; an answer to one that was taken back is passed over.
import type { Socket } from 'node:net';
import type { Clock } from '../../base/clock.js';
import { ERRORS, type ErrorName, PgkvError } from '../../base/errors.js';
import type { Counters } from '../../telemetry/counters.js';
import type { MergedForm } from '../merged/merged-form.js';
import type { MergedRequest } from '../merged/merged-request.js';
import { describeStatement } from './remote-statements.js';
import {
  FrameCutter,
  FrameError,
  FrameWriter,
  FromOwner,
  Outcome,
  SHARE_VERSION,
  ToOwner,
  writeTexts,
} from './share-frames.js';
import type { SharingQueue } from './sharing-queue.js';

/** Requests with one owner at a time, and bytes of their values; beyond, they are merged here. */
const REQUESTS_MAX = 8_192;
export const HANDED_BYTES_MAX = 8 * 1024 * 1024;
/** Longer ones are copied oftener than they are worth. */
const REQUEST_BYTES_MAX = 16 * 1024;
/** Statements made known on one connection; then it is made anew. */
const STATEMENTS_MAX = 4_096;
const RETRY_MS = 500;
/** A statement that the owner did not take is offered again after that: it may not have learnt it yet. */
const DECLINED_MS = 500;
/** Nothing was heard for so long, though something is owed: it is asked for a sign of life, and then taken for silent. */
const PING_MS = 100;
const SILENT_MS = 400;

/** A statement, format and settings as made known on one connection. */
export interface StatementHandle {
  readonly number: number;
  /** Of the connection on which it was made known. */
  readonly generation: number;
  readonly form: MergedForm;
  state: 'asked' | 'accepted' | 'declined';
  retryAt: number;
}

export interface LinkServices {
  /** Connects to that worker. */
  connect(owner: number): Socket;
  readonly clock: Clock;
  /** Milliseconds of a clock that all processes of the machine share. */
  stamp(): number;
  /** Of the view in force. */
  epoch(): number;
  readonly counters: Counters;
  readonly deadlineMs: number;
  readonly later: (task: () => void) => void;
  /** Whether what is offered now is to be handed over at all. */
  wants(): boolean;
  /** Something is owed now: `look` is to be called from time to time. */
  watch(): void;
}

type Phase = 'closed' | 'opening' | 'open' | 'silent' | 'closing';

const lost = (detail: string): PgkvError =>
  new PgkvError('outcome_unknown', {
    message: 'the outcome of the write is unknown: the worker that ran it with others was lost',
    detail,
  });

export class OwnerLink {
  readonly owner: number;
  readonly #services: LinkServices;
  readonly #writer = new FrameWriter();
  #phase: Phase = 'closed';
  #socket: Socket | null = null;
  #generation = 0;
  #retryAt = 0;
  #isScheduled = false;
  /** To its socket, so far. */
  writes = 0;
  /** This worker is ending: it is not opened again. */
  #ended = false;
  readonly #asked = new Map<number, StatementHandle>();
  #statements = 0;
  /** What the owner has not answered, by number, oldest first. */
  readonly #under = new Map<number, MergedRequest>();
  #bytes = 0;
  #lastNumber = 0;
  /** The last one that was handed to the socket. */
  #sentNumber = 0;
  /** Those among them that their clients have cancelled. */
  readonly #cancelled = new Set<MergedRequest>();
  /** Those that run by themselves, and whose keys the owner keeps for them. */
  readonly #holding = new Map<MergedRequest, number>();
  /** When the owner was heard last, or began to owe something. */
  #heardAt = 0;
  #pinged = false;
  /** Of the requests frame that is being written. */
  #epoch = -1;

  constructor(owner: number, services: LinkServices) {
    this.owner = owner;
    this.#services = services;
  }

  /** Whether something is owed by the owner. */
  get isOwed(): boolean {
    return this.#under.size > 0;
  }

  /** Hands the request over. False: it is to be merged here. */
  hand(queue: SharingQueue, request: MergedRequest): boolean {
    if (!this.#services.wants()) return false;
    if (this.#phase !== 'open') {
      if (this.#phase === 'closed') this.#open();
      return false;
    }
    const { bytes } = request;
    if (bytes > REQUEST_BYTES_MAX || this.#bytes + bytes > HANDED_BYTES_MAX) return false;
    const handle = this.#handleOf(queue);
    if (handle === null || this.#under.size >= REQUESTS_MAX) return false;
    request.form = handle.form;
    request.key = '';
    request.sent = true;
    request.dropped = false;
    this.#write(handle.number, request);
    return true;
  }

  #write(handle: number, request: MergedRequest): void {
    const writer = this.#writer;
    const { bytes, form, offsets } = request;
    const values = form!.plan.refs.length;
    const epoch = this.#services.epoch();
    if (!writer.isOpen(ToOwner.requests) || epoch !== this.#epoch) {
      this.#epoch = epoch;
      writer.open(ToOwner.requests, 12);
      writer.int(epoch);
      writer.double(this.#services.stamp());
    }
    writer.room(11 + 4 * values + bytes);
    const number = (this.#lastNumber + 1) | 0;
    this.#lastNumber = number;
    writer.int(number);
    writer.int(handle);
    writer.short(request.slot);
    writer.byte(values);
    for (let value = 0; value < values; value++) writer.int(offsets[2 * value + 1]!);
    for (let value = 0; value < values; value++) {
      const length = offsets[2 * value + 1]!;
      const start = offsets[2 * value]!;
      if (length > 0) writer.copy(request.bufferOf(value), start, start + length);
    }
    if (this.#under.size === 0) this.#owesFromNow();
    this.#under.set(number, request);
    this.#bytes += bytes;
    this.#services.counters.mergedHanded++;
    this.#schedule();
  }

  #owesFromNow(): void {
    this.#heardAt = this.#services.clock.now();
    this.#services.watch();
  }

  /** The statement as the owner has accepted it; null: it has not, and is asked if that is due. */
  #handleOf(queue: SharingQueue): StatementHandle | null {
    const { handle } = queue;
    const { form } = queue.statement;
    if (handle !== null && handle.generation === this.#generation && handle.form === form) {
      if (handle.state === 'accepted') return handle;
      if (handle.state === 'asked' || this.#services.clock.now() < handle.retryAt) return null;
    }
    if (form === null) return null;
    if (++this.#statements > STATEMENTS_MAX) {
      this.close();
      return null;
    }
    const asked: StatementHandle = {
      number: this.#statements,
      generation: this.#generation,
      form,
      state: 'asked',
      retryAt: 0,
    };
    queue.handle = asked;
    this.#asked.set(asked.number, asked);
    this.#writer.open(ToOwner.statement, 4);
    this.#writer.int(asked.number);
    writeTexts(this.#writer, describeStatement(queue.own, form));
    this.#writer.close();
    this.#schedule();
    return null;
  }

  /** Its client has cancelled it: the owner drops it if it was not sent. */
  cancel(request: MergedRequest): void {
    for (const [number, under] of this.#under) {
      if (under !== request) continue;
      this.#cancelled.add(request);
      this.#writer.small(ToOwner.cancel, number);
      this.#schedule();
      return;
    }
  }

  /** It has run by itself. False: no owner keeps its key. */
  release(request: MergedRequest): boolean {
    const number = this.#holding.get(request);
    if (number === undefined) return false;
    this.#holding.delete(request);
    request.holdsKey = false;
    this.#writer.small(ToOwner.release, number);
    this.#schedule();
    return true;
  }

  #open(): void {
    const { clock, connect } = this.#services;
    if (this.#ended || clock.now() < this.#retryAt) return;
    this.#phase = 'opening';
    this.#generation++;
    this.#statements = 0;
    const socket = connect(this.owner);
    this.#socket = socket;
    const cutter = new FrameCutter((...frame) => this.#took(...frame));
    socket.on('connect', () => {
      this.#phase = 'open';
      this.#writer.small(ToOwner.hello, SHARE_VERSION);
      this.#schedule();
    });
    socket.on('data', (chunk) => this.#received(socket, cutter, chunk));
    socket.on('end', () => this.close());
    socket.on('error', () => undefined);
    socket.on('close', () => this.#lost(socket, 'its connection ended'));
  }

  /** No more is handed over on this connection; what is under way is awaited. */
  close(): void {
    if (this.#phase === 'closed' || this.#phase === 'closing') return;
    this.#phase = 'closing';
    this.#flush();
    this.#socket!.end();
  }

  /** The same for good. */
  end(): void {
    this.#ended = true;
    this.close();
  }

  destroy(reason: string): void {
    const socket = this.#socket;
    if (socket === null) return;
    socket.destroy();
    this.#lost(socket, reason);
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#services.later(this.#flushLater);
  }

  readonly #flushLater = (): void => {
    this.#isScheduled = false;
    this.#flush();
  };

  #flush(): void {
    const socket = this.#socket;
    const writer = this.#writer;
    if (socket === null || writer.bytes === 0 || this.#phase === 'opening') return;
    if (socket.writable) socket.write(writer.take());
    this.writes++;
    this.#sentNumber = this.#lastNumber;
    writer.taken(socket.writableLength === 0);
  }

  #received(socket: Socket, cutter: FrameCutter, chunk: Buffer): void {
    if (socket !== this.#socket) return;
    this.#heardAt = this.#services.clock.now();
    this.#pinged = false;
    if (this.#phase === 'silent') this.#phase = 'open';
    try {
      cutter.push(chunk);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.destroy(error.message);
    }
  }

  #took(type: number, buffer: Buffer, start: number, end: number): void {
    switch (type) {
      case FromOwner.answers:
        this.#answers(buffer, start, end);
        return;
      case FromOwner.accepted:
      case FromOwner.declined: {
        const number = buffer.readInt32BE(start);
        const handle = this.#asked.get(number);
        this.#asked.delete(number);
        if (handle === undefined) return;
        if (type === FromOwner.accepted) handle.state = 'accepted';
        else this.#decline(handle);
        return;
      }
      case FromOwner.closing:
        this.close();
        return;
    }
  }

  #decline(handle: StatementHandle): void {
    handle.state = 'declined';
    handle.retryAt = this.#services.clock.now() + DECLINED_MS;
  }

  #answers(buffer: Buffer, start: number, end: number): void {
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
        continue;
      }
      const queue = request.queue as SharingQueue;
      const cancelled = this.#forget(number, request);
      if (outcome === Outcome.completed) {
        queue.cameBack();
        if (request.dropped) continue;
        request.rows = rows;
        request.answers = buffer;
        request.start = bytes < 0 ? -1 : from;
        request.end = at;
        request.sink.completed(request);
      } else this.#notDone(number, request, queue, outcome, cancelled, buffer.toString('utf8', from, at));
    }
  }

  #notDone(
    number: number,
    request: MergedRequest,
    queue: SharingQueue,
    outcome: number,
    cancelled: boolean,
    error: string,
  ): void {
    if (outcome === Outcome.refused) {
      if (queue.handle !== null) this.#decline(queue.handle);
      this.#services.counters.mergedTakenBack++;
      queue.takeBack(request, cancelled);
      return;
    }
    queue.cameBack();
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

  #letGo(number: number): void {
    this.#writer.small(ToOwner.release, number);
    this.#schedule();
  }

  /** @returns whether its client has cancelled it */
  #forget(number: number, request: MergedRequest): boolean {
    this.#under.delete(number);
    this.#bytes -= request.bytes;
    return this.#cancelled.size > 0 && this.#cancelled.delete(request);
  }

  /** Looks whether the owner is still there, as long as it owes something. */
  look(): void {
    const silentFor = this.#services.clock.now() - this.#heardAt;
    if (this.#under.size === 0 || this.#socket === null) return;
    if (silentFor >= PING_MS && !this.#pinged) {
      this.#pinged = true;
      this.#writer.small(ToOwner.ping);
      this.#flush();
    }
    if (silentFor >= SILENT_MS && (this.#phase === 'open' || this.#phase === 'silent')) {
      this.#phase = 'silent';
      // Reading twice harms nobody.
      for (const [number, request] of [...this.#under]) if (!request.form!.plan.writes) this.#takeBack(number, request);
    }
    const { deadlineMs } = this.#services;
    if (silentFor >= deadlineMs + SILENT_MS) this.destroy(`worker ${this.owner} has not answered for ${deadlineMs} ms`);
  }

  #takeBack(number: number, request: MergedRequest): void {
    const cancelled = this.#forget(number, request);
    this.#services.counters.mergedTakenBack++;
    (request.queue as SharingQueue).takeBack(request, cancelled);
  }

  #lost(socket: Socket, reason: string): void {
    if (socket !== this.#socket) return;
    const wasOpened = this.#phase !== 'opening';
    this.#socket = null;
    this.#phase = 'closed';
    this.#retryAt = this.#services.clock.now() + RETRY_MS;
    // What was gathered since the last turn has not left this process.
    this.#writer.take();
    this.#writer.taken(true);
    this.#asked.clear();
    for (const request of this.#holding.keys()) request.holdsKey = false;
    this.#holding.clear();
    if (!wasOpened) return;
    for (const [number, request] of [...this.#under]) {
      // Numbers go round.
      const wasSent = ((number - this.#sentNumber) | 0) <= 0;
      if (!request.form!.plan.writes || !wasSent) {
        this.#takeBack(number, request);
        continue;
      }
      this.#forget(number, request);
      (request.queue as SharingQueue).cameBack();
      if (!request.dropped) request.sink.failed(lost(`worker ${this.owner}: ${reason}`), request);
    }
  }
}
