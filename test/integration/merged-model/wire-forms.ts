// A statement in each form in which a client can send it, and its answer read back the same whatever the form: simple or
// extended, named or not, described or not, values and results in text or binary. Says what is wrong with the messages.
import type { BackendMessage, ErrorFields } from '../../support/backend-message.js';
import { type FrontendMessage, int32 } from '../../support/frontend-message.js';

export type ColumnType = 'text' | 'jsonb' | 'int8' | 'int4' | 'bool' | 'numeric' | 'timestamptz' | 'interval' | '_text';

export interface Parameter {
  readonly type: ColumnType;
  readonly text: string | null;
}

export interface Statement {
  /** With $1 and so on. */
  readonly sql: string;
  readonly parameters: readonly Parameter[];
  /** Names and types of the result's columns; none: it has no result. */
  readonly columns: readonly (readonly [string, ColumnType])[];
}

export interface Form {
  readonly protocol: 'simple' | 'unnamed' | 'named';
  readonly describes: boolean;
  readonly binaryParameters: boolean;
  readonly binaryResult: boolean;
}

export interface Answer {
  readonly error: ErrorFields | null;
  /** In text. */
  readonly rows: readonly (readonly (string | null)[])[];
  readonly tag: string;
}

export const SIMPLE: Form = { protocol: 'simple', describes: false, binaryParameters: false, binaryResult: false };

const BINARY_PARAMETERS: readonly ColumnType[] = ['text', 'jsonb', 'int8', 'int4'];
/** Microseconds from 1970 to 2000. */
const POSTGRES_EPOCH_US = 946_684_800_000_000n;

/**
 * @param name of the prepared statement, for form `named`; `parses`: it does not exist yet
 * @param sync false inside a longer batch
 */
export function messagesOf(
  statement: Statement,
  form: Form,
  name: string,
  parses: boolean,
  sync = true,
): FrontendMessage[] {
  const { sql, parameters } = statement;
  if (form.protocol === 'simple') return [{ query: withLiterals(statement) }];
  const named = form.protocol === 'named' ? name : '';
  const bind: FrontendMessage = {
    bind: parameters.map(({ type, text }) => {
      if (text === null || !form.binaryParameters || !BINARY_PARAMETERS.includes(type)) return text;
      return encodeBinary(type, text);
    }),
    statement: named,
    resultFormats: form.binaryResult ? [1] : [],
  };
  return [
    ...(form.protocol === 'unnamed' || parses ? [{ parse: sql, name: named }] : []),
    bind,
    ...(form.describes ? [{ describe: 'portal' } as const] : []),
    { execute: '' },
    ...(sync ? (['sync'] as const) : []),
  ];
}

export function withLiterals({ sql, parameters }: Statement): string {
  return sql.replace(/\$(\d+)/g, (_, number: string) => {
    const { type, text } = parameters[Number(number) - 1]!;
    if (text === null) return 'null';
    return /^int/.test(type) && /^-?\d+$/.test(text) ? text : `'${text.replaceAll("'", "''")}'`;
  });
}

function encodeBinary(type: ColumnType, text: string): Buffer {
  switch (type) {
    case 'int8': {
      if (!/^-?\d+$/.test(text)) return Buffer.from(text);
      const bytes = Buffer.alloc(8);
      bytes.writeBigInt64BE(BigInt(text));
      return bytes;
    }
    case 'int4':
      return int32(Number(text));
    case 'jsonb':
      return Buffer.concat([Buffer.of(1), Buffer.from(text)]);
    default:
      return Buffer.from(text);
  }
}

function decodeBinary(type: ColumnType, bytes: Buffer): string {
  switch (type) {
    case 'int8':
      return bytes.readBigInt64BE().toString();
    case 'int4':
      return String(bytes.readInt32BE());
    case 'jsonb':
      if (bytes[0] !== 1) throw new RangeError('jsonb of an unknown version');
      return bytes.toString('utf8', 1);
    case 'bool':
      return bytes[0] === 1 ? 't' : 'f';
    case 'timestamptz':
      return (Number(bytes.readBigInt64BE() + POSTGRES_EPOCH_US) / 1000).toFixed(3);
    case 'numeric':
      return integerOf(bytes);
    default:
      return bytes.toString('utf8');
  }
}

/** Of a numeric that is a whole number and not negative: base 10000 digits, the first one of weight `weight`. */
function integerOf(bytes: Buffer): string {
  const [digits, weight] = [bytes.readInt16BE(0), bytes.readInt16BE(2)];
  let sum = 0;
  for (let place = 0; place <= weight; place++)
    sum = sum * 10_000 + (place < digits ? bytes.readInt16BE(8 + 2 * place) : 0);
  return String(sum);
}

/** timestamptz as milliseconds since 1970, in UTC. */
const decodeText = (type: ColumnType, bytes: Buffer): string => {
  const text = bytes.toString('utf8');
  return type === 'timestamptz' ? Date.parse(text.replace(' ', 'T').replace(/\+00$/, 'Z')).toFixed(3) : text;
};

const LETTERS: Readonly<Record<string, string>> = {
  ParseComplete: '1',
  BindComplete: '2',
  RowDescription: 'T',
  NoData: 'n',
  DataRow: 'D',
  CommandComplete: 'C',
  ErrorResponse: 'E',
  ReadyForQuery: 'Z',
};

/**
 * Reads the messages from behind the statement before to ReadyForQuery, or, inside a longer batch, to the statement's end.
 * @param status of the ReadyForQuery; null: none is expected
 * @returns a text: what is wrong with them
 */
export function readAnswer(
  messages: readonly BackendMessage[],
  { columns, sql }: Statement,
  form: Form,
  parses: boolean,
  status: string | null,
): Answer | string {
  const letters = messages.map(({ type }) => LETTERS[type] ?? `<${type}>`).join('');
  const described = columns.length > 0 ? 'T' : 'n';
  const ready = status === null ? '' : 'Z';
  const isSimple = form.protocol === 'simple';
  const begin = isSimple
    ? columns.length > 0
      ? 'T'
      : ''
    : `${form.protocol === 'unnamed' || parses ? '1' : ''}2${form.describes ? described : ''}`;
  const done = new RegExp(`^${begin}D*C${ready}$`);
  const failed = new RegExp(`^1?(2?${isSimple || form.describes ? '[Tn]?' : ''}D*)E${ready}$`);
  if (!done.test(letters) && !failed.test(letters)) return `messages ${letters} instead of ${begin}…C${ready}`;
  let error: ErrorFields | null = null;
  let tag = '';
  const rows: (string | null)[][] = [];
  for (const message of messages) {
    if (message.type === 'ErrorResponse') error = message.fields;
    else if (message.type === 'CommandComplete') tag = message.tag;
    else if (message.type === 'RowDescription') {
      const told = message.columns.map(({ name, format }) => `${name}/${format}`).join();
      const wanted = columns.map(([name]) => `${name}/${form.binaryResult ? 1 : 0}`).join();
      if (told !== wanted) return `columns ${told} instead of ${wanted}`;
    } else if (message.type === 'DataRow') {
      if (message.values.length !== columns.length)
        return `${message.values.length} values in a row of ${columns.length}`;
      const decode = form.binaryResult ? decodeBinary : decodeText;
      try {
        rows.push(message.values.map((value, index) => (value === null ? null : decode(columns[index]![1], value))));
      } catch (problem) {
        return `a row cannot be read: ${(problem as Error).message}`;
      }
    } else if (message.type === 'ReadyForQuery' && message.status !== status) {
      return `status ${message.status} instead of ${status}`;
    }
  }
  // The tag says how many rows were touched; so it has to say how many came, where rows come.
  const verb = /^\w+/.exec(sql)![0].toUpperCase();
  if (error === null && !tag.startsWith(verb)) return `tag ${tag} for ${verb}`;
  if (error === null && columns.length > 0 && !tag.endsWith(` ${rows.length}`))
    return `tag ${tag} with ${rows.length} rows`;
  return { error, rows, tag };
}
