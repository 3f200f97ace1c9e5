// What SIGHUP does with the settings file: which keys have changed, which of them a running router takes over, and which
// wait for the next start. Pure.
import { snakeCase } from './camel-keys.js';
import { Secret } from './secrets.js';
import type { Settings } from './settings.js';

/** Keys as in the file. The files behind tls.* are read again whether or not their names have changed. */
const TAKEN_OVER: ReadonlySet<string> = new Set([
  'admin.roles',
  'auth.allow',
  'log.level',
  'tls.cert_file',
  'tls.key_file',
]);

export interface ReloadPlan {
  /** Those in force from now on. */
  readonly settings: Settings;
  readonly changed: readonly string[];
  /** Changed in the file, in force at the next start. */
  readonly needRestart: readonly string[];
}

export function planReload(inForce: Settings, read: Settings): ReloadPlan {
  const before = leaves(inForce);
  const after = leaves(read);
  const keys = [...new Set([...before.keys(), ...after.keys()])].filter((key) => before.get(key) !== after.get(key));
  const { admin, auth, log, tls } = read;
  return {
    settings: {
      ...inForce,
      admin: { ...inForce.admin, roles: admin.roles },
      auth: { ...inForce.auth, allow: auth.allow },
      log: { ...inForce.log, level: log.level },
      tls: { ...inForce.tls, certFile: tls.certFile, keyFile: tls.keyFile },
    },
    changed: keys.filter((key) => TAKEN_OVER.has(key)),
    needRestart: keys.filter((key) => !TAKEN_OVER.has(key)),
  };
}

/** Values by dotted key, comparable as text; a list is one value. Secrets are compared, and leave no trace. */
function leaves(value: object, prefix = '', found = new Map<string, string>()): Map<string, string> {
  for (const [name, inner] of Object.entries(value)) {
    const key = `${prefix}${snakeCase(name)}`;
    if (inner instanceof Secret) found.set(key, inner.reveal());
    else if (typeof inner === 'object' && inner !== null && !Array.isArray(inner)) leaves(inner, `${key}.`, found);
    else found.set(key, JSON.stringify(inner) ?? '');
  }
  return found;
}
