// What starts a router, and what one that runs can be asked for.
import type { NodePool } from '../backend/pool/node-pool.js';
import type { Clock, Random } from '../base/clock.js';
import type { CatalogDriver } from '../catalog/catalog-driver.js';
import type { ClusterView } from '../cluster/cluster-view.js';
import type { Settings } from '../config/settings.js';
import type { Listener } from '../frontend/door/listener.js';
import type { Counters } from '../telemetry/counters.js';
import type { Logger } from '../telemetry/log.js';

export interface RouterOptions {
  /** What the first clients would wait for is compiled before they are let in: 0.2 s of CPU. Default: no. */
  readonly warmsUp?: boolean;
  readonly settings: Settings;
  readonly log: Logger;
  readonly version: string;
  readonly clock?: Clock;
  readonly random?: Random;
  /** Role and database for health probes when they are not those of `auth.service` (pgkv dev). */
  readonly probeAs?: { readonly user: string; readonly database: string };
  /** Where slots and key-value tables are kept; without one pgkv only pools the first shard's server. */
  readonly catalog?: CatalogDriver | null;
}

export interface Reloaded {
  /** The files of the certificate have other contents than what was in force. */
  readonly certificateRenewed: boolean;
}

export interface RunningRouter {
  readonly port: number;
  /** 0 when HTTP is disabled. */
  readonly httpPort: number;
  /**
   * Takes over what can change while it runs (config/reload.ts), and reads certificates again. Throws, and keeps what was in
   * force, where they are not usable.
   */
  reload(settings?: Settings): Reloaded;
  /** Ends gracefully: see `drain.timeout_ms`. */
  drain(): Promise<void>;
  /** Ends at once. */
  stop(): Promise<void>;
}

/** One that is whole in this process. */
export interface Router extends RunningRouter {
  /** The one in force. */
  readonly view: ClusterView;
  readonly counters: Counters;
  /** Connections to the home shard's primary, which is the first of `pools`. */
  readonly pool: NodePool;
  /** By shard id. */
  readonly pools: readonly NodePool[];
  readonly listener: Listener;
}
