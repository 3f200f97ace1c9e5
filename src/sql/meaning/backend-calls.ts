// Finds statements that ask for a session by its pid and do nothing else: SELECT pg_backend_pid(), pg_cancel_backend(n),
// pg_terminate_backend(n [, timeout]). Any other clause, column or expression beside it leaves the statement to the server:
// there, pids of pg_stat_activity and pg_locks have to fit those of pg_backend_pid().
import type { FuncCall, Node, SelectStmt } from 'libpg-query';
import type { BackendArgument, BackendCall } from '../plan/backend-call.js';
import { namePath } from './name-path.js';

/** Arguments that the functions take; a time-out of pg_terminate_backend may be left out. */
const ARGUMENTS: Readonly<Record<BackendCall['function'], readonly number[]>> = {
  pg_backend_pid: [0],
  pg_cancel_backend: [1],
  pg_terminate_backend: [1, 2],
};
const INT4_NAMES: ReadonlySet<string> = new Set(['int4', 'pg_catalog.int4']);
const INT4_MAX = 2 ** 31 - 1;
/** A string whose type is still open is read as the integer it stands for. */
const DECIMAL = /^[ \t\n\r\f\v]*[+-]?\d{1,10}[ \t\n\r\f\v]*$/;
/** What a SELECT of one column has in its tree, and nothing else. */
const BARE_SELECT: ReadonlySet<string> = new Set(['targetList', 'limitOption', 'op']);
const BARE_CALL: ReadonlySet<string> = new Set(['funcname', 'args', 'funcformat', 'location']);

/** Null for every other statement. */
export function backendCallOf(node: Node): BackendCall | null {
  if (!('SelectStmt' in node)) return null;
  const column = onlyColumn(node.SelectStmt);
  if (column === null) return null;
  const { call, name } = column;
  const path = namePath(call.funcname ?? []);
  const isQualified = path.length === 2 && path[0] === 'pg_catalog';
  const called = path.at(-1) as BackendCall['function'];
  if ((path.length !== 1 && !isQualified) || !Object.hasOwn(ARGUMENTS, called)) return null;
  const args = call.args ?? [];
  if (!ARGUMENTS[called].includes(args.length)) return null;
  const [first, timeout] = args;
  const argument = first === undefined ? null : argumentOf(first);
  if (first !== undefined && argument === null) return null;
  const wait = timeout === undefined ? null : argumentOf(timeout);
  if (timeout !== undefined && wait === null) return null;
  return { function: called, argument, timeout: wait, column: name ?? called, isQualified };
}

function onlyColumn(select: SelectStmt): { readonly call: FuncCall; readonly name: string | undefined } | null {
  if (!hasOnly(select, BARE_SELECT) || (select.op ?? 'SETOP_NONE') !== 'SETOP_NONE') return null;
  const [target, ...others] = select.targetList ?? [];
  if (target === undefined || others.length > 0 || !('ResTarget' in target)) return null;
  const { val, name, indirection } = target.ResTarget;
  if (indirection !== undefined || val === undefined || !('FuncCall' in val)) return null;
  return hasOnly(val.FuncCall, BARE_CALL) ? { call: val.FuncCall, name } : null;
}

/** False values and empty lists are what the parser writes for what is not there. */
function hasOnly(tree: object, keys: ReadonlySet<string>): boolean {
  return Object.entries(tree).every(
    ([key, value]) =>
      keys.has(key) || value === false || value === undefined || (Array.isArray(value) && value.length === 0),
  );
}

function argumentOf(node: Node): BackendArgument | null {
  if ('TypeCast' in node) {
    const { arg, typeName } = node.TypeCast;
    const isInt4 = INT4_NAMES.has(namePath(typeName?.names ?? []).join('.')) && typeName?.arrayBounds === undefined;
    return isInt4 && arg !== undefined && !('TypeCast' in arg) ? argumentOf(arg) : null;
  }
  if ('ParamRef' in node) {
    const { number = 0 } = node.ParamRef;
    return number > 0 ? { kind: 'parameter', number } : null;
  }
  if (!('A_Const' in node)) return null;
  const { ival, isnull, sval } = node.A_Const;
  if (isnull === true) return { kind: 'literal', value: null };
  const string = sval?.sval ?? '';
  // The parser writes 0 as an Integer without a value.
  const value = ival !== undefined ? (ival.ival ?? 0) : DECIMAL.test(string) ? Number(string) : Number.NaN;
  return Math.abs(value) <= INT4_MAX ? { kind: 'literal', value } : null;
}
