// Where clients of a router with workers arrive. Accepts them and reads nothing: they are handed on as they are.
import type { Server, Socket } from 'node:net';
import { type ListenAddress, listenAt } from '../frontend/door/listener.js';

export class ClientDoor {
  readonly #servers: Server[] = [];
  readonly #accepted: (client: Socket) => void;

  constructor(accepted: (client: Socket) => void) {
    this.#accepted = accepted;
  }

  /** Resolves with the port; rejects with what the system says. */
  async listen(address: ListenAddress): Promise<number> {
    const { server, port } = await listenAt(address, { pauseOnConnect: true }, (client) => {
      client.on('error', () => client.destroy());
      this.#accepted(client);
    });
    this.#servers.push(server);
    return port;
  }

  /** Takes no more of them. */
  close(): void {
    for (const server of this.#servers.splice(0)) server.close();
  }
}
