// What a test talks to: a Postgres server itself, or a pgkv router in front of it.
import type { PostgresServer } from './postgres-server.js';

export interface Target {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  close(): Promise<void>;
}

/** The server itself. Closing the target leaves the server running. */
export function directTarget(server: PostgresServer, user: string, database: string): Target {
  return { host: server.host, port: server.port, user, database, close: async () => undefined };
}
