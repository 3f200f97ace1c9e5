// What a client connection needs from the rest of the program; put together in main.ts.

import type { SettingsRegistry } from '../../backend/connection/settings-group.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { Clock } from '../../base/clock.js';
import type { ClusterView, ShardView } from '../../cluster/cluster-view.js';
import type { CancelStatement } from '../../execute/leased/leased-lane.js';
import type { MergedLanes } from '../../execute/merged/merged-lanes.js';
import type { Counters } from '../../telemetry/counters.js';
import type { ConversationServices } from '../conversation/conversation.js';
import type { AllowList } from './allow-list.js';
import type { AuthenticationServices } from './authentication.js';
import type { CancelRegistry } from './cancel-registry.js';
import type { FailedLogins } from './failed-logins.js';
import type { PendingStartups } from './pending-startups.js';
import type { RefusedClients } from './refused-clients.js';
import type { TlsMaterial } from './tls-material.js';

export interface FrontendLimits {
  readonly connectionsMax: number;
  readonly startupPendingMax: number;
  readonly startupPendingPerAddressMax: number;
  readonly startupTimeoutMs: number;
  /** 0 = none. */
  readonly idleTimeoutMs: number;
  readonly idleInTransactionTimeoutMs: number;
  /** How long a client that was sent its last message may take to close its side. */
  readonly closeGraceMs: number;
  /** Longest message per type byte. */
  readonly frontendLimits: Int32Array;
}

/** The pools of those nodes that clients' statements go to, by the view in force. */
export interface UsedNodes {
  primary(shard: ShardView): NodePool;
  /** Of the home shard. */
  readonly home: NodePool;
}

export interface FrontendServices {
  readonly clock: Clock;
  readonly limits: FrontendLimits;
  readonly counters: Counters;
  readonly nodes: UsedNodes;
  /** The map in force. */
  view(): ClusterView;
  readonly registry: SettingsRegistry;
  /** Null: statements are not merged. */
  readonly merged: MergedLanes | null;
  readonly cancels: CancelRegistry;
  cancelStatement(shard: ShardView, ...rest: Parameters<CancelStatement>): void;
  readonly authentication: AuthenticationServices;
  /** The list in force. */
  allowed(): AllowList;
  readonly pending: PendingStartups;
  readonly failedLogins: FailedLogins;
  readonly refusedClients: RefusedClients;
  readonly conversation: ConversationServices;
  readonly tlsRequired: boolean;
  /** The certificate in force, null without TLS. */
  tls(): TlsMaterial | null;
}
