// SQL-level EXECUTE and DEALLOCATE share their names with protocol-level statements, which pgkv keeps under names of
// its own on whatever connection serves the session: such names in a text are replaced before it is sent.

import { type ServerConnection, STATEMENT_NAME_PREFIX } from '../../backend/connection/server-connection.js';
import { assuming, Reply } from '../../backend/replies/reply-queue.js';
import type { Session } from '../../session/session.js';
import type { Template } from '../../sql/plan/template.js';
import { quoteName } from '../../sql/text/identifiers.js';
import { SYNC } from '../../wire/client-messages.js';

/** Whether the text names statements that this session has prepared at the protocol level, or reaches for pgkv's own. */
export function namesOwnStatements(template: Template, session: Session): boolean {
  for (const { name } of template.statementNames) {
    if (session.statement(name) !== undefined || name.startsWith(STATEMENT_NAME_PREFIX)) return true;
  }
  return false;
}

export interface RenamedText {
  readonly text: string;
  /** Those of pgkv's own that stand in it, and what the client calls them. */
  readonly names: ReadonlyMap<string, string>;
}

/**
 * The text with the session's names replaced by those on `connection`, where the statements are prepared first.
 * `deallocated` gets the session names that the text deallocates, in order.
 */
export function replaceStatementNames(
  text: string,
  template: Template,
  session: Session,
  connection: ServerConnection,
  deallocated: string[],
): RenamedText {
  const names = new Map<string, string>();
  let result = '';
  let copied = 0;
  let sent = false;
  // A Sync of ours inside a client's batch would commit what stands before it.
  const inBatch = connection.replies.unsynced();
  for (const { verb, name, start, end } of template.statementNames) {
    const source = session.statement(name);
    if (verb === 'deallocate') deallocated.push(name);
    if (source === undefined) {
      if (!name.startsWith(STATEMENT_NAME_PREFIX)) continue;
      // What stands under such a name on a server is not the client's to reach.
      names.set(`${name} `, name);
      result += `${text.slice(copied, start)}${quoteName(`${name} `)}`;
      copied = end;
      continue;
    }
    if (!connection.isPrepared(source, session.settings.semantics)) sent = true;
    const serverName = connection.prepare(source, session.settings.semantics);
    names.set(serverName, name);
    result += text.slice(copied, start) + serverName;
    copied = end;
  }
  if (sent && !inBatch) {
    // Ends the extended protocol before what follows, so that a failing Parse does not make the server skip it.
    connection.send(SYNC, assuming(Reply.sync, true, { undo: () => undefined }));
  }
  return { text: result + text.slice(copied), names };
}
