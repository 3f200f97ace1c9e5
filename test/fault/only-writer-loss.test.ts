// What only one of several shards has written is committed there by a plain COMMIT (D14): its connection breaks at any byte, either way, while the
// others, which have only read, are slow. The client hears that the outcome is unknown only where that COMMIT may have been sent.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FaultProxy } from '../support/fault-proxy.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { spreadServers } from '../support/spread-servers.js';
import { errorOf, type SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const ROUNDS = Number(process.env['PGKV_ROUNDS'] ?? (process.env['PGKV_LONG'] === undefined ? 60 : 1_000));
const SHARDS = 2;
/** CommandComplete of COMMIT, and ReadyForQuery. */
const COMMIT_ANSWER_BYTES = 12 + 6;

const skip = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
t.test(`seed ${SEED}`, { ...skip, timeout: 240_000 }, async (t) => {
  const random = new SeededRandom(SEED);
  const proxies: FaultProxy[] = [];
  t.teardown(() => Promise.all(proxies.map((proxy) => proxy.down())));
  const { client, admins, prepared } = await spreadServers(t, 'embedded', SHARDS, async (server) => {
    const proxy = await FaultProxy.start(server);
    proxies.push(proxy);
    return proxy.standInFor(server);
  });
  for (let n = 0; n < 12; n++) await client.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('t', 'k${n}', '0')`);
  const [mine, others] = await Promise.all(
    admins.map(async (admin) => (await admin.query('SELECT key FROM kv ORDER BY key')).rows[0]!['key'] as string),
  );
  const isThere = async (round: number): Promise<boolean> => {
    const { rows } = await admins[0]!.query(`SELECT value::text FROM kv WHERE key = $1`, [mine]);
    return rows[0]!['value'] === String(round);
  };
  const write = (round: number): string => `UPDATE kv SET value = '${round}' WHERE tenant_id = 't' AND key = '${mine}'`;
  const read = `SELECT value FROM kv WHERE tenant_id = 't' AND key = '${others}'`;
  /** Sizes of what that has to say where nothing breaks, by kind and side. */
  const sizes = new Map<string, number>();
  const told = { committed: 0, 'rolled back': 0, unknown: 0 };
  for (let round = 1; round <= ROUNDS; round++) {
    const kind = random.pick(['block', 'batch'] as const);
    const side = random.pick(['request', 'answer'] as const);
    const size = sizes.get(kind + side);
    const drawn = random.oneIn(3) ? size! - COMMIT_ANSWER_BYTES : random.integer((size ?? 0) + 4);
    const after = size === undefined ? Number.MAX_SAFE_INTEGER : drawn;
    const about = `round ${round}: ${kind}, ${side} ${after} of ${size}`;
    const messages = kind === 'block' ? await begun(client, round) : batch(round);
    // It stays on connections that are there.
    proxies[0]!.arm({ kind: 'cut', side, after, reset: random.oneIn(2), once: true });
    if (size !== undefined) proxies[1]!.arm({ kind: 'drip', bytes: 1 });
    const answers = await client.send(messages);
    if (size === undefined) sizes.set(kind + side, proxies[0]!.passed);
    for (const proxy of proxies) proxy.disarm();
    const code = errorOf(answers)?.code ?? '';
    t.equal(answers.at(-1)?.type, 'ReadyForQuery', about);
    await sleep(5);
    if (code === '') {
      t.ok(await isThere(round), `${about}: what was told is there`);
      told.committed++;
    } else if (code === '08007') {
      // What stands before the answer to COMMIT has come before that was sent.
      const isEarly = side === 'answer' && after <= size! - COMMIT_ANSWER_BYTES;
      t.notOk(isEarly && kind === 'block', `${about}: ${errorOf(answers)?.message}`);
      told.unknown++;
    } else {
      t.notOk(await isThere(round), `${about}: what was told is not there`);
      told['rolled back']++;
    }
    t.equal(await client.value('SELECT 1'), '1', `${about}: it is served on`);
  }
  t.strictSame(await prepared(), []);
  t.comment(told);

  async function begun(of: SqlClient, round: number): Promise<FrontendMessage[]> {
    await of.run('BEGIN', write(round), read);
    return [{ query: 'COMMIT' }];
  }
  function batch(round: number): FrontendMessage[] {
    const each = [write(round), read].flatMap((parse): FrontendMessage[] => [{ parse }, { bind: [] }, { execute: '' }]);
    return [...each, 'sync'];
  }
});
