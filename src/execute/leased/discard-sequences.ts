// DISCARD SEQUENCES in the middle of a client's batch: a simple query would end the batch's transaction, so it goes as
// messages of the extended protocol, under names that are not the client's, with answers that are swallowed.

import { type ServerConnection, STATEMENT_NAME_PREFIX } from '../../backend/connection/server-connection.js';
import { assuming, Reply, swallowed } from '../../backend/replies/reply-queue.js';
import { encodeNamed, encodeParse } from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';

const NAME = `${STATEMENT_NAME_PREFIX}discard`;

function frame(type: number, body: string): Buffer {
  const message = Buffer.from(`\0\0\0\0\0${body}`, 'latin1');
  message[0] = type;
  message.writeInt32BE(message.length - 1, 1);
  return message;
}

const MESSAGES = Buffer.concat([
  // One may be there whose Close was skipped, behind a cancel for one; without this it would fail the client's batch.
  encodeNamed(Frontend.close, 'S', NAME),
  encodeParse(NAME, Buffer.from('DISCARD SEQUENCES\0\0\0')),
  frame(Frontend.bind, `${NAME}\0${NAME}\0\0\0\0\0\0\0`),
  frame(Frontend.execute, `${NAME}\0\0\0\0\0`),
  encodeNamed(Frontend.close, 'P', NAME),
  encodeNamed(Frontend.close, 'S', NAME),
]);
const BETWEEN = [Reply.bind, Reply.execute, Reply.close].map(swallowed);

/** Where the server refuses or skips its end, the statement is left there: nobody else gets the connection behind this client. */
export function discardSequencesInBatch(connection: ServerConnection): void {
  let wasRetired = false;
  const unclosed = (): void => {
    wasRetired = connection.retired;
    connection.retired = true;
  };
  // What was sent last is undone first.
  const unparsed = (): void => {
    connection.retired = wasRetired;
  };
  connection.sendAll(MESSAGES, [
    swallowed(Reply.close),
    assuming(Reply.parse, true, { undo: unparsed }),
    ...BETWEEN,
    assuming(Reply.close, true, { undo: unclosed }),
  ]);
}
