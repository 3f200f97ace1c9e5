// The logger: pino to standard error, JSON for machines or one line for people. What may hold users' data goes under
// the keys `sql`, `parameters` and `err`, whose serializers mask it unless `log.values` is on; other keys and messages
// must never hold any.
import { type DestinationStream, type LogFn, type Logger, pino, stdSerializers } from 'pino';
import { redactServerMessage, redactSql } from './redact.js';

export type { Logger } from 'pino';

export interface LogOptions {
  readonly level: 'silent' | 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace';
  readonly format: 'auto' | 'json' | 'line';
  /** Shows literals, parameters and details of errors. */
  readonly values: boolean;
}

/** Where lines go; `isTTY` decides what format "auto" means and whether there is colour. */
export interface LogDestination extends DestinationStream {
  readonly isTTY?: boolean | undefined;
}

/** `destination` defaults to standard error, written synchronously so that a crash loses nothing. */
export function createLogger(options: LogOptions, destination?: LogDestination): Logger {
  const isTerminal = destination === undefined ? process.stderr.isTTY === true : destination.isTTY === true;
  const sink = destination ?? pino.destination({ dest: 2, sync: true });
  const asLine = options.format === 'line' || (options.format === 'auto' && isTerminal);
  return pino(
    {
      level: options.level,
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: valueSerializers(options.values),
      ...(options.values ? {} : { hooks: { logMethod: maskImpliedMessage } }),
    },
    asLine ? { write: (json: string) => sink.write(formatLogLine(json, isTerminal)) } : sink,
  );
}

function valueSerializers(showValues: boolean): Record<string, (value: unknown) => unknown> {
  if (showValues) return { err: errorSerializer(true) };
  return {
    err: errorSerializer(false),
    sql: (text) => (typeof text === 'string' ? redactSql(text) : '?'),
    parameters: (list) => (Array.isArray(list) ? `${list.length} values` : '?'),
  };
}

/** pino takes an error's own message where none is given: that one has to be masked as well. */
function maskImpliedMessage(this: Logger, args: Parameters<LogFn>, method: LogFn): void {
  const first: unknown = args[0];
  const error = first instanceof Error ? first : (first as { err?: unknown } | null)?.err;
  if (args.length > 1 || !(error instanceof Error)) method.apply(this, args);
  else method.apply(this, [args[0], String(errorSerializer(false)(error)['message'])] as Parameters<LogFn>);
}

/** Fields of a server's error that quote rows, parameters or the statement. */
const VALUE_FIELDS = ['detail', 'hint', 'where', 'internalQuery', 'query', 'parameters'] as const;

type Fields = Record<string, unknown>;

function errorSerializer(showValues: boolean): (value: unknown) => Fields {
  return (value) => {
    if (!(value instanceof Error)) return showValues ? { value } : { message: '?' };
    const fields: Fields = { ...stdSerializers.errWithCause(value) };
    return showValues ? fields : maskError(fields);
  };
}

/** Errors of a server carry severity and code and are masked; our own (PgkvError) are written without values. */
function maskError(fields: Fields): Fields {
  const { severity, code, message, stack, cause, aggregateErrors, ...rest } = fields;
  const isServerError = typeof severity === 'string' && typeof code === 'string';
  const text = String(message ?? '');
  const masked = isServerError ? redactServerMessage(code, text) : text;
  if (isServerError) for (const field of VALUE_FIELDS) delete rest[field];
  return {
    message: masked,
    ...(severity === undefined ? {} : { severity }),
    ...(code === undefined ? {} : { code }),
    ...rest,
    ...(typeof stack === 'string' && { stack: text === '' ? stack : stack.replaceAll(text, () => masked) }),
    ...(isFields(cause) && { cause: maskError(cause) }),
    ...(Array.isArray(aggregateErrors) && { aggregateErrors: aggregateErrors.filter(isFields).map(maskError) }),
  };
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null;
}

const LEVEL_COLOURS: Readonly<Record<string, number>> = {
  trace: 90,
  debug: 36,
  info: 32,
  warn: 33,
  error: 31,
  fatal: 35,
};

/** `08:15:02.113 INFO  message key=value …`, an error's stack indented below it. */
export function formatLogLine(json: string, colour: boolean): string {
  let record: Fields;
  try {
    record = JSON.parse(json) as Fields;
  } catch {
    return json;
  }
  const { level, time, msg, err, pid: _, ...rest } = record;
  const paint = (text: string, code: number) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text);
  const clock = typeof time === 'string' ? time.slice(11, 23) : '';
  const label = paint(String(level).toUpperCase().padEnd(5), LEVEL_COLOURS[String(level)] ?? 0);
  const pairs = Object.entries(rest).map(([key, value]) => paint(`${key}=`, 90) + oneWord(value));
  const first = [clock, label, oneLine(msg ?? ''), ...pairs].filter((part) => part !== '').join(' ');
  return `${first}${errorLines(err)}\n`;
}

function oneWord(value: unknown): string {
  return typeof value === 'string' && /^[!-~]+$/.test(value) ? value : quote(value);
}

function oneLine(value: unknown): string {
  const text = typeof value === 'string' ? value : quote(value);
  return UNPRINTABLE.test(text) ? quote(text) : text;
}

/** What could start a line of its own or steer the terminal. */
const UNPRINTABLE = /[\p{Cc}\u2028\u2029]/u;
const ALL_UNPRINTABLE = new RegExp(UNPRINTABLE, 'gu');

/** JSON, also without the control characters that JSON itself leaves alone (U+0080 to U+009F). */
function quote(value: unknown): string {
  const json = JSON.stringify(value) ?? '';
  return json.replace(ALL_UNPRINTABLE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function errorLines(err: unknown): string {
  if (err === undefined) return '';
  if (!isFields(err)) return ` err=${oneWord(err)}`;
  const { stack, message, code, sqlstate } = err;
  const state = sqlstate ?? code;
  const lines = String(stack ?? message).split('\n');
  if (state !== undefined) lines[0] = `${lines[0]} (${String(state)})`;
  return lines.map((line) => `\n    ${oneLine(line.trim())}`).join('');
}
