// Which port each shard listens on, remembered in the data folder so that a connection string outlives a restart. Not a
// promise: a port that is taken at the next start is replaced.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '../catalog/errno.js';
import type { ClusterLog } from './cluster-log.js';
import { findFreePort, isPortFree } from './free-port.js';
import { replaceFile } from './replace-file.js';

const PORTS_FILE = 'ports.json';
const HOST = '127.0.0.1';

/** One port per shard id from 0, all different, free at present; the remembered ones where they still are. */
export async function choosePorts(dir: string, shards: number, log: ClusterLog): Promise<number[]> {
  const remembered = rememberedPorts(dir);
  const chosen = new Set<number>();
  for (let id = 0; id < shards; id++) {
    const port = remembered[id];
    if (port !== undefined && !chosen.has(port) && (await isPortFree(HOST, port))) {
      chosen.add(port);
      continue;
    }
    const replacement = await findFreePort(HOST, new Set([...chosen, ...remembered]));
    if (port !== undefined) log('warn', `port ${port} of shard ${id} is taken; it gets ${replacement}`);
    chosen.add(replacement);
  }
  return [...chosen];
}

export function rememberPorts(dir: string, ports: readonly number[]): void {
  replaceFile(join(dir, PORTS_FILE), `${JSON.stringify(ports)}\n`);
}

/** Empty until all shards have once been started. */
export function rememberedPorts(dir: string): number[] {
  let text: string;
  try {
    text = readFileSync(join(dir, PORTS_FILE), 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
  try {
    const ports: unknown = JSON.parse(text);
    return Array.isArray(ports) && ports.every((port) => Number.isInteger(port) && port > 0 && port < 65536)
      ? ports
      : [];
  } catch {
    // Torn by a crash of the machine: new ports are chosen.
    return [];
  }
}
