// The Unix sockets over which workers hand each other statements (R50): one for each worker, by its number, in a folder of the
// control process that no other user can enter. What comes over them is trusted as far as it goes: nothing is learnt from it.
import { mkdtempSync, rmdirSync, rmSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../base/errors.js';
import type { Settings } from '../config/settings.js';
import type { Logger } from '../telemetry/log.js';

/** Systems have room for a path of 104 bytes or more, its end included. */
const PATH_BYTES_MAX = 103;
/** From so many workers on handing over pays (R50). */
export const SHARING_WORKERS_MIN = 4;

const pathOf = (folder: string, worker: number): string => join(folder, `${worker}.sock`);

/** Whether workers are to merge together. */
export function lanesAreShared({ workers, merged }: Settings): boolean {
  const { shareAcrossWorkers, disabled } = merged;
  if (disabled || workers === 1 || process.platform === 'win32') return false;
  return shareAcrossWorkers === 'on' || (shareAcrossWorkers === 'auto' && workers >= SHARING_WORKERS_MIN);
}

/** Made by the control process; null where there can be none, and each worker merges for itself. */
export function makeLaneFolder(settings: Settings, log: Logger): string | null {
  if (!lanesAreShared(settings)) return null;
  try {
    // For its owner alone: mode 0700.
    const folder = mkdtempSync(join(tmpdir(), 'pgkv-lanes-'));
    if (Buffer.byteLength(pathOf(folder, settings.workers)) <= PATH_BYTES_MAX) return folder;
    rmdirSync(folder);
    throw new Error(`the path of ${tmpdir()} is too long for a Unix socket`);
  } catch (error) {
    log.warn({ reason: messageOf(error) }, 'workers do not merge together: there is no folder for their sockets');
    return null;
  }
}

export function removeLaneFolder(folder: string | null): void {
  if (folder !== null) rmSync(folder, { recursive: true, force: true });
}

export class LaneSockets {
  readonly #folder: string;
  readonly #worker: number;
  readonly #log: Logger;
  #server: Server | null = null;

  constructor(folder: string, worker: number, log: Logger) {
    this.#folder = folder;
    this.#worker = worker;
    this.#log = log;
  }

  /** Where it cannot listen, others merge for themselves what is this worker's. */
  listen(accept: (socket: Socket) => void): void {
    const path = pathOf(this.#folder, this.#worker);
    // Of the one that had this number before, which was killed.
    rmSync(path, { force: true });
    const server = createServer({ allowHalfOpen: true }, accept);
    server.on('error', (error) =>
      this.#log.warn({ reason: error.message }, 'nothing is merged here for other workers'),
    );
    server.listen(path);
    // Clients keep a worker alive, and its channel.
    server.unref();
    this.#server = server;
  }

  connect(owner: number): Socket {
    return connect({ path: pathOf(this.#folder, owner), allowHalfOpen: true });
  }

  /** Takes no more connections; those there are go on. */
  close(): void {
    this.#server?.close();
    this.#server = null;
  }

  /** Behind a control process that was killed, the last one removes what it has left. */
  remove(): void {
    try {
      unlinkSync(pathOf(this.#folder, this.#worker));
    } catch {
      // It is gone.
    }
    try {
      rmdirSync(this.#folder);
    } catch {
      // Others are in it.
    }
  }
}
