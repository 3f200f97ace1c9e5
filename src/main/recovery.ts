// What the recoverer asks of servers, and as whom (D14): what is prepared anybody may see, so the service role looks;
// pgkv_recover settles, and finishes a branch on a connection whose role is its owner's. It logs in only where there is
// something to do.
import type { Credential } from '../backend/connection/credential.js';
import type { PoolGroup } from '../backend/pool/pool-group.js';
import { StatementRefused, serviceQuery } from '../backend/pool/service-query.js';
import type { Clock } from '../base/clock.js';
import { messageOf, PgkvError } from '../base/errors.js';
import type { ClusterView, NodeView, ShardView } from '../cluster/cluster-view.js';
import type { PreparedState } from '../cluster/control-port.js';
import type { ViewHolder } from '../cluster/view-holder.js';
import type { Settings } from '../config/settings.js';
import { Recoverer } from '../control/recoverer.js';
import { gidPrefix, readGid, shardMark } from '../execute/two-phase/gid.js';
import type { Answer, Decision } from '../execute/two-phase/protocol.js';
import type { PreparedBranch, RecoveryServers } from '../execute/two-phase/recovery.js';
import { quoteLiteral } from '../sql/text/quote-literal.js';
import type { Logger } from '../telemetry/log.js';
import type { ServiceNodes, ServicePool } from './node-pools.js';

const ROLE = 'pgkv_recover';
/** A branch that is deciding holds its row until it has: whoever waits longer asks again in the next round. */
const SETTINGS: readonly (readonly [string, string])[] = [
  ['lock_timeout', '1s'],
  ['synchronous_commit', 'on'],
  ['default_transaction_isolation', 'read committed'],
  ['default_transaction_read_only', 'off'],
];

/** To each node: its statements may wait for locks, which the service role's do not. */
export const RECOVERY_CONNECTIONS = 1;

export interface RecoveryServices {
  readonly views: ViewHolder;
  readonly service: ServiceNodes;
  readonly recovery: ServiceNodes;
  readonly settings: Settings;
  readonly clock: Clock;
  readonly log: Logger;
}

export function shardRecovery(
  services: RecoveryServices,
  seen: (prepared: readonly PreparedState[]) => void = () => undefined,
): Recoverer {
  const { views, clock, log } = services;
  const reasons = new Map<string, string>();
  return new Recoverer({
    servers: () => serversOf(views.current, services, reasons),
    clock,
    seen,
    finished: ({ shardName: shard, gid, owner }, decision) =>
      log.warn(
        { shard, gid, owner, decision },
        'a transaction over several shards was left behind and is finished now',
      ),
    orphaned: ({ shardName: shard, gid, owner, ageMs }, why) => {
      const reason = reasons.get(gid) ?? why;
      const fields = { shard, gid, owner, ageSeconds: Math.round(ageMs / 1000), reason };
      log.error(
        fields,
        'a prepared transaction cannot be finished: it locks its keys and holds back vacuum of all tables',
      );
    },
  });
}

/** @param reasons by gid: what kept it from being finished, in the words of its server */
function serversOf(
  view: ClusterView,
  { service, recovery, settings, clock }: RecoveryServices,
  reasons: Map<string, string>,
): RecoveryServers | null {
  const { clusterId, database, shards } = view;
  if (clusterId === null || database === null) return null;
  reasons.clear();
  const byName = new Map(shards.map((shard) => [shard.name, shard]));
  const byMark = new Map(shards.map((shard) => [shardMark(shard.name), shard]));
  const ask = (node: NodeView, inDatabase: string, role: string | null, sql: string) => {
    const place = recovery.inDatabase(node, inDatabase);
    return serviceQuery(place.pool, groupOf(place, settings, role), clock, sql);
  };
  const noted = (gid: string, error: unknown): unknown => {
    reasons.set(gid, detailOf(error));
    return error;
  };
  return {
    shardNames: shards.map(({ name }) => name),
    prepared: (name, told) =>
      void preparedOn(byName.get(name)!, service, clock, clusterId).then(told, () => told(null)),
    settle: ({ gid }, told) => {
      const shard = byMark.get(readGid(gid)?.shard ?? '');
      if (shard === undefined) {
        noted(gid, new Error('no shard of the cluster has its decision'));
        return told(null);
      }
      ask(shard.primary, database, null, `SELECT pgkv.settle(${quoteLiteral(gid)})`).then(
        ([row]) => told(asDecision(row?.[0] ?? null)),
        (error: unknown) => {
          noted(gid, error);
          told(null);
        },
      );
    },
    finish: (branch, decision, told) => {
      const { gid, shardName, owner } = branch;
      const sql = `${decision === 'commit' ? 'COMMIT' : 'ROLLBACK'} PREPARED ${quoteLiteral(gid)}`;
      ask(byName.get(shardName)!.primary, branch.database, owner, sql).then(
        () => told({ kind: 'done' }),
        (error: unknown) => told(asAnswer(noted(gid, error))),
      );
    },
    collect: (name, held, told) => {
      const { primary } = byName.get(name)!;
      const sql = `SELECT pgkv.collect_decisions(ARRAY[${held.map(quoteLiteral).join(', ')}]::text[])`;
      const { pool, group } = service.of(primary);
      const known = serviceQuery(pool, group, clock, `SELECT FROM pg_catalog.pg_roles WHERE rolname = '${ROLE}'`);
      // Where it is not wanted, it does not try to log in.
      known
        .then((rows) => (rows.length === 0 ? rows : ask(primary, database, null, sql)))
        .then(
          () => told(),
          () => told(),
        );
    },
  };
}

async function preparedOn(
  { name, primary }: ShardView,
  service: ServiceNodes,
  clock: Clock,
  clusterId: string,
): Promise<readonly PreparedBranch[]> {
  const { pool, group } = service.of(primary);
  const sql = `SELECT gid, database, owner, extract(epoch FROM clock_timestamp() - prepared) * 1000
    FROM pg_catalog.pg_prepared_xacts WHERE gid LIKE ${quoteLiteral(`${gidPrefix(clusterId)}%`)} ORDER BY prepared`;
  const rows = await serviceQuery(pool, group, clock, sql);
  return rows.map(([gid, database, owner, age]) => {
    return { gid: gid!, shardName: name, database: database!, owner: owner!, ageMs: Number(age) };
  });
}

/** A start-up parameter is the role of the connection from its beginning: nothing has to be set, or taken back. */
function groupOf({ pool, group }: ServicePool, settings: Settings, role: string | null): PoolGroup {
  const startup = new Map([...group.startup, ...SETTINGS]);
  startup.set('user', ROLE);
  if (role !== null) startup.set('role', role);
  const password = settings.auth.recover.password?.reveal();
  const credential: Credential = password === undefined ? { kind: 'none' } : { kind: 'password', password };
  return pool.group(startup, credential);
}

const asDecision = (text: string | null): Decision | null => (text === 'commit' || text === 'abort' ? text : null);

function asAnswer(error: unknown): Answer {
  const cause = error instanceof PgkvError ? error.cause : undefined;
  return cause instanceof StatementRefused
    ? { kind: 'refused', sqlstate: cause.sqlstate, error: null }
    : { kind: 'lost' };
}

const detailOf = (error: unknown): string =>
  (error instanceof PgkvError ? error.detail : undefined) ?? messageOf(error);
