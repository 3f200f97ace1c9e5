// Errors and notices of the server as psql words them. Oracle: libpq 15, pqBuildErrorMessage3 and
// reportErrorPosition (fe-protocol3.c).
import type { DatabaseError, NoticeMessage } from 'pg-protocol/dist/messages';
import { characterWidth } from './display-width.js';

/** An ErrorResponse or NoticeResponse with its fields. */
export type ServerMessage = DatabaseError | NoticeMessage;

export interface MessageStyle {
  readonly verbosity: 'default' | 'verbose';
  /** The text that was sent, to show the line a position points into. */
  readonly query: string | undefined;
}

/** The message with its line end. CONTEXT is shown for errors only. */
export function formatServerMessage(message: ServerMessage, style: MessageStyle): string {
  const verbose = style.verbosity === 'verbose';
  let text = `${message.severity ?? 'ERROR'}:  `;
  if (verbose && message.code) text += `${message.code}: `;
  text += message.message ?? '';

  const { source, position } = positionOf(message, style.query);
  if (position !== undefined && source === undefined) text += ` at character ${position}`;
  text += '\n';
  if (position !== undefined && source !== undefined) text += pointAt(source, position);

  const line = (label: string, value: string | undefined) => {
    if (value !== undefined && value !== '') text += `${label}:  ${value}\n`;
  };
  line('DETAIL', message.detail);
  line('HINT', message.hint);
  line('QUERY', message.internalQuery);
  if (message.name === 'error') line('CONTEXT', message.where);
  if (verbose) {
    line('SCHEMA NAME', message.schema);
    line('TABLE NAME', message.table);
    line('COLUMN NAME', message.column);
    line('DATATYPE NAME', message.dataType);
    line('CONSTRAINT NAME', message.constraint);
    line('LOCATION', sourceLocation(message));
  }
  return text;
}

/** The same fields for a program, as one JSON line. Fields the server did not send are left out. */
export function serverMessageAsJson(message: ServerMessage): string {
  const { severity, code, message: text, detail, hint, position, internalPosition, internalQuery, where } = message;
  const { schema, table, column, dataType, constraint, file, line, routine } = message;
  const fields = { severity, code, message: text, detail, hint, position, internalPosition, internalQuery, where };
  const key = message.name === 'error' ? 'error' : 'notice';
  return JSON.stringify({ [key]: { ...fields, schema, table, column, dataType, constraint, file, line, routine } });
}

function positionOf(message: ServerMessage, query: string | undefined): { source?: string; position?: number } {
  const inQuery = Number(message.position ?? 0);
  if (inQuery > 0) return { position: inQuery, ...(query !== undefined && { source: query }) };
  const inInternal = Number(message.internalPosition ?? 0);
  if (inInternal <= 0) return {};
  const source = message.internalQuery;
  return { position: inInternal, ...(source !== undefined && { source }) };
}

function sourceLocation({ routine, file, line }: ServerMessage): string {
  return (routine ? `${routine}, ` : '') + (file && line ? `${file}:${line}` : '');
}

const DISPLAY_COLUMNS = 60;
const RIGHT_CUT_COLUMNS = 10;

/**
 * `LINE n: …` with a caret under character `position` (from 1, in code points). A long line is cut to 60 columns
 * around it. Empty where the position lies outside the text.
 */
export function pointAt(source: string, position: number): string {
  const characters = [...source.replaceAll('\t', ' ')];
  const at = position - 1;
  if (at < 0 || at > characters.length) return '';
  let lineNumber = 1;
  let start = 0;
  for (let index = 0; index < at; index++) {
    const character = characters[index];
    if (character !== '\n' && character !== '\r') continue;
    if (character === '\r' || characters[index - 1] !== '\r') lineNumber++;
    start = index + 1;
  }
  let end = at;
  while (end < characters.length && characters[end] !== '\n' && characters[end] !== '\r') end++;

  const columns = (from: number, to: number) => {
    let sum = 0;
    for (let index = from; index < to; index++) sum += characterWidth(characters[index]!) || 1;
    return sum;
  };
  let cutLeft = false;
  let cutRight = false;
  if (columns(start, end) > DISPLAY_COLUMNS) {
    if (DISPLAY_COLUMNS >= columns(start, at) + RIGHT_CUT_COLUMNS) {
      while (columns(start, end) > DISPLAY_COLUMNS) end--;
      cutRight = true;
    } else {
      while (columns(at, end) > RIGHT_CUT_COLUMNS) {
        end--;
        cutRight = true;
      }
      while (columns(start, end) > DISPLAY_COLUMNS) {
        start++;
        cutLeft = true;
      }
    }
  }
  const prefix = `LINE ${lineNumber}: ${cutLeft ? '...' : ''}`;
  const shown = characters.slice(start, end).join('') + (cutRight ? '...' : '');
  return `${prefix}${shown}\n${' '.repeat(prefix.length + columns(start, at))}^\n`;
}
