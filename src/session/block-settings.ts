// What is set in a transaction block, or may be, that ends with it.
import { Effect, type Template } from '../sql/plan/template.js';

/**
 * What a block may have set that ends with it: nothing; what its server can be asked for, pg_settings and custom settings of these
 * names; or anything.
 */
export type BlockSettings = 'nothing' | 'anything' | ReadonlySet<string>;

/** What it may set beside the options of a BEGIN. A call of set_config makes a text depend on its literals. */
export function settingsOf({ kinds, settingNames, effects, textDependent }: Template): BlockSettings {
  if ((effects & Effect.unknown) !== 0) return 'anything';
  if (settingNames.length === 0 && !textDependent && !kinds.includes('set')) return 'nothing';
  if ((effects & Effect.sticky) !== 0 || settingNames.includes('*')) return 'anything';
  return new Set(settingNames.filter((name) => name.includes('.')));
}

export function bothSettings(one: BlockSettings, other: BlockSettings): BlockSettings {
  if (one === 'nothing' || other === 'anything') return other;
  if (other === 'nothing' || one === 'anything') return one;
  for (const name of other) if (!one.has(name)) return new Set([...one, ...other]);
  return one;
}
