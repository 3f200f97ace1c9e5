// What init brings to this version on a shard that was set up before, as texts that can be compared: what differs behind
// its work was repaired. Asks for nothing that an older version of the extension lacks.
import type { KvTable } from '../../cluster/kv-table.js';
import type { DriverClient } from '../connect.js';
import { RECOVER_ROLE } from './recovery-check.js';

/** By the name that a report gives it. */
export type Holdings = ReadonlyMap<string, string | null>;

const OF_SHARD = `
  SELECT (SELECT pg_catalog.concat_ws(' ', shard_name, epoch, slots, pg_catalog.to_jsonb(s) ->> 'cluster_id')
            FROM pgkv.shard_state s) AS state,
         pg_catalog.concat((SELECT nspacl FROM pg_catalog.pg_namespace WHERE nspname = 'pgkv'), ' ',
           (SELECT pg_catalog.string_agg(f.proacl::text, ' ' ORDER BY f.proname) FROM pg_catalog.pg_proc f
             WHERE f.oid IN (pg_catalog.to_regprocedure('pgkv.beat()'), pg_catalog.to_regprocedure('pgkv.settle(text)'),
                             pg_catalog.to_regprocedure('pgkv.collect_decisions(text[])'))), ' ',
           ARRAY(SELECT g.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
              JOIN pg_catalog.pg_roles r ON r.oid = m.member
             WHERE r.rolname = '${RECOVER_ROLE}' ORDER BY g.rolname)) AS grants`;
const OF_TABLE = `
  SELECT (SELECT pg_catalog.string_agg(pg_catalog.pg_get_functiondef(p.oid), E'\\n' ORDER BY p.oid::regprocedure::text)
            FROM pg_catalog.pg_proc p
           WHERE p.pronamespace = c.relnamespace
             AND pg_catalog.obj_description(p.oid, 'pg_proc') =
                 pg_catalog.format('pgkv: function of table %I.%I', $1::text, $2::text)) AS functions,
         (SELECT pg_catalog.string_agg(pg_catalog.pg_get_triggerdef(g.oid), E'\\n' ORDER BY g.tgname)
            FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal) AS triggers
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = $1 AND c.relname = $2`;

/** @param tables those that are there */
export async function readHoldings(client: DriverClient, tables: readonly KvTable[]): Promise<Holdings> {
  const holdings = new Map<string, string | null>();
  const shard = await client.query<{ state: string | null; grants: string }>(OF_SHARD);
  holdings.set('row of pgkv.shard_state', shard.rows[0]!.state).set('grants', shard.rows[0]!.grants);
  for (const { schema, name } of tables) {
    const { rows } = await client.query<{ functions: string | null; triggers: string | null }>(OF_TABLE, [
      schema,
      name,
    ]);
    holdings.set(`functions of ${schema}.${name}`, rows[0]?.functions ?? null);
    holdings.set(`triggers of ${schema}.${name}`, rows[0]?.triggers ?? null);
  }
  return holdings;
}

export const repairsBetween = (before: Holdings, after: Holdings): string[] =>
  [...after].flatMap(([name, text]) => (before.get(name) === text ? [] : [name]));
