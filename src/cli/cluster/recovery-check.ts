// Whether transactions over several shards could be recovered on a shard (D14): the role that does it, what it may, and for
// which roles. Made by auth.sql and init; roles that came later lack their GRANT.
import type { DriverClient } from '../connect.js';

/** Used for nothing else. begin_branch() of the extension knows it by this name. */
export const RECOVER_ROLE = 'pgkv_recover';

export interface RecoveryRights {
  readonly exists: boolean;
  /** It may call what it needs of the extension. */
  readonly maySettle: boolean;
  /** Roles that may log in, no superusers, for which it could not finish a prepared transaction. */
  readonly unrecoverable: readonly string[];
  /** Of these, the ones that who asks may grant to it. */
  readonly grantable: readonly string[];
  /** Prepared half a minute ago or longer, on this server, in any database: pgkv's own and others'. */
  readonly orphans: readonly string[];
}

// A role that is a member of it cannot be granted to it: auth.sql warns of those.
const RIGHTS = `
  WITH recoverer AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = '${RECOVER_ROLE}'),
  server AS (SELECT current_setting('server_version_num')::int >= 160000 AS has_set),
  lacking AS (
    SELECT m.rolname::text AS name, a.rolsuper OR a.rolcreaterole AND NOT s.has_set
        OR pg_catalog.pg_has_role(a.oid, m.oid, 'MEMBER WITH ADMIN OPTION') AS grantable
      FROM recoverer r, server s, pg_catalog.pg_roles m, pg_catalog.pg_roles a
     WHERE m.rolcanlogin AND NOT m.rolsuper AND m.oid <> r.oid AND m.rolname <> $1 AND a.rolname = current_user
       AND NOT pg_catalog.pg_has_role(r.oid, m.oid, CASE WHEN s.has_set THEN 'SET' ELSE 'MEMBER' END)
       AND NOT pg_catalog.pg_has_role(m.oid, r.oid, 'MEMBER'))
  SELECT EXISTS (SELECT FROM recoverer) AS exists,
         COALESCE((SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(r.oid, f.oid, 'EXECUTE'))
             AND pg_catalog.has_schema_privilege(r.oid, 'pgkv', 'USAGE')
           FROM recoverer r, pg_catalog.pg_proc f
          WHERE f.oid IN (pg_catalog.to_regprocedure('pgkv.settle(text)'),
                          pg_catalog.to_regprocedure('pgkv.collect_decisions(text[])'))
          GROUP BY r.oid), false) AS "maySettle",
         ARRAY(SELECT name FROM lacking ORDER BY 1) AS unrecoverable,
         ARRAY(SELECT name FROM lacking WHERE grantable ORDER BY 1) AS grantable,
         ARRAY(SELECT pg_catalog.format('%s of %s', gid, owner) FROM pg_catalog.pg_prepared_xacts
                WHERE prepared < pg_catalog.clock_timestamp() - interval '30 seconds' ORDER BY prepared) AS orphans`;

/** @param service pgkv's own role, which writes nothing over several shards */
export async function readRecovery(client: DriverClient, service: string): Promise<RecoveryRights> {
  const { rows } = await client.query<RecoveryRights>(RIGHTS, [service]);
  return rows[0]!;
}
