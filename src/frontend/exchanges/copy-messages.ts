// CopyData, CopyDone and CopyFail on their way to the server of the current lane, in parts where they are long. Outside a copy
// they are ignored, as Postgres does: the copy has failed and the client does not know yet.
import { forwarded, Reply } from '../../backend/replies/reply-queue.js';
import { Frontend } from '../../wire/protocol.js';
import type { ExchangeContext } from './exchange-context.js';

/** Passes on what the reader stands at. @param whole the message's end is at hand */
export function passCopyMessage({ lanes, batch, reader }: ExchangeContext, type: number, whole: boolean): void {
  const lane = lanes.current;
  const { connection } = lane;
  if (connection === null || batch.state === 'failed') return;
  const { buffer, start, end } = reader;
  const bytes = buffer.subarray(start, end);
  // The end of one that is sent before the server has said that it is in a copy counts from when it says so.
  const isEarlyEnd = type !== Frontend.copyData && !connection.copyIn && connection.replies.length > 0;
  if (isEarlyEnd) connection.send(bytes, forwarded(Reply.copyEnd));
  else connection.output.push(bytes);
  if (type !== Frontend.copyData) connection.copyIn = false;
  if (!whole) lane.midMessage = true;
  else if (lane.midMessage) {
    connection.output.flush();
    lane.messageFinished();
  }
}

/**
 * What the reader stands at, where it is none of these and the server is in a copy: that one refuses it, and ends the connection,
 * which is the client's answer. To wait for the copy with it, as for any text that goes before, would be for ever.
 * @returns whether the server is in a copy
 */
export function passInCopy({ lanes, reader }: ExchangeContext): boolean {
  const { connection } = lanes.current;
  if (connection === null || !connection.copyIn) return false;
  connection.output.push(reader.buffer.subarray(reader.start, reader.end));
  return true;
}
