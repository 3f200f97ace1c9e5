// The catalogue of a single router: one JSON file, replaced as a whole (D6). Invariants: who writes holds FILE.lock; the
// file is always a complete state, since a new one is written beside it, synced and renamed; a successful compareAndSet
// survives a crash of the machine. For a local file system: network file systems differ in what a link or a sync is.
import { randomBytes } from 'node:crypto';
import { open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { assert } from '../base/assert.js';
import { messageOf } from '../base/errors.js';
import type { CatalogDriver, RouterLock } from './catalog-driver.js';
import { CatalogError } from './catalog-error.js';
import { type CatalogState, parseCatalog, renderCatalog } from './catalog-state.js';
import { FileWatch } from './file-watch.js';
import { type LockFile, tryLockFile } from './lock-file.js';
import { readState } from './state-file.js';

/** A write takes a few milliseconds. */
const LOCK_PATIENCE_MS = 5000;
/** Finds what the system's notices miss: some file systems give none. */
const POLL_MS = 1000;
const LOCK_RETRY_MS = 10;
const DRAFT_MARK = '.new-';

export interface FileCatalogOptions {
  /** How often the file is looked at while it is watched. */
  readonly pollMs?: number;
  /** How long another writer is waited for. */
  readonly lockPatienceMs?: number;
}

export class FileCatalog implements CatalogDriver {
  readonly place: string;
  readonly #pollMs: number;
  readonly #lockPatienceMs: number;
  /** What `read` last gave. */
  #lastRead: CatalogState | null = null;
  readonly #watches = new Set<FileWatch>();

  constructor(path: string, options: FileCatalogOptions = {}) {
    this.place = resolve(path);
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.#lockPatienceMs = options.lockPatienceMs ?? LOCK_PATIENCE_MS;
  }

  async read(): Promise<CatalogState | null> {
    this.#lastRead = await readState(this.place);
    return this.#lastRead;
  }

  async compareAndSet(expectedEpoch: number | null, next: CatalogState): Promise<boolean> {
    assert(next.epoch > (expectedEpoch ?? 0), `epoch ${next.epoch} cannot follow ${expectedEpoch}`);
    const text = renderCatalog(next);
    parseCatalog(text, `for ${this.place}`);
    const lock = await this.#lockForWriting();
    try {
      const current = await readState(this.place);
      if ((current?.epoch ?? null) !== expectedEpoch) return false;
      await replaceDurably(this.place, text, lock);
      return true;
    } catch (error) {
      if (error instanceof CatalogError) throw error;
      throw new CatalogError(`the catalogue ${this.place} could not be written: ${messageOf(error)}`, { cause: error });
    } finally {
      lock.release();
    }
  }

  watch(changed: (state: CatalogState) => void, failed: (error: Error) => void = () => undefined): () => void {
    const watch = new FileWatch({ place: this.place, pollMs: this.#pollMs, state: this.#lastRead, changed, failed });
    this.#watches.add(watch);
    return () => {
      this.#watches.delete(watch);
      watch.stop();
    };
  }

  async acquireRouterLock(): Promise<RouterLock> {
    const outcome = this.#tryLock(`${this.place}.router`);
    if (outcome.kind === 'locked') return outcome.lock;
    throw new CatalogError(`another router, process ${outcome.pid}, serves from the catalogue ${this.place}`, {
      hint: `Stop it first (kill ${outcome.pid}): a catalogue in a file is for one router.`,
    });
  }

  close(): void {
    for (const watch of this.#watches) watch.stop();
    this.#watches.clear();
  }

  async #lockForWriting(): Promise<LockFile> {
    const path = `${this.place}.lock`;
    for (const deadline = performance.now() + this.#lockPatienceMs; ; await sleep(LOCK_RETRY_MS)) {
      const outcome = this.#tryLock(path);
      if (outcome.kind === 'locked') return outcome.lock;
      if (performance.now() < deadline) continue;
      throw new CatalogError(`the catalogue ${this.place} is being changed by process ${outcome.pid}`, {
        hint: `Try again when it has ended; it holds ${path}.`,
      });
    }
  }

  #tryLock(path: string): ReturnType<typeof tryLockFile> {
    try {
      return tryLockFile(path);
    } catch (error) {
      throw new CatalogError(`${path} cannot be made: ${messageOf(error)}`, {
        hint: 'The folder of the catalogue has to exist, and this user has to be allowed to write there.',
        cause: error,
      });
    }
  }
}

/** The old content or the new one after a crash at any point, and the new one once this has resolved. */
async function replaceDurably(place: string, text: string, lock: LockFile): Promise<void> {
  await removeDrafts(place);
  const draft = `${place}${DRAFT_MARK}${randomBytes(4).toString('hex')}`;
  const file = await open(draft, 'wx', 0o644);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  // Two processes that clear a stale lock at one moment could both have gone on.
  assert(lock.isHeld(), `the lock of ${place} is held while it is written`);
  await rename(draft, place);
  const folder = await open(dirname(place), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** Only the holder of the lock writes drafts, so any that is there was left by a crash. */
async function removeDrafts(place: string): Promise<void> {
  const prefix = `${basename(place)}${DRAFT_MARK}`;
  for (const name of await readdir(dirname(place))) {
    if (name.startsWith(prefix)) await rm(join(dirname(place), name), { force: true });
  }
}
