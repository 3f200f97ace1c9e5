// The heartbeats of a cluster with key-value tables, on service connections, and what the log hears of them.
import { StatementRefused, serviceQuery } from '../backend/pool/service-query.js';
import type { Clock } from '../base/clock.js';
import { PgkvError } from '../base/errors.js';
import type { ViewHolder } from '../cluster/view-holder.js';
import { Heartbeats } from '../control/heartbeat.js';
import type { Logger } from '../telemetry/log.js';
import type { ServiceNodes } from './node-pools.js';

/** Whoever holds the row longer than that hinders nobody but us: the next one comes. */
const BEAT = `SET lock_timeout = '500ms'; SELECT extract(epoch FROM pgkv.beat()) * 1000`;

export function shardHeartbeats(views: ViewHolder, service: ServiceNodes, clock: Clock, log: Logger): Heartbeats {
  return new Heartbeats({
    // Without a catalogue, or in one without a database of its own, there are no versions to keep.
    shards: () => (views.current.database === null ? [] : views.current.shards),
    clock,
    beat: async ({ primary }) => {
      const { pool, group } = service.inDatabase(primary, views.current.database!);
      const rows = await serviceQuery(pool, group, clock, BEAT);
      const behind = rows.at(-1)?.[0] ?? null;
      return behind === null ? null : Number(behind);
    },
    steppedBack: (shard, ms) =>
      log.warn(
        { shard: shard.name, ms: Math.round(ms) },
        'the clock of the shard has gone back; versions go on rising, keys expire later',
      ),
    failed: (shard, reason, error) => {
      if (reason === null) log.info({ shard: shard.name }, 'the heartbeat of the shard is written again');
      else
        log.warn(
          { shard: shard.name, reason },
          isMissing(error) ? 'no heartbeat of the shard: run pgkv init again' : 'no heartbeat of the shard',
        );
    },
  });
}

/** The server has answered, and what init makes is not there or not granted: class 42, and 3F000 for the schema. */
function isMissing(error: unknown): boolean {
  const cause = error instanceof PgkvError ? error.cause : undefined;
  return cause instanceof StatementRefused && /^(42|3F)/.test(cause.sqlstate);
}
