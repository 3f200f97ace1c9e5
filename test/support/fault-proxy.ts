// A server that misbehaves on command: a TCP proxy in front of a real Postgres that can cut, stall, drip or falsify what
// passes, at a byte that is counted from the moment the fault is armed, or play a server of its own from the first byte.
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { holdsSockets, type SocketHolder } from './other-sockets.js';
import type { PostgresServer } from './postgres-server.js';

const SSL_REQUEST = 80877103;
const CANCEL_REQUEST = 80877102;

/** Which way bytes go: `request` to the server, `answer` from it. */
export type Side = 'request' | 'answer';

export type Fault =
  /** Passes `after` bytes of that side, then ends both connections; `reset` by RST instead of FIN; `once`: and no others. */
  | {
      readonly kind: 'cut';
      readonly side: Side;
      readonly after: number;
      readonly reset?: boolean;
      readonly once?: boolean;
    }
  /** Passes `after` bytes of that side, then nothing any more. */
  | { readonly kind: 'stall'; readonly side: Side; readonly after: number }
  /** Passes `after` bytes of the answer, then `bytes` instead of the rest. */
  | { readonly kind: 'say'; readonly after: number; readonly bytes: Buffer }
  /** The answer in pieces of so many bytes. */
  | { readonly kind: 'drip'; readonly bytes: number };

/** Plays the server on a connection: told each chunk, from the start-up packet on. */
export type Script = (socket: Socket, chunk: Buffer) => void;

export class FaultProxy implements SocketHolder {
  readonly #target: { readonly host: string; readonly port: number };
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;
  #port = 0;
  #fault: Fault | null = null;
  #passed = 0;
  /** Plays the server on new connections to the watched database. */
  script: Script | null = null;
  /** Said to every SSLRequest, after which nothing more is said. */
  sslAnswer: Buffer | null = null;
  /** CancelRequests are passed on after this time. */
  cancelDelayMs = 0;
  /** Faults and scripts touch only connections whose start-up packet names this database: not the health checks. */
  readonly #database: string;
  /** Of those, only connections whose start-up packet has this text, where it is set. */
  only = '';
  /** Connections to the watched database so far. */
  connections = 0;
  /** The fault has struck. */
  struck = false;

  private constructor(target: { readonly host: string; readonly port: number }, database: string) {
    this.#target = target;
    this.#database = database;
    holdsSockets(this);
  }

  get socketCount(): number {
    return this.#sockets.size + (this.#server === null ? 0 : 1);
  }

  static async start(
    target: { readonly host: string; readonly port: number },
    database = 'postgres',
  ): Promise<FaultProxy> {
    const proxy = new FaultProxy(target, database);
    await proxy.up();
    return proxy;
  }

  /** What a router is to take for the server. */
  standInFor(server: PostgresServer): PostgresServer {
    return { ...server, host: '127.0.0.1', port: this.#port };
  }

  /** Listens, again on the same port after `down`. */
  async up(): Promise<void> {
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#accepted(socket));
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as { port: number }).port;
  }

  /** Stops listening and ends all connections. */
  async down(): Promise<void> {
    this.script = this.#fault = null;
    const server = this.#server;
    this.#server = null;
    for (const socket of this.#sockets) socket.destroy();
    if (server === null) return;
    server.close();
    await once(server, 'close');
  }

  /** Bytes of the faulty side that came since the fault was armed. */
  get passed(): number {
    return this.#passed;
  }

  /** Counts from now on, on the connections there are and on later ones. */
  arm(fault: Fault): void {
    this.#fault = fault;
    this.#passed = 0;
    this.struck = false;
  }

  disarm(): void {
    this.#fault = null;
  }

  #accepted(router: Socket): void {
    this.#keep(router);
    let first = true;
    let upstream: Socket | null = null;
    let watched = false;
    let finished = Promise.resolve();
    const end = (reset: boolean): void => {
      for (const socket of [router, upstream]) {
        if (reset) socket?.resetAndDestroy();
        else socket?.end(() => socket.destroy());
      }
    };
    const pass = (side: Side, chunk: Buffer): void => {
      const to = side === 'request' ? upstream! : router;
      const fault = watched ? this.#fault : null;
      if (fault === null) return void to.write(chunk);
      if (fault.kind === 'drip') {
        if (side === 'request') return void to.write(chunk);
        finished = finished.then(() => drip(to, chunk, fault.bytes));
        return;
      }
      const faulty = fault.kind === 'say' ? 'answer' : fault.side;
      if (side !== faulty) return void to.write(chunk);
      if (this.struck) return fault.kind === 'cut' && fault.once === true ? void to.write(chunk) : undefined;
      const left = fault.after - this.#passed;
      this.#passed += chunk.length;
      if (chunk.length < left) return void to.write(chunk);
      this.struck = true;
      to.write(chunk.subarray(0, left));
      if (fault.kind === 'say') to.write(fault.bytes);
      else if (fault.kind === 'cut') end(fault.reset === true);
    };
    router.on('data', (chunk) => {
      if (first && this.sslAnswer !== null && chunk.readInt32BE(4) === SSL_REQUEST) {
        router.removeAllListeners('data').resume().write(this.sslAnswer);
        return;
      }
      if (first && this.cancelDelayMs > 0 && chunk.readInt32BE(4) === CANCEL_REQUEST) {
        first = false;
        router.pause();
        setTimeout(() => {
          upstream = this.#toServer(router, () => undefined);
          upstream.write(chunk);
          router.resume();
        }, this.cancelDelayMs);
        return;
      }
      if (first) {
        first = false;
        watched = chunk.includes(`database\0${this.#database}\0`);
        if (watched) this.connections++;
        watched &&= chunk.includes(this.only);
        if (watched && this.script !== null) {
          const { script } = this;
          router.removeAllListeners('data').on('data', (more) => script(router, more));
          return script(router, chunk);
        }
        upstream = this.#toServer(router, (answer) => pass('answer', answer));
      }
      pass('request', chunk);
    });
    router.on('end', () => (upstream === null ? router.end() : upstream.end()));
    router.on('close', () => upstream?.destroy());
  }

  #toServer(router: Socket, answered: (chunk: Buffer) => void): Socket {
    const upstream = connect({ ...this.#target, noDelay: true, allowHalfOpen: true });
    this.#keep(upstream);
    upstream.on('data', answered);
    upstream.on('end', () => router.end());
    upstream.on('close', () => router.destroy());
    return upstream;
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#sockets.delete(socket));
  }
}

/** One write a turn of the event loop, so that the pieces arrive as pieces. */
async function drip(to: Socket, chunk: Buffer, bytes: number): Promise<void> {
  for (let offset = 0; offset < chunk.length && !to.destroyed; offset += bytes) {
    to.write(chunk.subarray(offset, offset + bytes));
    await turn();
  }
}
