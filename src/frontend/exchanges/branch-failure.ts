// Why a further branch of a block could not begin (D31), in the words that the client gets.
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { BlockAnswer, BlockQuestion } from '../../execute/leased/lane-block.js';
import { BEGIN_BRANCH, whyUnable } from '../../execute/two-phase/write-branch.js';
import { readErrorFields } from '../../wire/error-fields.js';
import { encodeError } from '../../wire/server-messages.js';

const LOST = encodeError(new PgkvError('transaction_lost'), 'ERROR');

export const unable = (why: string): PgkvError => refusalError(refuse('several_shards_unable', { why }));

/** Why a branch could not begin; null: it has. */
export function failureOf(asked: readonly BlockQuestion[], answers: readonly BlockAnswer[] | null): Buffer | null {
  if (answers === null) return LOST;
  const at = answers.findIndex(({ failure }) => failure !== null);
  if (at < 0) return null;
  const error = answers[at]!.failure!;
  if (asked[at] !== BEGIN_BRANCH) return error;
  const { C: sqlstate = '', M: message = '' } = readErrorFields(error, 0, error.length);
  const why = whyUnable(sqlstate, message);
  return why === null ? error : encodeError(unable(why), 'ERROR');
}
