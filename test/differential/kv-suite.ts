// The differential suite for key-value tables: Postgres with the extension's tables on one server, and pgkv with the same
// tables on one shard and on four.
import type { KvTable } from '../../src/cluster/kv-table.js';
import { BLOBS, evenSpread, fixedCatalog, KV, prepareShard } from '../support/kv-cluster.js';
import type { PostgresServer } from '../support/postgres-server.js';
import { startRouter } from '../support/router.js';
import { SqlClient } from '../support/sql-client.js';
import type { Suite } from './check-version.js';
import { KV_DELIBERATE_DIFFERENCES } from './kv-deliberate-differences.js';
import { KV_THEMES } from './kv-themes.js';
import { type Contestant, createRoles, direct, isDirect } from './matrix.js';
import type { Scenario } from './scenario.js';
import { APP_ROLE, type Layout, type Place } from './server-side.js';

const TABLES: readonly KvTable[] = [KV, BLOBS];
const TEMPLATE = 'kv_template';
const SHARD_COUNT = 4;
const POOL_SIZE = 2;
/** A lane has a database on each of six servers. */
const LANE_COUNT = 2;

/** What is beside the tables is dropped: themes make ordinary tables only. */
const WIPE = `
  delete from kv;
  delete from blobs;
  do $$
  declare found regclass;
  begin
    for found in select oid from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
      and relname not in ('kv', 'blobs')
    loop
      execute 'drop table ' || found || ' cascade';
    end loop;
  end $$`;

const LAYOUT: Layout = {
  template: TEMPLATE,
  wipe: WIPE,
  relations: TABLES.map(({ name }) => name),
  // An expired row is as good as absent (D9): on Postgres it is absent.
  keepOwnRows: (place) => TABLES.map(({ name }) => `delete from ${name} where ${foreignRows(place)}`).join(';'),
};

function foreignRows(place: Place | null): string {
  if (place === null) return 'ttl <= statement_timestamp()';
  const [first, last] = evenSpread(place.count, TABLES).shards[place.index]!.hashSlots[0]!;
  return `slot not between ${first} and ${last}`;
}

/** Users name the key alone in ON CONFLICT; Postgres needs a unique index of just that. */
const KEY_INDEXES = TABLES.map(({ name }) => `create unique index on ${name} (tenant_id, key)`);

/** Tables have other OIDs on each server, as they do where shards were not made in one go. */
async function prepareServer(server: PostgresServer, index: number | null): Promise<void> {
  await createRoles(server);
  const maintenance = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
  for (let surplus = 0; surplus < (index ?? 0); surplus++) await maintenance.run('create table t (); drop table t');
  await maintenance.run(`create database ${TEMPLATE}`);
  await maintenance.end();
  await prepareShard(server, TABLES, TEMPLATE);
  const owner = await SqlClient.connect(server, { user: server.superuser, database: TEMPLATE });
  await owner.run(`grant all on kv, blobs to ${APP_ROLE}`, `grant create on schema public to ${APP_ROLE}`);
  if (index === null || isDirect()) await owner.run(...KEY_INDEXES);
  await owner.end();
}

/** Leaves nothing that an intruder could change. */
const hasNoState = ({ readOnly, name }: Scenario): boolean =>
  readOnly === true || /^(refused|kv: generated)/.test(name);

function router(shards: 'one' | 'several', intruder: boolean): Contestant {
  const serverCount = shards === 'one' ? 1 : SHARD_COUNT;
  return {
    name: `${serverCount} shard${serverCount > 1 ? 's' : ''}${intruder ? ', intruder' : ''}`,
    intruder,
    serverCount,
    routesKeys: true,
    plays: (scenario) => (scenario.shards ?? shards) === shards && !(intruder && hasNoState(scenario)),
    // With one shard fewer ways through pgkv are taken.
    oneMode: (scenario) => intruder || (shards === 'one' && scenario.shards === undefined),
    start: (servers, database) => {
      const catalog = fixedCatalog(evenSpread(serverCount, TABLES, database));
      return startRouter({ servers, user: APP_ROLE, database, poolSize: POOL_SIZE, catalog });
    },
  };
}

export const KV_SUITE: Suite = {
  themes: KV_THEMES,
  contestants: isDirect()
    ? [direct('direct', false)]
    : [router('one', false), router('several', false), router('several', true)],
  laneCount: LANE_COUNT,
  layout: LAYOUT,
  prepareServer,
  deliberate: KV_DELIBERATE_DIFFERENCES,
};
