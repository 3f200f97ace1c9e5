// One client's socket from accept to close. Owns the stream, TLS on top where it was asked for, and closing in every case;
// until the client is logged in its bytes are ClientStartup's, from then on Conversation's.
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type SecureContext, TLSSocket } from 'node:tls';
import type { PgkvError } from '../../base/errors.js';
import { Output } from '../../wire/output.js';
import { encodeError } from '../../wire/server-messages.js';
import type { Conversation, ConversationHost } from '../conversation/conversation.js';
import { ClientStartup, type Login, type StartupHost } from './client-startup.js';
import type { FrontendServices } from './frontend-services.js';
import { openConversation } from './open-conversation.js';
import { readStatically } from './static-reads.js';

/** Whoever is cut gets this long to take what was sent, before the process ends. */
const CUT_GRACE_MS = 250;

export class ClientConnection implements ConversationHost, StartupHost {
  readonly output: Output;
  conversation: Conversation | null = null;
  readonly #services: FrontendServices;
  readonly #socket: Socket;
  #stream: Duplex;
  #stage: 'startup' | 'session' | 'closed' = 'startup';
  /** Null from the session on, for which nothing of it is kept. */
  #startup: ClientStartup | null;
  #ended = false;
  readonly #over: (connection: ClientConnection) => void;

  /**
   * @param refusal null: it may log in; else what it is told behind its StartupMessage
   * @param over the connection has been closed
   */
  constructor(
    socket: Socket,
    services: FrontendServices,
    refusal: PgkvError | null,
    over: (connection: ClientConnection) => void,
  ) {
    this.#over = over;
    this.#socket = socket;
    this.#services = services;
    this.#stream = socket;
    this.output = new Output(socket);
    this.#startup = new ClientStartup(this, services, refusal);
    this.#listen(socket);
  }

  get inStartup(): boolean {
    return this.#stage === 'startup';
  }

  get remoteAddress(): string | undefined {
    return this.#socket.remoteAddress;
  }

  close(): void {
    if (this.#stage === 'closed') return;
    this.output.flush();
    this.#closed();
    // A client that does not read its last bytes, or does not close its side in turn, is cut off.
    const stream = this.#stream;
    const { clock, limits } = this.#services;
    let cutOff = clock.after(limits.startupTimeoutMs, () => stream.destroy());
    stream.end(() => {
      cutOff.cancel();
      if (!stream.destroyed) cutOff = clock.after(limits.closeGraceMs, () => stream.destroy());
    });
    // Else the timers of clients that come and go would hold their streams for seconds.
    stream.once('close', () => cutOff.cancel());
  }

  destroy(): void {
    this.#closed();
    this.#stream.destroy();
  }

  /** Ends the connection now, whatever it is at: the client is told why, unless that fell into the middle of a message. */
  cut(error: PgkvError): void {
    if (this.#stage === 'closed') return;
    const stream = this.#stream;
    const midMessage = this.conversation?.lane.connection?.midMessage === true;
    if (!midMessage) this.output.push(encodeError(error, 'FATAL'));
    this.close();
    const timer = this.#services.clock.after(CUT_GRACE_MS, () => stream.destroy());
    stream.once('close', () => timer.cancel());
  }

  terminate(error: PgkvError): void {
    if (this.conversation !== null) this.conversation.terminate(error);
    else this.fatal(error);
  }

  fatal(error: PgkvError): void {
    if (this.#stage === 'closed') return;
    this.output.push(encodeError(error, 'FATAL'));
    this.close();
  }

  pauseReading(): void {
    this.#stream.pause();
  }

  resumeReading(): void {
    this.#stream.resume();
  }

  startTls(context: SecureContext, early: Buffer): TLSSocket {
    const socket = this.#socket;
    for (const event of ['data', 'drain', 'end', 'error'] as const) socket.removeAllListeners(event);
    socket.off('close', this.#onGone); // others count open sockets by it
    socket.pause();
    if (early.length > 0) socket.unshift(early);
    const secure = new TLSSocket(socket, { isServer: true, secureContext: context, ALPNProtocols: ['postgresql'] });
    this.#stream = secure;
    this.output.replaceStream(secure);
    socket.on('error', this.#onGone);
    socket.on('close', this.#onGone);
    this.#listen(secure);
    return secure;
  }

  loggedIn(login: Login, rest: Buffer): void {
    const { counters } = this.#services;
    const conversation = openConversation(this, this.#services, login, rest);
    this.conversation = conversation;
    this.#startup = null;
    this.#stage = 'session';
    counters.loginsSucceeded++;
    counters.clientsConnected++;
    if (this.#stream === this.#socket) readStatically(this.#socket);
    this.resumeReading();
    conversation.resume();
    if (this.#ended) conversation.clientEnded();
  }

  #listen(stream: Duplex): void {
    stream.on('data', this.#onData);
    stream.on('drain', this.#onDrain);
    stream.on('end', this.#onEnd);
    stream.on('error', this.#onGone);
    stream.on('close', this.#onGone);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#services.counters.clientBytesIn += chunk.length;
    if (this.#stage === 'session') this.conversation!.received(chunk);
    else this.#startup?.received(chunk);
  };

  readonly #onDrain = (): void => {
    this.output.drained();
    this.conversation?.clientDrained();
  };

  readonly #onEnd = (): void => {
    this.#ended = true;
    if (this.conversation !== null) this.conversation.clientEnded();
    else if (this.#startup?.owesAnswer !== true) this.destroy();
  };

  readonly #onGone = (): void => this.destroy();

  /** Runs once, whatever ended the connection. */
  #closed(): void {
    if (this.#stage === 'closed') return;
    const hadSession = this.#stage === 'session';
    this.#stage = 'closed';
    this.#startup?.abandon();
    this.#startup = null;
    if (hadSession) {
      const conversation = this.conversation!;
      this.#services.counters.clientsConnected--;
      this.#services.cancels.unregister(conversation.session.pid);
      conversation.clientGone();
    }
    this.#over(this);
  }
}
