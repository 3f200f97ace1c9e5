// A connection to a shard that breaks at any byte of a write over several shards, either way (D14), by both protocols: the client has
// one answer, which is true, and is served on; every shard shows the write or none does; nothing stays prepared.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { FaultProxy } from '../support/fault-proxy.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { timeLimit } from '../support/machine-speed.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { spreadServers } from '../support/spread-servers.js';
import { errorOf, tagsOf } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const ROUNDS = Number(process.env['PGKV_ROUNDS'] ?? (process.env['PGKV_LONG'] === undefined ? 48 : 1_000));
const SHARDS = 3;
const KEYS = 12;
const WITHIN_MS = 10_000;

/** By its round, so that what is there can be told from what was there before. */
type Kind = (round: number) => {
  readonly messages: FrontendMessage[];
  readonly rows: number;
  /** Statements that are answered; 1 unless it is told. */
  readonly statements?: number;
};

const keys = Array.from({ length: KEYS }, (_, n) => `k${n}`);
const KINDS: Readonly<Record<string, Kind>> = {
  'UPDATE by simple query': (round) => ({ messages: [{ query: `UPDATE kv SET value = '${round}'` }], rows: 0 }),
  'UPDATE with parameters': (round) => ({
    messages: batch(`UPDATE kv SET value = $1 RETURNING key`, [`${round}`]),
    rows: KEYS,
  }),
  'INSERT by simple query': (round) => ({
    messages: [{ query: upsert(keys.map((key) => [`'${key}'`, `'${round}'`])) }],
    rows: KEYS,
  }),
  'INSERT with parameters': (round) => ({
    messages: batch(upsert(keys.map((_, n) => [`$${n + 2}`, '$1'])), [`${round}`, ...keys]),
    rows: KEYS,
  }),
  'a statement for each key in one batch': (round) => ({
    messages: [
      { parse: 'UPDATE kv SET value = $1 WHERE tenant_id = $2 AND key = $3 RETURNING key' },
      ...keys.flatMap((key): FrontendMessage[] => [{ bind: [`${round}`, 't', key] }, { execute: '' }]),
      'sync',
    ],
    rows: KEYS,
    statements: KEYS,
  }),
  'a plural function': (round) => ({
    messages: batch('SELECT ord, version FROM kv_put_many($1, $2, $3)', arrays(round)),
    rows: KEYS,
  }),
  'a plural function by simple query': (round) => {
    const [tenants, all, values] = arrays(round);
    return {
      messages: [{ query: `SELECT * FROM kv_put_many('${tenants}', '${all}', '${values}')` }],
      rows: KEYS,
    };
  },
  'INSERT from arrays': (round) => ({
    messages: batch(
      `INSERT INTO kv (tenant_id, key, value) SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[]) AS u (t, k, v)
       ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING key`,
      arrays(round),
    ),
    rows: KEYS,
  }),
  'statements for one key and for all in one batch': (round) => ({
    messages: [
      ...batch('UPDATE kv SET value = $1', ['0']).slice(0, -1),
      ...batch(`UPDATE kv SET value = $1 WHERE tenant_id = 't' AND key = 'k1'`, ['1']).slice(0, -1),
      ...batch('UPDATE kv SET value = $1 RETURNING key', [`${round}`]),
    ],
    rows: KEYS,
    statements: 3,
  }),
};

const upsert = (rows: readonly (readonly string[])[]): string =>
  `INSERT INTO kv (tenant_id, key, value) VALUES ${rows.map(([key, value]) => `('t', ${key}, ${value})`).join()}
   ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING key`;

const arrays = (round: number): [string, string, string] => [
  `{${keys.map(() => 't')}}`,
  `{${keys}}`,
  `{${keys.map(() => round)}}`,
];

const batch = (parse: string, bind: readonly string[]): FrontendMessage[] => [
  { parse },
  { bind },
  { describe: 'portal' },
  { execute: '' },
  'sync',
];

const skip = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
t.test(`seed ${SEED}`, { ...skip, timeout: 300_000 }, async (t) => {
  const random = new SeededRandom(SEED);
  const proxies: FaultProxy[] = [];
  t.teardown(() => Promise.all(proxies.map((proxy) => proxy.down())));
  const servers = await spreadServers(t, 'embedded', SHARDS, async (server) => {
    const proxy = await FaultProxy.start(server);
    proxies.push(proxy);
    return proxy.standInFor(server);
  });
  const { client, admins, prepared } = servers;
  await client.send([{ query: upsert(keys.map((key) => [`'${key}'`, `'0'`])) }]);
  const values = async (): Promise<string[]> => {
    const all = await Promise.all(
      admins.map((admin) => admin.query({ text: 'SELECT DISTINCT value::text FROM kv', rowMode: 'array' })),
    );
    t.ok(all.every(({ rowCount }) => rowCount! > 0) || all.length === 0, 'every shard has keys');
    return [...new Set(all.flatMap(({ rows }) => rows.map(([value]) => String(value))))];
  };
  const untilSettled = async (about: string) => {
    const isOver = timeLimit(WITHIN_MS);
    while ((await prepared()).length > 0) {
      if (await isOver()) return t.fail(`${about}: something is still prepared`);
      await sleep(20);
    }
  };
  /** Bytes that one such statement has, either way, where nothing breaks. */
  const sizes = new Map<string, number>();
  const names = Object.keys(KINDS);
  let before = '0';
  const counts = { committed: 0, failed: 0, unknown: 0 };
  for (let round = 1; round <= ROUNDS; round++) {
    const name = random.pick(names);
    const side = random.pick(['request', 'answer'] as const);
    const proxy = random.pick(proxies);
    const { messages, rows, statements = 1 } = KINDS[name]!(round);
    const size = sizes.get(name + side);
    const after = size === undefined ? Number.MAX_SAFE_INTEGER : random.integer(size + 20);
    const about = `round ${round}: ${name}, ${side} ${after} of shard ${proxies.indexOf(proxy) + 1}`;
    proxy.arm({ kind: 'cut', side, after, reset: random.oneIn(2), once: true });
    const answers = await client.send(messages);
    const error = errorOf(answers);
    t.equal(answers.filter(({ type }) => type === 'ErrorResponse').length, error === null ? 0 : 1, about);
    t.equal(answers.at(-1)?.type, 'ReadyForQuery', about);
    if (size === undefined) sizes.set(name + side, proxy.passed);
    proxy.disarm();
    await untilSettled(about);
    const now = await values();
    t.equal(now.length, 1, `${about}: all or nothing (${now})`);
    const isThere = now[0] === String(round);
    if (error === null) {
      t.ok(isThere, `${about}: what was told is there`);
      t.equal(tagsOf(answers).length, statements, about);
      t.equal(answers.filter(({ type }) => type === 'DataRow').length, rows, about);
      counts.committed++;
    } else if (error.code === '08007') {
      t.ok(isThere || now[0] === before, `${about}: ${error.message}`);
      counts.unknown++;
    } else {
      t.equal(now[0], before, `${about}: ${error.message}`);
      counts.failed++;
    }
    before = now[0]!;
    t.equal(await client.value('SELECT 1'), '1', `${about}: it is served on`);
  }
  t.comment(counts);
});
