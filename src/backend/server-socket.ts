// Opens the byte stream to a server: TCP or Unix socket, and TLS on top where asked for. No protocol beyond SSLRequest.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
import { readFileSync } from 'node:fs';
import { connect as connectSocket, isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { messageOf } from '../base/errors.js';
import { SSL_REQUEST } from '../wire/client-messages.js';

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

export interface OpenedStream {
  readonly stream: Duplex;
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

const isUnixSocket = (address: ServerAddress): boolean => address.host.startsWith('/');

function tlsOptions(address: ServerAddress, options: ServerSocketOptions): ConnectionOptions {
  const verifies = options.tls === 'verify-ca' || options.tls === 'verify-full';
  return {
    ALPNProtocols: ['postgresql'],
    rejectUnauthorized: verifies,
    ...(isIP(address.host) === 0 ? { servername: address.host } : {}),
    ...(options.tlsCaFile === null ? {} : { ca: readFileSync(options.tlsCaFile) }),
    ...(options.tls === 'verify-ca' ? { checkServerIdentity: () => undefined } : {}),
  };
}

export function openServerSocket(options: ServerSocketOptions): OpenStream {
  return (address, opened, failed) => {
    const unix = isUnixSocket(address);
    const socket: Socket = unix
      ? connectSocket({ path: `${address.host}/.s.PGSQL.${address.port}` })
      : connectSocket({ host: address.host, port: address.port });
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
      opened({ stream, certificate });
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
      if (unix || options.tls === 'disable') return succeed(socket, null);
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
