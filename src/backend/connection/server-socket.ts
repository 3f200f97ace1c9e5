// Opens the byte stream to a server: TCP or Unix socket, and TLS on top where asked for. No protocol beyond SSLRequest.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
import { readFileSync } from 'node:fs';
import { connect as connectSocket, isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { messageOf } from '../../base/errors.js';
import { nobodyKeeps } from '../../base/read-poison.js';
import { SSL_REQUEST } from '../../wire/client-messages.js';

/** Answers to SSLRequest: 'S' and 'N'. */
const ACCEPTED = 0x53;
const DECLINED = 0x4e;

export interface ServerAddress {
  /** Host name or address; a path beginning with "/" is the folder of a Unix socket. */
  readonly host: string;
  readonly port: number;
}

export type ServerTls = 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';

export interface ServerSocketOptions {
  readonly tls: ServerTls;
  readonly tlsCaFile: string | null;
  readonly keepaliveMs: number;
}

/** The memory a stream's chunks lie in. 'data' handlers say what of it may be read into again. */
export interface ReadBuffer {
  /** True anew for each chunk; false: nobody keeps anything of it. */
  kept: boolean;
  /** Nobody keeps anything of the chunks before this one any longer. */
  earlierAreFree(): void;
  /** It cannot be told for how long the chunks so far, this one included, are kept: the garbage collector gets them. */
  abandon(): void;
}

export interface OpenedStream {
  readonly stream: Duplex;
  /** Null where every chunk has a buffer of its own anyway (TLS). */
  readonly readBuffer: ReadBuffer | null;
  /** DER of the server's certificate, for channel binding; null without TLS. */
  readonly certificate: Buffer | null;
}

/** Opens a stream; answers exactly once unless `abort` is called first. Established within the caller's own deadline. */
export type OpenStream = (
  address: ServerAddress,
  opened: (result: OpenedStream) => void,
  failed: (error: Error) => void,
) => { abort(): void };

export const addressText = (address: ServerAddress): string => `${address.host}:${address.port}`;

/** As Node's own reads. */
const READ_BUFFER_BYTES = 65_536;

/** Buffers a slow client may hold at one time and get back for reuse; a paused server sends no more than a few. */
const READ_BUFFERS_MAX = 8;

const VIEWS_KEPT = 32;

/**
 * Connects with read buffers that are used again once nobody keeps a chunk of them. Node would allocate 64 KiB a read
 * and leave it to the garbage collector: 41 MiB more RSS while 1 GiB streams through (bench/stream-large-result.mjs).
 */
function connectReusing(target: { path: string } | { host: string; port: number }): {
  socket: Socket;
  readBuffer: ReadBuffer;
} {
  let current: Buffer = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
  let abandoned = false;
  let kept: Buffer[] = [];
  let free: Buffer[] = [];
  const readBuffer: ReadBuffer = {
    kept: true,
    earlierAreFree() {
      if (kept.length === 0) return;
      free = free.concat(kept).slice(0, READ_BUFFERS_MAX);
      kept = [];
    },
    abandon() {
      kept = [];
      abandoned = true;
    },
  };
  // Views of `current`, by length as far as there is room: answers to one statement are alike, and making one takes 100 ns.
  let views: (Buffer | undefined)[] = new Array(VIEWS_KEPT).fill(undefined);
  const viewOf = (bytes: number): Buffer => {
    const at = bytes % VIEWS_KEPT;
    const known = views[at];
    if (known !== undefined && known.length === bytes) return known;
    const view = current.subarray(0, bytes);
    views[at] = view;
    return view;
  };
  const socket = connectSocket({
    ...target,
    onread: {
      buffer: () => {
        if (readBuffer.kept || abandoned) {
          if (!abandoned && kept.length < READ_BUFFERS_MAX) kept.push(current);
          abandoned = false;
          current = free.pop() ?? Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
          views = new Array(VIEWS_KEPT).fill(undefined);
        }
        nobodyKeeps(current, READ_BUFFER_BYTES);
        return current;
      },
      callback: (bytes: number) => {
        readBuffer.kept = true;
        socket.emit('data', viewOf(bytes));
        return true;
      },
    },
  });
  return { socket, readBuffer };
}

const isUnixSocket = (address: ServerAddress): boolean => address.host.startsWith('/');

function tlsOptions(address: ServerAddress, options: ServerSocketOptions): ConnectionOptions {
  const verifies = options.tls === 'verify-ca' || options.tls === 'verify-full';
  return {
    ALPNProtocols: ['postgresql'],
    rejectUnauthorized: verifies,
    // What the certificate is checked against; without it Node takes "localhost".
    host: address.host,
    ...(isIP(address.host) === 0 ? { servername: address.host } : {}),
    ...(options.tlsCaFile === null ? {} : { ca: readFileSync(options.tlsCaFile) }),
    ...(options.tls === 'verify-ca' ? { checkServerIdentity: () => undefined } : {}),
  };
}

export function openServerSocket(options: ServerSocketOptions): OpenStream {
  return (address, opened, failed) => {
    const unix = isUnixSocket(address);
    const plain = unix || options.tls === 'disable';
    const target = unix
      ? { path: `${address.host}/.s.PGSQL.${address.port}` }
      : { host: address.host, port: address.port };
    // TLS reads from the socket below JavaScript, where a buffer of ours would be in its way.
    const { socket, readBuffer } = plain ? connectReusing(target) : { socket: connectSocket(target), readBuffer: null };
    let tls: TLSSocket | null = null;
    const fail = (error: Error): void => {
      cleanUp();
      socket.destroy();
      failed(error);
    };
    const ended = (): void => fail(new Error('the server closed the connection'));
    const cleanUp = (): void => {
      for (const stream of [socket, tls]) {
        stream?.off('error', fail);
        stream?.off('close', ended);
      }
    };
    const succeed = (stream: Duplex, certificate: Buffer | null): void => {
      cleanUp();
      opened({ stream, certificate, readBuffer });
    };
    const upgrade = (answer: Buffer): void => {
      // Bytes behind the one-byte answer would have been sent in the clear: somebody in the middle (CVE-2021-23222).
      if (answer.length !== 1) return fail(new Error('received unencrypted data after SSL response'));
      if (answer[0] === DECLINED) {
        if (options.tls === 'prefer') return succeed(socket, null);
        return fail(new Error('the server does not support TLS, but tls is required'));
      }
      if (answer[0] !== ACCEPTED) return fail(new Error('the server gave no valid answer to SSLRequest'));
      let secure: TLSSocket;
      try {
        secure = connectTls({ socket, ...tlsOptions(address, options) });
      } catch (error) {
        // The file of authorities cannot be read any more.
        return fail(new Error(messageOf(error), { cause: error }));
      }
      tls = secure;
      secure.once('error', fail);
      secure.once('close', ended);
      secure.once('secureConnect', () => succeed(secure, secure.getPeerCertificate().raw ?? null));
    };
    socket.once('error', fail);
    socket.once('close', ended);
    socket.once('connect', () => {
      if (!unix) {
        socket.setNoDelay(true);
        if (options.keepaliveMs > 0) socket.setKeepAlive(true, options.keepaliveMs);
      }
      if (plain) return succeed(socket, null);
      socket.once('data', upgrade);
      socket.write(SSL_REQUEST);
    });
    return {
      abort: () => {
        cleanUp();
        socket.on('error', ignoreAfterAbort);
        socket.destroy();
      },
    };
  };
}

/** A socket that was given up may still report why it failed; nobody is waiting for it. */
function ignoreAfterAbort(): undefined {
  return undefined;
}
