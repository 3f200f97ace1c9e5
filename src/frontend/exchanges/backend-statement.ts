// SELECT pg_backend_pid(), pg_cancel_backend(n), pg_terminate_backend(n), where they are the whole statement: the pid is the
// one that the client was greeted with, and the sessions are pgkv's. Small pids are servers' own: those statements, and all
// with which something is not as it should be, are left to the server, which words the error.
// https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
import { PgkvError } from '../../base/errors.js';
import { FIRST_SESSION_PID, type SessionSignal, type SignalOutcome } from '../../cluster/session-pids.js';
import { StatementValues, Unreadable } from '../../route/key-values.js';
import type { BackendArgument, BackendCall } from '../../sql/plan/backend-call.js';
import { BindMessage } from '../../wire/bind-message.js';
import { Frontend } from '../../wire/protocol.js';
import { BOOL_COLUMN, encodeWarning, INT4_COLUMN } from '../../wire/server-messages.js';
import { TypeOid } from '../../wire/type-oids.js';
import type { Unit } from '../unit/unit.js';
import { readBeside } from './block-instant.js';
import type { ExchangeContext } from './exchange-context.js';
import type { OwnOutcome, OwnStatement } from './own-statement.js';

/** Declared types of a parameter under which its value is the integer that is read here. */
const PID_TYPES: ReadonlySet<number> = new Set([TypeOid.unspecified, TypeOid.int2, TypeOid.int4]);
const TIMEOUT_TYPES: ReadonlySet<number> = new Set([...PID_TYPES, TypeOid.int8]);

/** The values of its arguments; undefined where it has none. */
interface Arguments {
  readonly pid: number | null | undefined;
  readonly timeout: number | null | undefined;
}

/** What the statement of a Query, Parse or Bind does here; null: it is the server's. */
export function backendStatement(unit: Unit, call: BackendCall, context: ExchangeContext): OwnStatement | null {
  const { session, kv } = context;
  // pg_catalog comes first where the path does not name it.
  if (!call.isQualified && /pg_catalog/i.test(kv.searchPath ?? '')) return null;
  if (unit.source !== null && !typesFit(call, unit.source.parameterTypes)) return null;
  const isPid = call.function === 'pg_backend_pid';
  const column = { name: call.column, type: isPid ? INT4_COLUMN : BOOL_COLUMN };
  // A parameter's value decides when it is bound.
  const given = unit.type === Frontend.parse ? boundLater(call) : argumentsOf(unit, call);
  if (given === null) return null;
  const asQuery = (run: OwnStatement['run']): OwnStatement => ({
    column,
    run: (done) => {
      readBeside(context);
      run(done);
    },
  });
  if (isPid) return asQuery((done) => done(row(session.pid)));
  const { pid, timeout } = given;
  if (pid === null || timeout === null) return asQuery((done) => done(row(null)));
  // What is wrong with a time-out the server says before it looks at the pid.
  if (pid === undefined || pid < FIRST_SESSION_PID || (timeout ?? 0) < 0) return null;
  const what: SessionSignal = call.function === 'pg_cancel_backend' ? 'cancel' : 'terminate';
  return asQuery((done) => run(pid, what, context, done));
}

function run(
  pid: number,
  what: SessionSignal,
  { session, services }: ExchangeContext,
  done: (outcome: OwnOutcome) => void,
): void {
  const role = session.settings.values.get('role');
  const by = role === undefined || role === 'none' ? session.user : role;
  services.signal(pid, what, by, (outcome) => {
    const isOwn = pid === session.pid && outcome === 'done';
    if (isOwn && what === 'terminate') done({ kind: 'ends', values: [true] });
    else if (isOwn) done({ kind: 'error', error: new PgkvError('cancelled'), runs: true, values: [true] });
    else if (outcome === 'done') done(row(true));
    else if (outcome === 'absent') done(row(false, absentWarning(pid, session.settings.values)));
    else
      done({
        kind: 'error',
        error: errorOf(outcome, what, isOldServer(session.told)),
        runs: outcome !== 'not callable',
      });
  });
}

const row = (value: number | boolean | null, notice: Buffer | null = null): OwnOutcome => ({
  kind: 'rows',
  values: [value],
  tag: 'SELECT',
  notice,
});

function absentWarning(pid: number, settings: ReadonlyMap<string, string>): Buffer | null {
  if (settings.get('client_min_messages')?.toLowerCase() === 'error') return null;
  return encodeWarning(`PID ${pid} is not a PostgreSQL backend process`);
}

/** Before 16 the reasons stand in the message. */
const isOldServer = (told: ReadonlyMap<string, string>): boolean =>
  Number.parseInt(told.get('server_version') ?? '', 10) < 16;

/** In Postgres's words (signalfuncs.c). */
function errorOf(outcome: Exclude<SignalOutcome, 'done' | 'absent'>, what: SessionSignal, isOld: boolean): PgkvError {
  const isCancel = what === 'cancel';
  if (outcome === 'unanswered') {
    const message = 'whether the role may reach that session could not be found out';
    return new PgkvError('server_unreachable', { message });
  }
  if (outcome === 'not callable') {
    const message = `permission denied for function ${isCancel ? 'pg_cancel_backend' : 'pg_terminate_backend'}`;
    return new PgkvError('insufficient_privilege', { message });
  }
  if (isOld) {
    const target = isCancel ? 'whose query is being canceled' : 'whose process is being terminated';
    const message =
      outcome === 'no superuser'
        ? `must be a superuser to ${isCancel ? 'cancel superuser query' : 'terminate superuser process'}`
        : `must be a member of the role ${target} or member of pg_signal_backend`;
    return new PgkvError('insufficient_privilege', { message });
  }
  const message = `permission denied to ${isCancel ? 'cancel query' : 'terminate process'}`;
  const [acts, one, being] = isCancel
    ? (['cancel queries', 'cancel this query', 'query is being canceled'] as const)
    : (['terminate processes', 'terminate this process', 'process is being terminated'] as const);
  const detail =
    outcome === 'no superuser'
      ? `Only roles with the SUPERUSER attribute may ${acts} of roles with the SUPERUSER attribute.`
      : `Only roles with privileges of the role whose ${being} or with privileges of the "pg_signal_backend" role may ${one}.`;
  return new PgkvError('insufficient_privilege', { message, detail });
}

function typesFit({ argument, timeout }: BackendCall, types: readonly number[]): boolean {
  // Parameters that no argument uses are bound all the same, and have to have a type.
  const wanted = new Map<number, ReadonlySet<number>>();
  if (timeout?.kind === 'parameter') wanted.set(timeout.number, TIMEOUT_TYPES);
  if (argument?.kind === 'parameter') wanted.set(argument.number, PID_TYPES);
  for (let number = 1; number <= parameterCount(types, argument, timeout); number++) {
    const type = types[number - 1] ?? TypeOid.unspecified;
    if (wanted.has(number) ? !wanted.get(number)!.has(type) : type === TypeOid.unspecified) return false;
  }
  return true;
}

function parameterCount(types: readonly number[], ...refs: readonly (BackendArgument | null)[]): number {
  return refs.reduce((most, ref) => (ref?.kind === 'parameter' ? Math.max(most, ref.number) : most), types.length);
}

/** Null: the text alone says that it is the server's. A parameter counts as a pid of pgkv's. */
function boundLater({ argument, timeout }: BackendCall): Arguments | null {
  const value = (ref: BackendArgument | null, open: number): number | null | undefined =>
    ref === null ? undefined : ref.kind === 'literal' ? ref.value : open;
  return { pid: value(argument, FIRST_SESSION_PID), timeout: value(timeout, 0) };
}

/** Null where the message is not as the statement needs it. */
function argumentsOf({ type, buffer, start, end, source }: Unit, { argument, timeout }: BackendCall): Arguments | null {
  const count = parameterCount(source?.parameterTypes ?? [], argument, timeout);
  if (type !== Frontend.bind) return count === 0 ? boundLater({ argument, timeout } as BackendCall) : null;
  const message = new BindMessage();
  if (source === null || !message.read(buffer, start, end) || message.count !== count) return null;
  if (!hasOneFormat(message)) return null;
  const values = new StatementValues('', [], { buffer, offset: message.formatsAt, end, types: source.parameterTypes });
  const value = (ref: BackendArgument | null): number | null | undefined | Unreadable => {
    if (ref === null) return undefined;
    if (ref.kind === 'literal') return ref.value;
    const read = values.integer(ref);
    return typeof read === 'bigint' ? Number(read) : read;
  };
  const [pid, wait] = [value(argument), value(timeout)];
  return pid instanceof Unreadable || wait instanceof Unreadable ? null : { pid, timeout: wait };
}

/** Text or binary, for one column. */
function hasOneFormat({ buffer, resultFormatsAt, resultFormatCount }: BindMessage): boolean {
  if (resultFormatCount > 1) return false;
  return resultFormatCount === 0 || buffer.readUInt16BE(resultFormatsAt + 2) <= 1;
}
