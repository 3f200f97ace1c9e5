// What servers say of locks: which transactions over several shards have branches there, and who waits for whom (R66).
// pg_locks and pg_blocking_pids() anybody may ask. And how many transactions they let be prepared (R68).
import type { Clock } from '../base/clock.js';
import type { ClusterView } from '../cluster/cluster-view.js';
import type { ViewHolder } from '../cluster/view-holder.js';
import { MARK_TAG } from '../execute/two-phase/lock-mark.js';
import type { ShardLocks } from '../execute/two-phase/wait-graph.js';
import type { ServiceNodes } from './node-pools.js';
import { askPrimary } from './shard-probes.js';

/** Of more, what is left out is taken for no wait. */
const ROWS_MAX = 20_000;
/** A server with more shows no waits: of one queue for a lock, 630 sessions have so many. */
export const BLOCKERS_MAX = 200_000;
/** A server that takes longer shows nothing in this look. */
export const LOOK_MS = 1_000;

export const locksQuery = (blockersMax: number): string => `WITH locks AS MATERIALIZED (
    SELECT pid, granted, waitstart, classid::pg_catalog.int8 AS high, objid::pg_catalog.int8 AS low,
      locktype = 'advisory' AND objsubid = 1 AND classid::pg_catalog.int8 >> 8 = ${MARK_TAG} AS is_mark
    FROM pg_catalog.pg_locks WHERE pid IS NOT NULL AND (NOT granted OR locktype = 'advisory')),
  waits AS MATERIALIZED (
    SELECT pid, waitstart, pg_catalog.pg_blocking_pids(pid) AS blockers FROM locks WHERE NOT granted LIMIT ${ROWS_MAX})
  SELECT pid, 'mark', (high << 32 | low)::pg_catalog.text FROM locks WHERE is_mark AND granted
  UNION ALL SELECT pid, extract(epoch FROM waitstart)::pg_catalog.text, pg_catalog.array_to_string(blockers, ' ') FROM waits
    WHERE (SELECT pg_catalog.sum(pg_catalog.cardinality(blockers)) FROM waits) <= ${blockersMax}
  LIMIT ${ROWS_MAX}`;

type Rows = readonly (readonly (string | null)[])[];

export interface LockLooksOptions {
  readonly clock: Clock;
  shardNames(): readonly string[];
  ask(shardName: string): Promise<Rows>;
}

/** Looks at all servers at once. Of one that hangs no other look waits: it is asked again when it has answered, or is given up. */
export class LockLooks {
  readonly #options: LockLooksOptions;
  readonly #underWay = new Set<string>();

  constructor(options: LockLooksOptions) {
    this.#options = options;
  }

  /** Of all that answer in time. */
  async look(): Promise<ShardLocks[]> {
    const looks = this.#options.shardNames().map((shardName) => this.#locksOf(shardName));
    return (await Promise.all(looks)).filter((found) => found !== null);
  }

  #locksOf(shardName: string): Promise<ShardLocks | null> {
    if (this.#underWay.has(shardName)) return Promise.resolve(null);
    this.#underWay.add(shardName);
    return new Promise((resolve) => {
      const deadline = this.#options.clock.after(LOOK_MS, () => resolve(null));
      const done = (found: ShardLocks | null): void => {
        deadline.cancel();
        this.#underWay.delete(shardName);
        resolve(found);
      };
      const locks = this.#options.ask(shardName).then((rows) => shownBy(shardName, rows));
      locks.then(done, () => done(null));
    });
  }
}

export const locksOfShards = (views: ViewHolder, service: ServiceNodes, clock: Clock): LockLooks => {
  const query = locksQuery(BLOCKERS_MAX);
  return new LockLooks({
    clock,
    shardNames: () => views.current.shards.map(({ name }) => name),
    ask: (shardName) => askShard(shardName, views.current, service, clock, query),
  });
};

function shownBy(shardName: string, rows: Rows): ShardLocks {
  const isMark = ([, since]: Rows[number]): boolean => since === 'mark';
  return {
    shardName,
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

async function askShard(
  shardName: string,
  view: ClusterView,
  service: ServiceNodes,
  clock: Clock,
  sql: string,
): Promise<Rows> {
  const shard = view.shards.find(({ name }) => name === shardName);
  if (shard === undefined) throw new Error(`there is no shard ${shardName}`);
  return askPrimary(service, clock)(shard, sql);
}

export async function preparedMaxOf(
  shardName: string,
  view: ClusterView,
  service: ServiceNodes,
  clock: Clock,
): Promise<number> {
  const [row] = await askShard(shardName, view, service, clock, 'SHOW max_prepared_transactions');
  return Number(row?.[0]);
}
