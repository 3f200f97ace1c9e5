// Which process a pid means. Pids are reused, so a pid read from a file is only trusted together with the moment its
// process began (lock files) or with what it is doing (postmasters, dev/postmaster-file.ts).
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { errnoOf } from './errno.js';

/**
 * When process `pid` began, as an opaque text that differs between two users of one pid: on Linux the boot's id and the
 * start in clock ticks (proc(5), stat field 22), elsewhere what ps prints. Undefined: no such process, or a zombie.
 * `'hidden'`: there is one, but not for us to see (/proc mounted with hidepid).
 */
export function processBirth(pid: number): string | undefined {
  return process.platform === 'linux' ? linuxBirth(pid) : psBirth(pid);
}

/** True also for processes of other users. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errnoOf(error) === 'EPERM';
  }
}

function linuxBirth(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch (error) {
    // ESRCH: it ended between open and read.
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ESRCH') throw error;
    return isAlive(pid) ? 'hidden' : undefined;
  }
  // The command name (field 2) is in parentheses and may itself hold blanks and parentheses.
  const fromState = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fromState[0] === 'Z') return undefined;
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return `${bootId}/${fromState[19]}`;
}

function psBirth(pid: number): string | undefined {
  try {
    return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim() || undefined;
  } catch {
    // ps exits 1 when there is no such process.
    return undefined;
  }
}
