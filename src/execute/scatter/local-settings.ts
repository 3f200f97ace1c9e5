// What is set in a client's block, for a leg that runs beside it: asked of the server that has the block, since savepoints and
// errors take settings back, and set on the leg's server for the one batch, in front of the statement. Invariant: nothing of it is
// left behind the batch; where a custom setting was defined by it, which no server takes back, the connection is not handed on.
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import { Reply, swallowed } from '../../backend/replies/reply-queue.js';
import { unknownStatement } from '../../backend/replies/statement-source.js';
import type { Session } from '../../session/session.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { encodeBareBind, encodeExecute, encodeParse } from '../../wire/client-messages.js';
import { settingsSql } from '../leased/state-check.js';

/** By lower-case name, in the order in which they are set. */
export type LocalSettings = ReadonlyMap<string, string>;

const OWED = [Reply.parse, Reply.bind, Reply.execute].map(swallowed);

/** @param customNames custom settings that may be set in the block */
export const localSettingsSql = ({ settings }: Session, customNames: Iterable<string>): string =>
  settingsSql(new Set([...settings.values.keys(), ...customNames]));

/** @param rows what a server has answered to that */
export function localSettings({ settings }: Session, rows: readonly (string | null)[][]): LocalSettings {
  const local = new Map<string, string>();
  let role: string | null = null;
  for (const [, written, value] of rows) {
    if (written === null || written === undefined || value === null || value === undefined) continue;
    const name = written.toLowerCase();
    if (name === 'role') role = value;
    else if (settings.values.get(name) !== value) local.set(name, value);
  }
  // A role may lack the right to change the others.
  if (role !== null && role !== (settings.values.get('role') ?? 'none')) local.set('role', role);
  return local;
}

/** In front of a batch, whose transaction they end with. */
export function sendLocalSettings(connection: ServerConnection, local: LocalSettings): void {
  if (local.size === 0) return;
  const calls = [...local].map(
    ([name, value]) => `pg_catalog.set_config(${quoteLiteral(name)}, ${quoteLiteral(value)}, true)`,
  );
  connection.unnamed = unknownStatement;
  const parse = encodeParse('', Buffer.from(`SELECT ${calls.join(', ')}\0\0\0`));
  connection.sendAll(Buffer.concat([parse, encodeBareBind(''), encodeExecute('')]), OWED);
  for (const name of local.keys()) {
    if (name.includes('.') && !connection.placeholders.has(name)) connection.retired = true;
  }
}
