// Whose draws from sequences a connection shows (R4): lastval() and currval() are the server session's, which many clients
// share one after the other. A connection names the last lane that may have drawn; before another one draws, or asks,
// the server forgets what it has.

import type { ServerConnection } from '../../backend/connection/server-connection.js';
import { IGNORED } from '../../backend/replies/control-answers.js';
import type { ReplyReceiver } from '../../backend/replies/reply-receiver.js';
import { Effect, type Template } from '../../sql/plan/template.js';
import { TransactionStatus } from '../../wire/protocol.js';
import { discardSequencesInBatch } from './discard-sequences.js';

const DRAWING_KINDS: ReadonlySet<string> = new Set(['write', 'copy-in', 'multi', 'schema']);
/** Those that may follow other statements in one batch. */
const BATCHED_KINDS: ReadonlySet<string> = new Set(['write', 'read', 'copy-in']);

/** Whether a statement may draw from a sequence: what only begins, sets, locks or listens does not. */
export const mayDraw = ({ kind, effects, kv }: Template): boolean =>
  kv === null &&
  (DRAWING_KINDS.has(kind) || (effects & Effect.unknown) !== 0 || (kind === 'read' && effects === Effect.none));

/**
 * `lane` is about to send a statement that may draw: what other sessions drew on this connection must not answer its
 * lastval(), should it draw nothing itself. What has to be sent for that goes in front of the statement.
 * @param hasSequences false where the database is known to have none
 */
export function ownSequences(
  connection: ServerConnection,
  lane: ReplyReceiver,
  template: Template,
  hasSequences: boolean,
): void {
  const { sequenceOwner } = connection;
  const inBatch = connection.replies.unsynced();
  const foreign = sequenceOwner !== lane && sequenceOwner !== null && hasSequences;
  // Some of these cannot run behind another statement of a batch; lastval() is then 55000 behind them.
  if (foreign && inBatch && !BATCHED_KINDS.has(template.kind)) return;
  connection.sequenceOwner = lane;
  if (!foreign || connection.status === TransactionStatus.failed) return;
  if (inBatch) discardSequencesInBatch(connection);
  else connection.sendControl('DISCARD SEQUENCES', IGNORED);
}

/**
 * `lane` is about to ask for lastval(), which must not show what another session drew. In a batch, what is needed for that
 * is sent. `own`: it shows nothing foreign; `owed`: not to be told before what was sent has been answered; `foreign`:
 * DISCARD SEQUENCES has to come first.
 */
export function ownLastval(connection: ServerConnection, lane: ReplyReceiver): 'own' | 'owed' | 'foreign' {
  const { sequenceOwner, replies } = connection;
  if (sequenceOwner === lane || sequenceOwner === null) return 'own';
  if (connection.status === TransactionStatus.failed) return 'own';
  if (!replies.unsynced()) return replies.length > 0 ? 'owed' : 'foreign';
  discardSequencesInBatch(connection);
  connection.sequenceOwner = lane;
  return 'own';
}
