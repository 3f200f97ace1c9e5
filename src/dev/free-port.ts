// Free TCP ports, asked of the kernel. A port is only known to be free at the moment of asking: whoever binds it later
// must be ready to ask again.
import { createServer } from 'node:net';
import { errnoOf } from '../catalog/errno.js';

/** A port that is free on `host` now and not in `avoid` (ports promised to others but not yet bound). */
export async function findFreePort(host: string, avoid: ReadonlySet<number> = new Set()): Promise<number> {
  for (;;) {
    const port = await bindOnce(host, 0);
    if (!avoid.has(port)) return port;
  }
}

export async function isPortFree(host: string, port: number): Promise<boolean> {
  try {
    await bindOnce(host, port);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EADDRINUSE' || errnoOf(error) === 'EACCES') return false;
    throw error;
  }
}

function bindOnce(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address();
      const bound = address !== null && typeof address === 'object' ? address.port : 0;
      server.close(() => resolve(bound));
    });
  });
}
