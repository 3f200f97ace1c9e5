// The servers behind a target, reached directly as superuser: makes fixtures, and sees what clients left behind.
import type { PostgresServer } from '../support/postgres-server.js';
import { WireClient } from '../support/wire-client.js';
import type { Theme } from './scenario.js';
import type { TranscriptWriter } from './transcript.js';

export const APP_ROLE = 'app';
const POLL_MS = 5;
/** How long a server may take to notice that a client has gone. */
const PATIENCE_MS = 30_000;

/** What no client may leave behind: open or prepared transactions, session locks. */
const LEFTOVERS = `
  select pid || ' backend ' || coalesce(state, '') || ' ' || left(query, 60)
    from pg_stat_activity a
    where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
      and (state <> 'idle' or exists (select from pg_locks l where l.pid = a.pid))
  union all select '0 prepared transaction ' || gid from pg_prepared_xacts where database = current_database()`;

const PREPARED = 'select gid from pg_prepared_xacts where database = current_database()';

/** Empties a database: everything lives in schema public, except large objects and prepared transactions. */
const WIPE = `
  drop schema if exists public cascade;
  create schema public authorization pg_database_owner;
  grant all on schema public to public;
  select lo_unlink(oid) from pg_largeobject_metadata`;

/** How databases of a suite begin. */
export interface Layout {
  /** The database that others are copies of. */
  readonly template: string;
  /** Empties a database. */
  readonly wipe: string;
  /** Run behind a theme's rows: removes what the server does not own, or what is not there for Postgres (null). */
  readonly keepOwnRows?: (place: Place | null) => string;
  /** Relations that are one to clients although each server has an OID of its own for it. */
  readonly relations?: readonly string[];
}

/** One of several servers behind pgkv. */
export interface Place {
  readonly index: number;
  readonly count: number;
}

export interface ServerSideOptions {
  readonly patienceMs?: number;
  readonly layout?: Layout;
  /** See Side in matrix.ts. */
  readonly routesKeys?: boolean;
}

const EMPTY: Layout = { template: 'template0', wipe: WIPE };

interface Node {
  readonly superuser: WireClient;
  readonly app: WireClient;
}

export class ServerSide {
  /** Names of the relations of the layout, by OID. */
  readonly relations: ReadonlyMap<number, string>;
  /** The first is home: fixtures are made there. */
  readonly #nodes: readonly Node[];
  readonly #layout: Layout;
  readonly #patienceMs: number;
  readonly #routesKeys: boolean;

  private constructor(
    nodes: readonly Node[],
    relations: ReadonlyMap<number, string>,
    { layout = EMPTY, patienceMs = PATIENCE_MS, routesKeys = false }: ServerSideOptions,
  ) {
    this.#nodes = nodes;
    this.relations = relations;
    this.#layout = layout;
    this.#patienceMs = patienceMs;
    this.#routesKeys = routesKeys;
  }

  /** Makes the database, owned by the application role, on each server, and connects to it. */
  static async create(
    servers: readonly PostgresServer[],
    database: string,
    options: ServerSideOptions = {},
  ): Promise<ServerSide> {
    const { layout = EMPTY } = options;
    const nodes = await Promise.all(servers.map((server) => createNode(server, database, layout.template)));
    const relations = new Map<number, string>();
    for (const { superuser } of nodes) {
      for (const name of layout.relations ?? []) {
        const oid = Number((await run(superuser, `select '${name}'::regclass::oid`))[0]);
        if ((relations.get(oid) ?? name) !== name) throw new Error(`two relations have the OID ${oid}`);
        relations.set(oid, name);
      }
    }
    return new ServerSide(nodes, relations, options);
  }

  /** On every server; the first column of all rows. */
  async run(sql: string): Promise<string[]> {
    return (await Promise.all(this.#nodes.map(({ superuser }) => run(superuser, sql)))).flat();
  }

  async makeFixture({ fixture, rows }: Pick<Theme, 'fixture' | 'rows'>): Promise<void> {
    await Promise.all(this.#nodes.map((node, index) => this.#empty(node, rows, index)));
    if (fixture) await run(this.#nodes[0]!.app, fixture);
  }

  async #empty({ superuser }: Node, rows: string | undefined, index: number): Promise<void> {
    for (const gid of await run(superuser, PREPARED)) await run(superuser, `rollback prepared '${gid}'`);
    await run(superuser, this.#layout.wipe);
    if (!rows) return;
    await run(superuser, rows);
    const place = this.#routesKeys ? { index, count: this.#nodes.length } : null;
    await run(superuser, this.#layout.keepOwnRows?.(place) ?? '');
  }

  /** Resolves when a statement in this database waits for a lock. */
  async waitUntilBlocked(): Promise<void> {
    const sql = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
    if (!(await this.#becomes(sql, (rows) => rows.length > 0))) throw new Error('no statement became blocked');
  }

  /** Notes what clients left behind on the servers, after a grace period. */
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
    for (const { superuser } of this.#nodes) {
      const pids = (await run(superuser, LEFTOVERS)).map((row) => Number.parseInt(row, 10)).filter((pid) => pid > 0);
      for (const pid of pids) await run(superuser, `select pg_terminate_backend(${pid}, 1000)`);
    }
  }

  async close(): Promise<void> {
    for (const { superuser, app } of this.#nodes) {
      await superuser.end();
      await app.end();
    }
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

async function createNode(server: PostgresServer, database: string, template: string): Promise<Node> {
  const first = await WireClient.connect(server, { user: server.superuser, database: 'postgres' });
  await run(first, `create database ${database} owner ${APP_ROLE} template ${template}`);
  await first.end();
  const parameters = { client_min_messages: 'warning', lock_timeout: '5s' };
  const superuser = await WireClient.connect(server, { user: server.superuser, database, parameters });
  const app = await WireClient.connect(server, { user: APP_ROLE, database, parameters });
  return { superuser, app };
}

/** Runs SQL that must succeed; the first column of all rows. */
async function run(client: WireClient, sql: string): Promise<string[]> {
  const messages = await client.query(sql);
  const error = messages.find((message) => message.type === 'ErrorResponse');
  if (error?.type === 'ErrorResponse') throw new Error(`${error.fields['C']} ${error.fields['M']} in: ${sql}`);
  return messages.flatMap((message) => (message.type === 'DataRow' ? [message.values[0]?.toString() ?? ''] : []));
}
