// Answers as lines that have to be equal: tags, rows, SQLSTATE and message, types of columns; not what differs between any two
// servers (source lines, OIDs of tables, when a setting is reported).
import type { BackendMessage } from '../../support/backend-message.js';
import type { FuzzMessage } from './script.js';

/** https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format": signature, flags, length of an extension that is none. */
const BINARY_SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
const BINARY_HEADER_BYTES = BINARY_SIGNATURE.length + 8;

/** What one Query or one Sync (or the rest of a packet) is answered with. */
export type Unit = readonly BackendMessage[];

export function unitsOf(messages: readonly BackendMessage[]): Unit[] {
  const units: BackendMessage[][] = [[]];
  for (const message of messages) {
    units.at(-1)!.push(message);
    if (message.type === 'ReadyForQuery') units.push([]);
  }
  if (units.at(-1)!.length === 0) units.pop();
  return units;
}

/** The same of the messages sent. */
export function partsOf(messages: readonly FuzzMessage[]): FuzzMessage[][] {
  const parts: FuzzMessage[][] = [];
  let part: FuzzMessage[] = [];
  for (const message of messages) {
    const isQuery = typeof message !== 'string' && 'query' in message;
    part.push(message);
    if (isQuery || message === 'sync') {
      parts.push(part);
      part = [];
    }
  }
  if (part.length > 0) parts.push(part);
  return parts;
}

/**
 * The same as far as they are answered by themselves: behind an error in a batch, queries up to its Sync are skipped, and belong to
 * the part that has it.
 * @param skipping a batch has failed in an earlier packet
 */
export function partsAnswered(
  messages: readonly FuzzMessage[],
  units: readonly Unit[],
  skipping: boolean,
): FuzzMessage[][] {
  const answered: FuzzMessage[][] = [];
  let isSkipping = skipping;
  for (const part of partsOf(messages)) {
    const before = answered.at(-1);
    if (isSkipping && before !== undefined) before.push(...part);
    else answered.push([...part]);
    isSkipping = part.at(-1) !== 'sync' && (isSkipping || failsInBatch(part, units[answered.length - 1]));
  }
  return answered;
}

/** Messages that end what a Parse, Bind, Describe, Execute or Close is answered with. */
export const ENDS: ReadonlySet<string> = new Set([
  'ParseComplete',
  'BindComplete',
  'CloseComplete',
  'NoData',
  'RowDescription',
  'CommandComplete',
  'EmptyQueryResponse',
  'PortalSuspended',
]);

/** How many of its messages are answered before its Query or Sync is. */
export const owedIn = (part: readonly FuzzMessage[] | undefined): number =>
  part?.filter((message) => typeof message !== 'string' && !('query' in message)).length ?? 0;

/** Something in front of its Query has failed. */
function failsInBatch(part: readonly FuzzMessage[], unit: Unit | undefined): boolean {
  let answered = 0;
  for (const { type } of unit ?? []) {
    if (type === 'ErrorResponse') return answered < owedIn(part);
    if (ENDS.has(type)) answered++;
  }
  return false;
}

export function linesOf(unit: Unit, isOrdered: boolean): string[] {
  const lines: string[] = [];
  let rows: string[] = [];
  const endRows = () => {
    lines.push(...(isOrdered ? rows : rows.sort()));
    rows = [];
  };
  for (const message of unit) {
    if (message.type === 'DataRow') {
      rows.push(`row ${message.values.map(shownValue).join(' | ')}`);
      continue;
    }
    if (message.type === 'CopyData') {
      // The header comes with the first row, whichever that is.
      const isFirst = message.data.subarray(0, BINARY_SIGNATURE.length).equals(BINARY_SIGNATURE);
      if (isFirst) rows.push('copy header');
      rows.push(`copy ${shownValue(isFirst ? message.data.subarray(BINARY_HEADER_BYTES) : message.data)}`);
      continue;
    }
    const line = lineOf(message);
    if (line === null) continue;
    endRows();
    lines.push(line);
  }
  endRows();
  return lines;
}

/** Rows have an order only where somebody asks for one. */
export const asksForOrder = (part: readonly FuzzMessage[]): boolean =>
  /order by|generate_series/i.test(JSON.stringify(part));

function lineOf(message: BackendMessage): string | null {
  switch (message.type) {
    case 'ParameterStatus':
      return null;
    case 'RowDescription':
      return `columns ${message.columns.map((c) => `${c.name}:${c.typeOid}:${c.typeModifier}:${c.format}`).join(' | ')}`;
    case 'ParameterDescription':
      return `parameters ${message.typeOids.join(' ')}`;
    case 'CommandComplete':
      return `tag ${message.tag}`;
    case 'ReadyForQuery':
      return `ready ${message.status}`;
    case 'ErrorResponse':
    case 'NoticeResponse': {
      const { S, C, M } = message.fields;
      return `${S} ${C} ${M}`;
    }
    case 'NotificationResponse':
      return `notification ${message.channel} ${message.payload}`;
    case 'Malformed':
      return `MALFORMED ${message.tag}`;
    default:
      return message.type;
  }
}

function shownValue(value: Buffer | null): string {
  if (value === null) return 'null';
  const text = value.toString('utf8');
  return Buffer.from(text).equals(value) && !/\p{Cc}/u.test(text)
    ? JSON.stringify(text)
    : `hex:${value.toString('hex')}`;
}
