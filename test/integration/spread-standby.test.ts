// A shard whose standby has not confirmed says so by a warning alone, in front of a tag like any other: what is written on several shards is
// not told as done then. For each statement, shard and step that waits for the standby.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { eventually } from '../support/bystander.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf } from '../support/kv-extension.js';
import { GRANTS } from '../support/spread-servers.js';
import { errorOf } from '../support/sql-client.js';

const SHARDS = [0, 1, 2];
const cluster = await kvServers(t, SHARDS.length, { stated: true });
const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
for (const admin of admins) await admin.query(GRANTS);
const live = await kvRouter(t, cluster);
const setup = await live.connect({ user: 'app' });
for (let n = 0; n < 12; n++) await setup.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('a', 'k${n}', '0')`);
const KEYS = await Promise.all(
  admins.map(async (admin) => String((await rowsOf(admin, 'SELECT key FROM kv ORDER BY key LIMIT 1'))[0]![0])),
);

async function setStandby(shard: number, name: string): Promise<void> {
  const admin = admins[shard]!;
  await admin.query(`ALTER SYSTEM SET synchronous_standby_names = '${name}'`);
  await admin.query('SELECT pg_reload_conf()');
  while (String((await rowsOf(admin, 'SHOW synchronous_standby_names'))[0]![0]) !== name) await sleep(5);
}

/** Cancels every wait for the standby, until `over`. */
async function giveUpWaits(shard: number, over: () => boolean): Promise<number> {
  let given = 0;
  while (!over()) {
    const waits = `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename <> 'postgres'`;
    given += (await rowsOf(admins[shard]!, waits)).length;
    await sleep(5);
  }
  return given;
}

const values = async (): Promise<string> =>
  (
    await Promise.all(
      admins.map((admin, shard) => rowsOf(admin, `SELECT value::text FROM kv WHERE key = '${KEYS[shard]}'`)),
    )
  )
    .flat(2)
    .join();
const simple = (query: string): FrontendMessage[] => [{ query }];
const extended = (parse: string): FrontendMessage[] => [{ parse }, { bind: [] }, { execute: '' }, 'sync'];

const keysOf = (shards: readonly number[]): string => shards.map((shard) => `'${KEYS[shard]}'`).join(', ');
const update = (shards: readonly number[], value: number): string =>
  `UPDATE kv SET value = '${value}' WHERE tenant_id = 'a' AND key IN (${keysOf(shards)})`;

let value = 0;
for (const [how, messages] of Object.entries({ simple, extended }))
  for (const late of SHARDS)
    for (const writers of [[0, 1, 2], [late]])
      t.test(`${how}, shard ${late} is late, ${writers.length} write`, { timeout: 30_000 }, async (t) => {
        value++;
        if (writers.length === 1)
          await setup.run(`UPDATE kv SET value = '"mark"' WHERE tenant_id = 'a' AND key = '${KEYS[late]}'`);
        const before = await values();
        const client = await live.connect({ user: 'app' });
        await setStandby(late, 'nobody');
        // The others find no row.
        const sql = writers.length === 1 ? `${update(SHARDS, value)} AND value = '"mark"'` : update(SHARDS, value);
        let isOver = false;
        const given = giveUpWaits(late, () => isOver);
        const error = errorOf(await client.send(messages(sql)));
        await setStandby(late, '');
        isOver = true;
        t.ok((await given) > 0, 'it has waited');
        t.match(error?.code ?? 'done', /^(40001|08007)$/, error?.message ?? '');
        t.match(error?.message, /standby/, 'it says why');
        const after = SHARDS.map((shard) =>
          writers.includes(shard) ? String(value) : before.split(',')[shard],
        ).join();
        // What is prepared is finished by the recoverer.
        const outcomes = error?.code === '40001' ? [before] : [before, after];
        await eventually(t, `${before} to ${after}, or not`, async () => outcomes.includes(await values()), 20_000);
        await client.end();
        // It can be written again.
        await setup.run(update(SHARDS, value));
      });
