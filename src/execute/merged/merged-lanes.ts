// The merged lanes of all shards and log-ins, and the settings under which sessions may share them (D11 rule 9).
import type { NodePool, PoolGroup } from '../../backend/node-pool.js';
import type { SettingsGroup, SettingsRegistry } from '../../backend/settings-group.js';
import type { Clock } from '../../base/clock.js';
import type { Counters } from '../../telemetry/counters.js';
import { MERGED_LIMITS, MergedLane } from './merged-lane.js';

/**
 * Settings of shared connections, from their start-up packet: a generic plan is made once, on whatever the table is then,
 * and must not become a scan of all rows (D11); a stranger's idle transaction must not hold up a whole batch (rule 11).
 */
const OPTIONS = [
  'plan_cache_mode=force_generic_plan',
  ...['seqscan', 'hashjoin', 'mergejoin', 'bitmapscan', 'memoize', 'material'].map((name) => `enable_${name}=off`),
  'jit=off',
  'max_parallel_workers_per_gather=0',
  'lock_timeout=100',
]
  .map((setting) => `-c ${setting}`)
  .join(' ');

/** Settings that change how values look, and nothing else. application_name is not carried over. */
const SHARED = new Set(['bytea_output', 'datestyle', 'extra_float_digits', 'intervalstyle', 'timezone']);
/** Sessions with settings beyond that many combinations use leases. */
const GROUPS_MAX = 8;

export class MergedLanes {
  readonly #registry: SettingsRegistry;
  readonly #clock: Clock;
  readonly #counters: Counters;
  readonly #lanes = new WeakMap<PoolGroup, MergedLane>();
  readonly #shared = new WeakMap<SettingsGroup, { group: SettingsGroup | null }>();
  readonly #groups = new Set<SettingsGroup>();

  constructor(registry: SettingsRegistry, clock: Clock, counters: Counters) {
    this.#registry = registry;
    this.#clock = clock;
    this.#counters = counters;
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
        group: pool.group(startup, group.credential),
        clock: this.#clock,
        counters: this.#counters,
        limits: MERGED_LIMITS,
        later: setImmediate,
      });
      this.#lanes.set(group, lane);
    }
    lane.group.credential = group.credential;
    return lane;
  }

  /** The settings that a session's statements run under in the lane; null: they have to use leases. */
  settings(of: SettingsGroup): SettingsGroup | null {
    const known = this.#shared.get(of);
    if (known !== undefined) return known.group;
    const values = new Map([...of.values].filter(([name]) => name !== 'application_name'));
    let group: SettingsGroup | null = null;
    if ([...values.keys()].every((name) => SHARED.has(name))) {
      const wanted = this.#registry.intern(values);
      if (this.#groups.has(wanted) || this.#groups.size < GROUPS_MAX) {
        this.#groups.add(wanted);
        group = wanted;
      }
    }
    this.#shared.set(of, { group });
    return group;
  }
}
