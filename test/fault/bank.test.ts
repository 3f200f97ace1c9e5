// A bank of 1,000 accounts over four shards: transfers between two to five of them by many clients, while the router is killed, a shard
// crashes, connections are ended, or cut at any byte. Behind each round, within ten seconds nothing is prepared any more; every
// transfer that was told as committed is in the books, and none that was told as failed; every account stands as the books say.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { ask } from '../support/cluster-folder.js';
import { stretched } from '../support/machine-speed.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { proxiedCluster } from '../support/proxied-cluster.js';
import { startProcess } from '../support/router-process.js';
import { SeededRandom } from '../support/seeded-random.js';
import { type ServerError, SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const ROUNDS = Number(process.env['PGKV_ROUNDS'] ?? (process.env['PGKV_LONG'] === '1' ? 100 : 3));
const SHARDS = 4;
const ACCOUNTS = 1_000;
const FIRST = 1_000;
const CLIENTS = 8;
const WITHIN_MS = 10_000;
const FAULTS = ['router', 'shard', 'connections', 'bytes'] as const;
type Outcome = 'committed' | 'failed' | 'unknown';
interface Transfer {
  readonly amounts: ReadonlyMap<number, number>;
  outcome: Outcome;
}

const skip = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
t.test(`seed ${SEED}`, { ...skip, timeout: 7_200_000 }, async (t) => {
  const random = new SeededRandom(SEED);
  const { servers, proxies, configFile, program } = await proxiedCluster(t, SHARDS, { synchronous_commit: 'on' });

  /** Of all shards, as soon as they answer. */
  const found = async (sql: string): Promise<Record<string, unknown>[]> => {
    const end = performance.now() + (await stretched(WITHIN_MS));
    for (;;) {
      try {
        return (await Promise.all(servers.map((server) => ask(server, 'postgres', sql)))).flat();
      } catch (error) {
        if (performance.now() > end) throw error;
        await sleep(50);
      }
    }
  };
  let router = await startProcess(t, program, configFile);
  const connect = () =>
    SqlClient.connect({ host: '127.0.0.1', port: router.port }, { user: 'app', database: 'postgres' });
  const setup = await connect();
  for (let first = 0; first < ACCOUNTS; first += 250) {
    const rows = Array.from({ length: 250 }, (_, n) => `('bank', 'a${first + n}', '${FIRST}')`);
    await setup.run(`INSERT INTO kv (tenant_id, key, value) VALUES ${rows.join(', ')}`);
  }
  setup.wire.destroy();

  const transfers: Transfer[] = [];
  const draw = (): Map<number, number> => {
    const amounts = new Map<number, number>();
    const count = random.between(2, 5);
    // Some accounts that all want, so that they wait for each other.
    while (amounts.size < count)
      amounts.set(random.chance(0.3) ? random.integer(8) : random.integer(ACCOUNTS), random.between(1, 9));
    const [payer] = amounts.keys();
    amounts.set(payer!, 0);
    amounts.set(payer!, -[...amounts.values()].reduce((sum, amount) => sum + amount, 0));
    return amounts;
  };
  const added = (amount: string) => `to_jsonb((value #>> '{}')::int + (${amount}))`;
  const statements = (amounts: ReadonlyMap<number, number>, id: number): string[] => {
    const entry = `INSERT INTO kv (tenant_id, key, value) VALUES ('book', 't${id}', '0')`;
    const all = [...amounts].map(([account, amount]) => ({ key: `'a${account}'`, amount }));
    if (random.oneIn(3)) {
      const cases = all.map(({ key, amount }) => `WHEN ${key} THEN ${amount}`).join(' ');
      const keys = all.map(({ key }) => key).join(', ');
      return [
        `UPDATE kv SET value = ${added(`CASE key ${cases} END`)} WHERE tenant_id = 'bank' AND key IN (${keys})`,
        entry,
      ];
    }
    const each = all.map(
      ({ key, amount }) => `UPDATE kv SET value = ${added(String(amount))} WHERE tenant_id = 'bank' AND key = ${key}`,
    );
    const wrong = [
      'SAVEPOINT s',
      `UPDATE kv SET value = '0' WHERE tenant_id = 'bank' AND key = ${all[0]!.key}`,
      'ROLLBACK TO s',
    ];
    return [...each, ...(random.oneIn(4) ? wrong : []), entry];
  };
  const transfer = async (client: SqlClient): Promise<void> => {
    const amounts = draw();
    const one: Transfer = { amounts, outcome: 'failed' };
    const id = transfers.push(one) - 1;
    const texts = statements(amounts, id);
    let isEnding = false;
    try {
      await client.run('BEGIN', ...texts);
      isEnding = true;
      one.outcome = 'unknown';
      const [tag] = await client.run('COMMIT');
      one.outcome = tag === 'COMMIT' ? 'committed' : 'failed';
    } catch (error) {
      const { code, fields } = error as Partial<ServerError>;
      // Without a code the connection is gone, with the router; whose session is ended at COMMIT is not told what became of it.
      const isUntold = code === undefined || code === '08007' || fields?.['V'] === 'FATAL';
      if (isEnding && !isUntold) one.outcome = 'failed';
      if (!isEnding) await client.run('ROLLBACK');
    }
  };
  let isOpen = true;
  const work = async (): Promise<void> => {
    let client: SqlClient | null = null;
    while (isOpen) {
      try {
        client ??= await connect();
        await transfer(client);
      } catch {
        client?.wire.destroy();
        client = null;
        await sleep(20);
      }
    }
    client?.wire.destroy();
  };
  const backends = (shard: number) =>
    ask<{ pid: number }>(servers[shard]!, 'postgres', `SELECT pid FROM pg_stat_activity WHERE usename = 'app'`);
  const strike = async (fault: (typeof FAULTS)[number]): Promise<void> => {
    const shard = random.integer(SHARDS);
    switch (fault) {
      case 'router':
        router.signal('SIGKILL');
        await router.exited;
        router = await startProcess(t, program, configFile);
        return;
      case 'shard':
        // Its server kills all others, and recovers as from a crash.
        for (const { pid } of (await backends(shard)).slice(0, 1)) process.kill(pid, 'SIGKILL');
        return;
      case 'connections':
        for (let n = 0; n < 20; n++) {
          for (const { pid } of await backends(random.integer(SHARDS))) {
            if (random.chance(0.3))
              await found(
                `SELECT pg_terminate_backend(${pid}) WHERE EXISTS (SELECT FROM pg_stat_activity WHERE pid = ${pid} AND usename = 'app')`,
              );
          }
        }
        return;
      case 'bytes':
        for (const proxy of proxies) {
          const side = random.pick(['request', 'answer'] as const);
          proxy.arm({ kind: 'cut', side, after: random.integer(6_000), reset: random.oneIn(2), once: true });
        }
    }
  };

  const counts = { committed: 0, failed: 0, unknown: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    const fault = FAULTS[round < FAULTS.length ? round : random.integer(FAULTS.length)]!;
    const before = transfers.length;
    isOpen = true;
    const workers = Array.from({ length: CLIENTS }, work);
    await sleep(random.between(100, 800));
    await strike(fault);
    await sleep(random.between(300, 800));
    isOpen = false;
    await Promise.all(workers);
    for (const proxy of proxies) proxy.disarm();
    const ended = performance.now();
    while ((await found('SELECT FROM pg_prepared_xacts')).length > 0) {
      if (performance.now() - ended > (await stretched(WITHIN_MS)))
        return t.fail(`round ${round}: something is still prepared`);
      await sleep(50);
    }
    const what = `round ${round}, ${fault}: ${transfers.length - before} transfers`;
    for (const { outcome } of transfers.slice(before)) counts[outcome]++;
    const book = new Set((await found(`SELECT key FROM kv WHERE tenant_id = 'book'`)).map(({ key }) => key));
    const wrong = transfers.flatMap(({ outcome }, id) =>
      outcome !== 'unknown' && book.has(`t${id}`) !== (outcome === 'committed') ? [`t${id} ${outcome}`] : [],
    );
    t.strictSame(wrong, [], `${what}: what was told is true`);
    const balances = new Map<string, number>(Array.from({ length: ACCOUNTS }, (_, n) => [`a${n}`, FIRST]));
    for (const [id, { amounts }] of transfers.entries()) {
      if (!book.has(`t${id}`)) continue;
      for (const [account, amount] of amounts) balances.set(`a${account}`, balances.get(`a${account}`)! + amount);
    }
    const rows = await found(`SELECT key, value #>> '{}' AS value FROM kv WHERE tenant_id = 'bank'`);
    const off = rows.filter(({ key, value }) => balances.get(String(key)) !== Number(value));
    t.strictSame([rows.length, off], [ACCOUNTS, []], `${what}: each account stands as the books say`);
    t.equal(
      rows.reduce((sum, { value }) => sum + Number(value), 0),
      ACCOUNTS * FIRST,
      `${what}: the total is what it was`,
    );
  }
  t.comment(JSON.stringify(counts));
  t.ok(counts.committed > ROUNDS, 'transfers were made');
});
