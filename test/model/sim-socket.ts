// A connection in memory: two ends that behave towards their owners as Node's sockets do (data, drain, end, error, close;
// pause and resume; back-pressure), with bytes under way for a random time, cut at random places, and lost when an end
// breaks. Nothing happens inside a call: whatever the other end notices is an event of the scheduler.
import { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import type { ReadBuffer } from '../../src/backend/connection/server-socket.js';
import type { SeededRandom } from '../support/seeded-random.js';
import type { Scheduler } from './scheduler.js';

export interface NetworkConditions {
  /** Bytes under way in one direction at which `write` answers false. */
  readonly highWaterMark: number;
  /** What arrives at one time. */
  readonly chunkBytesMax: number;
  readonly latencyMaxMs: number;
  /** Share of deliveries that are cut short. */
  readonly cutShare: number;
}

/** What chunks become whose memory may be read into again: nobody can take it for a message. */
const POISON = 0xee;

/** Chunks in memory that is used again as soon as it may be. */
class PoisonedReads implements ReadBuffer {
  kept = true;
  #current: Buffer | null = null;
  #earlier: Buffer[] = [];

  earlierAreFree(): void {
    for (const chunk of this.#earlier) chunk.fill(POISON);
    this.#earlier = [];
  }

  abandon(): void {
    this.#earlier = [];
    this.#current = null;
  }

  next(chunk: Buffer): void {
    if (this.#current !== null) {
      if (this.kept) this.#earlier.push(this.#current);
      else this.#current.fill(POISON);
    }
    this.kept = true;
    this.#current = chunk;
  }
}

export class SimSocket extends EventEmitter {
  /** Of a Unix socket: a client of this machine. */
  readonly remoteAddress: undefined;
  readonly name: string;
  /** No further event but 'close' comes. */
  destroyed = false;
  /** Most bytes ever under way from here. */
  pendingBytesPeak = 0;
  receivedBytes = 0;
  writtenBytes = 0;
  peer!: SimSocket;
  readonly #scheduler: Scheduler;
  readonly #random: SeededRandom;
  readonly #conditions: NetworkConditions;
  #outgoing: Buffer[] = [];
  #pendingBytes = 0;
  #needsDrain = false;
  /** A delivery from here to the peer is scheduled. */
  #underWay = false;
  #paused = false;
  #ending = false;
  #ended = false;
  #endReceived = false;
  #finished: (() => void) | null = null;
  #stalledUntil = 0;
  #reads: PoisonedReads | null = null;
  /** Read, and put back by the reader. */
  #unread: Buffer | null = null;

  constructor(name: string, scheduler: Scheduler, random: SeededRandom, conditions: NetworkConditions) {
    super();
    this.name = name;
    this.#scheduler = scheduler;
    this.#random = random;
    this.#conditions = conditions;
  }

  /** Where a Node stream is asked for: this one does all that its users do with it. */
  asDuplex(): Duplex {
    return this as unknown as Duplex;
  }

  /** From now on chunks received here lie in memory that is used again. */
  reuseReads(): ReadBuffer {
    this.#reads = new PoisonedReads();
    return this.#reads;
  }

  get writableLength(): number {
    return this.#pendingBytes;
  }

  write(bytes: Buffer): boolean {
    if (this.destroyed || this.#ending) return false;
    if (this.peer.destroyed) {
      this.#scheduler.after(this.#latency(), () => this.break('EPIPE'));
      return true;
    }
    this.#outgoing.push(bytes);
    this.writtenBytes += bytes.length;
    this.#pendingBytes += bytes.length;
    this.pendingBytesPeak = Math.max(this.pendingBytesPeak, this.#pendingBytes);
    this.#send();
    if (this.#pendingBytes <= this.#conditions.highWaterMark) return true;
    this.#needsDrain = true;
    return false;
  }

  cork(): this {
    return this;
  }

  uncork(): this {
    return this;
  }

  isPaused(): boolean {
    return this.#paused;
  }

  pause(): this {
    this.#paused = true;
    return this;
  }

  resume(): this {
    if (!this.#paused) return this;
    this.#paused = false;
    this.peer.#send();
    return this;
  }

  unshift(chunk: Buffer): void {
    this.#unread = this.#unread === null ? Buffer.from(chunk) : Buffer.concat([chunk, this.#unread]);
    this.peer.#send();
  }

  /** Half-close behind what was written. */
  end(finished?: () => void): this {
    if (this.destroyed || this.#ending) return this;
    this.#ending = true;
    this.#finished = finished ?? null;
    this.#send();
    return this;
  }

  /** Closes at once. The peer gets what is under way and an end, or loses some of it to a reset. */
  destroy(): this {
    if (this.destroyed) return this;
    const isGraceful = this.#random.chance(0.5);
    this.destroyed = true;
    this.#scheduler.after(0, () => this.emit('close'));
    if (isGraceful) {
      this.#ending = true;
      this.#send();
      // Bytes for a socket that is closed are answered with a reset.
      if (this.peer.#pendingBytes > 0) this.#scheduler.after(3 * this.#latency(), () => this.peer.break('ECONNRESET'));
    } else this.#scheduler.after(this.#latency(), () => this.peer.break('ECONNRESET'));
    return this;
  }

  /** The network or the other side has broken the connection: what was under way in both directions is lost. */
  break(code: string): void {
    this.#outgoing = [];
    this.#pendingBytes = 0;
    if (this.destroyed) return;
    this.destroyed = true;
    this.emit('error', Object.assign(new Error(code), { code }));
    this.#scheduler.after(0, () => this.emit('close'));
  }

  /** Breaks both ends, each at a moment of its own. */
  reset(): void {
    this.#scheduler.after(this.#latency(), () => this.break('ECONNRESET'));
    this.#scheduler.after(this.#latency(), () => this.peer.break('ECONNRESET'));
  }

  /** Nothing that is sent from here arrives for a while. */
  stall(ms: number): void {
    this.#stalledUntil = this.#scheduler.now() + ms;
  }

  #latency(): number {
    const wait = Math.max(0, this.#stalledUntil - this.#scheduler.now());
    return wait + this.#random.fraction() * this.#conditions.latencyMaxMs;
  }

  #send(): void {
    if (this.#underWay || this.#ended || this.peer.#paused || this.peer.destroyed) return;
    if (this.#pendingBytes === 0 && !this.#ending && this.peer.#unread === null) return;
    this.#underWay = true;
    this.#scheduler.after(this.#latency(), () => {
      this.#underWay = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    const { peer } = this;
    if (peer.#paused || peer.destroyed) return;
    if (peer.#unread !== null) {
      const chunk = peer.#unread;
      peer.#unread = null;
      peer.emit('data', chunk);
    } else if (this.#pendingBytes > 0) {
      const chunk = this.#take();
      peer.receivedBytes += chunk.length;
      peer.#reads?.next(chunk);
      peer.emit('data', chunk);
      this.#drained();
    } else if (this.#ending && !this.#ended) this.#finish();
    this.#send();
  }

  #take(): Buffer {
    const all = Buffer.concat(this.#outgoing, this.#pendingBytes);
    const whole = Math.min(all.length, this.#conditions.chunkBytesMax);
    const isCut = whole > 1 && this.#random.chance(this.#conditions.cutShare);
    const length = isCut ? this.#random.between(1, whole - 1) : whole;
    this.#outgoing = length < all.length ? [all.subarray(length)] : [];
    this.#pendingBytes -= length;
    return Buffer.from(all.subarray(0, length));
  }

  #drained(): void {
    if (!this.#needsDrain || this.#pendingBytes > 0) return;
    this.#needsDrain = false;
    this.#scheduler.after(0, () => {
      if (!this.destroyed) this.emit('drain');
    });
  }

  #finish(): void {
    const { peer } = this;
    this.#ended = true;
    this.#finished?.();
    peer.#endReceived = true;
    peer.emit('end');
    peer.#closeIfOver();
    this.#closeIfOver();
  }

  /** Both directions have ended: as Node does, the socket closes by itself. */
  #closeIfOver(): void {
    if (this.destroyed || !this.#ended || !this.#endReceived) return;
    this.destroyed = true;
    this.#scheduler.after(0, () => this.emit('close'));
  }
}

/** Two ends of one connection. */
export function connectSockets(
  name: string,
  scheduler: Scheduler,
  random: SeededRandom,
  conditions: NetworkConditions,
): [SimSocket, SimSocket] {
  const one = new SimSocket(name, scheduler, random, conditions);
  const other = new SimSocket(`${name}'s peer`, scheduler, random, conditions);
  one.peer = other;
  other.peer = one;
  return [one, other];
}
