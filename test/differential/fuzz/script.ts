// A script of the transaction fuzzer: packets of messages, session by session. It is data alone, so that it can be cut down
// and printed; what a statement touches is said by who wrote it, so that a refusal can be judged without reading SQL.
import { encode, encodeAll, type FrontendMessage } from '../../support/frontend-message.js';

/** What a statement needs of the shards. Home is shard 0. */
export type Touch =
  /** Any connection will do: settings, SHOW, SELECT without tables, savepoints. */
  | { readonly kind: 'none' }
  /** Transaction control, which is none as well but may end a block. */
  | { readonly kind: 'control' }
  /** Ordinary and temporary tables, state of the session. */
  | { readonly kind: 'home' }
  /** Reads catalogues: right at home alone, and no reason to bind a block to it (D13). */
  | { readonly kind: 'catalog' }
  | {
      readonly kind: 'keys';
      readonly keys: readonly (readonly [tenant: string, key: string])[];
      readonly writes: boolean;
    }
  /** Rows of a key-value table without their keys. */
  | { readonly kind: 'every'; readonly writes: boolean }
  /** What pgkv does not do yet, on one shard neither. */
  | { readonly kind: 'unsupported'; readonly what: string };

export interface Statement {
  readonly sql: string;
  readonly touch: Touch;
}

/** A message; `of` are the statements it has run or prepared. Texts are in the client's encoding, one byte a character. */
export type FuzzMessage =
  /** With what is copied behind it, which the client itself may give up. */
  | { readonly query: readonly Statement[]; readonly latin1?: true; readonly copy?: string; readonly givesUp?: true }
  | {
      readonly parse: Statement;
      readonly name: string;
      readonly types: readonly number[];
      readonly latin1?: true;
    }
  | {
      /** A string, or hex of a binary value. */
      readonly bind: readonly (string | null | { readonly hex: string })[];
      readonly portal: string;
      readonly statement: string;
      readonly resultFormats: readonly number[];
      readonly latin1?: true;
    }
  | { readonly describe: 'statement' | 'portal'; readonly name: string }
  | { readonly execute: string; readonly rows: number }
  | { readonly close: 'statement' | 'portal'; readonly name: string }
  | 'sync'
  | 'flush';

export interface Packet {
  readonly session: number;
  readonly messages: readonly FuzzMessage[];
}

export interface Script {
  readonly seed: number;
  readonly packets: readonly Packet[];
}

export const statementCount = ({ packets }: Script): number =>
  packets.flatMap(({ messages }) => messages).reduce((sum, message) => sum + statementsIn(message), 0);

function statementsIn(message: FuzzMessage): number {
  if (typeof message === 'string') return 0;
  if ('query' in message) return message.query.length;
  return 'execute' in message ? 1 : 0;
}

export function textOf({ query }: { readonly query: readonly Statement[] }): string {
  return query.map(({ sql }) => sql).join('; ');
}

export function bytesOf(message: FuzzMessage): Buffer {
  if (typeof message === 'string') return encode(message);
  const latin1 = 'latin1' in message && message.latin1;
  const text = (value: string) => (latin1 ? Buffer.from(value, 'latin1') : value);
  if ('query' in message) {
    const messages: FrontendMessage[] = [{ query: text(textOf(message)) }];
    if (message.copy !== undefined) {
      messages.push({ copyData: message.copy }, message.givesUp === true ? { copyFail: 'given up' } : 'copyDone');
    }
    return encodeAll(messages);
  }
  if ('parse' in message) return encode({ parse: text(message.parse.sql), name: message.name, types: message.types });
  if ('bind' in message) return encode(bindOf(message, latin1 === true));
  return encode(message);
}

function bindOf(
  { bind, portal, statement, resultFormats }: Extract<FuzzMessage, { readonly bind: unknown }>,
  latin1: boolean,
): FrontendMessage {
  const isBinary = bind.map((value) => value !== null && typeof value !== 'string');
  const values = bind.map((value) => {
    if (value === null) return null;
    if (typeof value !== 'string') return Buffer.from(value.hex, 'hex');
    return Buffer.from(value, latin1 ? 'latin1' : 'utf8');
  });
  const formats = isBinary.includes(true) ? isBinary.map(Number) : [];
  return { bind: values, formats, portal, statement, resultFormats };
}

/** For people; `JSON.stringify` is for machines. */
export function describePackets(packets: readonly Packet[]): string[] {
  return packets.map(({ session, messages }) => `  ${'abc'[session]}: ${messages.map(describeMessage).join(' · ')}`);
}

function describeMessage(message: FuzzMessage): string {
  if (typeof message === 'string') return message === 'sync' ? 'S' : 'H';
  const named = (name: string) => (name === '' ? '' : ` ${name}`);
  if ('query' in message) {
    const copied = message.copy === undefined ? '' : ` ${JSON.stringify(message.copy)}${message.givesUp ? ' F' : ''}`;
    return `Q[${textOf(message)}]${message.latin1 ? ' latin1' : ''}${copied}`;
  }
  if ('parse' in message) {
    const types = message.types.length === 0 ? '' : ` (${message.types.join(', ')})`;
    return `P${named(message.name)}[${message.parse.sql}]${types}`;
  }
  if ('bind' in message) {
    const formats = message.resultFormats.length === 0 ? '' : ` -> ${message.resultFormats.join(', ')}`;
    return `B${named(message.portal)}${named(message.statement)}${JSON.stringify(message.bind)}${formats}`;
  }
  if ('describe' in message) return `D ${message.describe}${named(message.name)}`;
  if ('execute' in message) return `E${named(message.execute)}${message.rows === 0 ? '' : ` (${message.rows})`}`;
  return `C ${message.close}${named(message.name)}`;
}
