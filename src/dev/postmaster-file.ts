// postmaster.pid: who serves a data directory. Owns reading it and telling whether its pid still is that server; after
// a crash the file stays behind and its pid may by then belong to anybody.
// https://www.postgresql.org/docs/18/storage-file-layout.html and src/include/utils/pidfile.h
import { execFileSync } from 'node:child_process';
import { readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';
import { errnoOf } from '../catalog/errno.js';

export interface PostmasterFile {
  readonly pid: number;
  /** Undefined while the postmaster has not yet written that far. */
  readonly port: number | undefined;
  readonly socketDir: string | undefined;
  /** `starting`, `stopping`, `ready` or `standby`. */
  readonly status: string | undefined;
}

/** Undefined: there is no file. `'garbled'`: there is one without a pid (a full disk, a crash of the machine). */
export function readPostmasterFile(dataDir: string): PostmasterFile | 'garbled' | undefined {
  let text: string;
  try {
    text = readFileSync(postmasterFilePath(dataDir), 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  const lines = text.split('\n').map((line) => line.trim());
  // A negative pid is a stand-alone backend's.
  const pid = Math.abs(Number.parseInt(lines[0] ?? '', 10));
  if (!(pid > 0)) return 'garbled';
  const port = Number.parseInt(lines[3] ?? '', 10);
  return {
    pid,
    port: port > 0 ? port : undefined,
    socketDir: lines[4] || undefined,
    status: lines[7] || undefined,
  };
}

export function postmasterFilePath(dataDir: string): string {
  return join(dataDir, 'postmaster.pid');
}

/**
 * Whether process `pid` is a postgres that serves `dataDir`. A postmaster's working directory is its data directory
 * (it changes there at start), which holds even after the folder was renamed; without /proc its command line is asked.
 */
export function isPostmasterOf(pid: number, dataDir: string): boolean {
  if (process.platform !== 'linux') return psCommand(pid).includes(`-D ${dataDir} -c `);
  try {
    const program = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[0] ?? '';
    return basename(program) === 'postgres' && readlinkSync(`/proc/${pid}/cwd`) === realpathSync(dataDir);
  } catch (error) {
    const code = errnoOf(error);
    // Gone, or another user's process: postgres refuses data directories of other users, so it cannot be the one.
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EPERM') return false;
    throw error;
  }
}

function psCommand(pid: number): string {
  try {
    return execFileSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' });
  } catch {
    // ps exits 1 when there is no such process.
    return '';
  }
}
