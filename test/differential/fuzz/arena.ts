// Where scripts are played: one plain Postgres with the extension's tables, and five servers behind routers of one, three and
// five shards, each in a database of its own. Every script begins with the same rows; what has expired is there behind pgkv
// only, where it has to be as good as absent (D9).

import type { CatalogState } from '../../../src/catalog/catalog-state.js';
import { loadKeyHash } from '../../../src/cluster/key-hash.js';
import type { KvTable } from '../../../src/cluster/kv-table.js';
import { BLOBS, evenSpread, fixedCatalog, KV, prepareShard } from '../../support/kv-cluster.js';
import { type PostgresServer, startPostgres } from '../../support/postgres-server.js';
import { startRouter } from '../../support/router.js';
import { SqlClient } from '../../support/sql-client.js';
import { directTarget, type Target } from '../../support/target.js';
import { TAGS } from './kv-statements.js';

const TABLES: readonly KvTable[] = [KV, BLOBS];
const APP_ROLE = 'app';
/** Sessions that hold three shards each, and the merged lane's connections. */
const POOL_SIZE = 12;
const TENANTS = 3;
const QUIET_MS = 2_000;

/** Compares Postgres with Postgres: it must be equal, or the fuzzer is at fault. */
const isDirect = process.env['PGKV_DIFF_TARGET'] === 'direct';

type Slots = readonly [first: number, last: number];
const ALL_SLOTS: Slots = [0, 16_383];

/** Those of the shard: others it would not take. */
const rowsOf = ([first, last]: Slots): string => `
  insert into kv (tenant_id, key, value)
  select 't' || t, '{' || tag || '}' || n, to_jsonb(n)
  from generate_series(0, ${TENANTS - 1}) t, unnest('{${TAGS}}'::text[]) tag, generate_series(1, 2) n
  where kv_slot('t' || t, '{' || tag || '}' || n) between ${first} and ${last}`;

const NOTES = `
  delete from note;
  insert into note (id, text) select 100 * t + 1, 'one' from generate_series(0, ${TENANTS - 1}) t`;

const expiredOf = ([first, last]: Slots): string => `
  insert into kv (tenant_id, key, version, value, ttl)
  select 't' || t, '{' || tag || '}3', 7, '"expired"', now() - interval '1 hour'
  from generate_series(0, ${TENANTS - 1}) t, unnest('{a,i,o,m}'::text[]) tag
  where kv_slot('t' || t, '{' || tag || '}3') between ${first} and ${last}`;

const CONTENT = `
  select 'kv ' || concat_ws('|', tenant_id, key, version, value, ttl is null), slot from kv
    where ttl is null or ttl > statement_timestamp()
  union all select 'blobs ' || key, slot from blobs`;

const NOTED = `select 'note ' || id || '|' || text from note`;

/** What a session that has ended must not have left. */
const LEFT = `
  select 'a backend ' || coalesce(state, '') || ': ' || left(query, 80) from pg_stat_activity a
    where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
      and (state <> 'idle' or exists (select from pg_locks l where l.pid = a.pid))
  union all select 'prepared ' || gid from pg_prepared_xacts where database = current_database()`;

const PREPARED = 'select gid from pg_prepared_xacts where database = current_database()';

interface Place {
  readonly owner: SqlClient;
  readonly isHome: boolean;
  /** Null for plain Postgres. */
  readonly slots: Slots | null;
}

/** Plain Postgres, or servers behind a router. */
export class Side {
  readonly #places: readonly Place[];

  constructor(places: readonly Place[]) {
    this.#places = places;
  }

  async reset(): Promise<void> {
    await Promise.all(
      this.#places.map(async ({ owner, isHome, slots }) => {
        // Left by a script that failed: it would fail those behind it.
        for (const [gid] of await owner.rows(PREPARED)) await owner.run(`rollback prepared '${gid}'`);
        await owner.run(`delete from kv; delete from blobs; ${rowsOf(slots ?? ALL_SLOTS)}`);
        if (slots !== null) await owner.run(expiredOf(slots));
        if (isHome) await owner.run(NOTES);
      }),
    );
  }

  /** Rows of all tables, and what is wrong about where they are. */
  async content(): Promise<string[]> {
    const all: string[] = [];
    for (const { owner, isHome, slots } of this.#places) {
      for (const [row, slot] of await owner.rows(CONTENT)) {
        const isMisplaced = slots !== null && slot !== null && (Number(slot) < slots[0] || Number(slot) > slots[1]);
        all.push(isMisplaced ? `${row} ON THE WRONG SHARD` : row!);
      }
      if (isHome) all.push(...(await owner.rows(NOTED)).map(([row]) => row!));
    }
    return all.sort();
  }

  /** Transactions and locks that are there though no session is, but for `expected` ones. */
  async left(expected: readonly string[] = []): Promise<string[]> {
    const end = performance.now() + QUIET_MS;
    for (;;) {
      const found: string[] = [];
      for (const { owner } of this.#places) found.push(...(await owner.rows(LEFT)).map(([row]) => row!));
      const surplus = found.filter((one) => !expected.includes(one));
      if (surplus.length === 0 || performance.now() > end) return surplus;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async prepared(): Promise<string[]> {
    const gids = await Promise.all(this.#places.map(({ owner }) => owner.rows(PREPARED)));
    return gids.flat().map(([gid]) => `prepared ${gid}`);
  }

  async close(): Promise<void> {
    for (const { owner } of this.#places) await owner.end();
  }
}

export interface Ring {
  readonly shards: number;
  readonly postgres: { readonly target: Target; readonly side: Side };
  readonly pgkv: { target: Target; readonly side: Side };
  /** A new router in place of one that a script has harmed. */
  renew(): Promise<void>;
}

export class Arena {
  readonly rings: readonly Ring[];
  readonly #servers: readonly PostgresServer[];

  private constructor(rings: readonly Ring[], servers: readonly PostgresServer[]) {
    this.rings = rings;
    this.#servers = servers;
  }

  /** @param counts of shards, one ring each */
  static async open(counts: readonly number[]): Promise<Arena> {
    await loadKeyHash();
    const started = await Promise.all(
      Array.from({ length: Math.max(...counts) + 1 }, () =>
        startPostgres({ version: 'embedded', parameters: { max_connections: '120' } }),
      ),
    );
    const [plain, ...shards] = started as [PostgresServer, ...PostgresServer[]];
    for (const server of started) await makeRole(server);
    const rings: Ring[] = [];
    for (const count of counts) rings.push(await openRing(plain, shards.slice(0, count)));
    return new Arena(rings, started);
  }

  async close(): Promise<void> {
    for (const { postgres, pgkv } of this.rings) {
      await pgkv.target.close();
      await postgres.side.close();
      await pgkv.side.close();
    }
    await Promise.all(this.#servers.map((server) => server.stop()));
  }
}

async function makeRole(server: PostgresServer): Promise<void> {
  const owner = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
  // Who ends what a router has prepared for others.
  await owner.run(`create role ${APP_ROLE} login`, 'create role pgkv_recover login noinherit');
  await owner.run(`grant ${APP_ROLE} to pgkv_recover`);
  await owner.end();
}

async function openRing(plain: PostgresServer, servers: readonly PostgresServer[]): Promise<Ring> {
  const database = `fuzz${servers.length}`;
  const { shards } = evenSpread(servers.length, TABLES, database);
  const reference = await preparePlace(plain, database, true, null);
  if (isDirect) return directRing(plain, servers[0]!, database, reference);
  const places = await Promise.all(
    servers.map((server, index) => preparePlace(server, database, index === 0, shards[index]!.hashSlots[0]!)),
  );
  const state = { ...evenSpread(servers.length, TABLES, database), clusterId: `cluster ${database}` };
  for (const [index, { owner }] of places.entries()) await stateShard(owner, state, index);
  const catalog = fixedCatalog(state);
  const start = () => startRouter({ servers, user: APP_ROLE, database, poolSize: POOL_SIZE, catalog });
  const pgkv = { target: await start(), side: new Side(places) };
  return {
    shards: servers.length,
    postgres: { target: directTarget(plain, APP_ROLE, database), side: new Side([reference]) },
    pgkv,
    async renew() {
      await pgkv.target.close();
      pgkv.target = await start();
    },
  };
}

/** Postgres in place of pgkv. */
async function directRing(
  plain: PostgresServer,
  server: PostgresServer,
  database: string,
  reference: Place,
): Promise<Ring> {
  const place = await preparePlace(server, database, true, null);
  return {
    shards: 1,
    postgres: { target: directTarget(plain, APP_ROLE, database), side: new Side([reference]) },
    pgkv: { target: directTarget(server, APP_ROLE, database), side: new Side([place]) },
    renew: async () => undefined,
  };
}

/** The shard says which slots it owns, and whose it is: without that nothing is written on several. */
async function stateShard(owner: SqlClient, { shards, epoch, clusterId }: CatalogState, index: number): Promise<void> {
  const { name, hashSlots } = shards[index]!;
  const ranges = hashSlots.map(([first, last]) => `[${first},${last}]`).join(',');
  await owner.run(
    `select pgkv.set_shard_state('${name}', ${epoch}, '{${ranges}}', '${clusterId}')`,
    'grant execute on function pgkv.settle(text), pgkv.collect_decisions(text[]) to pgkv_recover',
  );
}

async function preparePlace(
  server: PostgresServer,
  database: string,
  isHome: boolean,
  slots: Place['slots'],
): Promise<Place> {
  const maintenance = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
  await maintenance.run(`create database ${database}`);
  await maintenance.end();
  await prepareShard(server, TABLES, database);
  const parameters = { client_min_messages: 'warning', lock_timeout: '5s' };
  const owner = await SqlClient.connect(server, { user: server.superuser, database, parameters });
  // Ordinary tables are at home only.
  if (isHome)
    await owner.run(`create table note (id int primary key, text text not null); grant all on note to ${APP_ROLE}`);
  if (slots === null) {
    // Users name the key alone in ON CONFLICT; Postgres needs a unique index of just that.
    for (const { name } of TABLES) await owner.run(`create unique index on ${name} (tenant_id, key)`);
  }
  await owner.run(`grant all on kv, blobs to ${APP_ROLE}`, `grant temporary on database ${database} to ${APP_ROLE}`);
  return { owner, isHome, slots };
}
