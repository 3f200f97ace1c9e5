// Transactions over several shards that were left behind in every state (D14), made by hand on real servers as a router would
// have left them: each is finished by the router that is there, as its decision says, within ten seconds.
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import t, { type Test } from 'tap';
import { systemRandom } from '../../src/base/clock.js';
import { newGid, readGid } from '../../src/execute/two-phase/gid.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf, valueFrom } from '../support/kv-extension.js';
import { timeLimit } from '../support/machine-speed.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';

/** As kvServers calls it. */
const CLUSTER = 'cluster of a test';
const WITHIN_MS = 10_000;

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  t.test(`Postgres ${version}`, skip, (t) => recovery(t, version));
}

async function recovery(t: Test, version: '15' | 'embedded'): Promise<void> {
  const cluster = await kvServers(t, 2, { version, stated: true });
  const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
  for (const admin of admins) {
    await admin.query(`CREATE ROLE app LOGIN; CREATE ROLE "Odd: 'role'" LOGIN; CREATE ROLE stranger LOGIN;
      CREATE ROLE pgkv_recover LOGIN NOINHERIT; GRANT app, "Odd: 'role'" TO pgkv_recover;
      GRANT EXECUTE ON FUNCTION pgkv.settle(text), pgkv.collect_decisions(text[]) TO pgkv_recover;
      GRANT ALL ON kv TO app, "Odd: 'role'", stranger`);
    await admin.query('CREATE DATABASE another');
  }
  const [one, two] = admins as [pg.Client, pg.Client];
  const gidOf = (role = 'app', shard = 's2') => newGid(CLUSTER, shard, role, systemRandom);
  let keys = 0;
  /** Writes a key on the first server, as a branch that is prepared. @returns whether it is there, once it is finished */
  const prepare = async (gid: string, role = readGid(gid)?.role ?? 'app', database = 'postgres') => {
    const key = `key ${++keys}`;
    const client = await connectTo(t, cluster.servers[0]!, { user: role, database });
    await client.query('BEGIN');
    if (database === 'postgres') await client.query(`INSERT INTO kv (tenant_id, key, slot) VALUES ('t', $1, 0)`, [key]);
    else await client.query('SELECT pg_current_xact_id()');
    await client.query(`PREPARE TRANSACTION '${gid.replaceAll("'", "''")}'`);
    return async () => (await valueFrom(one, 'SELECT count(*) FROM kv WHERE key = $1', [key])) === '1';
  };
  /** A branch on the second server that has written its decision. */
  const deciding = async (gid: string): Promise<pg.Client> => {
    const client = await connectTo(t, cluster.servers[1]!, { user: readGid(gid)!.role });
    await client.query('SET synchronous_commit = on; BEGIN');
    await client.query('SELECT pgkv.decide($1)', [gid]);
    return client;
  };
  const isPrepared = async (gid: string) =>
    (await valueFrom(one, 'SELECT count(*) FROM pg_prepared_xacts WHERE gid = $1', [gid])) !== '0';
  const finished = async (t: Test, gid: string) => {
    const isOver = timeLimit(WITHIN_MS);
    while (await isPrepared(gid)) {
      if (await isOver()) return t.fail(`${gid} is still prepared`);
      await sleep(50);
    }
    return t.pass('it is finished');
  };
  // The hash slot 0 of a key that is not its own would be refused.
  for (const admin of admins) await admin.query('ALTER TABLE kv DISABLE TRIGGER pgkv_slot');
  const proxy = await FaultProxy.start(cluster.servers[1]!);
  t.teardown(() => proxy.down());
  const live = await kvRouter(t, { ...cluster, servers: [cluster.servers[0]!, proxy.standInFor(cluster.servers[1]!)] });
  const shown = async (): Promise<Record<string, unknown>[]> => {
    const client = await live.connect();
    const rows = await client.rows('SHOW pgkv.prepared_transactions');
    await client.end();
    return rows.map(([row]) => JSON.parse(row!));
  };

  t.test('without a decision it is aborted, and nobody can decide otherwise then', async (t) => {
    const gid = gidOf();
    const isThere = await prepare(gid);
    await finished(t, gid);
    t.notOk(await isThere());
    t.equal(await valueFrom(two, 'SELECT outcome FROM pgkv.decisions WHERE gid = $1', [gid]), 'abort');
    await t.rejects(deciding(gid), { code: '40001' });
  });

  t.test('with a decision it is committed', async (t) => {
    for (const role of ['app', `Odd: 'role'`]) {
      const gid = gidOf(role);
      const isThere = await prepare(gid);
      await (await deciding(gid)).query('COMMIT');
      await finished(t, gid);
      t.ok(await isThere(), role);
    }
  });

  for (const end of ['COMMIT', 'ROLLBACK'] as const) {
    t.test(`while the branch of the decision is open it is waited for: ${end}`, async (t) => {
      const gid = gidOf();
      const isThere = await prepare(gid);
      const branch = await deciding(gid);
      await until(async () => (await shown()).some(({ gid: its, state }) => its === gid && state === 'undecided'));
      t.ok(await isPrepared(gid));
      await branch.query(end);
      await finished(t, gid);
      t.equal(await isThere(), end === 'COMMIT');
    });
  }

  t.test('one that was aborted before is aborted', async (t) => {
    const gid = gidOf();
    await two.query(`INSERT INTO pgkv.decisions (gid, outcome) VALUES ($1, 'abort')`, [gid]);
    const isThere = await prepare(gid);
    await finished(t, gid);
    t.notOk(await isThere());
  });

  t.test('also in another database of the server, and with its decision on the same one', async (t) => {
    const elsewhere = gidOf();
    await prepare(elsewhere, 'app', 'another');
    const here = gidOf('app', 's1');
    const isThere = await prepare(here);
    await finished(t, elsewhere);
    await finished(t, here);
    t.notOk(await isThere());
  });

  t.test('what is not of this cluster is left alone, and so is what its owner may keep', async (t) => {
    const others = [newGid('another cluster', 's2', 'app', systemRandom), 'by hand', `pgkv:x ${keys}`];
    for (const gid of others) await prepare(gid, 'app');
    const unknown = gidOf('app', 'a shard that is gone');
    await prepare(unknown);
    const stranger = gidOf('stranger');
    await prepare(stranger);
    await until(async () => (await shown()).filter(({ state }) => state !== 'underway').length >= 2);
    const states = new Map((await shown()).map(({ gid, state, owner, shard }) => [gid, { state, owner, shard }]));
    t.strictSame(states.get(unknown), { state: 'undecided', owner: 'app', shard: 's1' });
    t.match(states.get(stranger), { state: 'lost', owner: 'stranger' }, 'pgkv_recover may not act as it');
    for (const gid of others) {
      t.notOk(states.has(gid), gid);
      t.ok(await isPrepared(gid));
    }
    await one.query('GRANT stranger TO pgkv_recover');
    await finished(t, stranger);
    for (const gid of [...others, unknown]) await one.query(`ROLLBACK PREPARED '${gid}'`);
  });

  t.test('SHOW is for who looks after pgkv', async (t) => {
    const app = await live.connect({ user: 'app' });
    t.equal(await app.fails('SHOW pgkv.prepared_transactions'), '42501');
    await app.end();
    t.strictSame(await rowsOf(one, 'SELECT gid FROM pg_prepared_xacts'), []);
    await until(async () => (await shown()).length === 0);
  });

  t.test('a shard that is down holds up what is decided there, and nothing else', async (t) => {
    const [there, here] = [gidOf('app', 's2'), gidOf('app', 's1')];
    await proxy.down();
    const [isThere, isHere] = [await prepare(there), await prepare(here)];
    await finished(t, here);
    t.notOk(await isHere());
    t.ok(await isPrepared(there));
    await proxy.up();
    await finished(t, there);
    t.notOk(await isThere());
  });
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const isOver = timeLimit(WITHIN_MS);
  while (!(await isSo())) {
    if (await isOver()) throw new Error('it does not come about');
    await sleep(50);
  }
}
