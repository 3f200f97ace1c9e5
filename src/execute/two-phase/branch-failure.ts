// Why a branch of a block over several shards could not begin, or not be committed with others (D31), in the words that the client gets.
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import { readErrorFields } from '../../wire/error-fields.js';
import { encodeError } from '../../wire/server-messages.js';
import type { BlockAnswer, BlockQuestion } from '../leased/lane-block.js';
import { whyUnable } from './branch.js';
import { BEGIN_BRANCH, isSettings } from './write-branch.js';

const LOST = encodeError(new PgkvError('transaction_lost'), 'ERROR');

export const unable = (why: string): PgkvError => refusalError(refuse('several_shards_unable', { why }));

/** By a default that pgkv does not see, as of the role or the database. */
function isolationFailure(asked: readonly BlockQuestion[], answers: readonly BlockAnswer[]): Buffer | null {
  const [, level = null, isReadOnly] = answers[asked.findIndex(isSettings)]?.row ?? [];
  if (level === null || level.startsWith('read ')) return null;
  // One snapshot of each shard (R67).
  if (level === 'repeatable read' && isReadOnly === 'on') return null;
  const why = `it is ${level}, and that isolation level needs one snapshot of all shards`;
  return encodeError(refusalError(refuse('leaves_shard', { why })), 'ERROR');
}

/** Why a branch could not begin; null: it has. */
export function failureOf(asked: readonly BlockQuestion[], answers: readonly BlockAnswer[] | null): Buffer | null {
  if (answers === null) return LOST;
  const at = answers.findIndex(({ failure }) => failure !== null);
  if (at < 0) return isolationFailure(asked, answers);
  const error = answers[at]!.failure!;
  if (asked[at] !== BEGIN_BRANCH) return error;
  const { C: sqlstate = '', M: message = '' } = readErrorFields(error, 0, error.length);
  const why = whyUnable(sqlstate, message);
  return why === null ? error : encodeError(unable(why), 'ERROR');
}
