// The two ends of a SCRAM exchange over real sockets, for test/integration/scram.test.ts: a raw client that sends what it
// is told, to Postgres or to the listener here, and a listener that signs clients in with our ScramServer and then
// answers every query with one row.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { createSecureContext, TLSSocket, connect as upgrade } from 'node:tls';
import { PgkvError } from '../../src/base/errors.js';
import type { ChannelBinding } from '../../src/wire/scram-message.js';
import { ScramServer, type ScramVerdict } from '../../src/wire/scram-server.js';
import { mockVerifier, type ScramVerifier } from '../../src/wire/scram-verifier.js';
import {
  AUTHENTICATION_OK,
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
  encodeCommandComplete,
  encodeError,
  encodeTextRow,
  encodeTextRowDescription,
  READY_IDLE,
} from '../../src/wire/server-messages.js';
import { encodeStartup, frame, int32, REQUEST_CODES } from './frontend-message.js';

const PROTOCOL_3_0 = 3 << 16;

export interface Message {
  readonly type: string;
  readonly body: Buffer;
}

/** Pulls whole pieces out of a socket, in order. `null` when the other side has hung up. One reader at a time. */
class Inbox {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  #ended = false;
  #wake: () => void = () => undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', this.#read);
    for (const event of ['end', 'close']) socket.on(event, this.#end);
    socket.on('error', () => socket.destroy()); // a reset after a FATAL is a hang-up like any other
  }

  readonly #read = (chunk: Buffer): void => {
    this.#received = Buffer.concat([this.#received, chunk]);
    this.#wake();
  };

  readonly #end = (): void => {
    this.#ended = true;
    this.#wake();
  };

  async take(bytes: number): Promise<Buffer | null> {
    while (this.#received.length < bytes) {
      if (this.#ended) return null;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#received.subarray(0, bytes);
    this.#received = this.#received.subarray(bytes);
    return taken;
  }

  async message(): Promise<Message | null> {
    const head = await this.take(5);
    const body = head && (await this.take(head.readInt32BE(1) - 4));
    return body && { type: String.fromCharCode(head[0]!), body };
  }

  /** Leaves the socket to a TLS layer. */
  release(): void {
    this.#socket.off('data', this.#read);
  }
}

export class RawClient {
  readonly socket: Socket;
  /** DER of the server's certificate; null without TLS. */
  readonly certificate: Buffer | null;
  readonly #inbox: Inbox;

  private constructor(socket: Socket, inbox: Inbox, certificate: Buffer | null) {
    this.socket = socket;
    this.#inbox = inbox;
    this.certificate = certificate;
  }

  /** Connects and sends the startup packet. */
  static async open(port: number, user: string, tls: boolean): Promise<RawClient> {
    const plain = connect(port, '127.0.0.1');
    await once(plain, 'connect');
    const startup = encodeStartup(PROTOCOL_3_0, { user, database: 'postgres' });
    if (!tls) {
      plain.write(startup);
      return new RawClient(plain, new Inbox(plain), null);
    }
    const answer = new Inbox(plain);
    plain.write(Buffer.concat([int32(8), int32(REQUEST_CODES.ssl)]));
    if ((await answer.take(1))?.toString() !== 'S') throw new Error('the server has no TLS');
    answer.release();
    const secure = upgrade({ socket: plain, rejectUnauthorized: false });
    await once(secure, 'secureConnect');
    secure.write(startup);
    return new RawClient(secure, new Inbox(secure), secure.getPeerX509Certificate()!.raw);
  }

  /** PasswordMessage, SASLInitialResponse or SASLResponse. */
  send(body: Buffer): void {
    this.socket.write(frame('p', body));
  }

  /** SASLInitialResponse; data null has length −1. */
  sendInitial(mechanism: string, data: Buffer | null): void {
    this.send(Buffer.concat([Buffer.from(`${mechanism}\0`), int32(data?.length ?? -1), data ?? Buffer.alloc(0)]));
  }

  next(): Promise<Message | null> {
    return this.#inbox.message();
  }

  close(): void {
    this.socket.destroy();
  }
}

export interface ListenerOptions {
  readonly verifiers: ReadonlyMap<string, ScramVerifier>;
  /** PEM; null: no TLS. */
  readonly tls: { readonly cert: Buffer; readonly key: Buffer } | null;
  readonly channelBinding: ChannelBinding | null;
}

export interface ScramListener {
  readonly port: number;
  /** Verdicts of finished exchanges, in order. */
  readonly verdicts: ScramVerdict[];
  close(): Promise<void>;
}

export async function listenForScram(options: ListenerOptions): Promise<ScramListener> {
  const verdicts: ScramVerdict[] = [];
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    void serve(socket, options, verdicts);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as { port: number }).port,
    verdicts,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

async function serve(plain: Socket, options: ListenerOptions, verdicts: ScramVerdict[]): Promise<void> {
  let socket = plain;
  let inbox = new Inbox(plain);
  try {
    for (;;) {
      const length = (await inbox.take(4))?.readInt32BE(0) ?? 0;
      const packet = length < 8 ? null : await inbox.take(length - 4);
      if (packet === null) return;
      const code = packet.readInt32BE(0);
      if (code === REQUEST_CODES.ssl && options.tls !== null && socket === plain) {
        inbox.release();
        plain.write('S');
        socket = new TLSSocket(plain, { isServer: true, secureContext: createSecureContext(options.tls) });
        inbox = new Inbox(socket);
      } else if (code === REQUEST_CODES.ssl || code === REQUEST_CODES.gssenc) {
        socket.write('N');
      } else {
        const fields = packet.toString('utf8', 4).split('\0');
        const user = fields[fields.indexOf('user') + 1] ?? '';
        await signIn(
          socket,
          inbox,
          user,
          { ...options, channelBinding: socket === plain ? null : options.channelBinding },
          verdicts,
        );
        break;
      }
    }
    for (let message = await inbox.message(); message?.type === 'Q'; message = await inbox.message()) {
      const row = [encodeTextRowDescription('answer'), encodeTextRow('signed in'), encodeCommandComplete('SELECT 1')];
      socket.write(Buffer.concat([...row, READY_IDLE]));
    }
    socket.end();
  } catch (error) {
    if (!(error instanceof PgkvError)) throw error;
    socket.end(encodeError(error, 'FATAL'));
  }
}

async function signIn(
  socket: Socket,
  inbox: Inbox,
  user: string,
  { verifiers, channelBinding }: ListenerOptions,
  verdicts: ScramVerdict[],
): Promise<void> {
  const known = verifiers.get(user);
  const verifier = known ?? mockVerifier(user, Buffer.from('mock secret'));
  const scram = new ScramServer({ verifier, channelBinding, nonce: randomBytes(18), mock: known === undefined });
  socket.write(encodeAuthenticationSasl(scram.mechanisms()));
  let body = await response(inbox);
  const mechanism = body.toString('latin1', 0, body.indexOf(0));
  const length = body.readInt32BE(mechanism.length + 1);
  const data = length === -1 ? null : body.subarray(mechanism.length + 5);
  socket.write(encodeAuthenticationSaslContinue(scram.first(mechanism, data)));
  if (data === null) {
    socket.write(encodeAuthenticationSaslContinue(scram.first(mechanism, await response(inbox))));
  }
  body = await response(inbox);
  const verdict = scram.final(body);
  verdicts.push(verdict);
  if (verdict.kind === 'refused') {
    throw new PgkvError('authentication_failed', { message: `password authentication failed for user "${user}"` });
  }
  socket.write(Buffer.concat([encodeAuthenticationSaslFinal(verdict.serverFinal), AUTHENTICATION_OK, READY_IDLE]));
}

async function response(inbox: Inbox): Promise<Buffer> {
  const message = await inbox.message();
  if (message?.type !== 'p') throw new PgkvError('protocol_violation', { message: 'expected SASL response' });
  return message.body;
}
