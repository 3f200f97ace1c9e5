// Puts a protocol oracle on sockets of this process, without a listener that would change how they behave: it sees bytes
// as the socket reads them and as its owner writes them. What it finds is told when the process ends, which then fails:
// thrown in a teardown it would keep those behind it from stopping servers. PGKV_ORACLE=0: nothing is watched.
import { writeSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import { ProtocolOracle, type Violation } from './protocol-oracle.js';

/** A violation fails the test file. */
export const WATCHES = process.env['PGKV_ORACLE'] !== '0';

const watched = new Set<ProtocolOracle>();
let found: Violation[] = [];
/** Beyond this many the rest says nothing new. */
const FOUND_MAX = 20;

/**
 * The parts of a stream that are looked through. `push` is how Node hands a stream what was read; null is the end. A socket that
 * reads into a buffer of its owner's tells 'data' without it.
 */
interface Tappable {
  emit(event: string | symbol, ...args: unknown[]): boolean;
  push(chunk: Buffer | null): boolean;
  write(chunk: unknown, ...rest: unknown[]): boolean;
  end(chunk?: unknown, ...rest: unknown[]): unknown;
  destroy(error?: Error): unknown;
}

/** @param side of the connection that the socket is in this process */
export function watchSocket(socket: Duplex, side: 'client' | 'server'): void {
  if (!WATCHES) return;
  const oracle = new ProtocolOracle();
  watched.add(oracle);
  const tapped = socket as unknown as Tappable;
  const read = (bytes: Buffer) => (side === 'server' ? oracle.fromClient(bytes) : oracle.fromServer(bytes));
  const wrote = (bytes: Buffer) => (side === 'server' ? oracle.fromServer(bytes) : oracle.fromClient(bytes));
  const peerEnded = () => (side === 'server' ? oracle.clientEnded() : oracle.serverEnded());
  const ended = () => (side === 'server' ? oracle.serverEnded() : oracle.clientEnded());
  const { push, write, end, destroy, emit } = tapped;
  /** Bytes that were pushed, and are to be told. */
  let pushed = 0;
  tapped.push = function tapPush(chunk) {
    if (chunk === null) peerEnded();
    else {
      pushed += chunk.length;
      read(chunk);
    }
    return push.call(this, chunk);
  };
  tapped.emit = function tapEmit(event, ...args) {
    const [chunk] = args;
    if (event === 'data' && Buffer.isBuffer(chunk)) {
      if (pushed === 0) read(chunk);
      else pushed -= chunk.length;
    }
    return emit.call(this, event, ...args);
  };
  tapped.write = function tapWrite(chunk, ...rest) {
    if (Buffer.isBuffer(chunk)) wrote(chunk);
    return write.call(this, chunk, ...rest);
  };
  tapped.end = function tapEnd(chunk, ...rest) {
    if (Buffer.isBuffer(chunk)) wrote(chunk);
    ended();
    return end.call(this, chunk, ...rest);
  };
  tapped.destroy = function tapDestroy(error) {
    // An error comes from the system: the connection was broken by the other side.
    if (error) oracle.clientEnded();
    ended();
    return destroy.call(this, error);
  };
  socket.once('close', () => {
    keep(oracle);
    watched.delete(oracle);
  });
}

/** Watches every client that a router of this process accepts from now on. */
export function watchListener(listener: { accept(socket: Duplex): void }): void {
  const accept = listener.accept.bind(listener);
  listener.accept = (socket) => {
    watchSocket(socket, 'server');
    accept(socket);
  };
}

/** What was found since the last time, on connections that are open too. */
export function takeViolations(): readonly Violation[] {
  for (const oracle of watched) keep(oracle);
  const taken = found;
  found = [];
  return taken;
}

process.once('exit', () => {
  const violations = takeViolations();
  if (violations.length === 0) return;
  const told = violations.map(describeViolation).join('\n\n');
  process.stderr.write(`${told}\n`);
  // Where only what is TAP is kept.
  writeSync(1, told.replaceAll(/^/gm, '# '));
  process.exitCode = 1;
});

/** For tests that kill workers: their sessions are cut without a word, and that is none of what is found. */
export function allowSilentCloses(): void {
  process.prependOnceListener('exit', () => {
    found = takeViolations().filter(({ rule }) => rule !== 'silent close');
  });
}

export function describeViolation({ rule, text, recent }: Violation): string {
  return [`protocol: ${rule}: ${text}`, ...recent.map((line) => `    ${line}`)].join('\n');
}

function keep(oracle: ProtocolOracle): void {
  const { violation } = oracle;
  if (violation === null || kept.has(violation)) return;
  kept.add(violation);
  if (found.length < FOUND_MAX) found.push(violation);
}

/** A connection that stays open is looked at more than once. */
const kept = new WeakSet<Violation>();
