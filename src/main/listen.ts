// Where clients connect: the TCP port, then the Unix socket that is named after it.
import { unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { ListenError } from '../base/listen-error.js';
import type { Settings } from '../config/settings.js';
import type { Listener } from '../frontend/door/listener.js';

/** Resolves with the port. Rejects with ListenError where it cannot be had. */
export async function listenForClients(listener: Pick<Listener, 'listen'>, settings: Settings): Promise<number> {
  const { host, port, backlog, socketDir } = settings.listen;
  const { keepaliveMs } = settings.clients;
  let bound: number;
  try {
    bound = await listener.listen({ host, port, socketPath: null, backlog, keepaliveMs });
  } catch (error) {
    throw new ListenError('listen', host, port, error);
  }
  if (socketDir !== null) {
    const path = join(socketDir, `.s.PGSQL.${bound}`);
    removeStaleSocket(path);
    await listener.listen({ host: null, port: bound, socketPath: path, backlog, keepaliveMs: 0 });
  }
  return bound;
}

/** The TCP port is ours by now, so a socket file of the same number was left by a crash. */
function removeStaleSocket(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
