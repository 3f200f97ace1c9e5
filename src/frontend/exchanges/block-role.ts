// What a statement is to a block that has branches on several shards (D31): one branch's own, or all of theirs.
import { settingsOf } from '../../session/block-settings.js';
import { Effect, type StatementKind, type Template } from '../../sql/plan/template.js';
import { valueCount } from '../../wire/bind-message.js';
import { Frontend } from '../../wire/protocol.js';
import type { Unit } from '../unit/unit.js';
import { behindBind } from './own-portals.js';

export type BlockRole =
  /** Of the branch that its keys name; or it is answered by pgkv. */
  | { readonly kind: 'own' }
  /** Said on all. */
  | { readonly kind: 'on all' }
  /** Rolls back what stands before anything else that it does. */
  | { readonly kind: 'rolls back' }
  /** What is said on all is so where it is bound, and is executed there: the Execute has not arrived. */
  | { readonly kind: 'wait' }
  | { readonly kind: 'refused'; readonly why: string };

const OWN: BlockRole = { kind: 'own' };
const ON_ALL: BlockRole = { kind: 'on all' };
const ROLLS_BACK: BlockRole = { kind: 'rolls back' };
const WAIT: BlockRole = { kind: 'wait' };
const CONTROL: ReadonlySet<StatementKind> = new Set(['begin', 'commit', 'rollback', 'savepoint', 'set']);

/** @param mayArrive the client may send more */
export function roleInBlock(unit: Unit, hasFailed: boolean, mayArrive: boolean): BlockRole {
  const { type, template } = unit;
  if (type !== Frontend.query && type !== Frontend.bind) return OWN;
  // Why not stands there already.
  if (!hasFailed && unit.route.kind === 'refused') return OWN;
  // With values, Postgres does not even let the end of a failed block through.
  if (hasFailed && type === Frontend.bind && valueCount(unit.buffer, unit.start, unit.end) > 0) return OWN;
  const role = roleOf(template, hasFailed);
  if (role === OWN || type === Frontend.query || (role.kind === 'refused' && role.why !== NOT_NEXT)) return role;
  const behind = behindBind(unit);
  if (behind === 'unknown' && mayArrive) return WAIT;
  return behind === 'execute' ? role : refused(NOT_NEXT);
}

function roleOf(template: Template, hasFailed: boolean): BlockRole {
  const { kinds, leavesBlock, movable, endsFailure } = template;
  const [first] = kinds;
  if (first === 'rollback' || (hasFailed && first === 'commit')) return ROLLS_BACK;
  if (hasFailed) {
    if (!endsFailure) return OWN;
    // PREPARE TRANSACTION of a failed block is a ROLLBACK.
    if (kinds.length === 1 && leavesBlock === 'closed') return ROLLS_BACK;
    return kinds.length === 1 && first === 'savepoint' ? ON_ALL : refused(SEVERAL);
  }
  // Where it is executed next pgkv has taken it.
  if (kinds.length === 1 && first === 'commit') return refused(leavesBlock === 'open' ? CHAINED : NOT_NEXT);
  // Each branch would end by itself.
  if (kinds.length > 1 && kinds.some((kind) => kind === 'commit' || kind === 'rollback')) return refused(SEVERAL);
  if (leavesBlock !== null && first !== 'begin') return refused(SEVERAL);
  const isControl = kinds.some((kind) => CONTROL.has(kind));
  if (!isControl && settingsOf(template) === 'nothing') return OWN;
  if (movable && !template.releases) return template.readOnly ? OWN : ON_ALL;
  // What code sets nobody knows.
  return isControl || (template.effects & (Effect.settings | Effect.sticky)) !== 0 ? refused(SETS) : OWN;
}

const refused = (why: string): BlockRole => ({ kind: 'refused', why });
const NOT_NEXT = 'a statement for all of its shards was bound, and is not executed next';
const CHAINED = 'AND CHAIN would take over options that its BEGIN does not tell';
const SEVERAL = 'a text of several statements ends it or goes on in it, and it is open on several shards';
const SETS = 'the statement sets something, and the transaction is open on several shards';
