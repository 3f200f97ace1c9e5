// Ends the servers when this process dies without ending them (kill -9, a crash): Node has no parent-death signal, so a
// small companion waits for the end of a pipe that only this process holds, then stops what it was told of.
//
// The companion is /bin/sh with the script as its argument, not a second Node: nothing has to be found on disk (compiled,
// under the test loader, or bundled alike), NODE_OPTIONS and loaders of the parent do not reach it, and it takes
// 1 MB and 2 ms instead of 40 MB and 40 ms. It stands in a session of its own, where neither Ctrl-C in the terminal nor
// the terminal's end reaches it. Pipes of Node are close-on-exec, so no server can hold it open by accident.
import { type ChildProcess, spawn } from 'node:child_process';
import { Socket } from 'node:net';
import type { ClusterLog } from './cluster-log.js';

/** Lines on stdin: `server PID DATADIR`, `remove FOLDER`, `quit`. A pid is only signalled while it works in its DATADIR. */
const SCRIPT = `
trap '' HUP INT QUIT TERM PIPE
servers= folders=
newline='
'
while IFS= read -r line; do
  case $line in
    'server '*) servers=$servers\${line#server }$newline ;;
    'remove '*) folders=$folders\${line#remove }$newline ;;
    quit) exit 0 ;;
  esac
done

is_server() {
  if [ -e /proc/self/cwd ]; then [ "/proc/$1/cwd" -ef "$2" ]
  else case $(ps -o command= -p "$1") in *"-D $2 -c "*) true ;; *) false ;; esac
  fi
}

# Signals those that still run; fails when there is none.
signal_servers() {
  found=1
  while read -r pid folder; do
    if [ -n "$pid" ] && is_server "$pid" "$folder"; then
      found=0
      kill -s "$1" "$pid"
    fi
  done <<LIST
$servers
LIST
  return $found
}

# Signal 0 only looks. $1 is in tenths of a second.
await_end() {
  tenths=$1
  while signal_servers 0; do
    [ "$tenths" -gt 0 ] || return 1
    tenths=$((tenths - 1))
    sleep 0.1
  done
}

# Fast shutdown, immediate shutdown, kill: all within 4 s.
signal_servers INT
await_end 20 || { signal_servers QUIT; await_end 10; } || { signal_servers KILL; await_end 10; }

# A child that was still writing (initdb) can make rm fail; it gives up when its folder is gone.
while IFS= read -r folder; do
  for attempt in 1 2 3 4 5; do
    [ -n "$folder" ] && [ -e "$folder" ] || break
    rm -rf -- "$folder" || sleep 0.2
  done
done <<LIST
$folders
LIST
`;

const RESPAWN_DELAY_MS = 500;

export class Watchdog {
  readonly #log: ClusterLog;
  /** What still matters of what was said, by folder, for the successor of a watchdog that was itself killed. */
  readonly #told = new Map<string, string>();
  #process: ChildProcess;
  #closed = false;

  constructor(log: ClusterLog) {
    this.#log = log;
    this.#process = this.#spawn();
  }

  /** `pid` is to be stopped with us, as long as its working directory is `dataDir`. */
  addServer(pid: number, dataDir: string): void {
    this.#tell(dataDir, `server ${pid} ${dataDir}`);
  }

  /** `folder` is to be removed with us. */
  addFolder(folder: string): void {
    this.#tell(folder, `remove ${folder}`);
  }

  /** Everything was stopped and removed in order: nothing is left to watch over. */
  close(): void {
    this.#closed = true;
    this.#process.stdin?.end('quit\n');
  }

  #tell(about: string, line: string): void {
    this.#told.set(about, line);
    this.#process.stdin?.write(`${line}\n`);
  }

  #spawn(): ChildProcess {
    const child = spawn('/bin/sh', ['-c', SCRIPT, 'pgkv-watchdog'], {
      detached: true,
      cwd: '/',
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    child.once('error', (error) => this.#log('error', `no watchdog: ${error.message}; a crash would leave servers`));
    child.once('exit', (code, signal) => {
      if (this.#closed) return;
      this.#log('warn', 'the watchdog of the embedded servers ended; starting another', { code, signal });
      setTimeout(() => {
        if (!this.#closed) this.#process = this.#spawn();
      }, RESPAWN_DELAY_MS).unref();
    });
    // EPIPE when it was killed: its exit is handled above.
    child.stdin?.on('error', (error) => this.#log('warn', `watchdog: ${error.message}`));
    for (const line of this.#told.values()) child.stdin?.write(`${line}\n`);
    // Neither it nor its pipe keeps this process from ending.
    child.unref();
    if (child.stdin instanceof Socket) child.stdin.unref();
    return child;
  }
}
