// Which statements may give a transaction another isolation level than READ COMMITTED, under which each statement sees what was
// committed before it. What a level is set to by anything but its own plain name counts as another one.
import type { Node } from 'libpg-query';

const SETTINGS: ReadonlySet<string> = new Set(['transaction_isolation', 'default_transaction_isolation']);

/** As READ UNCOMMITTED is in Postgres. */
const isReadCommitted = (level: string | undefined): boolean => /^read (?:un)?committed$/i.test(level ?? '');

export const isIsolationSetting = (name: string): boolean => SETTINGS.has(name.toLowerCase());

/** By BEGIN, START TRANSACTION, SET TRANSACTION, SET SESSION CHARACTERISTICS or SET. */
export function setsOtherIsolation(node: Node): boolean {
  if ('TransactionStmt' in node) return (node.TransactionStmt.options ?? []).some(isOtherOption);
  if (!('VariableSetStmt' in node)) return false;
  const { name = '', args = [] } = node.VariableSetStmt;
  if (!isIsolationSetting(name)) return args.some(isOtherOption);
  return args.length !== 1 || !isReadCommitted(textOf(args[0]));
}

const isOtherOption = (option: Node): boolean =>
  'DefElem' in option &&
  option.DefElem.defname === 'transaction_isolation' &&
  !isReadCommitted(textOf(option.DefElem.arg));

const textOf = (node: Node | undefined): string | undefined =>
  node !== undefined && 'A_Const' in node ? node.A_Const.sval?.sval : undefined;
