// The merged lanes of all shards and log-ins, and the settings under which sessions may share them (D11 rule 9).

import { LRUCache } from 'lru-cache';
import type { SettingsGroup, SettingsRegistry } from '../../backend/connection/settings-group.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import type { Clock } from '../../base/clock.js';
import { nodeId } from '../../cluster/cluster-view.js';
import type { Counters } from '../../telemetry/counters.js';
import { AllWriteGroups } from '../two-phase/write-groups.js';
import { BoundStatements } from './bound-statements.js';
import { LaneDeadlines } from './lane-deadlines.js';
import { MERGED_LIMITS, MergedLane, type ShareQueue } from './merged-lane.js';

/**
 * Settings of shared connections, from their start-up packet: a generic plan is made once, on whatever the table is then,
 * and must not become a scan of all rows (D11); a stranger's idle transaction must not hold up a whole batch (rule 11).
 * The triggers of key-value tables leave the slots of these statements alone: all of them are built by pgkv (D2, D28).
 */
const OPTIONS = [
  'plan_cache_mode=force_generic_plan',
  ...['seqscan', 'hashjoin', 'mergejoin', 'bitmapscan', 'memoize', 'material'].map((name) => `enable_${name}=off`),
  'jit=off',
  'max_parallel_workers_per_gather=0',
  'lock_timeout=100',
  'pgkv.router=on',
]
  .map((setting) => `-c ${setting}`)
  .join(' ');

/** Settings that change how values look, and nothing else. application_name is not carried over. */
const SHARED = new Set(['bytea_output', 'datestyle', 'extra_float_digits', 'intervalstyle', 'timezone']);
/** Sessions with settings beyond that many combinations use leases. */
const GROUPS_MAX = 8;
/** Lanes that other workers may find: of more log-ins than that they are merged by each worker for itself. */
const NAMED_MAX = 1_024;
/** Not oftener is looked for combinations that nobody has used since the last look: others get their places. */
const GROUP_IDLE_MS = 60_000;

const laneName = (node: string, groupKey: string): string => `${node}\0${groupKey}`;

/** Settings that sessions share in the lane, or would. */
interface Sharing {
  readonly group: SettingsGroup;
  isAdmitted: boolean;
  /** Since the last `#sweep`. */
  wasUsed: boolean;
}

export class MergedLanes {
  /** Statements of the extended protocol, for all lanes. */
  readonly bound = new BoundStatements();
  /** INSERTs over several shards. */
  readonly groups = new AllWriteGroups(setImmediate);
  readonly #registry: SettingsRegistry;
  readonly #clock: Clock;
  readonly #counters: Counters;
  readonly #deadlines: LaneDeadlines;
  readonly #lanes = new WeakMap<PoolGroup, MergedLane>();
  /** As other workers call them. */
  readonly #named = new LRUCache<string, MergedLane>({ max: NAMED_MAX });
  #share: ShareQueue | null = null;
  /** By the settings of sessions; null: they change more than how values look. */
  readonly #sharings = new WeakMap<SettingsGroup, Sharing | null>();
  readonly #admitted = new Set<Sharing>();
  #sweptAt: number;

  /** @param deadlineMs for what goes over merged connections */
  constructor(registry: SettingsRegistry, clock: Clock, counters: Counters, deadlineMs: number) {
    this.#deadlines = new LaneDeadlines(clock, deadlineMs);
    this.#registry = registry;
    this.#clock = clock;
    this.#counters = counters;
    this.#sweptAt = clock.now();
  }

  /** The lane for clients that use `group` of `pool`. */
  lane(pool: NodePool, group: PoolGroup): MergedLane {
    let lane = this.#lanes.get(group);
    if (lane === undefined) {
      const startup = new Map(group.startup);
      const options = startup.get('options');
      startup.set('options', options === undefined ? OPTIONS : `${options} ${OPTIONS}`);
      lane = new MergedLane({
        pool,
        group: pool.group(startup, group.credential, group.role),
        clock: this.#clock,
        counters: this.#counters,
        deadlines: this.#deadlines,
        limits: MERGED_LIMITS,
        later: setImmediate,
        share: this.#share,
      });
      this.#lanes.set(group, lane);
      if (this.#share !== null) this.#named.set(laneName(nodeId(pool.address), lane.group.key), lane);
    }
    lane.group.credential = group.credential;
    return lane;
  }

  /** Before there is a lane. */
  shareBy(share: ShareQueue): void {
    this.#share = share;
  }

  /** The lane of a node by the key of its log-in, if a client of this worker has one. */
  find(node: string, groupKey: string): MergedLane | null {
    return this.#named.get(laneName(node, groupKey)) ?? null;
  }

  /** The settings that a session's statements run under in the lane; null: they have to use leases. */
  settings(of: SettingsGroup): SettingsGroup | null {
    let sharing = this.#sharings.get(of);
    if (sharing === undefined) {
      sharing = this.#sharingOf(of);
      this.#sharings.set(of, sharing);
    }
    if (sharing === null || (!sharing.isAdmitted && !this.#admit(sharing))) return null;
    sharing.wasUsed = true;
    return sharing.group;
  }

  #sharingOf(of: SettingsGroup): Sharing | null {
    const values = new Map([...of.values].filter(([name]) => name !== 'application_name'));
    if (![...values.keys()].every((name) => SHARED.has(name))) return null;
    const group = this.#registry.intern(values);
    let sharing = this.#sharings.get(group) ?? null;
    if (sharing === null) {
      sharing = { group, isAdmitted: false, wasUsed: false };
      this.#sharings.set(group, sharing);
    }
    return sharing;
  }

  #admit(sharing: Sharing): boolean {
    if (this.#admitted.size >= GROUPS_MAX) this.#sweep();
    if (this.#admitted.size >= GROUPS_MAX) return false;
    sharing.isAdmitted = true;
    this.#admitted.add(sharing);
    return true;
  }

  /** Makes room: what was not used since the last time goes. */
  #sweep(): void {
    const now = this.#clock.now();
    if (now - this.#sweptAt < GROUP_IDLE_MS) return;
    this.#sweptAt = now;
    for (const sharing of this.#admitted) {
      if (!sharing.wasUsed) {
        sharing.isAdmitted = false;
        this.#admitted.delete(sharing);
      }
      sharing.wasUsed = false;
    }
  }
}
