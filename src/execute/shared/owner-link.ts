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
import type { Counters } from '../../telemetry/counters.js';
import type { MergedForm } from '../merged/merged-form.js';
import type { MergedQueue } from '../merged/merged-queue.js';
import type { MergedRequest } from '../merged/merged-request.js';
import { HandedRequests, type HandingQueue } from './handed-requests.js';
import { FrameCutter, FrameError, FrameWriter, FromOwner, SHARE_VERSION, ToOwner, writeTexts } from './share-frames.js';
import { describeStatement } from './statement-texts.js';

/** Requests with one owner at a time, and bytes of their values; beyond, they are merged here. */
const REQUESTS_MAX = 8_192;
export const HANDED_BYTES_MAX = 8 * 1024 * 1024;
/** Longer ones are copied oftener than they are worth. */
const REQUEST_BYTES_MAX = 16 * 1024;
/** Statements made known on one connection; then it is made anew. */
const STATEMENTS_MAX = 4_096;
const RETRY_MS = 500;
/** Nothing was heard for so long, though something is owed: it is asked for a sign of life, and then taken for silent. */
const PING_MS = 100;
const SILENT_MS = 400;

/** A statement, format and settings as made known on one connection. */
export interface StatementHandle {
  readonly number: number;
  /** The connection on which it was made known. */
  readonly link: OwnerLink;
  readonly generation: number;
  readonly form: MergedForm;
  isAccepted: boolean;
}

/** A queue whose statement may be known to an owner. */
export interface StatementQueue extends HandingQueue {
  readonly own: MergedQueue;
  /** As the owner knows the statement, its result format and settings. */
  handle: StatementHandle | null;
  declined(handle: StatementHandle): void;
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
  readonly #asked = new Map<number, StatementQueue>();
  #statements = 0;
  readonly #handed: HandedRequests;
  /** The last one that was handed to the socket. */
  #sentNumber = 0;
  /** When the owner was heard last, or began to owe something. */
  #heardAt = 0;
  #pinged = false;
  /** Of the requests frame that is being written. */
  #epoch = -1;

  constructor(owner: number, services: LinkServices) {
    this.owner = owner;
    this.#services = services;
    this.#handed = new HandedRequests(services.counters, (number) => this.#tell(ToOwner.release, number));
  }

  /** Whether something is owed by the owner. */
  get isOwed(): boolean {
    return this.#handed.size > 0;
  }

  /** Hands the request over. False: it is to be merged here. */
  hand(queue: StatementQueue, request: MergedRequest): boolean {
    if (!this.#services.wants()) return false;
    if (this.#phase !== 'open') {
      if (this.#phase === 'closed') this.#open();
      return false;
    }
    const { bytes } = request;
    if (bytes > REQUEST_BYTES_MAX || this.#handed.bytes + bytes > HANDED_BYTES_MAX) return false;
    const handle = this.#handleOf(queue);
    if (handle === null || this.#handed.size >= REQUESTS_MAX) return false;
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
    if (this.#handed.size === 0) this.#owesFromNow();
    writer.int(this.#handed.add(request));
    writer.int(handle);
    writer.short(request.slot);
    writer.byte(values);
    for (let value = 0; value < values; value++) writer.int(offsets[2 * value + 1]!);
    for (let value = 0; value < values; value++) {
      const length = offsets[2 * value + 1]!;
      const start = offsets[2 * value]!;
      if (length > 0) writer.copy(request.bufferOf(value), start, start + length);
    }
    this.#schedule();
  }

  #owesFromNow(): void {
    this.#heardAt = this.#services.clock.now();
    this.#services.watch();
  }

  /** The statement as the owner has accepted it; null: it has not, and is asked if it was not. */
  #handleOf(queue: StatementQueue): StatementHandle | null {
    const { handle } = queue;
    const { form } = queue.own.statement;
    if (handle !== null && handle.link === this && handle.generation === this.#generation && handle.form === form)
      return handle.isAccepted ? handle : null;
    if (form === null) return null;
    if (++this.#statements > STATEMENTS_MAX) {
      this.close();
      return null;
    }
    const number = this.#statements;
    queue.handle = { number, link: this, generation: this.#generation, form, isAccepted: false };
    this.#asked.set(number, queue);
    this.#writer.open(ToOwner.statement, 4);
    this.#writer.int(number);
    writeTexts(this.#writer, describeStatement(queue.own, form));
    this.#writer.close();
    this.#schedule();
    return null;
  }

  /** Its client has cancelled it: the owner drops it if it was not sent. */
  cancel(request: MergedRequest): void {
    const number = this.#handed.cancel(request);
    if (number !== null) this.#tell(ToOwner.cancel, number);
  }

  /** It has run by itself. False: this owner keeps no key for it. */
  release(request: MergedRequest): boolean {
    const number = this.#handed.release(request);
    if (number !== null) this.#tell(ToOwner.release, number);
    return number !== null;
  }

  #tell(type: number, number: number): void {
    this.#writer.small(type, number);
    this.#schedule();
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
    // It is closed and tells so in a moment: what was gathered has not left this process, and is not lost with it.
    if (!socket.writable) return;
    socket.write(writer.take());
    this.writes++;
    this.#sentNumber = this.#handed.lastNumber;
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
        this.#handed.answers(buffer, start, end);
        return;
      case FromOwner.accepted:
      case FromOwner.declined: {
        const number = buffer.readInt32BE(start);
        const queue = this.#asked.get(number);
        this.#asked.delete(number);
        const handle = queue?.handle ?? null;
        // It may have been learnt anew since.
        if (queue === undefined || handle === null || handle.link !== this || handle.number !== number) return;
        if (type === FromOwner.accepted) handle.isAccepted = true;
        else queue.declined(handle);
        return;
      }
      case FromOwner.closing:
        this.close();
        return;
    }
  }

  /** Looks whether the owner is still there, as long as it owes something. */
  look(): void {
    const silentFor = this.#services.clock.now() - this.#heardAt;
    if (this.#handed.size === 0 || this.#socket === null) return;
    if (silentFor >= PING_MS && !this.#pinged) {
      this.#pinged = true;
      this.#writer.small(ToOwner.ping);
      this.#flush();
    }
    if (silentFor >= SILENT_MS && (this.#phase === 'open' || this.#phase === 'silent')) {
      this.#phase = 'silent';
      this.#handed.takeReadsBack();
    }
    const { deadlineMs } = this.#services;
    if (silentFor >= deadlineMs + SILENT_MS) this.destroy(`worker ${this.owner} has not answered for ${deadlineMs} ms`);
  }

  #lost(socket: Socket, reason: string): void {
    if (socket !== this.#socket) return;
    const wasOpened = this.#phase !== 'opening';
    this.#socket = null;
    this.#phase = 'closed';
    this.#retryAt = this.#services.clock.now() + RETRY_MS;
    // What was gathered has not left this process.
    this.#writer.taken(true);
    this.#asked.clear();
    if (wasOpened) this.#handed.lost(this.#sentNumber, `worker ${this.owner}: ${reason}`);
  }
}
