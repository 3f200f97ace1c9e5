// The extension on a shard: which one is there, and installing ours: as an extension where the server has its files, else
// by running the same SQL (managed servers take no files).
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { assert } from '../../base/assert.js';
import type { DriverClient } from '../connect.js';

/** Three folders up from both `src/cli/cluster` and `dist/cli/cluster`. */
const FOLDER = fileURLToPath(new URL('../../../extensions/pgkv/', import.meta.url));

export interface ExtensionSource {
  readonly version: string;
  readonly sql: string;
}

export function extensionSource(): ExtensionSource {
  const control = readFileSync(`${FOLDER}pgkv.control`, 'utf8');
  const version = /^default_version\s*=\s*'([^']+)'/m.exec(control)?.[1];
  assert(version !== undefined, `${FOLDER}pgkv.control states default_version`);
  return { version, sql: readFileSync(`${FOLDER}pgkv--${version}.sql`, 'utf8') };
}

/** Of one whose version() was dropped: older than any. */
export const VERSION_UNKNOWN = '0';

export type InstalledExtension =
  | { readonly kind: 'none' }
  /** `plain`: by its SQL, not known to Postgres as an extension. */
  | { readonly kind: 'extension' | 'plain'; readonly version: string };

export async function installedExtension(client: DriverClient): Promise<InstalledExtension> {
  const { rows } = await client.query<{ extension: string | null; plain: boolean; partial: boolean }>(`
    SELECT (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pgkv') AS extension,
           pg_catalog.to_regprocedure('pgkv.version()') IS NOT NULL AS plain,
           pg_catalog.to_regclass('pgkv.shard_state') IS NOT NULL AS partial`);
  const { extension, plain, partial } = rows[0]!;
  if (extension !== null) return { kind: 'extension', version: extension };
  if (!plain) return partial ? { kind: 'plain', version: VERSION_UNKNOWN } : { kind: 'none' };
  const answer = await client.query<{ version: string }>('SELECT pgkv.version() AS version');
  return { kind: 'plain', version: answer.rows[0]!.version };
}

/** In the transaction of the caller. */
export async function installExtension(client: DriverClient, source: ExtensionSource): Promise<InstalledExtension> {
  const { rowCount } = await client.query(
    `SELECT FROM pg_catalog.pg_available_extension_versions WHERE name = 'pgkv' AND version = $1`,
    [source.version],
  );
  if (rowCount !== 0) {
    await client.query(`CREATE EXTENSION pgkv VERSION ${client.escapeLiteral(source.version)}`);
    return { kind: 'extension', version: source.version };
  }
  await runScript(client, source);
  return { kind: 'plain', version: source.version };
}

/** @returns false where the server lacks the files for it. In the transaction of the caller. */
export async function updateExtension(
  client: DriverClient,
  installed: InstalledExtension,
  source: ExtensionSource,
): Promise<boolean> {
  if (installed.kind === 'plain') {
    await runScript(client, source);
    return true;
  }
  const { rowCount } = await client.query(
    `SELECT FROM pg_catalog.pg_extension e, pg_catalog.pg_extension_update_paths('pgkv') p
      WHERE e.extname = 'pgkv' AND p.source = e.extversion AND p.target = $1 AND p.path IS NOT NULL`,
    [source.version],
  );
  if (rowCount === 0) return false;
  await client.query(`ALTER EXTENSION pgkv UPDATE TO ${client.escapeLiteral(source.version)}`);
  return true;
}

/** Whether `version` came before `other`: both are dotted numbers. */
export function isOlder(version: string, other: string): boolean {
  const [here, there] = [version, other].map((text) => text.split('.').map(Number)) as [number[], number[]];
  for (let place = 0; place < Math.max(here.length, there.length); place++) {
    const difference = (here[place] ?? 0) - (there[place] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** Installs or renews by plain SQL, in the transaction of the caller. */
export async function runScript(client: DriverClient, source: ExtensionSource): Promise<void> {
  await client.query(source.sql);
}
