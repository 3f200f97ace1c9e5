// The client's side of TLS towards Postgres and pgkv: by SSLRequest, or directly.
import { once } from 'node:events';
import { connect as connectSocket, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { watchSocket } from '../oracle/watch.js';
import { encodeRequest, REQUEST_CODES } from './frontend-message.js';
import type { WireAddress } from './wire-client.js';

/** Sends SSLRequest (or `code`) and returns the socket with the one-byte answer. */
export async function askForEncryption(
  address: WireAddress,
  code: number = REQUEST_CODES.ssl,
): Promise<{ socket: Socket; answer: string }> {
  const socket = connectSocket({ host: address.host, port: address.port, noDelay: true });
  socket.write(encodeRequest(code));
  const [answer] = (await once(socket, 'data')) as [Buffer];
  return { socket, answer: answer.toString('latin1') };
}

/** A TLS connection begun by SSLRequest. Certificates are not checked. */
export async function encryptedSocket(address: WireAddress, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const { socket, answer } = await askForEncryption(address);
  if (answer !== 'S') throw new Error(`TLS was declined: ${answer}`);
  return secured(connectTls({ socket, rejectUnauthorized: false, ...options }));
}

/** A TLS connection without SSLRequest. */
export async function directTlsSocket(address: WireAddress, options: ConnectionOptions): Promise<TLSSocket> {
  const { host, port } = address;
  return secured(connectTls({ host, port, rejectUnauthorized: false, ...options }));
}

async function secured(socket: TLSSocket): Promise<TLSSocket> {
  await once(socket, 'secureConnect');
  watchSocket(socket, 'client');
  return socket;
}
