// One message of the client, as it comes: whether the current lane lets any be taken for now, and what becomes of those that are
// no units: COPY data, all that stands in its place, Sync, Terminate, and what is skipped behind an error. All others are handle-unit.ts's.
// Invariant: a message that has to wait can be put back and taken again, with the same outcome.
import { assert } from '../../base/assert.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import { FLUSH } from '../../wire/client-messages.js';
import { Frame, type FrameFound } from '../../wire/frame-reader.js';
import { Frontend } from '../../wire/protocol.js';
import { passInCopy } from '../exchanges/copy-messages.js';
import type { LeasedExchange } from '../exchanges/leased-exchange.js';
import { outlivesQuery } from '../exchanges/server-names.js';
import type { UnitReader } from '../unit/read-unit.js';
import type { Unit } from '../unit/unit.js';
import { handleUnit, type Way } from './handle-unit.js';

/** Owed replies at which a pipelining client has to wait for some of them. */
const PIPELINE_MAX = 10_000;

/**
 * What the client's next messages wait for, or what takes them. Asked twice for each message: one by one, since a loop over
 * objects of so many kinds took a fiftieth of the router's CPU.
 */
export function atWork({ merged, scatter, spread, branches, copyIn, own, leased }: Way): Exchange<Unit> {
  if (merged?.busy === true) return merged;
  if (scatter.busy) return scatter;
  if (spread.busy) return spread;
  if (branches.busy) return branches;
  if (copyIn.busy) return copyIn;
  return own.busy ? own : leased;
}

/** Whether no message, of whatever kind, can be taken for now, for what is under way on the lane. */
export function laneHoldsBack({ mode, connection }: LeasedLane, leased: LeasedExchange): boolean {
  if (mode === 'waiting' || mode === 'preparing') return true;
  if (connection !== null) {
    // Nothing is answered before the copy has ended, which only the client can do.
    if (connection.copyIn) return connection.output.blocked;
    // What is sent behind a guarded batch would be answered before its repetition.
    if (connection.guarded) return true;
    if (connection.output.blocked) return true;
    if (connection.replies.length >= PIPELINE_MAX) {
      // The Sync for which the server keeps its answers may be among what has to wait.
      if (connection.replies.unsynced()) connection.output.push(FLUSH);
      return true;
    }
  }
  return leased.readingIsOpen();
}

/** A Sync decides what becomes of what is held for it, once it is known that what stands between has not failed. */
function syncHeld({ context, placement, spread }: Way): Handling {
  const ended = placement.endSegment('its batch has written on several shards');
  assert(ended === null || ended === 'wait', 'nothing has run behind a statement that is held');
  return ended ?? spread.sync(context.batch.skipping);
}

/**
 * Handles the message that the reader stands at, found as `found`. `wait`: messages are taken again when what it waits for is
 * there. `goodbye`: the client sends no more.
 */
export function takeMessage(way: Way, units: UnitReader, found: FrameFound): Handling | 'goodbye' {
  const { context, copyIn, leased, merged, spread } = way;
  const { batch, lanes, reader, session } = context;
  const { type } = reader;
  if (copyIn.isCopying && type !== Frontend.terminate) {
    return copyIn.message(found);
  }
  if (copyIn.takesRest(found)) return 'taken';
  switch (type) {
    case Frontend.copyData:
    case Frontend.copyDone:
    case Frontend.copyFail:
      leased.copy(type, found === Frame.whole || found === Frame.last);
      return 'taken';
    case Frontend.terminate:
      return 'goodbye';
    case Frontend.sync: {
      if (leased.syncWaits) return 'wait';
      if (spread.holds) return syncHeld(way);
      spread.batchEnds();
      const failed = batch.state === 'failed';
      batch.take(type);
      leased.sync(failed);
      return 'taken';
    }
  }
  if (batch.skipping) return 'taken';
  if (passInCopy(context)) return 'taken';
  if ((type === Frontend.parse || type === Frontend.bind) && (merged?.takeBatch() === true || spread.takeBatch())) {
    // With its Sync.
    spread.batchEnds();
    return 'wait';
  }
  if (type === Frontend.bind && spread.awaitsBatch()) return 'wait';
  // What is written on several shards and not committed is refused with it, and ends with its Sync.
  if (type === Frontend.query && !spread.holds) spread.batchEnds();
  // A simple query ends the unnamed statement, here as in Postgres, whatever becomes of the query; one behind an open batch does so
  // when it is sent, since it may be skipped.
  if (type === Frontend.query && lanes.current.connection?.replies.unsynced() !== true) {
    if (!outlivesQuery(session, reader.buffer.subarray(reader.start + 5, reader.end - 1))) session.unnamed.set(null);
  }
  batch.take(type);
  const handled = handleUnit(way, units.read());
  if (handled === 'wait') batch.putBack();
  return handled;
}
