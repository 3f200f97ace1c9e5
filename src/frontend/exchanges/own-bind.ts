// What Postgres says of a Bind message before it makes a portal of it, for statements that no server sees: whether its counts and
// formats fit the statement. Values of such statements are used by nothing, and are not read.
// https://www.postgresql.org/docs/current/protocol-message-formats.html (Bind); exec_bind_message() in postgres.c
import { BindMessage } from '../../wire/bind-message.js';
import { encodeErrorResponse } from '../../wire/error-fields.js';

const PROTOCOL_VIOLATION = '08P01';
const INVALID_PARAMETER_VALUE = '22023';
const UNDETERMINED = '42P18';

const error = (code: string, message: string, where: Readonly<Record<string, string>> = {}): Buffer =>
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: code, M: message, ...where });

export const unsupportedFormat = (format: number, where: Readonly<Record<string, string>> = {}): Buffer =>
  error(INVALID_PARAMETER_VALUE, `unsupported format code: ${format}`, where);

/** @param number of the first parameter that was declared without a type and is used by nothing */
export const undeterminedType = (number: number): Buffer =>
  error(UNDETERMINED, `could not determine data type of parameter $${number}`);

export const isFormat = (format: number): boolean => format === 0 || format === 1;

/** How many parameters a statement takes. `least`: more are as good, as which ones its text uses is not known. */
export interface Takes {
  readonly count: number;
  readonly isLeast: boolean;
}

/** What a Bind says, as far as it counts here. */
export type OwnBind = { readonly error: Buffer } | { readonly format: number };

/** Reads the Bind message `buffer[start, end)` of a statement with one column, or none. */
export function readOwnBind(buffer: Buffer, start: number, end: number, takes: Takes, hasColumn: boolean): OwnBind {
  const message = new BindMessage();
  const counts = message.readNames(buffer, start, end) ? countsOf(message) : null;
  if (counts === null) return { error: error(PROTOCOL_VIOLATION, 'insufficient data left in message') };
  const { formats, values } = counts;
  if (formats > 1 && formats !== values) {
    const text = `bind message has ${formats} parameter formats but ${values} parameters`;
    return { error: error(PROTOCOL_VIOLATION, text) };
  }
  if (values < takes.count || (values > takes.count && !takes.isLeast)) {
    const name = buffer.toString('utf8', message.nameStart, message.nameEnd);
    const text = `bind message supplies ${values} parameters, but prepared statement "${name}" requires ${takes.count}`;
    return { error: error(PROTOCOL_VIOLATION, text) };
  }
  if (!message.read(buffer, start, end)) return { error: error(PROTOCOL_VIOLATION, 'invalid message format') };
  for (let index = 0; index < message.count; index++) {
    if (isFormat(message.format(index))) continue;
    const portal = buffer.toString('utf8', message.portalStart, message.portalEnd);
    const W = `${portal === '' ? 'unnamed portal' : `portal "${portal}"`} parameter $${index + 1}`;
    return { error: unsupportedFormat(message.format(index), { W }) };
  }
  const { resultFormatCount } = message;
  if (hasColumn && resultFormatCount > 1) {
    const text = `bind message has ${resultFormatCount} result formats but query has 1 columns`;
    return { error: error(PROTOCOL_VIOLATION, text) };
  }
  return { format: resultFormatCount === 0 ? 0 : message.resultFormat(0) };
}

/** The counts of formats and of values, as the message says; null where it ends before. */
function countsOf({
  buffer,
  formatsAt,
  end,
}: BindMessage): { readonly formats: number; readonly values: number } | null {
  if (formatsAt + 2 > end) return null;
  const formats = buffer.readUInt16BE(formatsAt);
  const countAt = formatsAt + 2 + 2 * formats;
  return countAt + 2 > end ? null : { formats, values: buffer.readUInt16BE(countAt) };
}
