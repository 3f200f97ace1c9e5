// What a client was told of one unit: the messages up to its ReadyForQuery, as lines that can be compared with those of
// another run of the same script.
import type { BackendMessage } from '../../support/backend-message.js';

export interface Answer {
  /** Without notices, notifications and settings, which come when they like. */
  readonly messages: readonly BackendMessage[];
  readonly ended: 'ready' | 'closed' | 'silence';
  /** It ended in the middle of a message. */
  readonly isInMessage: boolean;
}

const ASIDE = new Set(['NoticeResponse', 'NotificationResponse', 'ParameterStatus']);
const COMPLETIONS = new Set(['CommandComplete', 'EmptyQueryResponse', 'PortalSuspended']);

export const isAside = ({ type }: BackendMessage): boolean => ASIDE.has(type);
export const isCompletion = ({ type }: BackendMessage): boolean => COMPLETIONS.has(type);

export const codeOf = (message: BackendMessage): string =>
  message.type === 'ErrorResponse' ? (message.fields['C'] ?? '') : '';

export const statusOf = ({ messages }: Answer): string => {
  const last = messages.at(-1);
  return last?.type === 'ReadyForQuery' ? last.status : '';
};

export const errorCode = ({ messages }: Answer): string => {
  const error = messages.find(({ type }) => type === 'ErrorResponse');
  return error === undefined ? '' : codeOf(error);
};

export const tagsOf = ({ messages }: Answer): string[] =>
  messages.filter(isCompletion).map((message) => (message.type === 'CommandComplete' ? message.tag : ''));

/** @param id of the script's keys, which differ from run to run */
export function lineOf(message: BackendMessage, id: string): string {
  switch (message.type) {
    case 'DataRow':
      return `row ${message.values.map((value) => value?.toString().replaceAll(id, '#') ?? 'null').join('|')}`;
    case 'RowDescription':
      return `columns ${message.columns.map(({ name, typeOid, format }) => `${name}:${typeOid}:${format}`).join('|')}`;
    case 'CommandComplete':
      return `tag ${message.tag}`;
    case 'ErrorResponse':
      return `error ${codeOf(message)}`;
    case 'ReadyForQuery':
      return `ready ${message.status}`;
    case 'CopyData':
      return `copied ${message.data.toString().replaceAll(id, '#').trim()}`;
    default:
      return message.type;
  }
}

/** On one line, for reports. */
export function showAnswer({ messages, ended }: Answer, id: string): string {
  const said = messages.map((message) =>
    message.type === 'ErrorResponse'
      ? `error ${codeOf(message)} "${message.fields['M']}"${message.fields['D'] === undefined ? '' : ` (${message.fields['D']})`}`
      : lineOf(message, id),
  );
  return `${said.join(', ')}${ended === 'ready' ? '' : `, ${ended}`}`;
}
