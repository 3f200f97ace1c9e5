// A real server behind a fault proxy behind a router, and what is asked of every fault: a definite answer that is true.
// Safe errors (08006, 40001) mean that nothing was written, an acknowledged write is there, only 08007 leaves it open.
import type { Test } from 'tap';
import { serverAtRest } from './bystander.js';
import { type Fault, FaultProxy } from './fault-proxy.js';
import type { FrontendMessage } from './frontend-message.js';
import { type LiveRouter, liveRouter, type RouterOverrides } from './live-router.js';
import { stretched } from './machine-speed.js';
import { type PostgresServer, startPostgres } from './postgres-server.js';
import { errorOf, SqlClient } from './sql-client.js';
import type { Exchange } from './wire-client.js';

/** How one statement or batch ended for the client. */
export interface Ending {
  /** `lost`: the connection was closed without an error. */
  readonly outcome: 'done' | 'error' | 'lost';
  readonly code: string;
  /** I, T or E; '' when the connection is over. */
  readonly status: string;
}

/** Not the database of the health checks, which no fault touches. */
const DATABASE = 'template1';
const ANSWER_TIMEOUT_MS = 15_000;

export class FaultBench {
  readonly server: PostgresServer;
  /** To the server itself; there is a table `written (id int)`. */
  readonly direct: SqlClient;
  readonly login: { readonly user: string; readonly database: string };
  #lastId = 0;

  private constructor(server: PostgresServer, direct: SqlClient) {
    this.server = server;
    this.direct = direct;
    this.login = { user: server.superuser, database: DATABASE };
  }

  /** Torn down at the end of `t`. */
  static async start(t: Pick<Test, 'teardown'>): Promise<FaultBench> {
    const server = await startPostgres({ version: '15' });
    t.teardown(() => server.stop());
    const direct = await SqlClient.connect(server, { user: server.superuser, database: DATABASE });
    t.teardown(() => direct.end());
    await direct.run('CREATE TABLE written (id int)');
    return new FaultBench(server, direct);
  }

  /** By default with a pool of one, so that a fault strikes the connection it is meant for. */
  async behindProxy(t: Test, overrides: RouterOverrides = {}): Promise<{ live: LiveRouter; proxy: FaultProxy }> {
    const proxy = await FaultProxy.start(this.server, DATABASE);
    // Torn down behind the router, which would else be left by its servers first.
    t.teardown(() => proxy.down());
    const settings = {
      pool: { sizeMax: 1 },
      servers: { connectTimeoutMs: Math.ceil(await stretched(400)) },
      ...overrides,
    };
    return { live: await liveRouter(t, [proxy.standInFor(this.server)], settings), proxy };
  }

  connect(live: LiveRouter): Promise<SqlClient> {
    return live.connect({ database: DATABASE });
  }

  /** A number not yet written. */
  nextId(): number {
    return ++this.#lastId;
  }

  async isThere(id: number): Promise<boolean> {
    return (await this.direct.value(`SELECT count(*) FROM written WHERE id = ${id}`)) === '1';
  }

  /** Checks that what the client was told of its write agrees with what the server holds. */
  async agrees(t: Test, what: string, ending: Ending, id: number): Promise<void> {
    await serverAtRest(t, this.server, this);
    const there = await this.isThere(id);
    const told = `${what}: told ${ending.outcome} ${ending.code}, the row is ${there ? 'there' : 'not there'}`;
    if (ending.outcome === 'done') t.ok(there, told);
    else if (['08006', '40001', '25P02'].includes(ending.code)) t.notOk(there, told);
    else t.ok(ending.code === '08007' || ending.outcome === 'lost', told);
  }

  /** The session goes on, or where it was closed a new one can be had at once. */
  async goesOn(t: Test, live: LiveRouter, client: SqlClient, ending: Ending): Promise<SqlClient> {
    if (ending.status === '') {
      client.wire.destroy();
      return this.connect(live);
    }
    t.equal(ending.status, 'I');
    t.equal(await client.value('SELECT 7'), '7');
    return client;
  }
}

export function endingOf({ messages, outcome }: Exchange): Ending {
  if (outcome === 'timeout') throw new Error(`no definite answer: ${JSON.stringify(messages)}`);
  const last = messages.at(-1);
  const status = last?.type === 'ReadyForQuery' ? last.status : '';
  const error = errorOf(messages);
  if (error !== null) return { outcome: 'error', code: error.code, status };
  return { outcome: outcome === 'reached' ? 'done' : 'lost', code: '', status };
}

export async function ask(client: SqlClient, messages: readonly FrontendMessage[]): Promise<Ending> {
  return endingOf(await client.wire.exchange(messages, 1, ANSWER_TIMEOUT_MS));
}

/** Runs what the fault is to strike; the connection to the server should be there before. */
export async function struckBy(proxy: FaultProxy, fault: Fault, run: () => Promise<Ending>): Promise<Ending> {
  proxy.arm(fault);
  const ending = await run();
  proxy.disarm();
  return ending;
}

/** One statement of the extended protocol, unnamed, as drivers send it. */
export const batch = (
  sql: string,
  parameters: readonly string[] = [],
  types: readonly number[] = [],
): readonly FrontendMessage[] => [
  { parse: sql, types },
  { bind: parameters },
  { describe: 'portal' },
  { execute: '' },
  'sync',
];
