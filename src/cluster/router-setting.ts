// The setting by which the triggers of key-value tables know the statements that pgkv has built itself, whose slots need
// no check (D2, D28). pgkv sets it when it opens connections for such statements; no client may: rows under it go wherever
// their statement says.

export const ROUTER_SETTING = 'pgkv.router';

/** Of the name as SQL writes it: `PGKV . "router"`. */
const IN_SQL = /\bpgkv"?\s*\.\s*"?router\b/i;

/** Whether SQL, or code in another language, may mean the setting by its name. */
export const mentionsRouterSetting = (text: string): boolean => IN_SQL.test(text);

/** Whether a client's start-up packet sets it, by itself or among `options` (where a backslash quotes what follows it). */
export function setsRouterSetting(startup: ReadonlyMap<string, string>): boolean {
  for (const [name, value] of startup) {
    if (name.toLowerCase() === ROUTER_SETTING) return true;
    if (name === 'options' && mentionsRouterSetting(value.replaceAll('\\', ''))) return true;
  }
  return false;
}
