// One pgkv per data folder: a file that names its holder by pid and birth. Left by a crash, it no longer names a living
// process and is replaced.
import { randomBytes } from 'node:crypto';
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { EmbeddedClusterError, errnoOf } from './embedded-cluster-error.js';
import { processBirth } from './process-identity.js';

interface Holder {
  readonly pid: number;
  readonly birth: string | undefined;
}

export interface DataLock {
  /** Idempotent. */
  release(): void;
}

export const LOCK_FILE = 'pgkv.lock';

/** Throws, naming the holder's pid, when another living pgkv (or this one) holds `folder`. */
export function lockData(folder: string): DataLock {
  const path = join(folder, LOCK_FILE);
  const own = JSON.stringify({ pid: process.pid, birth: processBirth(process.pid) });
  while (!tryCreate(path, own)) {
    const content = readIfThere(path);
    if (content === undefined) continue;
    const holder = parseHolder(content);
    if (holder !== undefined && isHeld(holder)) {
      throw new EmbeddedClusterError(`the data directory ${folder} is in use by another pgkv, process ${holder.pid}`, {
        hint: `Stop that one first (kill ${holder.pid}), or use another --data-dir.`,
      });
    }
    removeStale(path, content);
  }
  return {
    release: () => {
      if (readIfThere(path) === own) rmSync(path, { force: true });
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

/** Between reading and removing, another pgkv may have replaced the stale file by its own: that is put back. */
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

function isHeld(holder: Holder): boolean {
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
