// What is known of the routines of a node's databases, read once for all clients: on a connection of pgkv's own, with settings
// of its own, so that neither a client's settings nor its locks are in the way. Who holds a connection waits for it a moment
// and no longer: then what code may do is assumed, until it is known.
// States of a database: unknown (nothing was ever read), known (as of the pool's schema epoch), outdated (read before later DDL;
// a look-up is under way or will be), given up for now (one took too long or was refused: nobody waits until one has
// succeeded). One whose connection broke is tried again as long as somebody has patience; any, once a second, as long as a
// session keeps its connection for what was assumed.
// Invariant: a group's `routines` never claim less than what was read last, or the worst; a database that no group has is
// forgotten, once nobody waits for it (`keep`).
import type { Clock, Timer } from '../../base/clock.js';
import type { Credential } from '../connection/credential.js';
import type { PoolGroup } from './pool-group.js';
import { type Failure, type Known, readNews } from './routine-news.js';
import { type Routines, readRoutines } from './routines.js';

/** How long who holds a connection waits. Most look-ups take a few milliseconds; to assume the worst costs a session its pooling. */
const PATIENCE_MS = 2_000;
/** Migrations run one statement after the other: one look-up for some of them. */
const BURST_MS = 5;
/** Not oftener is tried what was refused: a locked view is locked for longer. */
const RETRY_MS = 1_000;
/** The connection of a look-up broke: the next one may be good, and is tried as long as somebody has patience. */
const RECONNECT_MS = 50;

/**
 * Of the look-up's own connections, over whatever the role has set. Locks are not waited for: showing the definition of a
 * view locks its tables. JIT alone made the look-up take seconds.
 */
const OPTIONS = [
  ...[
    'jit=off',
    'lock_timeout=50',
    'statement_timeout=5000',
    'search_path=pg_catalog',
    'standard_conforming_strings=on',
  ],
  ...['seqscan', 'indexscan', 'bitmapscan', 'hashjoin', 'mergejoin', 'nestloop', 'sort', 'material'].map(
    (name) => `enable_${name}=on`,
  ),
  ...['max_parallel_workers_per_gather=0', 'work_mem=4MB', 'default_transaction_isolation=read\\ committed'],
  'plan_cache_mode=force_generic_plan',
]
  .map((setting) => `-c ${setting}`)
  .join(' ');

/** Asks the node, logged in like that, on a connection that clients have no part in. Rejects where it is not answered in time. */
export type AskControl = (
  startup: ReadonlyMap<string, string>,
  credential: Credential,
  sql: string,
) => Promise<(string | null)[][]>;

/** Judges anew what was assumed, by what was read: DDL that has gone through meanwhile is of no concern to it. */
export type Judge = (read: Routines) => void;

interface Database {
  /** The last answer, and the schema epoch for which it holds; null: there was none yet. */
  read: Routines | null;
  /** From where the next one goes on. */
  known: Known | null;
  epoch: number;
  isRunning: boolean;
  /** Nobody waits until a look-up has succeeded. */
  isGivenUp: boolean;
  retryAt: number;
  waiting: (() => void)[];
  patience: Timer | null;
  /** Sessions that judge anew what they assumed, with a group to ask for. */
  readonly assuming: Map<Judge, PoolGroup>;
  /** The next look-up for them. */
  retry: Timer | null;
}

export class RoutineLookup {
  readonly #clock: Clock;
  readonly #control: AskControl;
  readonly #epoch: () => number;
  readonly #databases = new Map<string, Database>();
  /** The look-ups behind a burst of DDL. */
  #later: Timer | null = null;

  /** @param epoch of the schema, as the pool counts it */
  constructor(clock: Clock, control: AskControl, epoch: () => number) {
    this.#clock = clock;
    this.#control = control;
    this.#epoch = epoch;
  }

  /**
   * Makes the group's `routines` good to go by. True: they are. False: `done` follows when they are, within a moment.
   */
  ensure(group: PoolGroup, done: () => void): boolean {
    const database = this.#database(group.database);
    if (this.#settled(database, group)) return true;
    this.#start(database, group);
    if (this.#settled(database, group)) return true;
    database.waiting.push(() => {
      this.#settled(database, group, true);
      done();
    });
    database.patience ??= this.#clock.after(PATIENCE_MS, () => {
      database.isGivenUp = true;
      this.#wake(database);
    });
    return false;
  }

  /** The same if all of them are known at this moment. */
  adopt(group: PoolGroup): boolean {
    const { read, epoch } = this.#database(group.database);
    if (read === null || epoch !== this.#epoch()) return false;
    group.routines = read;
    return true;
  }

  /** Makes the group's `routines` what is known at this moment; where DDL has gone through since they were read, the worst. */
  refresh(group: PoolGroup): void {
    this.#settled(this.#database(group.database), group, true);
  }

  /**
   * `known` is called once when the routines of the group's database are known, which are asked for until then whether somebody
   * wants a connection or not: those who wait here may hold all there are. Returns what calls it off.
   */
  whenKnown(group: PoolGroup, known: Judge): () => void {
    const database = this.#database(group.database);
    database.assuming.set(known, group);
    this.#retryLater(database);
    return () => {
      database.assuming.delete(known);
      if (database.assuming.size > 0) return;
      database.retry?.cancel();
      database.retry = null;
    };
  }

  #retryLater(database: Database): void {
    const [group] = database.assuming.values();
    if (group === undefined || database.isRunning || database.retry !== null) return;
    database.retry = this.#clock.after(RETRY_MS, () => {
      database.retry = null;
      this.#start(database, group);
      this.#retryLater(database);
    });
  }

  /** Whether there is something to go by without waiting; puts it in place. */
  #settled(database: Database, group: PoolGroup, atOnce = false): boolean {
    if (this.adopt(group)) return true;
    if (!database.isGivenUp && !atOnce) return false;
    if (group.routines?.isAssumed !== true) group.routines = assumedRoutines(database.read);
    this.#start(database, group);
    return true;
  }

  /** DDL went through: unless somebody wants to know before, the look-up for it begins when more of it may have come. */
  schemaChanged(groups: () => Iterable<PoolGroup>): void {
    this.#later ??= this.#clock.after(BURST_MS, () => {
      this.#later = null;
      this.#startAll(groups());
    });
  }

  #startAll(groups: Iterable<PoolGroup>): void {
    for (const group of groups) {
      if (group.role?.isLimited === true) continue;
      const database = this.#databases.get(group.database);
      if (database !== undefined && database.read !== null && database.epoch !== this.#epoch())
        this.#start(database, group);
    }
  }

  /** Forgets what is known of other databases, which may be there no more; where somebody comes back, it is read anew. */
  keep(used: ReadonlySet<string>): void {
    for (const [name, { isRunning, waiting, assuming }] of this.#databases) {
      if (!used.has(name) && !isRunning && waiting.length === 0 && assuming.size === 0) this.#databases.delete(name);
    }
  }

  #database(name: string): Database {
    let database = this.#databases.get(name);
    if (database === undefined) {
      database = {
        read: null,
        known: null,
        epoch: -1,
        isRunning: false,
        isGivenUp: false,
        retryAt: 0,
        waiting: [],
        patience: null,
        assuming: new Map(),
        retry: null,
      };
      this.#databases.set(name, database);
    }
    return database;
  }

  #wake(database: Database): void {
    database.patience?.cancel();
    database.patience = null;
    for (const done of database.waiting.splice(0)) done();
  }

  #start(database: Database, group: PoolGroup): void {
    if (database.isRunning || database.retryAt > this.#clock.now()) return;
    database.isRunning = true;
    const { user, database: name, credential } = group;
    const epoch = this.#epoch();
    const startup = new Map([
      ['user', user],
      ['database', name],
      ['application_name', 'pgkv'],
      ['client_encoding', 'UTF8'],
      ['options', OPTIONS],
    ]);
    const ask = (sql: string) => this.#control(startup, credential, sql);
    const deadline = this.#clock.now() + PATIENCE_MS;
    const attempt = (): void => {
      void readNews(ask, database.known).then((found) => {
        if (found !== 'lost' || this.#clock.now() >= deadline) this.#ended(database, group, epoch, found);
        else this.#clock.after(RECONNECT_MS, attempt);
      });
    };
    attempt();
  }

  #ended(database: Database, group: PoolGroup, epoch: number, found: Known | Failure): void {
    database.isRunning = false;
    if (typeof found === 'string') {
      database.isGivenUp = true;
      database.retryAt = this.#clock.now() + RETRY_MS;
      this.#retryLater(database);
      return this.#wake(database);
    }
    database.read = { ...found.routines, epoch };
    database.known = found;
    database.epoch = epoch;
    database.isGivenUp = false;
    const isOutdated = epoch !== this.#epoch();
    if (!isOutdated) this.#wake(database);
    database.retry?.cancel();
    database.retry = null;
    // What was assumed before the DDL that was read can be judged, whatever went through meanwhile.
    const assuming = [...database.assuming];
    database.assuming.clear();
    for (const [judge, of] of assuming) {
      of.routines = database.read;
      judge(database.read);
    }
    if (isOutdated) this.#start(database, group);
  }
}

/** The worst, but for what was known before: names of settings do not go away unnoticed. */
export function assumedRoutines(known: Routines | null): Routines {
  let worst: Routines | null = null;
  const query = readRoutines(-1, (routines) => {
    worst = routines;
  });
  query.failed(Buffer.alloc(0));
  query.ready();
  if (known === null) return { ...worst!, isAssumed: true };
  return { ...worst!, isAssumed: true, customNames: known.customNames, byteOrder: known.byteOrder };
}
