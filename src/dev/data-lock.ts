// One pgkv per data folder.
import { join } from 'node:path';
import { type LockFile, tryLockFile } from '../catalog/lock-file.js';
import { EmbeddedClusterError } from './embedded-cluster-error.js';

export type DataLock = Pick<LockFile, 'release'>;

export const LOCK_FILE = 'pgkv.lock';

/** Throws, naming the holder's pid, when another living pgkv (or this one) holds `folder`. */
export function lockData(folder: string): DataLock {
  const outcome = tryLockFile(join(folder, LOCK_FILE));
  if (outcome.kind === 'locked') return outcome.lock;
  throw new EmbeddedClusterError(`the data directory ${folder} is in use by another pgkv, process ${outcome.pid}`, {
    hint: `Stop that one first (kill ${outcome.pid}), or use another --data-dir.`,
  });
}
