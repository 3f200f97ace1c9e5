// A connection to a shard that breaks at any byte of INSERTs that many clients write together (R58), either way: each client has one
// answer, which is true of its own rows, all of which are there or none; nothing stays prepared.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FaultProxy } from '../support/fault-proxy.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { rowsOf } from '../support/kv-extension.js';
import { timeLimit } from '../support/machine-speed.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { spreadServers } from '../support/spread-servers.js';
import { errorOf, tagsOf } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const ROUNDS = Number(process.env['PGKV_ROUNDS'] ?? (process.env['PGKV_LONG'] === undefined ? 24 : 1_000));
const CLIENTS = 5;
const ROWS = 9;
const WITHIN_MS = 10_000;
/** What the statements of a round and their end have, either way, on one shard; some rounds are cut behind all of it. */
const BYTES_MAX = { request: 4_000, answer: 1_200 } as const;

const skip = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
t.test(`seed ${SEED}`, { ...skip, timeout: 300_000 }, async (t) => {
  const random = new SeededRandom(SEED);
  const proxies: FaultProxy[] = [];
  t.teardown(() => Promise.all(proxies.map((proxy) => proxy.down())));
  const { live, admins, prepared } = await spreadServers(t, 'embedded', 3, async (server) => {
    const proxy = await FaultProxy.start(server);
    proxies.push(proxy);
    return proxy.standInFor(server);
  });
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => live.connect({ user: 'app' })));
  const untilSettled = async (about: string) => {
    const isOver = timeLimit(WITHIN_MS);
    while ((await prepared()).length > 0) {
      if (await isOver()) return t.fail(`${about}: something is still prepared`);
      await sleep(20);
    }
  };
  const found = async (like: string): Promise<number> => {
    const all = await Promise.all(admins.map((admin) => rowsOf(admin, `SELECT FROM kv WHERE key LIKE '${like}'`)));
    return all.flat().length;
  };
  const counts = { committed: 0, failed: 0, unknown: 0 };
  for (let round = 1; round <= ROUNDS; round++) {
    const side = random.pick(['request', 'answer'] as const);
    const proxy = random.pick(proxies);
    const after = random.integer(BYTES_MAX[side]);
    const about = `round ${round}: ${side} ${after} of shard ${proxies.indexOf(proxy) + 1}`;
    proxy.arm({ kind: 'cut', side, after, reset: random.oneIn(2), once: true });
    const told = await Promise.all(clients.map((client, n) => client.send(insert(`${round} ${n}`, random.oneIn(2)))));
    proxy.disarm();
    await untilSettled(about);
    for (const [n, answers] of told.entries()) {
      const error = errorOf(answers);
      const own = `${about}, client ${n}: ${error?.code ?? 'committed'}`;
      t.equal(answers.filter(({ type }) => type === 'ErrorResponse').length, error === null ? 0 : 1, own);
      t.equal(answers.at(-1)?.type, 'ReadyForQuery', own);
      const rows = await found(`${round} ${n} %`);
      if (error === null) {
        t.strictSame(tagsOf(answers), [`INSERT 0 ${ROWS}`], own);
        t.equal(rows, ROWS, own);
        counts.committed++;
      } else if (error.code === '08007') {
        t.ok(rows === 0 || rows === ROWS, own);
        counts.unknown++;
      } else {
        t.equal(rows, 0, own);
        counts.failed++;
      }
    }
  }
  t.comment(counts);
});

function insert(name: string, isSimple: boolean): FrontendMessage[] {
  const rows = Array.from({ length: ROWS }, (_, n) =>
    isSimple ? `('t', '${name} ${n}', '1')` : `('t', $${n + 1}, '1')`,
  );
  const text = `INSERT INTO kv (tenant_id, key, value) VALUES ${rows}`;
  if (isSimple) return [{ query: text }];
  return [{ parse: text }, { bind: Array.from({ length: ROWS }, (_, n) => `${name} ${n}`) }, { execute: '' }, 'sync'];
}
