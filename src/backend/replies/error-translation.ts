// Errors in the client's own terms: a server names statements as pgkv has named them, and counts characters in the text
// that pgkv has sent it.
import { type ErrorFields, encodeErrorResponse } from '../../wire/error-fields.js';
import { type PreparedStatements, serverNameIn } from './prepared-statements.js';
import type { Owed } from './reply-queue.js';
import type { ReplyReceiver } from './reply-receiver.js';
import { positionInOriginal } from './statement-source.js';

/** Errors in which a server names a statement: of that name is none, or one already; or it takes other parameters. */
const NAMING_ERRORS: ReadonlySet<string> = new Set(['26000', '42P05', '08P01', '42601']);
const WORD = /[\w$]/;

/**
 * The ErrorResponse as it would be without pgkv; null where that is what the server has sent.
 * @param owed what it answers: how the text that failed differs from the client's, and what the client called the statements in
 * it when it sent that, whatever has become of the names since
 */
export function translatedError(
  fields: ErrorFields,
  { rewritten, names }: Pick<Owed, 'rewritten' | 'names'>,
  statements: PreparedStatements,
  receiver: ReplyReceiver | null,
): Buffer | null {
  const text = fields['M'] ?? '';
  const message =
    names !== null && NAMING_ERRORS.has(fields['C'] ?? '')
      ? inClientNames(text, names)
      : inPresentNames(text, statements, receiver);
  const position = rewritten === null ? undefined : fields['P'];
  if (message === null && position === undefined) return null;
  const told = { ...fields };
  if (message !== null) told['M'] = message;
  if (position !== undefined) told['P'] = String(positionInOriginal(rewritten!, Number(position)));
  return encodeErrorResponse(told);
}

/** Null: there is none of them in it. */
function inClientNames(message: string, names: ReadonlyMap<string, string>): string | null {
  for (const [server, client] of names) {
    // Quoted in one way or another: how depends on lc_messages.
    for (let at = message.indexOf(server); at >= 0; at = message.indexOf(server, at + 1)) {
      const behind = at + server.length;
      if (WORD.test(message.charAt(at - 1)) || WORD.test(message.charAt(behind))) continue;
      return message.slice(0, at) + client + message.slice(behind);
    }
  }
  return null;
}

/** By what the client's statements are called now: of what was sent with nothing behind it. */
function inPresentNames(text: string, statements: PreparedStatements, receiver: ReplyReceiver | null): string | null {
  const name = serverNameIn(text);
  if (name === undefined) return null;
  const own = receiver?.clientStatementName(statements.sourceOf(name));
  return own === undefined ? null : text.replace(`"${name}"`, () => `"${own}"`);
}
