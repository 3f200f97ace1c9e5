// The packets a client may open a connection with: StartupMessage, SSLRequest, GSSENCRequest, CancelRequest.
// https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-STARTUPMESSAGE
import { PgkvError } from '../base/errors.js';
import {
  CANCEL_REQUEST_CODE,
  GSSENC_REQUEST_CODE,
  PROTOCOL_NEWEST,
  SSL_REQUEST_CODE,
  STARTUP_PACKET_BYTES_MAX,
} from './protocol.js';

export type StartupPacket =
  /** Not whole yet. */
  | { readonly kind: 'incomplete' }
  /** A length that no packet has: Postgres closes without a word. */
  | { readonly kind: 'none' }
  | { readonly kind: 'ssl'; readonly bytes: number }
  | { readonly kind: 'gssenc'; readonly bytes: number }
  | { readonly kind: 'cancel'; readonly bytes: number; readonly pid: number; readonly secretKey: Buffer }
  | {
      readonly kind: 'startup';
      readonly bytes: number;
      /** As asked for, major in the upper half. */
      readonly version: number;
      readonly parameters: Map<string, string>;
      /** Names that begin with "_pq_.": protocol options, of which pgkv knows none. */
      readonly protocolOptions: readonly string[];
    };

const CANCEL_KEY_BYTES_MIN = 4;
const CANCEL_KEY_BYTES_MAX = 256;

const violation = (message: string): PgkvError => new PgkvError('protocol_violation', { message });

/** Reads the packet at the start of `buffer`. Throws 08P01 or 0A000 where Postgres tells the client why it is refused. */
export function readStartupPacket(buffer: Buffer): StartupPacket {
  if (buffer.length < 4) return { kind: 'incomplete' };
  const bytes = buffer.readInt32BE(0);
  if (bytes < 8 || bytes > STARTUP_PACKET_BYTES_MAX) return { kind: 'none' };
  if (buffer.length < bytes) return { kind: 'incomplete' };
  const code = buffer.readInt32BE(4);
  switch (code) {
    case SSL_REQUEST_CODE:
    case GSSENC_REQUEST_CODE:
      return { kind: code === SSL_REQUEST_CODE ? 'ssl' : 'gssenc', bytes };
    case CANCEL_REQUEST_CODE: {
      const keyBytes = bytes - 12;
      if (keyBytes < CANCEL_KEY_BYTES_MIN || keyBytes > CANCEL_KEY_BYTES_MAX) return { kind: 'none' };
      return { kind: 'cancel', bytes, pid: buffer.readInt32BE(8), secretKey: Buffer.from(buffer.subarray(12, bytes)) };
    }
  }
  if (code >>> 16 !== 3) {
    throw new PgkvError('unsupported_protocol', {
      message: `unsupported frontend protocol ${code >>> 16}.${code & 0xffff}: server supports 3.0 to 3.${PROTOCOL_NEWEST & 0xffff}`,
    });
  }
  return { kind: 'startup', bytes, version: code, ...readParameters(buffer, bytes) };
}

function readParameters(buffer: Buffer, end: number): { parameters: Map<string, string>; protocolOptions: string[] } {
  const parameters = new Map<string, string>();
  const protocolOptions: string[] = [];
  const endOf = (start: number): number => {
    const zero = buffer.indexOf(0, start);
    return zero < 0 || zero > end ? end : zero;
  };
  let offset = 8;
  while (offset < end) {
    const nameEnd = endOf(offset);
    // Postgres reads on to here, so that a body of one byte, whatever it is, counts as empty.
    if (nameEnd === offset || nameEnd + 1 >= end) break;
    const valueEnd = endOf(nameEnd + 1);
    const name = buffer.toString('utf8', offset, nameEnd);
    if (name.startsWith('_pq_.')) protocolOptions.push(name);
    else parameters.set(name, buffer.toString('utf8', nameEnd + 1, valueEnd));
    offset = valueEnd + 1;
  }
  if (offset !== end - 1) throw violation('invalid startup packet layout: expected terminator as last byte');
  return { parameters, protocolOptions };
}
