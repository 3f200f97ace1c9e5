// What every INSERT into a key-value table has, wherever its rows come from: its columns, the WITH that reaps expired rows, and
// ON CONFLICT, whose target users name without the slot that the unique index has.
import type { InferClause, InsertStmt, Node, OnConflictClause, RangeVar } from 'libpg-query';
import { type Refusal, refuse } from '../../base/refusals.js';
import { KV_COLUMNS } from '../../cluster/kv-table.js';
import { insertion, type Stamp, stampEdits, stampFor, takeStamp } from '../rewrite/kv-rewrites.js';
import type { Clauses } from '../text/clauses.js';
import type { TokenEdit } from '../text/text-tokens.js';
import { refusalOfAssignments } from './kv-rows.js';

/** Where an INSERT's rows have what matters here; -1 for a column that is not there. */
export interface Columns {
  readonly names: readonly string[];
  readonly tenantAt: number;
  readonly keyAt: number;
  readonly slotAt: number;
}

export function columnsOf({ cols }: InsertStmt): Columns {
  const names =
    cols === undefined
      ? KV_COLUMNS
      : cols.map((node) =>
          'ResTarget' in node && node.ResTarget.indirection === undefined ? (node.ResTarget.name ?? '') : '',
        );
  return {
    names,
    tenantAt: names.indexOf('tenant_id'),
    keyAt: names.indexOf('key'),
    slotAt: names.indexOf('slot'),
  };
}

export function refusalOfConflict(conflict: OnConflictClause | undefined): Refusal | null {
  const infer = conflict?.infer;
  if (infer !== undefined && infer.conname === undefined) {
    const names = (infer.indexElems ?? []).map(plainColumn).sort().join();
    if ((names !== 'key,tenant_id' && names !== 'key,slot,tenant_id') || infer.whereClause !== undefined) {
      return refuse('conflict_target');
    }
  }
  return refusalOfAssignments(conflict?.targetList);
}

/** The name of a column without collation or operator class; empty for anything else. */
function plainColumn(node: Node): string {
  if (!('IndexElem' in node)) return '';
  const { name, collation, opclass } = node.IndexElem;
  return collation === undefined && opclass === undefined ? (name ?? '') : '';
}

/** Users name the key; the unique index has the slot in it, too. */
const needsSlot = (infer: InferClause | undefined): boolean => infer?.indexElems?.length === 2;

function conflictStamp(relation: RangeVar, conflict: OnConflictClause | undefined): Stamp {
  if (conflict?.action !== 'ONCONFLICT_UPDATE') return { columns: [], expressions: [] };
  return stampFor(relation, conflict.targetList);
}

/** Behind the rows: the target widened, the version counted up; and the way back. */
export function conflictEdits(
  { onConflictClause: conflict }: InsertStmt,
  relation: RangeVar,
  { onConflict }: Clauses,
): { readonly edits: readonly TokenEdit[]; readonly undo: (statement: InsertStmt) => boolean } {
  const widensTarget = needsSlot(conflict?.infer);
  const stamp = conflictStamp(relation, conflict);
  return {
    edits: [
      ...(widensTarget ? [insertion(onConflict?.targetList?.end ?? 0, ', slot')] : []),
      ...(onConflict?.set == null ? [] : stampEdits(onConflict.set.body.start, stamp)),
    ],
    undo: ({ onConflictClause }) => {
      if (widensTarget) {
        const added = onConflictClause?.infer?.indexElems?.pop();
        if (added === undefined || plainColumn(added) !== 'slot') return false;
      }
      return takeStamp(onConflictClause?.targetList, stamp);
    },
  };
}

/** False where it has no such WITH. */
export function takeReapingWith(statement: InsertStmt): boolean {
  const [reaped, ...more] = statement.withClause?.ctes ?? [];
  if (reaped === undefined || !('CommonTableExpr' in reaped) || more.length > 0) return false;
  delete statement.withClause;
  return true;
}
