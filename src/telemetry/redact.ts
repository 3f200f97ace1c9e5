// Keeps what users store out of logs: masks literals in SQL text, and in server messages what may quote a value.
// Conservative, not clever: where the text is ambiguous, everything behind that point is masked. The exact lexer lives
// in sql/, above this layer; a log line does not need one. Strings are searched by index, not by pattern: a pattern's
// backtracking stack overflows on literals of megabytes.

const MASK = '?';
const REST_MASKED = '?...';

const SPACE = /\s+/y;
const WORD = /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/y;
const PARAMETER = /\$\d+/y;
const DOLLAR_FENCE = /\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/y;
const NUMBER = /0[xXoObB][\da-fA-F_]+|(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?/y;
/** E'…', B'…', X'…', N'…', U&'…' */
const STRING_PREFIX = /(?:[eEbBxXnN]|[uU]&)(?=')/y;

/** Every literal becomes `?`, every comment goes; words, quoted identifiers, parameters and operators stay. */
export function redactSql(text: string): string {
  let output = '';
  let position = 0;
  while (position < text.length) {
    const piece = nextPiece(text, position);
    if (piece === null) return (output + REST_MASKED).trim();
    output += piece.shown;
    position = piece.end;
  }
  return output.trim();
}

interface Piece {
  readonly shown: string;
  /** Position behind it; always beyond where it began. */
  readonly end: number;
}

/** null where it is not certain where the piece ends. */
function nextPiece(text: string, start: number): Piece | null {
  const matched = (pattern: RegExp): string | null => {
    pattern.lastIndex = start;
    return pattern.exec(text)?.[0] ?? null;
  };
  const until = (end: number, shown: string): Piece | null => (end === -1 ? null : { shown, end });

  if (text.startsWith('--', start)) {
    const end = text.indexOf('\n', start);
    return { shown: ' ', end: end === -1 ? text.length : end };
  }
  if (text.startsWith('/*', start)) return until(blockCommentEnd(text, start), ' ');
  const prefix = matched(STRING_PREFIX) ?? '';
  if (text[start + prefix.length] === "'") {
    return until(stringEnd(text, start + prefix.length, prefix.toLowerCase() === 'e'), MASK);
  }
  if (text[start] === '"') {
    const end = text.indexOf('"', start + 1);
    return end === -1 ? null : { shown: text.slice(start, end + 1), end: end + 1 };
  }
  const kept = matched(WORD) ?? matched(PARAMETER);
  if (kept !== null) return { shown: kept, end: start + kept.length };
  const space = matched(SPACE);
  if (space !== null) return { shown: ' ', end: start + space.length };
  const number = matched(NUMBER);
  if (number !== null) return { shown: MASK, end: start + number.length };
  if (text[start] !== '$') return { shown: text[start]!, end: start + 1 };
  const fence = matched(DOLLAR_FENCE);
  const end = fence === null ? -1 : text.indexOf(fence, start + fence.length);
  return end === -1 ? null : { shown: MASK, end: end + fence!.length };
}

/** Behind the string whose quote stands at `start`; -1 where it does not end, or not for certain. */
function stringEnd(text: string, start: number, hasEscapes: boolean): number {
  for (let position = start + 1; position < text.length; position++) {
    const character = text[position];
    if (character === '\\') {
      // Whether \' ends a plain string depends on standard_conforming_strings, which is not known here.
      if (!hasEscapes && text[position + 1] === "'") return -1;
      position++;
    } else if (character === "'") {
      if (text[position + 1] !== "'") return position + 1;
      position++;
    }
  }
  return -1;
}

/** Behind the comment that begins at `start`; comments nest; -1 where it does not end. */
function blockCommentEnd(text: string, start: number): number {
  let depth = 0;
  for (let position = start; position < text.length; position++) {
    if (text.startsWith('/*', position)) {
      depth++;
      position++;
    } else if (text.startsWith('*/', position)) {
      depth--;
      position++;
      if (depth === 0) return position + 1;
    }
  }
  return -1;
}

/** Classes whose messages name hosts, roles, databases and limits, never values of a statement. */
const OPERATIONAL_CLASSES = new Set(['08', '28', '3D', '53', '57', '58', 'F0', 'XX']);
/** Classes raised by Postgres itself, which puts what it quotes from a statement between quotes. */
const STATEMENT_CLASSES = new Set([
  '0A',
  '21',
  '22',
  '23',
  '24',
  '25',
  '26',
  '2B',
  '34',
  '3F',
  '40',
  '42',
  '44',
  '54',
  '55',
]);

/**
 * A server's message without what it may quote from a statement. What user code raises (RAISE: P0001, 01000, any
 * class of its own) is masked whole; RAISE with one of Postgres's own SQLSTATEs cannot be told apart.
 */
export function redactServerMessage(sqlstate: string, message: string): string {
  const sqlstateClass = sqlstate.slice(0, 2);
  if (OPERATIONAL_CLASSES.has(sqlstateClass)) return message;
  if (!STATEMENT_CLASSES.has(sqlstateClass)) return MASK;
  // Translated messages use other quotes; numbers are quoted bare ("value 99999 is out of range").
  const [unquoted = ''] = message.split(/["'«»„“”‘’‚‹›「]/);
  const plain = unquoted.replace(/\d+/g, MASK);
  return unquoted.length === message.length ? plain : plain + REST_MASKED;
}
