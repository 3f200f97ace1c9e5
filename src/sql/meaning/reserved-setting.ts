// Whether a text sets what pgkv alone may set (cluster/router-setting.ts), as far as its words show it.
import { mentionsRouterSetting, ROUTER_SETTING } from '../../cluster/router-setting.js';
import type { Template } from '../plan/template.js';
import type { ParsedStatement } from './parse.js';

/** Code that is kept, or run, as one literal; settings that a role, a database or the server gives to its sessions. */
const WITH_CODE_OR_DEFAULTS: ReadonlySet<string> = new Set([
  'AlterDatabaseSetStmt',
  'AlterFunctionStmt',
  'AlterRoleSetStmt',
  'AlterSystemStmt',
  'CreateFunctionStmt',
  'DoStmt',
]);

export function setsReservedSetting(
  { settingNames }: Pick<Template, 'settingNames'>,
  text: string,
  statements: readonly ParsedStatement[],
): boolean {
  if (settingNames.includes(ROUTER_SETTING)) return true;
  if (!mentionsRouterSetting(text)) return false;
  return statements.some(({ node }) => WITH_CODE_OR_DEFAULTS.has(Object.keys(node)[0] ?? ''));
}
