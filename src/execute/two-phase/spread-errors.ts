// What a client is told of a write over several shards that has failed.
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import { readErrorFields } from '../../wire/error-fields.js';
import { encodeError } from '../../wire/server-messages.js';
import { quoted } from './commit-together.js';
import type { Answer } from './protocol.js';
import type { RunFailure } from './spread-run.js';

const DEADLOCK = '40P01';
const errorOf = (error: PgkvError): Buffer => encodeError(error, 'ERROR');

export const LOST = errorOf(new PgkvError('transaction_lost'));
export const CANCELLED = errorOf(new PgkvError('cancelled'));

export function errorOfRun({ write, place }: RunFailure): Buffer {
  switch (write.kind) {
    case 'failed':
      return place(write.error);
    case 'unable':
      return errorOf(refusalError(refuse('several_shards_unable', { why: write.why })));
    case 'lost':
      return errorOf(write.error);
  }
}

export const isDeadlock = ({ write }: RunFailure): boolean =>
  write.kind === 'failed' && readErrorFields(write.error, 0, write.error.length)['C'] === DEADLOCK;

/** As `pgkv.cross_shard = per_shard` allows. */
export function committedInPart(answers: ReadonlyMap<string, Answer>): Buffer {
  const on = (kinds: readonly Answer['kind'][]): string =>
    quoted([...answers].filter(([, { kind }]) => kinds.includes(kind)).map(([name]) => name)) || 'none';
  const message = `committed on some shards only, as pgkv.cross_shard = per_shard allows: on ${on(['done'])}`;
  const detail = `Rolled back on ${on(['refused'])}; not known of ${on(['lost', 'local'])}.`;
  return errorOf(new PgkvError('outcome_unknown', { message, detail }));
}
