// What a statement calls that may act beyond its own rows (D10): on a key-value table it would do so on the shard of the key,
// where nobody listens, another session holds the same lock, and a sequence is another one. The allow-list is that of
// function-effects.ts: functions of pg_catalog whose effects are known to be none; all of a user's own count as acting.
import type { A_Expr, FuncCall, Node } from 'libpg-query';
import { lookupOf } from './catalogue-lookups.js';
import { isHarmless, isSetConfig } from './function-effects.js';
import { namePath } from './name-path.js';
import { pushChildren } from './tree-walk.js';

const CATALOG = 'pg_catalog';

export interface Exceptions {
  /** Calls that are none of this rule's business: those of key-value tables. */
  readonly isOwn: (path: readonly string[]) => boolean;
  /** Settings are carried from connection to connection, so that set_config() means the same anywhere. */
  readonly settings: boolean;
}

/** Why something cannot stand beside a key, and what it is, in words. */
export interface Acting {
  readonly rule: 'function_effect' | 'catalogue_lookup';
  readonly what: string;
}

const acts = (what: string): Acting => ({ rule: 'function_effect', what });

/**
 * The first call or operator in the tree that may act beyond the statement, or looks for a name that means something else on
 * another shard; null where there is none.
 */
export function actingCall(root: Node, { isOwn, settings }: Exceptions): Acting | null {
  // Trees can be some thousand nodes deep.
  const stack: object[] = [root];
  while (stack.length > 0) {
    const item = stack.pop()!;
    const { FuncCall: call, A_Expr: expression } = item as { FuncCall?: FuncCall; A_Expr?: A_Expr };
    const lookup = lookupOf(item);
    if (lookup !== null) return { rule: 'catalogue_lookup', what: lookup };
    if (call !== undefined) {
      const path = namePath(call.funcname ?? []);
      const isAllowed = isOwn(path) || (settings && isSetConfig(path)) || isHarmless(path);
      if (!isAllowed) return acts(`the function ${path.join('.')}`);
    }
    if (expression !== undefined) {
      const path = namePath(expression.name ?? []);
      if (path.length > 1 && (path.length > 2 || path[0] !== CATALOG)) return acts(`the operator ${path.join('.')}`);
    }
    pushChildren(item, stack);
  }
  return null;
}
