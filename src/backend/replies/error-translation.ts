// Errors in the client's own terms: a server names statements as pgkv has named them, and counts characters in the text
// that pgkv has sent it.
import { type ErrorFields, encodeErrorResponse } from '../../wire/error-fields.js';
import { type PreparedStatements, serverNameIn } from './prepared-statements.js';
import type { Owed } from './reply-queue.js';
import type { ReplyReceiver } from './reply-receiver.js';
import { positionInOriginal } from './statement-source.js';

/**
 * The ErrorResponse as it would be without pgkv; null where that is what the server has sent.
 * @param owed what it answers: how the text that failed differs from the client's
 */
export function translatedError(
  fields: ErrorFields,
  { rewritten, names }: Pick<Owed, 'rewritten' | 'names'>,
  statements: PreparedStatements,
  receiver: ReplyReceiver | null,
): Buffer | null {
  const text = fields['M'] ?? '';
  const name = serverNameIn(text);
  const own =
    name === undefined ? undefined : (names?.get(name) ?? receiver?.clientStatementName(statements.sourceOf(name)));
  const position = rewritten === null ? undefined : fields['P'];
  if (own === undefined && position === undefined) return null;
  const told = { ...fields };
  if (own !== undefined) told['M'] = text.replace(`"${name}"`, () => `"${own}"`);
  if (position !== undefined) told['P'] = String(positionInOriginal(rewritten!, Number(position)));
  return encodeErrorResponse(told);
}
