// The roles of a shard that may log in, as far as whoever asks may see them: pgkv logs in to every shard as the client's
// role, with what it learnt on the home shard, so that they have to be the same everywhere.
import type { DriverClient } from '../connect.js';

export interface LoginRole {
  readonly name: string;
  readonly isSuperuser: boolean;
  /** SHA-256 of the stored password, in hex; null: there is none, or it may not be seen. */
  readonly verifierHash: string | null;
  /** Stored as MD5, which pgkv cannot check; false, too, where it may not be seen. */
  readonly isMd5: boolean;
}

export interface LoginRoles {
  /** Whether stored passwords could be seen: by superusers only. */
  readonly withVerifiers: boolean;
  readonly roles: readonly LoginRole[];
}

const query = (catalog: string, hash: string, isMd5: string): string => `
  SELECT rolname AS name, rolsuper AS "isSuperuser", ${hash} AS "verifierHash", ${isMd5} AS "isMd5"
    FROM pg_catalog.${catalog} WHERE rolcanlogin ORDER BY rolname COLLATE "C"`;
const VISIBLE = query('pg_roles', 'NULL', 'false');
const WHOLE = query(
  'pg_authid',
  `encode(sha256(convert_to(rolpassword, 'UTF8')), 'hex')`,
  `coalesce(rolpassword ~ '^md5[0-9a-f]{32}$', false)`,
);

export async function readLoginRoles(client: DriverClient): Promise<LoginRoles> {
  const { rows } = await client.query(`SELECT current_setting('is_superuser') = 'on' AS whole`);
  const withVerifiers: boolean = rows[0].whole;
  const found = await client.query<LoginRole>(withVerifiers ? WHOLE : VISIBLE);
  return { withVerifiers, roles: found.rows };
}
