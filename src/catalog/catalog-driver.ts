// What every kind of catalogue can do (D6). A catalogue holds one state, replaced as a whole by compare-and-set on its
// epoch; it never lies on a shard whose failover it must decide.
import type { CatalogState } from './catalog-state.js';

export interface RouterLock {
  /** Idempotent. */
  release(): void;
}

export interface CatalogDriver {
  /** Where it is, for messages. */
  readonly place: string;
  /** Null where there is none yet. @throws CatalogError where it cannot be read or holds what it should not. */
  read(): Promise<CatalogState | null>;
  /**
   * Replaces the state of `expectedEpoch` (null: there is none) by `next`, whose epoch has to be a later one; the next
   * state survives a crash of the machine once this resolves with true. False: the epoch is another one by now, nothing
   * was changed. @throws CatalogError where the outcome is a failure
   */
  compareAndSet(expectedEpoch: number | null, next: CatalogState): Promise<boolean>;
  /**
   * Calls `changed` with each later state than the one `read` last gave, until the returned function is called. What
   * cannot be read, or is no later state, goes to `failed`, once, and what was in force stays in force.
   */
  watch(changed: (state: CatalogState) => void, failed?: (error: Error) => void): () => void;
  /** Taken by a router for its life, where only one may serve from this catalogue. @throws CatalogError if it is taken */
  acquireRouterLock(): Promise<RouterLock>;
  /** Ends all watching. Idempotent. */
  close(): void;
}
