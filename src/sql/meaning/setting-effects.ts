// What changing one setting leaves behind in the session, by its name: SET, RESET and set_config() alike.
import { Effect, type EffectBits } from '../plan/template.js';

/** Old names Postgres still takes. */
const RENAMED: ReadonlyMap<string, string> = new Map([
  ['sort_mem', 'work_mem'],
  ['vacuum_mem', 'maintenance_work_mem'],
]);

/** Set anew at the start of every transaction from their default_… settings. */
const OF_TRANSACTION: ReadonlySet<string> = new Set([
  'transaction_isolation',
  'transaction_read_only',
  'transaction_deferrable',
]);

/** `seed` is setseed() in another guise; who the session belongs to cannot be applied to another connection. */
const STICKY: ReadonlySet<string> = new Set(['seed', 'session_authorization']);

export interface SettingChange {
  readonly effects: EffectBits;
  /** The setting that may differ afterwards, null where none does. */
  readonly name: string | null;
}

const NOTHING: SettingChange = { effects: Effect.none, name: null };

/**
 * @param isLocal SET LOCAL: undone at the end of the transaction, but for one trace: a custom setting (its name has a
 *   dot) that did not exist before is '' afterwards instead of absent.
 */
export function changeOfSetting(writtenName: string, isLocal: boolean): SettingChange {
  const lower = writtenName.toLowerCase();
  const name = RENAMED.get(lower) ?? lower;
  if (STICKY.has(name)) return { effects: Effect.sticky, name: null };
  if (OF_TRANSACTION.has(name) || (isLocal && !name.includes('.'))) return NOTHING;
  return { effects: Effect.settings, name };
}

/**
 * Back to its default. For session_authorization that is the state every connection starts in, but it switches SET ROLE
 * off, too (seen on 15 and 18).
 */
export function resetOfSetting(writtenName: string): SettingChange {
  if (writtenName.toLowerCase() === 'session_authorization') return { effects: Effect.settings, name: 'role' };
  return changeOfSetting(writtenName, false);
}
