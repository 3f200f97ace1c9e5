// Which databases a text needs nobody else to be connected to: those it drops, renames, moves, or copies. A server waits a few
// seconds for other sessions to leave, so that idle connections of pgkv's own have to be closed first.
import type { DefElem, Node } from 'libpg-query';
import { parse } from './parse.js';

/** What CREATE DATABASE copies where it does not say. */
const DEFAULT_TEMPLATE = 'template1';
const MENTIONED = /\bdatabase\b/i;

/** In the order in which the text names them; none for a text that pgkv cannot read. */
export function databasesToLeave(text: string): string[] {
  // Nearly all DDL ends here.
  if (!MENTIONED.test(text)) return [];
  const parsed = parse(text);
  if (parsed.kind === 'failed') return [];
  return parsed.statements.flatMap(({ node }) => databaseOf(node) ?? []);
}

function databaseOf(node: Node): string | undefined {
  if ('DropdbStmt' in node) return node.DropdbStmt.dbname;
  if ('CreatedbStmt' in node) return optionOf(node.CreatedbStmt.options, 'template') ?? DEFAULT_TEMPLATE;
  if ('RenameStmt' in node && node.RenameStmt.renameType === 'OBJECT_DATABASE') return node.RenameStmt.subname;
  if ('AlterDatabaseStmt' in node) {
    const moves = optionOf(node.AlterDatabaseStmt.options, 'tablespace') !== undefined;
    return moves ? node.AlterDatabaseStmt.dbname : undefined;
  }
  return undefined;
}

function optionOf(options: readonly Node[] | undefined, name: string): string | undefined {
  for (const option of options ?? []) {
    const { defname, arg }: DefElem = 'DefElem' in option ? option.DefElem : {};
    if (defname !== name || arg === undefined) continue;
    if ('String' in arg) return arg.String.sval;
    if ('TypeName' in arg) {
      const last = arg.TypeName.names?.at(-1);
      return last !== undefined && 'String' in last ? last.String.sval : undefined;
    }
  }
  return undefined;
}
