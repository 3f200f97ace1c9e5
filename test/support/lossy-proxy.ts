// A network that loses connections, in front of a real Postgres: each connection may be lost once, at a byte counted on
// that connection or, for one loss that is armed, from the moment it is armed on whatever connection that byte passes.
// Other connections are never touched. Only connections to the watched database are lost: not those of health checks.
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Side } from './fault-proxy.js';
import { holdsSockets, type SocketHolder } from './other-sockets.js';
import type { PostgresServer } from './postgres-server.js';

/** `end`: closed in order; `reset`: by RST; `swallow`: nothing passes any more, and after `swallowMs` it is reset. */
export type How = 'end' | 'reset' | 'swallow';

export interface Loss {
  readonly side: Side;
  /** So many bytes of that side still pass. */
  readonly after: number;
  readonly how: How;
}

interface Target {
  readonly host: string;
  readonly port: number;
}

/** Both sockets of one connection, and what is left of it. */
class Link {
  readonly router: Socket;
  readonly server: Socket;
  readonly passed: Record<Side, number> = { request: 0, answer: 0 };
  loss: Loss | null = null;
  isLost = false;

  constructor(router: Socket, server: Socket) {
    this.router = router;
    this.server = server;
  }

  lose(how: How, swallowMs: number): void {
    if (this.isLost) return;
    this.isLost = true;
    const reset = (): void => {
      this.router.resetAndDestroy();
      this.server.resetAndDestroy();
    };
    if (how === 'reset') return reset();
    if (how === 'swallow') return void setTimeout(reset, swallowMs);
    for (const socket of [this.router, this.server]) socket.end(() => socket.destroy());
  }
}

export class LossyProxy implements SocketHolder {
  readonly #target: Target;
  readonly #database: string;
  readonly #server: Server;
  readonly #links = new Set<Link>();
  readonly #sockets = new Set<Socket>();
  #armed: Loss | null = null;
  /** Bytes that passed since `arm`. */
  passed: Record<Side, number> = { request: 0, answer: 0 };
  /** The loss that was armed has come about. */
  struck = false;
  losses = 0;
  swallowMs = 30;
  /** Says of each new connection whether it will be lost, and where. */
  lossOf: (() => Loss | null) | null = null;

  private constructor(target: Target, database: string) {
    this.#target = target;
    this.#database = database;
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#accepted(socket));
    holdsSockets(this);
  }

  get socketCount(): number {
    return this.#sockets.size + (this.#server.listening ? 1 : 0);
  }

  static async start(target: Target, database: string): Promise<LossyProxy> {
    const proxy = new LossyProxy(target, database);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  /** What a router is to take for the server. */
  standInFor(server: PostgresServer): PostgresServer {
    return { ...server, host: '127.0.0.1', port: (this.#server.address() as { port: number }).port };
  }

  /** Counts from now on. Null: only counts. */
  arm(loss: Loss | null): void {
    this.#armed = loss;
    this.passed = { request: 0, answer: 0 };
    this.struck = false;
  }

  disarm(): void {
    this.#armed = null;
    this.lossOf = null;
    for (const link of this.#links) link.loss = null;
  }

  /** Every connection there is at this moment. */
  loseAll(how: How): void {
    for (const link of this.#links) this.#lose(link, how);
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #lose(link: Link, how: How): void {
    this.losses++;
    link.lose(how, this.swallowMs);
  }

  #accepted(router: Socket): void {
    const server = connect({ ...this.#target, noDelay: true, allowHalfOpen: true });
    const link = new Link(router, server);
    let first = true;
    this.#keep(router);
    this.#keep(server);
    router.on('data', (chunk) => {
      if (first) {
        first = false;
        if (chunk.includes(`database\0${this.#database}\0`)) {
          this.#links.add(link);
          link.loss = this.lossOf?.() ?? null;
        }
      }
      this.#pass(link, 'request', chunk);
    });
    server.on('data', (chunk) => this.#pass(link, 'answer', chunk));
    router.on('end', () => link.isLost || server.end());
    server.on('end', () => link.isLost || router.end());
    const closed = (): void => {
      this.#links.delete(link);
      // What is swallowed stays silent until its time is over.
      if (link.isLost) return;
      router.destroy();
      server.destroy();
    };
    router.on('close', closed);
    server.on('close', closed);
  }

  #pass(link: Link, side: Side, chunk: Buffer): void {
    if (link.isLost) return;
    const to = side === 'request' ? link.server : link.router;
    if (!this.#links.has(link)) return void to.write(chunk);
    const armed = this.struck ? null : this.#armed;
    const own = link.loss;
    const left = Math.min(
      armed?.side === side ? armed.after - this.passed[side] : Number.POSITIVE_INFINITY,
      own?.side === side ? own.after - link.passed[side] : Number.POSITIVE_INFINITY,
    );
    this.passed[side] += chunk.length;
    link.passed[side] += chunk.length;
    if (chunk.length < left) return void to.write(chunk);
    const isArmed = armed?.side === side && armed.after - (this.passed[side] - chunk.length) === left;
    if (isArmed) this.struck = true;
    if (left > 0) to.write(chunk.subarray(0, left));
    this.#lose(link, isArmed ? armed.how : own!.how);
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#sockets.delete(socket));
  }
}
