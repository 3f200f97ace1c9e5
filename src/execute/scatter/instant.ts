// The time that all shards of one statement are told (sql/scatter/one-instant.ts): asked of one server, handed to each as two
// parameters behind the client's, in binary, so that neither precision nor a date style comes between.
import { PgkvError } from '../../base/errors.js';
import { BindMessage } from '../../wire/bind-message.js';

/** Values of timestamptz in binary. */
export interface Instant {
  /** now() */
  readonly transaction: Buffer;
  /** statement_timestamp() */
  readonly statement: Buffer;
}

/** Microseconds from 1970 to Postgres's year 2000. */
const EPOCH_MICROSECONDS = 946_684_800_000_000n;
const BINARY = 1;

const microseconds = (call: string): string =>
  `(extract(epoch FROM pg_catalog.${call}()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8`;

export const INSTANT_SQL = `SELECT ${microseconds('now')}, ${microseconds('statement_timestamp')}`;

/** @param values of a row that INSTANT_SQL gives */
export function readInstant(values: readonly (string | null)[]): Instant {
  const [transaction, statement] = values.map((value) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64BE(BigInt(value ?? '') - EPOCH_MICROSECONDS);
    return bytes;
  });
  if (transaction === undefined || statement === undefined) {
    throw new PgkvError('internal', { detail: 'a server gave no time' });
  }
  return { transaction, statement };
}

/** @param parameters as they stand in a Bind */
export const parameterCount = (parameters: Buffer): number => walked(parameters).count;

function walked(parameters: Buffer): BindMessage {
  const client = new BindMessage();
  if (!client.readParameters(parameters, 0, parameters.length)) {
    throw new PgkvError('internal', { detail: 'the parameters of a statement cannot be read again' });
  }
  return client;
}

/** The client's parameters, as they stand in a Bind, with the instant behind them. */
export function withInstant(parameters: Buffer, { transaction, statement }: Instant): Buffer[] {
  const client = walked(parameters);
  const all = client.count + 2;
  const head = Buffer.alloc(4 + 2 * all);
  head.writeUInt16BE(all, 0);
  for (let index = 0; index < all; index++) {
    head.writeInt16BE(index < client.count ? client.format(index) : BINARY, 2 + 2 * index);
  }
  head.writeUInt16BE(all, 2 + 2 * all);
  const tail = Buffer.alloc(24);
  tail.writeInt32BE(8, 0);
  transaction.copy(tail, 4);
  tail.writeInt32BE(8, 12);
  statement.copy(tail, 16);
  return [head, client.values(), tail];
}
