// Fields of ErrorResponse and NoticeResponse.
// https://www.postgresql.org/docs/current/protocol-error-fields.html
import { Backend } from './protocol.js';

/** One-letter field codes to their text: S severity, V severity (never localised), C SQLSTATE, M message, D, H, … */
export type ErrorFields = Readonly<Record<string, string>>;

/** Reads the fields of a whole message `buffer[start, end)`, header included. Stops at the first malformed field. */
export function readErrorFields(buffer: Buffer, start: number, end: number): ErrorFields {
  const fields: Record<string, string> = {};
  let offset = start + 5;
  while (offset < end) {
    const type = buffer[offset]!;
    if (type === 0) break;
    const stop = buffer.indexOf(0, offset + 1);
    if (stop < 0 || stop >= end) break;
    fields[String.fromCharCode(type)] = buffer.toString('utf8', offset + 1, stop);
    offset = stop + 1;
  }
  return fields;
}

/** That the wait for standbys was given up, in whatever language: a commit is on this server alone. Other warnings have that code, too. */
export const isNotReplicated = ({ C, R }: ErrorFields): boolean => C === '01000' && R === 'SyncRepWaitForLSN';

/** Encodes an ErrorResponse. Text is cut at a NUL, which the format cannot carry. */
export const encodeErrorResponse = (fields: ErrorFields): Buffer => encodeFields(Backend.errorResponse, fields);

/** The same as a NoticeResponse. */
export const encodeNoticeResponse = (fields: ErrorFields): Buffer => encodeFields(Backend.noticeResponse, fields);

function encodeFields(type: number, fields: ErrorFields): Buffer {
  const parts: string[] = [];
  for (const [field, text] of Object.entries(fields)) {
    const stop = text.indexOf('\0');
    parts.push(field, stop < 0 ? text : text.slice(0, stop), '\0');
  }
  const body = Buffer.from(`${parts.join('')}\0`, 'utf8');
  const message = Buffer.allocUnsafe(body.length + 5);
  message[0] = type;
  message.writeInt32BE(body.length + 4, 1);
  body.copy(message, 5);
  return message;
}

/**
 * The ErrorResponse with other fields, in whatever encoding they are.
 * @param change gets the bytes of a field as latin1; null: it is left out
 */
export function withFields(message: Buffer, change: (type: string, text: string) => string | null): Buffer {
  const parts: string[] = [];
  for (let offset = 5; message[offset] !== 0 && offset < message.length; ) {
    const stop = message.indexOf(0, offset + 1);
    if (stop < 0) break;
    const type = String.fromCharCode(message[offset]!);
    const text = change(type, message.toString('latin1', offset + 1, stop));
    if (text !== null) parts.push(type, text, '\0');
    offset = stop + 1;
  }
  const body = Buffer.from(`${parts.join('')}\0`, 'latin1');
  const head = Buffer.from(message.subarray(0, 5));
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** The ErrorResponse, where it names a place in a text without that. */
export function withoutPosition(message: Buffer): Buffer {
  const { P: position, ...fields } = readErrorFields(message, 0, message.length);
  return position === undefined ? message : encodeErrorResponse(fields);
}
