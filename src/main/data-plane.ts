// What serves clients: listener, pools, caches. The whole of a worker, and most of a router with one process.
import { sendCancelRequest } from '../backend/connection/cancel-request.js';
import type { NodeDirectory } from '../backend/pool/nodes.js';
import { serviceQuery } from '../backend/pool/service-query.js';
import { type ReadTemplate, StatementSources } from '../backend/replies/statement-source.js';
import { PgkvError } from '../base/errors.js';
import { homeShard, type ShardId } from '../cluster/cluster-view.js';
import type { PreparedState, WorkerCopy } from '../cluster/control-port.js';
import { loadKeyHash } from '../cluster/key-hash.js';
import type { SessionSignal, SignalOutcome } from '../cluster/session-pids.js';
import type { ViewHolder } from '../cluster/view-holder.js';
import type { Settings } from '../config/settings.js';
import { MergedLanes } from '../execute/merged/merged-lanes.js';
import { LockContention } from '../execute/two-phase/lock-contention.js';
import { LockWatch } from '../execute/two-phase/lock-watch.js';
import { PreparedSlots } from '../execute/two-phase/prepared-slots.js';
import { AllowList } from '../frontend/door/allow-list.js';
import { CancelRegistry } from '../frontend/door/cancel-registry.js';
import { FailedLogins } from '../frontend/door/failed-logins.js';
import type { FrontendServices } from '../frontend/door/frontend-services.js';
import { Listener } from '../frontend/door/listener.js';
import { PendingStartups } from '../frontend/door/pending-startups.js';
import { RefusedClients } from '../frontend/door/refused-clients.js';
import { RoleSource } from '../frontend/door/role-source.js';
import { SessionSignals } from '../frontend/door/session-signals.js';
import type { TlsMaterial } from '../frontend/door/tls-material.js';
import { ProtocolTap } from '../frontend/exchanges/protocol-tap.js';
import { loadParser } from '../sql/meaning/parse.js';
import { TemplateCache } from '../sql/template-cache.js';
import { TextBudget } from '../sql/text-budget.js';
import { type Counters, createCounters } from '../telemetry/counters.js';
import type { Logger } from '../telemetry/log.js';
import { RunningCopies } from '../telemetry/running-copies.js';
import { Frontend, frontendLimits } from '../wire/protocol.js';
import { errorsWritten } from '../wire/server-messages.js';
import { refreshGauges, refreshOwnErrors } from './data-counters.js';
import { boundHeapGrowth } from './heap-growth.js';
import { locksOfShards, preparedMaxOf } from './lock-looks.js';
import { clientNodes, type PoolServices, type ServiceNodes } from './node-pools.js';
import { type Siblings, shareLanes } from './share-lanes.js';
import { warmUp } from './warm-up.js';

export interface DataPlaneOptions extends PoolServices {
  readonly log: Logger;
  readonly version: string;
  readonly views: ViewHolder;
  readonly tls: TlsMaterial | null;
  /** For stand-ins of unknown roles' verifiers: 32 unpredictable bytes. */
  readonly mockSecret: Buffer;
  readonly service: ServiceNodes;
  /** See RouterOptions. */
  readonly warmsUp: boolean;
  /** `SHOW pgkv.status`. */
  status(): Record<string, unknown>;
  /** `SHOW pgkv.prepared_transactions`. */
  prepared(): readonly PreparedState[];
  /** `SHOW pgkv.copies`: of clients of other data processes, at most seconds old. */
  copiesElsewhere(): readonly WorkerCopy[];
  /** Null: there are no other data processes. */
  readonly siblings: Siblings | null;
}

/** What a running data plane can be told anew. */
export interface Reloaded {
  readonly tls: TlsMaterial | null;
  readonly allow: Settings['auth']['allow'];
  readonly adminRoles: Settings['admin']['roles'];
}

export interface DataPlane {
  readonly nodes: NodeDirectory;
  readonly listener: Listener;
  readonly counters: Counters;
  readonly copies: RunningCopies;
  /** Brings the counters that others own up to date. */
  refreshCounters(): void;
  /** For connections to come. */
  reload(changes: Reloaded): void;
  // What other data processes found out
  schemaChangedElsewhere(shard: ShardId): void;
  verifierForgottenElsewhere(role: string): void;
  databaseLeftElsewhere(database: string): void;
  /** A request that another data process got. */
  cancel(pid: number, secretKey: Buffer): void;
  /** A client of another data process, with that role, asks for a session of this one. */
  signal(pid: number, what: SessionSignal, by: string, done: (outcome: SignalOutcome) => void): void;
  /** Ends sessions between transactions, the others after `drain.timeout_ms`. */
  drain(): Promise<void>;
  /** Cuts every session and server connection. */
  destroy(): void;
}

/** A client that was sent its last message gets this long to close its side. */
const CLOSE_GRACE_MS = 2_000;
const CANCEL_TIMEOUT_MS = 5_000;
/** Rows of SHOW pgkv.…, each a JSON document, for the roles of admin.roles. */
const SHOWN: Readonly<Record<string, (options: DataPlaneOptions, copies: RunningCopies) => readonly unknown[]>> = {
  status: (options) => [options.status()],
  prepared_transactions: (options) => options.prepared(),
  copies: (options, { states }) => [
    ...states.map((copy) => ({ ...copy, worker: options.siblings?.worker ?? 1 })),
    ...options.copiesElsewhere(),
  ],
};
const notAdmin = (name: string) => ({ message: `SHOW pgkv.${name} is for the roles that admin.roles names` });

export async function openDataPlane(options: DataPlaneOptions): Promise<DataPlane> {
  await Promise.all([loadParser(), loadKeyHash()]);
  const { settings, log, clock, random, registry, views, siblings, service } = options;
  if (options.warmsUp) warmUp(views.current);
  const counters = createCounters();
  const copies = new RunningCopies(clock);
  const errorsBefore = new Map(errorsWritten);
  const nodes = clientNodes(views, options, service, log, (pool, shard) => {
    if (siblings !== null) pool.onSchemaChanged = () => siblings.port.schemaChanged(shard.id);
    pool.onRoleRefused = (user) => roles?.forget(user);
    pool.onDatabaseLeft = (database) => {
      closeIdle(database);
      siblings?.port.databaseLeft(database);
    };
  });
  const roles = roleSource(options);
  const closeIdle = (database: string): void => {
    nodes.closeIdle(database);
    service.nodes.closeIdle(database);
  };
  const cancels =
    siblings === null
      ? new CancelRegistry(random)
      : new CancelRegistry(random, siblings.pids, (...request) => siblings.port.cancel(...request));
  const signals = sessionSignals(options, cancels);
  const merged = settings.merged.disabled
    ? null
    : new MergedLanes(registry, clock, counters, settings.merged.deadlineMs);
  const sharing = merged === null ? null : shareLanes(merged, counters, options);
  let { tls } = options;
  let allowed = new AllowList(settings.auth.allow);
  let adminRoles = settings.admin.roles;
  const listener = new Listener({
    ...conversationServices(options, counters, copies, signals, (user) => adminRoles.includes(user)),
    counters,
    nodes,
    view: () => views.current,
    merged,
    registry,
    cancels,
    authentication: {
      method: settings.auth.method,
      roles,
      failureDelayMs: settings.auth.failureDelayMs,
      mockSecret: options.mockSecret,
      clock,
      random,
    },
    allowed: () => allowed,
    pending: new PendingStartups(),
    tls: () => tls,
  });
  const logCut = (sessions: number): void => {
    if (sessions > 0) log.warn({ sessions }, 'sessions were cut');
  };
  return {
    nodes,
    listener,
    counters,
    copies,
    refreshCounters() {
      refreshGauges(counters, [...nodes.pools()], listener);
      refreshOwnErrors(counters.ownErrors, errorsBefore);
    },
    reload(next) {
      ({ tls, adminRoles } = next);
      allowed = new AllowList(next.allow);
    },
    schemaChangedElsewhere(id) {
      const shard = views.current.shards[id];
      if (shard !== undefined) nodes.primary(shard).schemaChangedElsewhere();
    },
    verifierForgottenElsewhere: (role) => roles?.forgottenElsewhere(role),
    databaseLeftElsewhere: closeIdle,
    cancel(pid, secretKey) {
      if (cancels.cancel(pid, secretKey)) counters.cancelsForwarded++;
    },
    signal: (...request) => signals.signalHere(...request),
    async drain() {
      // Before the first of the sessions is over: whoever owns a lane is no longer asked when it leaves.
      const isAnswered = sharing?.end();
      logCut(await listener.drain(settings.drain.timeoutMs));
      await isAnswered;
    },
    destroy() {
      logCut(listener.destroy());
      sharing?.destroy();
      nodes.destroy();
      service.nodes.destroy();
    },
  };
}

function sessionSignals(
  { views, service, clock, siblings }: DataPlaneOptions,
  sessions: CancelRegistry,
): SessionSignals {
  return new SessionSignals({
    sessions,
    port: siblings?.port ?? null,
    ask(sql) {
      const { pool, group } = service.of(homeShard(views.current).primary);
      return serviceQuery(pool, group, clock, sql);
    },
  });
}

/** Null where clients are trusted. */
function roleSource({ settings, clock, views, service, siblings }: DataPlaneOptions): RoleSource | null {
  const { method, cacheMs } = settings.auth;
  if (method === 'trust') return null;
  return new RoleSource({
    shards: () => views.current.shards,
    ask(shard, sql) {
      const { pool, group } = service.of(shard.primary);
      return serviceQuery(pool, group, clock, sql);
    },
    query: settings.auth.service.query,
    ...{ cacheMs, clock },
    ...(siblings === null ? {} : { forgotten: (role: string) => siblings.port.verifierForgotten(role) }),
  });
}

type ClientServices =
  | 'clock'
  | 'limits'
  | 'cancelStatement'
  | 'conversation'
  | 'failedLogins'
  | 'refusedClients'
  | 'tlsRequired';

/** What has no state that others share. */
function conversationServices(
  options: DataPlaneOptions,
  counters: Counters,
  copies: RunningCopies,
  signals: SessionSignals,
  isAdmin: (user: string) => boolean,
): Pick<FrontendServices, ClientServices> {
  const { settings, log, clock, random, openStream, views } = options;
  const templates = new TemplateCache({
    bytesMax: new TextBudget(settings.limits.templateCacheBytes, boundHeapGrowth),
    tokensMax: settings.limits.statementTokens,
  });
  const templateOf: ReadTemplate = (text, standardStrings, scope) => templates.get(text, standardStrings, scope);
  return {
    clock,
    limits: {
      connectionsMax: settings.clients.connectionsMax,
      startupPendingMax: settings.clients.startupPendingMax,
      startupPendingPerAddressMax: settings.clients.startupPendingPerAddressMax,
      startupTimeoutMs: settings.clients.startupTimeoutMs,
      idleTimeoutMs: settings.clients.idleTimeoutMs,
      idleInTransactionTimeoutMs: settings.clients.idleInTransactionTimeoutMs,
      closeGraceMs: CLOSE_GRACE_MS,
      frontendLimits: clientMessageLimits(settings),
    },
    cancelStatement: (shard, connection, delivered) =>
      sendCancelRequest({
        openStream,
        address: shard.primary,
        pid: connection.pid,
        secretKey: connection.secretKey,
        clock,
        timeoutMs: CANCEL_TIMEOUT_MS,
        delivered,
      }),
    conversation: {
      clock,
      random,
      counters,
      copies,
      ...severalShards(options),
      sources: new StatementSources(templates.budget, (text, standardStrings, scope) =>
        templates.getForKept(text, standardStrings, scope),
      ),
      templateOf,
      literalsOf: (text, standardStrings) => templates.literalsOf(text, standardStrings),
      view: () => views.current,
      show(name, user) {
        if (name === 'version') return [options.version];
        const shown = SHOWN[name];
        if (shown === undefined) return null;
        if (!isAdmin(user)) return new PgkvError('insufficient_privilege', notAdmin(name));
        return shown(options, copies).map((each) => JSON.stringify(each));
      },
      signal: (...request) => signals.signal(...request),
      bufferBytesMax: settings.clients.bufferBytesMax,
      statementBytesMax: settings.limits.sessionStatementBytes,
      tapFor: (session) => {
        const names = settings.log.traceSessions;
        const applicationName = session.told.get('application_name') ?? '';
        if (!names.some((name) => name === '*' || name === session.user || name === applicationName)) return null;
        return new ProtocolTap((line) => log.info({ session: session.pid }, line), settings.log.values);
      },
    },
    failedLogins: new FailedLogins(clock, (fields, message) => log.info(fields, message)),
    refusedClients: new RefusedClients(clock, counters, (fields) => log.warn(fields, 'clients refused')),
    tlsRequired: settings.tls.required,
  };
}

/** What transactions over several shards have in common. */
const severalShards = ({ settings, log, clock, random, views, service }: DataPlaneOptions) => ({
  preparedSlots: new PreparedSlots({
    clock,
    processes: settings.workers,
    ask: (shardName) => preparedMaxOf(shardName, views.current, service, clock),
  }),
  lockContention: new LockContention(clock),
  lockWatch: new LockWatch({
    clock,
    random,
    looks: locksOfShards(views, service, clock),
    ended: (detail) => log.warn({ detail }, 'a deadlock over several shards was ended'),
  }),
});

function clientMessageLimits(settings: Settings): Int32Array {
  const limits = frontendLimits(settings.clients.messageBytesMax);
  for (const type of [Frontend.query, Frontend.parse]) limits[type] = settings.clients.queryBytesMax;
  return limits;
}
