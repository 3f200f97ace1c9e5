// The random mix of merged-model.test.ts on workers that merge together (R50): one order of all writes of a key, whichever worker
// the client is with and whichever runs its statement.
//   PGKV_SEED=123  plays that seed (what the clients do; when they meet is chance)
//   PGKV_LONG=1    80,000 statements instead of 3,000
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { KV, kvServers } from '../support/kv-cluster.js';
import { buildPackage } from '../support/router-process.js';
import { handedOver, sharedWorkers } from '../support/shared-workers.js';
import { SqlClient } from '../support/sql-client.js';
import { ModelClient } from './merged-model/model-client.js';
import { World } from './merged-model/world.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const STATEMENTS = process.env['PGKV_LONG'] === '1' ? 80_000 : 3_000;
const CLIENTS = 48;
const WITH_TRANSACTIONS = 5;

t.setTimeout(STATEMENTS > 10_000 ? 3_600_000 : 300_000);
t.comment(`PGKV_SEED=${SEED}`);
const { program } = buildPackage(t);
const cluster = await kvServers(t, 2, { tables: [KV] });
const direct = await Promise.all(
  cluster.servers.map((server) => SqlClient.connect(server, { user: server.superuser, database: 'postgres' })),
);
t.teardown(() => Promise.all(direct.map((client) => client.end())));
for (const client of direct) {
  await client.run(
    'alter table kv alter column version set default pgkv.first_version()',
    `alter table kv add constraint sane check (value::text not like '"forbidden%')`,
    "alter system set deadlock_timeout = '60 ms'",
    'select pg_reload_conf()',
  );
}
const RUNNING = `SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle'
  AND pid <> pg_backend_pid()`;

for (const [round, workers] of [2, 4].entries()) {
  t.test(`every answer of a random mix is true, ${workers} workers`, async (t) => {
    const router = await sharedWorkers(t, cluster, { program, workers });
    const user = { user: cluster.servers[0]!.superuser, database: 'postgres' };
    const world = new World(SEED, round, STATEMENTS);
    const clients = Array.from({ length: CLIENTS }, (_, number) => new ModelClient(world, number, router, user));
    await Promise.all(clients.map((client, number) => client.run(number < WITH_TRANSACTIONS)));
    // What vanished clients have asked for is done, or will never be.
    await sleep(500);
    for (const client of direct) while ((await client.value(RUNNING)) !== '0') await sleep(10);
    await new ModelClient(world, CLIENTS, router, user).readAll(world.known);
    world.judge();
    for (const client of direct) await client.run('truncate kv');
    t.same(world.problems, [], `PGKV_SEED=${SEED}`);
    const { handed, owned, takenBack } = await handedOver(router);
    t.ok(
      handed > STATEMENTS / 20,
      `${handed} of ${STATEMENTS} were handed over, ${owned} taken, ${takenBack} taken back`,
    );
    t.comment(`${handed} of ${STATEMENTS} were handed over, ${owned} taken, ${takenBack} taken back`);
  });
}
