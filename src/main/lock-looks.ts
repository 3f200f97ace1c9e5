// What servers say of locks: which transactions over several shards have branches there, and who waits for whom (R66).
// pg_locks and pg_blocking_pids() anybody may ask. And how many transactions they let be prepared (R68).
import { serviceQuery } from '../backend/pool/service-query.js';
import type { Clock } from '../base/clock.js';
import type { ClusterView, ShardView } from '../cluster/cluster-view.js';
import { MARK_TAG } from '../execute/two-phase/lock-mark.js';
import type { ShardLocks } from '../execute/two-phase/wait-graph.js';
import type { ServiceNodes } from './node-pools.js';

/** Of more, what is left out is taken for no wait. */
const ROWS_MAX = 20_000;
const SQL = `WITH locks AS MATERIALIZED (
    SELECT pid, granted, waitstart, classid::pg_catalog.int8 AS high, objid::pg_catalog.int8 AS low,
      locktype = 'advisory' AND objsubid = 1 AND classid::pg_catalog.int8 >> 8 = ${MARK_TAG} AS is_mark
    FROM pg_catalog.pg_locks WHERE pid IS NOT NULL AND (NOT granted OR locktype = 'advisory'))
  SELECT pid, 'mark', (high << 32 | low)::pg_catalog.text FROM locks WHERE is_mark AND granted
  UNION ALL SELECT pid, extract(epoch FROM waitstart)::pg_catalog.text,
    pg_catalog.array_to_string(pg_catalog.pg_blocking_pids(pid), ' ') FROM locks WHERE NOT granted
  LIMIT ${ROWS_MAX}`;

/** A server that does not answer shows nothing. */
export async function lookAtLocks(view: ClusterView, service: ServiceNodes, clock: Clock): Promise<ShardLocks[]> {
  const looks = view.shards.map((shard) => locksOf(shard, service, clock).catch(() => null));
  return (await Promise.all(looks)).filter((found) => found !== null);
}

async function locksOf({ name, primary }: ShardView, service: ServiceNodes, clock: Clock): Promise<ShardLocks> {
  const { pool, group } = service.of(primary);
  const rows = await serviceQuery(pool, group, clock, SQL);
  const isMark = ([, since]: (string | null)[]): boolean => since === 'mark';
  return {
    shardName: name,
    marks: rows.filter(isMark).map(([pid, , mark]) => ({ pid: Number(pid), mark: mark! })),
    waits: rows
      .filter((row) => !isMark(row))
      .map(([pid, since, blockers]) => ({
        pid: Number(pid),
        since: since ?? '',
        blockers: (blockers ?? '').split(' ').filter(Boolean).map(Number),
      })),
  };
}

export async function preparedMaxOf(
  shardName: string,
  view: ClusterView,
  service: ServiceNodes,
  clock: Clock,
): Promise<number> {
  const shard = view.shards.find(({ name }) => name === shardName);
  if (shard === undefined) throw new Error(`there is no shard ${shardName}`);
  const { pool, group } = service.of(shard.primary);
  const [row] = await serviceQuery(pool, group, clock, 'SHOW max_prepared_transactions');
  return Number(row?.[0]);
}
