// The statement at hand as messages that say it once more on another server, in a block that moves there (D13): as the client
// said it, in its encoding and with its parameters. Only for statements whose Template is `movable`.
import type { Said } from '../../backend/connection/server-connection.js';
import type { Session } from '../../session/session.js';
import type { Template } from '../../sql/plan/template.js';
import { valueCount } from '../../wire/bind-message.js';
import {
  encodeBindFor,
  encodeExecute,
  encodeParse,
  encodeQueryBytes,
  SYNC,
  stringEnd,
} from '../../wire/client-messages.js';
import { Frontend } from '../../wire/protocol.js';
import type { Unit } from './unit.js';

/** Of a Query, of a Bind with its statement, or of the statement without parameters whose portal an Execute runs. */
export function saidAgain(unit: Unit, template: Template, text: string, session: Session): Said {
  const { type, source, buffer, start, end } = unit;
  if (type !== Frontend.bind || source === null) return saidAsQuery(template, text, session);
  if (valueCount(buffer, start, end) === 0) return saidAsQuery(template, text, session);
  const portalEnd = stringEnd(buffer, start + 5, end);
  const nameEnd = stringEnd(buffer, portalEnd + 1, end);
  const messages = [
    encodeParse('', source.parseTail),
    encodeBindFor(buffer, start, end, portalEnd + 1, nameEnd, ''),
    encodeExecute(buffer.toString('latin1', start + 5, portalEnd)),
    SYNC,
  ];
  return { isQuery: false, bytes: Buffer.concat(messages) };
}

/** A statement without parameters. */
export function saidAsQuery({ saidAgain }: Template, text: string, session: Session): Said {
  const { encoding } = session.textReading;
  // A line end ends a comment at the end of any of them.
  const said = saidAgain === null ? text : saidAgain.map(([start, end]) => text.slice(start, end)).join('\n;\n');
  return { isQuery: true, bytes: encodeQueryBytes(encoding.write(said)) };
}
