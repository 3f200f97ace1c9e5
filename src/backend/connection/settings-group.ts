// The settings a session has changed, as immutable interned groups: a session and a server connection agree when they
// point to the same group, so that handing over a connection costs one comparison. A group holds what differs from the
// connection's start-up state, by lower-case name. Custom names ("app.user") are placeholders: Postgres cannot
// un-define one, so a connection that has defined a placeholder serves only sessions that have defined it too.
import { LRUCache } from 'lru-cache';

/** Settings that cannot change the meaning or the answer of a statement: statements prepared under others stay usable. */
const WITHOUT_MEANING = new Set([
  'application_name',
  'client_min_messages',
  'deadlock_timeout',
  'idle_in_transaction_session_timeout',
  'idle_session_timeout',
  'lock_timeout',
  'log_min_duration_statement',
  'log_statement',
  'maintenance_work_mem',
  'statement_timeout',
  'synchronous_commit',
  'transaction_timeout',
  'work_mem',
]);

export interface SettingsGroup {
  readonly values: ReadonlyMap<string, string>;
  /** Canonical text of the settings that bear on meaning; equal texts may share prepared statements. */
  readonly semantics: string;
  readonly placeholders: readonly string[];
  readonly bytes: number;
}

const canonical = (entries: readonly (readonly [string, string])[]): string => JSON.stringify(entries);

/** What the groups that are kept may hold; a value may have megabytes. */
const GROUPS_BYTES_MAX = 8 * 2 ** 20;
/** A group beside its texts: maps, arrays and the cache's own. */
const GROUP_BYTES = 700;

/** Interns groups. Bounded: a group pushed out still works, two equal ones then merely count as different. */
export class SettingsRegistry {
  readonly empty: SettingsGroup = { values: new Map(), semantics: '', placeholders: [], bytes: 0 };
  readonly #groups = new LRUCache<string, SettingsGroup>({
    max: 4096,
    maxSize: GROUPS_BYTES_MAX,
    // The key, what it was made from, and what of that bears on meaning.
    sizeCalculation: (_, key) => GROUP_BYTES + 3 * key.length,
  });

  intern(values: ReadonlyMap<string, string>): SettingsGroup {
    if (values.size === 0) return this.empty;
    const entries = [...values].sort((a, b) => (a[0] < b[0] ? -1 : 1));
    const key = canonical(entries);
    const known = this.#groups.get(key);
    if (known !== undefined) return known;
    const meaningful = entries.filter(([name]) => !WITHOUT_MEANING.has(name));
    const group: SettingsGroup = {
      values: new Map(entries),
      semantics: meaningful.length === 0 ? '' : canonical(meaningful),
      placeholders: entries.filter(([name]) => name.includes('.')).map(([name]) => name),
      bytes: key.length,
    };
    this.#groups.set(key, group);
    return group;
  }
}

/** Whether a connection with these placeholders defined may serve a session with those settings. */
export function placeholdersFit(defined: ReadonlySet<string>, group: SettingsGroup): boolean {
  for (const name of defined) {
    if (!group.values.has(name)) return false;
  }
  return true;
}
