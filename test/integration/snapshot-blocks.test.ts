// Blocks that read one snapshot of each shard (R67): READ ONLY and REPEATABLE READ, however that is said. Generated: what is read first,
// then others write, then all is read again by all means: each shard stands as when it was read first, until the block ends.
import t from 'tap';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf } from '../support/kv-extension.js';
import { SeededRandom } from '../support/seeded-random.js';
import { GRANTS } from '../support/spread-servers.js';
import type { SqlClient } from '../support/sql-client.js';
import { errorOf as failureOf } from '../support/sql-client.js';

const SHARDS = 3;
const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const BLOCKS = process.env['PGKV_LONG'] === '1' ? 1_000 : 60;
const random = new SeededRandom(SEED);
const cluster = await kvServers(t, SHARDS, { stated: true });
const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
for (const admin of admins) await admin.query(GRANTS);
const live = await kvRouter(t, cluster);
const setup = await live.connect({ user: 'app' });
for (let n = 0; n < 30; n++) await setup.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('a', 'k${n}', '0')`);
const keys = await Promise.all(
  admins.map(async (admin) => String((await rowsOf(admin, 'SELECT key FROM kv ORDER BY key LIMIT 1'))[0]![0])),
);
const names = keys.map((key) => `'${key}'`).join(', ');
const LEVEL = 'ISOLATION LEVEL REPEATABLE READ';
const BEGINS: readonly (readonly string[])[] = [
  [`BEGIN ${LEVEL} READ ONLY`],
  [`START TRANSACTION READ ONLY, ${LEVEL}`],
  ['BEGIN', `SET TRANSACTION ${LEVEL}, READ ONLY`],
  ['BEGIN READ ONLY', `SET TRANSACTION ${LEVEL}`],
  ['BEGIN', `SET TRANSACTION ${LEVEL}`, 'SET TRANSACTION READ ONLY'],
  [`SET SESSION CHARACTERISTICS AS TRANSACTION ${LEVEL}, READ ONLY`, 'BEGIN'],
  ["SET default_transaction_isolation = 'repeatable read'", 'BEGIN READ ONLY'],
  ['SET default_transaction_read_only = on', `BEGIN ${LEVEL}`],
];

/** Read at home, the first shard: with that it stands, too. */
const CATALOGUES = 'catalogues';

type Values = (string | null)[];
/** Reads some of the shards' keys: by their index, as text; null: it was not read. */
type Read = (client: SqlClient) => Promise<Values>;
const at = (shard: number, value: string | null): Values => keys.map((_, index) => (index === shard ? value : null));
const byKey = (rows: readonly Values[]): Values => keys.map((key) => rows.find(([name]) => name === key)?.[1] ?? null);
const one = (shard: number) => `SELECT value FROM kv WHERE tenant_id = 'a' AND key = '${keys[shard]}'`;
const all = `SELECT key, value FROM kv WHERE tenant_id = 'a' AND key IN (${names})`;
const drawRead = (): Read => {
  const shard = random.integer(SHARDS);
  return random.pick<Read>([
    async (client) => at(shard, await client.value(one(shard))),
    async (client) => at(shard, (await client.extended(one(shard).replace(/'[^']*'$/, '$1'), [keys[shard]!]))[0]![0]!),
    async (client) => byKey(await client.rows(all)),
    async (client) => byKey(await client.extended(all)),
    async (client) => byKey(await client.rows(`${all} ORDER BY key`)),
    async (client) => {
      const copied = await client.send([{ query: `COPY (${all}) TO STDOUT` }]);
      const lines = copied.flatMap((message) => (message.type === 'CopyData' ? [message.data.toString()] : []));
      return byKey(
        lines
          .join('')
          .trimEnd()
          .split('\n')
          .map((line) => line.split('\t')),
      );
    },
    async (client) => {
      await client.rows(`SELECT relname FROM pg_class WHERE relname = 'kv'`);
      return at(0, CATALOGUES);
    },
    async (client) => {
      await client.run('SAVEPOINT a', one(shard), random.chance(0.5) ? 'RELEASE a' : 'ROLLBACK TO a');
      return at(shard, await client.value(one(shard)));
    },
  ]);
};

t.test(`each shard stands as when it was read first: seed ${SEED}`, { timeout: 600_000 }, async (t) => {
  let written = 0;
  const [writer] = [await live.connect({ user: 'app' })];
  for (let block = 0; block < BLOCKS; block++) {
    const client = await live.connect({ user: 'app' });
    const begin = random.pick(BEGINS);
    await client.run(...begin);
    const seen: Values = keys.map(() => null);
    for (let step = 0; step < 8; step++) {
      const found = await drawRead()(client);
      for (const [shard, value] of found.entries()) {
        if (value === CATALOGUES) seen[shard] ??= String(written);
        if (value === null || value === CATALOGUES) continue;
        // What is read first is what is there.
        if (seen[shard] === null) t.equal(value, String(written), `${begin}: shard ${shard} is read first`);
        else t.equal(value, seen[shard], `${begin}: shard ${shard} stands still`);
        seen[shard] ??= value;
      }
      if (random.chance(0.6))
        await writer.run(`UPDATE kv SET value = '${++written}' WHERE tenant_id = 'a' AND key IN (${names})`);
    }
    if (random.chance(0.3)) {
      t.equal(await client.fails(`UPDATE kv SET value = '9' WHERE tenant_id = 'a' AND key IN (${names})`), '25006');
      await client.run('ROLLBACK');
    } else await client.run(random.pick(['COMMIT', 'ROLLBACK']));
    t.strictSame(
      byKey(await client.rows(all)),
      keys.map(() => String(written)),
    );
    await client.end();
  }
  await writer.end();
});

t.test('other levels stay on one shard', async (t) => {
  const client = await live.connect({ user: 'app' });
  for (const level of [
    LEVEL,
    'ISOLATION LEVEL SERIALIZABLE READ ONLY',
    'ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE',
  ]) {
    for (const reads of [[all], [one(0), one(1)], [`COPY kv TO STDOUT`]]) {
      await client.run(`BEGIN ${level}`);
      let refusal = null;
      for (const sql of reads) refusal ??= failureOf(await client.send([{ query: sql }]));
      // A block that has only read may go on elsewhere; two snapshots of one transaction it never has.
      if (refusal !== null || reads.length === 1) t.match(refusal, { code: '0A000' }, `${level}: ${reads}`);
      await client.run('ROLLBACK');
    }
  }
  await client.end();
  await setup.end();
});

t.test('a statement that is only parsed has taken the snapshot of its shard', async (t) => {
  const [client, writer] = [await live.connect({ user: 'app' }), await live.connect({ user: 'app' })];
  const set = (value: string) =>
    writer.run(`UPDATE kv SET value = '${value}' WHERE tenant_id = 'a' AND key = '${keys[0]}'`);
  for (const name of ['', 'p']) {
    await set('1');
    await client.run(`BEGIN ${LEVEL} READ ONLY`);
    await client.send([{ parse: one(0), name }, 'sync']);
    await set('2');
    await client.value(one(1));
    t.equal(await client.value(one(0)), '1');
    await client.run('COMMIT');
    t.equal(await client.value(one(0)), '2');
  }
  await client.end();
  await writer.end();
});
