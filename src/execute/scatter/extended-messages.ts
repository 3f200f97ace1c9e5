// Messages of the extended protocol by which a leg runs one statement through the unnamed portal.
// https://www.postgresql.org/docs/current/protocol-message-formats.html
import { PgkvError } from '../../base/errors.js';
import { encodeNamed, SYNC } from '../../wire/client-messages.js';
import { Frontend, LARGE_MESSAGE_BYTES_MAX } from '../../wire/protocol.js';

/** Parameters of a Bind without any: no formats, no values. */
export const NO_PARAMETERS = Buffer.alloc(4);

/** Describe of the unnamed portal. */
export const DESCRIBE = encodeNamed(Frontend.describe, 'P', '');
/** Execute of the unnamed portal, all rows, then Sync. */
export const EXECUTE_SYNC = Buffer.concat([Buffer.from([Frontend.execute, 0, 0, 0, 9, 0, 0, 0, 0, 0]), SYNC]);

/**
 * A Bind of the unnamed portal in parts, so that large parameters are not copied once more.
 * @param parameters formats and values as they stand in a Bind, in one part or several
 */
export function encodeBind(statement: string, parameters: readonly Buffer[], formats: readonly number[]): Buffer[] {
  const head = Buffer.allocUnsafe(7 + statement.length);
  const tail = Buffer.allocUnsafe(2 + 2 * formats.length);
  const length = parameters.reduce((bytes, part) => bytes + part.length, head.length - 1 + tail.length);
  if (length > LARGE_MESSAGE_BYTES_MAX) {
    throw new PgkvError('limit_exceeded', { detail: `a Bind of ${length} bytes; Postgres takes a gigabyte at most` });
  }
  head[0] = Frontend.bind;
  head.writeInt32BE(length, 1);
  head[5] = 0;
  head.write(statement, 6, 'latin1');
  head[6 + statement.length] = 0;
  tail.writeUInt16BE(formats.length, 0);
  for (const [index, format] of formats.entries()) tail.writeInt16BE(format, 2 + 2 * index);
  return [head, ...parameters, tail];
}
