// A file that says which process holds something, by pid and birth. Left by a crash, it no longer names a living process
// and is replaced. Holds among the processes of one machine and one pid namespace.
import { randomBytes } from 'node:crypto';
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { errnoOf } from './errno.js';
import { processBirth } from './process-identity.js';

interface Holder {
  readonly pid: number;
  readonly birth: string | undefined;
}

export interface LockFile {
  /** False where somebody else removed or replaced the file. */
  isHeld(): boolean;
  /** Idempotent. */
  release(): void;
}

export type LockOutcome =
  | { readonly kind: 'locked'; readonly lock: LockFile }
  /** A living process, perhaps this one. */
  | { readonly kind: 'held'; readonly pid: number };

export function tryLockFile(path: string): LockOutcome {
  // The token tells two locks of one process apart.
  const token = randomBytes(8).toString('hex');
  const own = JSON.stringify({ pid: process.pid, birth: processBirth(process.pid), token });
  while (!tryCreate(path, own)) {
    const content = readIfThere(path);
    if (content === undefined) continue;
    const holder = parseHolder(content);
    if (holder !== undefined && isAlive(holder)) return { kind: 'held', pid: holder.pid };
    removeStale(path, content);
  }
  const isHeld = () => readIfThere(path) === own;
  return {
    kind: 'locked',
    lock: {
      isHeld,
      release: () => {
        if (isHeld()) rmSync(path, { force: true });
      },
    },
  };
}

/** A link appears with its whole content at once, and fails when the name is taken. */
function tryCreate(path: string, content: string): boolean {
  const draft = beside(path);
  writeFileSync(draft, content, { flag: 'wx' });
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(draft);
  }
}

/** Between reading and removing, another process may have replaced the stale file by its own: that is put back. */
function removeStale(path: string, staleContent: string): void {
  const aside = beside(path);
  try {
    renameSync(path, aside);
    if (readFileSync(aside, 'utf8') !== staleContent) linkSync(aside, path);
  } catch (error) {
    // ENOENT: somebody else removed it. EEXIST: a third one has the name already.
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'EEXIST') throw error;
  } finally {
    rmSync(aside, { force: true });
  }
}

function isAlive(holder: Holder): boolean {
  const birth = processBirth(holder.pid);
  // A process that hides its birth may be the holder: better refuse than share.
  return birth === 'hidden' || (birth !== undefined && birth === holder.birth);
}

function parseHolder(content: string): Holder | undefined {
  try {
    const { pid, birth } = JSON.parse(content) as Partial<Holder>;
    return typeof pid === 'number' && pid > 0 ? { pid, birth } : undefined;
  } catch {
    // Not ours or torn by a crash: as good as none.
    return undefined;
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function beside(path: string): string {
  return `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
}
