// Which of config/auth.sql's functions a server has, in the database that [auth.service] names.
import type { DriverClient } from '../connect.js';

/** `old`: from an auth.sql before 0.2, which says nothing of rights to log in. */
export type LoginFunction = 'present' | 'old' | 'none';

export async function readLoginFunction(client: DriverClient): Promise<LoginFunction> {
  const { rows } = await client.query<{ login: boolean; verifier: boolean }>(
    `SELECT pg_catalog.to_regprocedure('pgkv.role_login(text)') IS NOT NULL AS login,
            pg_catalog.to_regprocedure('pgkv.role_verifier(text)') IS NOT NULL AS verifier`,
  );
  const { login, verifier } = rows[0]!;
  return login ? 'present' : verifier ? 'old' : 'none';
}
