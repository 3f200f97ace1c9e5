// Messages pgkv itself sends to clients. Constant messages are built once.
import type { PgkvError } from '../base/errors.js';
import { encodeErrorResponse, encodeNoticeResponse } from './error-fields.js';
import { Backend, TransactionStatus } from './protocol.js';

function frame(type: number, body: Buffer): Buffer {
  const message = Buffer.allocUnsafe(body.length + 5);
  message[0] = type;
  message.writeInt32BE(body.length + 4, 1);
  body.copy(message, 5);
  return message;
}

const constant = (type: number, ...body: number[]): Buffer => Buffer.from(frame(type, Buffer.from(body)));

export const PARSE_COMPLETE = constant(Backend.parseComplete);
export const BIND_COMPLETE = constant(Backend.bindComplete);
export const CLOSE_COMPLETE = constant(Backend.closeComplete);
export const PORTAL_SUSPENDED = constant(Backend.portalSuspended);
export const EMPTY_QUERY = constant(Backend.emptyQueryResponse);
export const NO_DATA = constant(Backend.noData);
export const NO_PARAMETERS = constant(Backend.parameterDescription, 0, 0);
export const READY_IDLE = constant(Backend.readyForQuery, TransactionStatus.idle);
export const READY_IN_BLOCK = constant(Backend.readyForQuery, TransactionStatus.open);
export const READY_FAILED = constant(Backend.readyForQuery, TransactionStatus.failed);

/** @param types OIDs of the parameters */
export function encodeParameterDescription(types: readonly number[]): Buffer {
  const body = Buffer.allocUnsafe(2 + 4 * types.length);
  body.writeUInt16BE(types.length, 0);
  for (const [index, type] of types.entries()) body.writeUInt32BE(type, 2 + 4 * index);
  return frame(Backend.parameterDescription, body);
}

export function readyOf(status: number): Buffer {
  if (status === TransactionStatus.idle) return READY_IDLE;
  return status === TransactionStatus.open ? READY_IN_BLOCK : READY_FAILED;
}

export const AUTHENTICATION_OK = constant(Backend.authentication, 0, 0, 0, 0);

export function encodeAuthenticationSasl(mechanisms: readonly string[]): Buffer {
  return frame(Backend.authentication, Buffer.from(`\0\0\0\x0a${mechanisms.map((name) => `${name}\0`).join('')}\0`));
}

export function encodeAuthenticationSaslContinue(data: Buffer): Buffer {
  return frame(Backend.authentication, Buffer.concat([Buffer.from([0, 0, 0, 11]), data]));
}

export function encodeAuthenticationSaslFinal(data: Buffer): Buffer {
  return frame(Backend.authentication, Buffer.concat([Buffer.from([0, 0, 0, 12]), data]));
}

export function encodeParameterStatus(name: string, value: string): Buffer {
  return frame(Backend.parameterStatus, Buffer.from(`${name}\0${value}\0`, 'utf8'));
}

export function encodeBackendKeyData(pid: number, secretKey: Buffer): Buffer {
  const body = Buffer.allocUnsafe(4 + secretKey.length);
  body.writeInt32BE(pid, 0);
  secretKey.copy(body, 4);
  return frame(Backend.backendKeyData, body);
}

/** @param newest the newest protocol version of the major version asked for, as one 32-bit number */
export function encodeNegotiateProtocolVersion(newest: number, unknownOptions: readonly string[]): Buffer {
  const names = Buffer.from(unknownOptions.map((name) => `${name}\0`).join(''), 'utf8');
  const body = Buffer.allocUnsafe(8 + names.length);
  body.writeInt32BE(newest, 0);
  body.writeInt32BE(unknownOptions.length, 4);
  names.copy(body, 8);
  return frame(Backend.negotiateProtocolVersion, body);
}

export function encodeCommandComplete(tag: string): Buffer {
  return frame(Backend.commandComplete, Buffer.from(`${tag}\0`, 'latin1'));
}

/** The type of a column of pgkv's own, as RowDescription tells it. */
export interface ColumnType {
  readonly oid: number;
  /** -1: of any length. */
  readonly size: number;
}

export const TEXT_COLUMN: ColumnType = { oid: 25, size: -1 };
export const INT4_COLUMN: ColumnType = { oid: 23, size: 4 };
export const BOOL_COLUMN: ColumnType = { oid: 16, size: 1 };

/** One column of no table. @param format 0 text, 1 binary */
export function encodeColumnDescription(column: string, { oid, size }: ColumnType, format = 0): Buffer {
  const name = Buffer.from(`${column}\0`, 'utf8');
  const body = Buffer.alloc(2 + name.length + 18);
  body.writeInt16BE(1, 0);
  name.copy(body, 2);
  const type = 2 + name.length + 6;
  body.writeInt32BE(oid, type);
  body.writeInt16BE(size, type + 4);
  body.writeInt32BE(-1, type + 6);
  body.writeInt16BE(format, type + 10);
  return frame(Backend.rowDescription, body);
}

/** A row of one column; null is NULL. */
export function encodeRow(value: Buffer | null): Buffer {
  const body = Buffer.allocUnsafe(6 + (value?.length ?? 0));
  body.writeInt16BE(1, 0);
  body.writeInt32BE(value?.length ?? -1, 2);
  value?.copy(body, 6);
  return frame(Backend.dataRow, body);
}

/** One text column of any name, as SHOW answers. */
export const encodeTextRowDescription = (column: string): Buffer => encodeColumnDescription(column, TEXT_COLUMN);

export const encodeTextRow = (value: string): Buffer => encodeRow(Buffer.from(value, 'utf8'));

/** How often each SQLSTATE of the catalogue was written for a client, in this process. */
export const errorsWritten = new Map<string, number>();

/** An error of our catalogue as ErrorResponse. `severity` FATAL means that the connection closes behind it. */
export function encodeError(error: PgkvError, severity: 'ERROR' | 'FATAL'): Buffer {
  errorsWritten.set(error.sqlstate, (errorsWritten.get(error.sqlstate) ?? 0) + 1);
  const fields: Record<string, string> = { S: severity, V: severity, C: error.sqlstate, M: error.message };
  if (error.detail !== undefined) fields['D'] = error.detail;
  if (error.hint !== undefined) fields['H'] = error.hint;
  return encodeErrorResponse(fields);
}

/** A warning in Postgres's words. */
export const encodeWarning = (message: string, code = '01000'): Buffer =>
  encodeNoticeResponse({ S: 'WARNING', V: 'WARNING', C: code, M: message });

/** A notice of pgkv's own. */
export const encodeNotice = (message: string): Buffer =>
  encodeNoticeResponse({ S: 'NOTICE', V: 'NOTICE', C: '00000', M: message });
