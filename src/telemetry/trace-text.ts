// How values, SQL and names look in a trace line: bounded, on one line, masked unless values are asked for.
import { redactSql } from './redact.js';

export interface TraceOptions {
  /** Shows SQL literals, parameters, rows, COPY data and error details. */
  readonly values: boolean;
}

export const TEXT_LENGTH_MAX = 200;
export const LIST_LENGTH_MAX = 16;
/** More bytes than can be shown need not be decoded. */
const DECODED_BYTES_MAX = TEXT_LENGTH_MAX * 4;

export function copyDataText(data: Buffer, options: TraceOptions): string {
  const size = bytesText(data.length);
  return options.values ? `${size} ${contentText(data)}` : size;
}

export function valueText(value: Buffer | null, options: TraceOptions): string {
  if (value === null) return 'NULL';
  return options.values ? contentText(value) : bytesText(value.length);
}

/** Text where the bytes are UTF-8, else hexadecimal. */
function contentText(bytes: Buffer): string {
  const head = bytes.subarray(0, DECODED_BYTES_MAX);
  // Cut inside a character, the head may end in a replacement character that the value itself does not hold.
  const text = head.toString('utf8').replace(head.length < bytes.length ? /\ufffd+$/ : /$^/, '');
  return text.includes('\ufffd') || text.includes('\0') ? `\\x${clip(head.toString('hex'))}` : quoted(text);
}

/** Reads all elements, so that what follows them is found, and shows the first few. */
export function listOf(count: number, read: () => string): string {
  const shown: string[] = [];
  for (let index = 0; index < count; index++) {
    const text = read();
    if (index < LIST_LENGTH_MAX) shown.push(text);
  }
  return count > LIST_LENGTH_MAX ? `${shown.join(', ')}, ... ${count} in all` : shown.join(', ');
}

export function sqlText(sql: string, options: TraceOptions): string {
  // Enough for what is shown, also after comments and literals have gone.
  const head = sql.slice(0, TEXT_LENGTH_MAX * 20);
  return clip(options.values ? head : redactSql(head));
}

export function quoted(text: string): string {
  return `"${clip(text)}"`;
}

/** One line of bounded length, without control characters, which could fake a line or steer a terminal. */
export function clip(text: string): string {
  const plain = text.slice(0, DECODED_BYTES_MAX).replace(/[\p{Cc}\u2028\u2029]+/gu, ' ');
  return plain.length > TEXT_LENGTH_MAX ? `${plain.slice(0, TEXT_LENGTH_MAX)}...` : plain;
}

export function bytesText(count: number): string {
  return count === 1 ? '1 byte' : `${count} bytes`;
}
