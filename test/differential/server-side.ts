// The server behind a target, reached directly as superuser: makes fixtures, and sees what clients left behind.
import type { PostgresServer } from '../support/postgres-server.js';
import { WireClient } from '../support/wire-client.js';
import type { TranscriptWriter } from './transcript.js';

export const APP_ROLE = 'app';
const POLL_MS = 5;
/** How long a server may take to notice that a client has gone. */
const PATIENCE_MS = 3_000;

/** What no client may leave behind: open or prepared transactions, session locks. */
const LEFTOVERS = `
  select pid || ' backend ' || coalesce(state, '') || ' ' || left(query, 60)
    from pg_stat_activity a
    where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
      and (state <> 'idle' or exists (select from pg_locks l where l.pid = a.pid))
  union all select '0 prepared transaction ' || gid from pg_prepared_xacts where database = current_database()`;

/** Empties a database: everything lives in schema public, except large objects and prepared transactions. */
const WIPE = `
  drop schema if exists public cascade;
  create schema public authorization pg_database_owner;
  grant all on schema public to public;
  select lo_unlink(oid) from pg_largeobject_metadata`;

export class ServerSide {
  readonly #superuser: WireClient;
  readonly #app: WireClient;

  readonly #patienceMs: number;

  private constructor(superuser: WireClient, app: WireClient, patienceMs: number) {
    this.#superuser = superuser;
    this.#app = app;
    this.#patienceMs = patienceMs;
  }

  /** Makes the database, owned by the application role, and connects to it. */
  static async create(server: PostgresServer, database: string, patienceMs = PATIENCE_MS): Promise<ServerSide> {
    const first = await WireClient.connect(server, { user: server.superuser, database: 'postgres' });
    await run(first, `create database ${database} owner ${APP_ROLE} template template0`);
    await first.end();
    const parameters = { client_min_messages: 'warning', lock_timeout: '5s' };
    const superuser = await WireClient.connect(server, { user: server.superuser, database, parameters });
    const app = await WireClient.connect(server, { user: APP_ROLE, database, parameters });
    return new ServerSide(superuser, app, patienceMs);
  }

  run(sql: string): Promise<string[]> {
    return run(this.#superuser, sql);
  }

  async makeFixture(fixture: string): Promise<void> {
    for (const gid of await this.run('select gid from pg_prepared_xacts where database = current_database()')) {
      await this.run(`rollback prepared '${gid}'`);
    }
    await this.run(WIPE);
    if (fixture !== '') await run(this.#app, fixture);
  }

  /** Resolves when a statement in this database waits for a lock. */
  async waitUntilBlocked(): Promise<void> {
    const sql = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
    if (!(await this.#becomes(sql, (rows) => rows.length > 0))) throw new Error('no statement became blocked');
  }

  /** Notes what clients left behind on the server, after a grace period. */
  async settle(writer: TranscriptWriter, step: string): Promise<void> {
    let rows: string[] = [];
    await this.#becomes(LEFTOVERS, (current) => {
      rows = current;
      return rows.length === 0;
    });
    const found = rows.map((row) => row.replace(/^\d+ /, '')).sort();
    writer.note(step, found.length === 0 ? 'nothing' : found.join('; '));
  }

  /** Ends what is left behind, so that the next scenario begins clean. */
  async endLeftovers(): Promise<void> {
    const pids = (await this.run(LEFTOVERS)).map((row) => Number.parseInt(row, 10)).filter((pid) => pid > 0);
    for (const pid of pids) await this.run(`select pg_terminate_backend(${pid}, 1000)`);
  }

  async close(): Promise<void> {
    await this.#superuser.end();
    await this.#app.end();
  }

  async #becomes(sql: string, isRight: (rows: string[]) => boolean): Promise<boolean> {
    const deadline = performance.now() + this.#patienceMs;
    for (;;) {
      if (isRight(await this.run(sql))) return true;
      if (performance.now() > deadline) return false;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}

/** Runs SQL that must succeed; the first column of all rows. */
async function run(client: WireClient, sql: string): Promise<string[]> {
  const messages = await client.query(sql);
  const error = messages.find((message) => message.type === 'ErrorResponse');
  if (error?.type === 'ErrorResponse') throw new Error(`${error.fields['C']} ${error.fields['M']} in: ${sql}`);
  return messages.flatMap((message) => (message.type === 'DataRow' ? [message.values[0]?.toString() ?? ''] : []));
}
