// The roles of a shard that may log in, as far as whoever asks may see them: pgkv logs in to every shard as the client's
// role, with what it learnt on the home shard, so that they have to be the same everywhere.
import type { DriverClient } from '../connect.js';

export interface LoginRole {
  readonly name: string;
  readonly isSuperuser: boolean;
  /** SHA-256 of the stored password, in hex; null: there is none, or it may not be seen. */
  readonly verifierHash: string | null;
}

export interface LoginRoles {
  /** Whether stored passwords could be seen: by superusers only. */
  readonly withVerifiers: boolean;
  readonly roles: readonly LoginRole[];
}

const query = (catalog: string, hash: string): string => `
  SELECT rolname AS name, rolsuper AS "isSuperuser", ${hash} AS "verifierHash"
    FROM pg_catalog.${catalog} WHERE rolcanlogin ORDER BY rolname COLLATE "C"`;
const VISIBLE = query('pg_roles', 'NULL');
const WHOLE = query('pg_authid', `encode(sha256(convert_to(rolpassword, 'UTF8')), 'hex')`);

export async function readLoginRoles(client: DriverClient): Promise<LoginRoles> {
  const { rows } = await client.query(`SELECT current_setting('is_superuser') = 'on' AS whole`);
  const withVerifiers: boolean = rows[0].whole;
  const found = await client.query<LoginRole>(withVerifiers ? WHOLE : VISIBLE);
  return { withVerifiers, roles: found.rows };
}
