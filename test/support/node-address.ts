// An address behind which servers can be exchanged, as when one is stopped and another started on its port.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface NodeAddress {
  readonly host: string;
  readonly port: number;
  /** Ends all connections; later ones go to another server. */
  leadTo(server: { readonly host: string; readonly port: number }): void;
  close(): Promise<void>;
}

export async function nodeAddress(first: { readonly host: string; readonly port: number }): Promise<NodeAddress> {
  let target = first;
  const sockets = new Set<Socket>();
  const keep = (socket: Socket, other: () => Socket): void => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      sockets.delete(socket);
      other().destroy();
    });
  };
  const listener = createServer({ noDelay: true }, (client) => {
    const server = connect({ host: target.host, port: target.port, noDelay: true });
    keep(client, () => server);
    keep(server, () => client);
    client.pipe(server);
    server.pipe(client);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const end = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    host: '127.0.0.1',
    port: (listener.address() as AddressInfo).port,
    leadTo(server) {
      target = server;
      end();
    },
    async close() {
      end();
      listener.close();
      await once(listener, 'close');
    },
  };
}
