// Batches of the extended protocol that write on several shards (D14, R59), as executemany, executeBatch and Batch of drivers send
// them: generated pipelines to plain Postgres and through pgkv, whole or in pieces, get the same answers and leave the same rows; what
// fails leaves nothing of its batch.
import t, { type Test } from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { type SpreadServers, said, spreadServers, TENANTS } from '../support/spread-servers.js';
import { errorOf, type SqlClient, tagsOf } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const BATCHES = Number(process.env['PGKV_STATEMENTS'] ?? 50);

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  for (const shards of version === '15' ? [3] : [1, 3, 5])
    t.test(`Postgres ${version}, ${shards} shards`, skip, (t) => batches(t, version, shards));
}

async function batches(t: Test, version: '15' | 'embedded', shards: number): Promise<void> {
  const servers = await spreadServers(t, version, shards);
  const { client, plain, rows, fill, prepared } = servers;
  await t.test(`the same rows and answers as on one server (seed ${SEED})`, async (t) => {
    const random = new SeededRandom(SEED, shards);
    await fill();
    for (const of of [client, plain]) await prepare(of);
    for (let n = 0; n < BATCHES; n++) {
      if (random.oneIn(12)) await fill();
      const messages = batch(random);
      const [here, there] = await Promise.all([client, plain].map((of) => said(of, messages, { unordered: true })));
      if (!t.strictSame(here, there, JSON.stringify(messages))) return;
      if (!t.strictSame(await rows(client), await rows(plain), JSON.stringify(messages))) return;
    }
    t.strictSame(await prepared(), []);
  });
  if (shards > 1) await readsInFront(t, servers, shards);
  // Later servers go on with the batch behind it.
  if (version === '15') await queryInMidst(t, servers);
  if (shards > 1) await atomicity(t, servers);
}

/** Reads do not make a batch one of several shards: it needs nothing that a batch on one does not. */
async function readsInFront(
  t: Test,
  { client, plain, rows, fill, decisions }: SpreadServers,
  shards: number,
): Promise<void> {
  await t.test('reads in front of what is written on one shard may be anywhere', async (t) => {
    const random = new SeededRandom(SEED, shards);
    await fill();
    for (const of of [client, plain]) await prepare(of);
    const before = await decisions();
    // Under which nothing may be written on several.
    const setting = 'default_transaction_isolation';
    for (const of of [client, plain]) await of.run(`SET ${setting} = 'repeatable read'`);
    for (let n = 0; n < 12; n++) {
      const select = 'SELECT value FROM kv WHERE tenant_id = $1 AND key = $2';
      const reads = Array.from({ length: random.between(1, 4) }, () => unnamed(select, key(random), random.oneIn(2)));
      const [tenant, of] = key(random);
      const writes = Array.from({ length: random.between(1, 3) }, (): FrontendMessage[] => [
        { bind: [tenant, of, value(random)], statement: 'put' },
        { execute: '' },
      ]);
      const messages = [...reads.flat(), ...writes.flat(), 'sync'] as FrontendMessage[];
      const [here, there] = await Promise.all([client, plain].map((one) => said(one, messages, { unordered: true })));
      if (!t.strictSame(here, there, JSON.stringify(messages))) return;
    }
    for (const of of [client, plain]) await of.run(`RESET ${setting}`);
    t.strictSame(await rows(client), await rows(plain));
    t.equal(await decisions(), before);
  });
}

async function queryInMidst(t: Test, { client, plain, rows }: SpreadServers): Promise<void> {
  await t.test('a simple query ends a batch without a Sync, and another one begins', async (t) => {
    const put = (n: number): FrontendMessage[] => [
      { bind: ['acme', `k${n}`, `${n}`], statement: 'put' },
      { execute: '' },
    ];
    const one = [...put(0), { query: 'SELECT 1' }] as FrontendMessage[];
    const messages: FrontendMessage[] = [...one, ...Array.from({ length: 12 }, (_, n) => put(n)).flat(), 'sync'];
    const [here, there] = await Promise.all([client, plain].map((of) => said(of, messages, { unordered: true })));
    t.strictSame(here, there);
    t.strictSame(await rows(client), await rows(plain));
  });
}

/** What the batches run by name, as drivers that have prepared it. */
const NAMED: Readonly<Record<string, string>> = {
  put: `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3)
    ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`,
  set: 'UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2',
  add: 'INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3)',
};

async function prepare(of: SqlClient): Promise<void> {
  const parses = Object.entries(NAMED).map(([name, parse]): FrontendMessage => ({ parse, name }));
  await of.send([...parses, 'sync']);
}

function batch(random: SeededRandom): FrontendMessage[] {
  const messages: FrontendMessage[] = [];
  const count = random.between(2, 8);
  // What comes behind an error is skipped.
  const badAt = random.oneIn(4) ? random.integer(count) : -1;
  for (let n = 0; n < count; n++) messages.push(...(n === badAt ? failing(random) : statement(random)));
  return [...messages, 'sync'];
}

const key = (random: SeededRandom): [string, string] => [random.pick(TENANTS), `k${random.integer(16)}`];
const value = (random: SeededRandom): string => `{"n": ${random.integer(99)}}`;

function failing(random: SeededRandom): FrontendMessage[] {
  const [tenant, of] = key(random);
  return random.pick([
    () => [{ parse: 'nonsense' }, { bind: [] }, { execute: '' }],
    () => [{ bind: [tenant, of, '{"n": '], statement: 'put' }, { execute: '' }],
    () => unnamed(`UPDATE kv SET value = to_jsonb(1 / $3::int) WHERE tenant_id = $1 AND key = $2`, ['acme', 'k1', '0']),
    () => [{ bind: [tenant], statement: 'set' }, { execute: '' }],
    () => [
      { bind: ['acme', 'k1', '1'], statement: 'add' },
      { execute: '' },
      { bind: ['acme', 'k1', '1'], statement: 'add' },
      { execute: '' },
    ],
  ])() as FrontendMessage[];
}

const unnamed = (parse: string, bind: readonly (string | null)[], describes = false): FrontendMessage[] => [
  { parse },
  { bind },
  ...(describes ? [{ describe: 'portal' } as const] : []),
  { execute: '' },
];

function statement(random: SeededRandom): FrontendMessage[] {
  const [tenant, of] = key(random);
  const describes = random.oneIn(2);
  const portal = `p${random.integer(1e9)}`;
  return random.pick([
    () => [{ bind: [tenant, of, value(random)], statement: 'put' }, { execute: '' }],
    () => [{ bind: [tenant, of, value(random)], statement: 'put' }, { describe: 'portal' }, { execute: '' }],
    () => [
      { bind: [tenant, of, value(random)], statement: 'set' },
      { execute: '', rows: random.integer(2) },
    ],
    // Of one that is bound and not run, behind what is.
    () => [
      { bind: [tenant, of, value(random)], statement: 'set', portal },
      { bind: [tenant, of, value(random)], statement: 'put' },
      { execute: '' },
      { describe: 'portal', name: portal },
    ],
    () => unnamed(NAMED['put']!, [tenant, of, value(random)], describes),
    () => unnamed('DELETE FROM kv WHERE tenant_id = $1 AND key = $2 RETURNING value', [tenant, of], describes),
    () => unnamed('SELECT value, 1 + 1 FROM kv WHERE tenant_id = $1 AND key = $2', [tenant, of], describes),
    () => unnamed('UPDATE kv SET value = $1 WHERE tenant_id = $2', [value(random), tenant], describes),
    () => unnamed(`UPDATE kv SET value = value || '{"m": 1}' RETURNING key`, [], describes),
    () => unnamed(`DELETE FROM kv WHERE key = $1`, [of], describes),
    () =>
      unnamed(
        `INSERT INTO kv (tenant_id, key, value) VALUES ('acme', $1, '1'), ('globex', $2, '2'), ('acme', $3, '3')
        ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING key`,
        ['k1', of === 'k1' ? 'k2' : of, 'k15'],
        describes,
      ),
  ])() as FrontendMessage[];
}

async function atomicity(
  t: Test,
  { client, plain, live, admins, rows, fill, prepared, decisions }: SpreadServers,
): Promise<void> {
  const put = (n: number, name = 'many'): FrontendMessage[] => [
    { bind: ['acme', `${name} ${n}`, `${n}`], statement: 'put' },
    { execute: '' },
  ];
  const puts = (count: number, name?: string): FrontendMessage[] =>
    Array.from({ length: count }, (_, n) => put(n, name)).flat();

  t.test('a batch is one transaction, in however many pieces it comes', async (t) => {
    await client.run('DELETE FROM kv');
    const before = await decisions();
    t.strictSame(tagsOf(await client.send([...puts(40), 'sync'])), Array(40).fill('INSERT 0 1'));
    t.equal((await decisions()) - before, 1);
    t.equal(await client.value('SELECT count(*) FROM kv'), '40');
    const other = await live.connect({ user: 'app' });
    await prepare(other);
    for (const messages of [puts(3, 'first'), puts(20, 'second'), puts(2, 'third')]) {
      other.wire.send(...messages);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    t.strictSame(tagsOf(await other.send(['sync'])).length, 25);
    t.equal(await client.value('SELECT count(*) FROM kv'), '65');
  });

  t.test('statements on one key and on all have one instant', async (t) => {
    await fill();
    const update = 'UPDATE kv SET value = to_jsonb(extract(epoch FROM now())) WHERE tenant_id = $1';
    const keyed = TENANTS.flatMap((tenant) =>
      Array.from({ length: 8 }, (_, n) => unnamed(`${update} AND key = $2`, [tenant, `k${n}`])).flat(),
    );
    const all = unnamed(`${update} AND key > 'k7'`, ['acme']);
    t.strictSame(tagsOf(await client.send([...keyed, ...all, 'sync'])), [...Array(24).fill('UPDATE 1'), 'UPDATE 2']);
    t.equal(await client.value(`SELECT count(*) FROM kv WHERE jsonb_typeof(value) = 'number'`), '26');
    t.equal(
      (
        await client.rows(`SELECT min(value::text), max(value::text) FROM kv WHERE jsonb_typeof(value) = 'number'`)
      ).every(([low, high]) => low === high),
      true,
    );
    await fill();
  });

  t.test('what returns nothing is described before it fails', async (t) => {
    await fill();
    const failing = 'UPDATE kv SET value = to_jsonb(1 / (version - version)) WHERE tenant_id = $1 AND key = $2';
    const messages = [...puts(9), ...unnamed(failing, ['acme', 'k11'], true), 'sync'] as FrontendMessage[];
    const [here, there] = await Promise.all([client, plain].map((of) => of.send(messages)));
    const types = (answers: typeof here): string[] => answers!.map(({ type }) => type);
    t.strictSame(types(here), types(there));
    t.ok(types(here).includes('NoData'));
  });

  t.test('what fails takes all of its batch back', async (t) => {
    await fill();
    const before = await rows(client);
    const answers = await client.send([
      ...puts(9),
      ...put(0).slice(0, 1),
      { execute: 'none' },
      ...puts(3, 'behind'),
      'sync',
    ]);
    t.equal(errorOf(answers)?.code, '34000');
    t.equal(tagsOf(answers).length, 9);
    t.strictSame(await rows(client), before);
    t.strictSame(await prepared(), []);
  });

  t.test('a client that goes before its Sync has done nothing', async (t) => {
    const before = await rows(client);
    const other = await live.connect({ user: 'app' });
    await prepare(other);
    other.wire.send(...puts(9), 'flush');
    await new Promise((resolve) => setTimeout(resolve, 50));
    other.wire.destroy();
    const open = `SELECT count(*)::int AS n FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`;
    for (const admin of admins) while ((await admin.query(open)).rows[0]['n'] > 0);
    t.strictSame(await rows(client), before);
    t.strictSame(await prepared(), []);
  });
}
