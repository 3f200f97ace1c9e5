// INSERT … SELECT from unnest() and from no table, over several shards (D14): generated ones get the same answers through pgkv as from
// one plain Postgres, rows returned in the order of the arrays, and leave the same rows.
import t, { type Test } from 'tap';
import {
  ArrayWriter,
  drawKeys,
  type Fault,
  type GivenArray,
  type MemberStatement,
  messagesOf,
} from '../support/member-statements.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { literal, type SpreadServers, said, spreadServers, TENANTS } from '../support/spread-servers.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const STATEMENTS = Number(process.env['PGKV_STATEMENTS'] ?? 100);

for (const version of ['15', 'embedded'] as const) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  for (const shards of version === '15' ? [3] : [1, 3, 5])
    t.test(`Postgres ${version}, ${shards} shards`, skip, (t) => inserts(t, version, shards));
}

async function inserts(t: Test, version: '15' | 'embedded', shards: number): Promise<void> {
  const servers = await spreadServers(t, version, shards);
  const { client, plain, rows, prepared, decisions } = servers;
  await t.test(`the same rows and answers as on one server (seed ${SEED})`, async (t) => {
    const random = new SeededRandom(SEED, shards);
    let block = false;
    const both = async (sql: string) => {
      for (const one of [client, plain]) await one.run(sql);
    };
    for (let n = 0; n < STATEMENTS; n++) {
      if (random.oneIn(8)) await both('DELETE FROM kv');
      if (!block && random.oneIn(5)) {
        await both('BEGIN');
        block = true;
      }
      const { text, batches } = statement(random);
      let failed = false;
      for (const batch of batches) {
        const [here, there] = await Promise.all([client, plain].map((of) => said(of, batch)));
        failed ||= typeof there![0] === 'string';
        if (!t.strictSame(told(here!), told(there!), `${n}: ${text} ${JSON.stringify(batch)}`)) return;
      }
      if (block && (failed || random.oneIn(3))) {
        await both(failed || random.oneIn(2) ? 'ROLLBACK' : 'COMMIT');
        block = false;
      }
      if (!block && !t.strictSame(await rows(client), await rows(plain), `${n}: ${text}`)) return;
    }
    if (block) await both('COMMIT');
    t.strictSame(await prepared(), []);
    if (shards > 1) t.ok((await decisions()) > STATEMENTS / 20, 'they were over several shards');
  });
  if (shards > 1) await more(t, servers);
}

/** Of errors, which any shard may find first, code and state. */
const told = (answer: readonly unknown[]): readonly unknown[] =>
  typeof answer[0] === 'string' ? [answer[0], answer.at(-1)] : answer;

async function more(t: Test, { client, admins, rows, prepared }: SpreadServers): Promise<void> {
  const keys = Array.from({ length: 9 }, (_, n) => `e${n}`);
  const from = `FROM unnest('{${keys}}'::text[]) AS u (k)`;

  t.test('rows that have expired do not stand in the way', async (t) => {
    await client.run('DELETE FROM kv', `INSERT INTO kv (tenant_id, key) SELECT 'acme', k ${from}`);
    for (const admin of admins) await admin.query(`UPDATE kv SET ttl = now() - interval '1 hour'`);
    const again = await client.rows(`INSERT INTO kv (tenant_id, key) SELECT 'acme', k ${from} RETURNING key, ttl`);
    t.strictSame(
      again,
      keys.map((key) => [key, null]),
    );
    for (const admin of admins) await admin.query(`UPDATE kv SET ttl = now() - interval '1 hour'`);
    t.strictSame(await client.run(`INSERT INTO kv (tenant_id, key) SELECT 'acme', 'e1'`), ['INSERT 0 1']);
    t.equal(await client.value('SELECT count(*) FROM kv'), '1');
  });

  t.test('a key that is there on one shard leaves nothing on any', async (t) => {
    await client.run('DELETE FROM kv', `INSERT INTO kv (tenant_id, key) VALUES ('acme', 'e4')`);
    const before = await rows(client);
    t.equal(await client.fails(`INSERT INTO kv (tenant_id, key) SELECT 'acme', k ${from}`), '23505');
    t.strictSame(await rows(client), before);
    t.strictSame(await prepared(), []);
  });

  t.test('all shards are told one time', async (t) => {
    await client.run('DELETE FROM kv');
    await client.run(`INSERT INTO kv (tenant_id, key, ttl) SELECT 'acme', k, now() + interval '1 day' ${from}`);
    t.equal((await client.rows('SELECT ttl, count(*) FROM kv GROUP BY ttl')).length, 1);
  });

  t.test('what has no key that is known before it runs is refused', async (t) => {
    for (const sql of [
      `INSERT INTO kv (tenant_id, key) SELECT 'acme', k || '1' ${from}`,
      `INSERT INTO kv (tenant_id, key) SELECT 'acme', k ${from} WHERE k > 'e3'`,
      `INSERT INTO kv (tenant_id, key) SELECT 'acme', k ${from} ORDER BY k`,
      `INSERT INTO kv (tenant_id, key) SELECT 'acme', k ${from} LIMIT 2`,
      `INSERT INTO kv (tenant_id, key) SELECT 'acme', g::text FROM generate_series(1, 9) AS g`,
      `INSERT INTO kv (tenant_id, key) SELECT tenant_id, key || 'x' FROM kv`,
      `INSERT INTO kv (tenant_id, key) SELECT 'acme', unnest('{a,b}'::text[])`,
      `INSERT INTO kv (tenant_id, key) SELECT 'acme', 'a' UNION ALL SELECT 'acme', 'b'`,
    ])
      t.equal(await client.fails(sql), '0A000', sql);
  });
}

function statement(random: SeededRandom): MemberStatement {
  const isSimple = random.oneIn(2);
  const writer = new ArrayWriter(random, isSimple);
  const fault = random.pick<Fault>(['none', 'none', 'none', 'length', 'null array', 'null key', 'twice']);
  const nothing = [' ON CONFLICT DO NOTHING', ' ON CONFLICT (tenant_id, key) DO NOTHING'];
  // Of several errors Postgres tells the first row's.
  const isKeyless = fault !== 'none' && fault !== 'twice';
  const any = [
    '',
    ...nothing,
    ' ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value',
    ` ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value WHERE kv.value IS NOT NULL`,
  ];
  const conflict = random.pick(isKeyless ? nothing : any);
  const returning = random.pick(['', '', ' RETURNING key', ' RETURNING tenant_id, value AS v, key']);
  const kind = random.integer(6);
  const query =
    kind === 0
      ? fromNothing(random, writer)
      : kind === 1
        ? fromValues(random, fault)
        : fromArrays(random, writer, fault);
  const text = `INSERT INTO kv ${query}${conflict}${returning}`;
  return { text, batches: messagesOf(random, text, isSimple ? null : writer) };
}

function fromNothing(random: SeededRandom, writer: ArrayWriter): string {
  const where = random.pick(['', '', ' WHERE false', ' WHERE 1 < 2']);
  const [tenant, key] = [random.pick(TENANTS), `k${random.integer(9)}`].map((text) => writer.writeText(text));
  return `(tenant_id, key, value) SELECT ${tenant}, ${key} AS k, '{"n": 1}'::jsonb${where}`;
}

function fromArrays(random: SeededRandom, writer: ArrayWriter, fault: Fault): string {
  const { tenants, keys } = drawKeys(random, fault);
  const oneTenant = random.oneIn(3) ? random.pick(TENANTS) : null;
  const values: GivenArray = {
    element: 'jsonb',
    members: keys.map((_, n) => (random.oneIn(6) ? null : `{"n": ${n}, "t": "a, \\"b\\""}`)),
  };
  const arrays: GivenArray[] = [
    ...(oneTenant === null ? [{ element: 'text', members: tenants } as const] : []),
    { element: 'text', members: keys },
    values,
  ];
  const wrong = random.integer(arrays.length);
  if (fault === 'null array') arrays[wrong] = { ...arrays[wrong]!, members: null };
  if (fault === 'length') arrays[wrong] = { ...arrays[wrong]!, members: (arrays[wrong]!.members ?? []).slice(1) };
  // Of arrays that say which keys either all are ARRAY[…] or none is.
  const areListed = random.oneIn(4) && fault !== 'null array';
  const written = arrays
    .map((array) => writer.write(array, false, array.element === 'text' ? areListed : null))
    .join(', ');
  const qualified = random.oneIn(3) ? 'u.' : '';
  const names = oneTenant === null ? 't, k, v' : 'k, v';
  const from = `FROM unnest(${written}) ${random.pick(['AS ', ''])}u (${names})`;
  if (oneTenant !== null) {
    return `(key, tenant_id, value) SELECT ${qualified}k, ${writer.writeText(oneTenant)}, ${qualified}v ${from}`;
  }
  if (random.oneIn(3)) return `(tenant_id, key, value) SELECT ${random.pick(['*', 'u.*'])} ${from}`;
  const ttl = random.oneIn(3);
  const more = ttl ? `, now() + interval '1 hour'` : '';
  return `(value, key, tenant_id${ttl ? ', ttl' : ''}) SELECT ${qualified}v, ${qualified}k AS x, ${qualified}t${more} ${from}`;
}

function fromValues(random: SeededRandom, fault: Fault): string {
  const { tenants, keys } = drawKeys(random, fault);
  const written = (text: string | null) => (text === null ? 'NULL' : literal(text));
  const rows = keys.map((key, n) => {
    // The first decides what the column is, and others are made that.
    const value = n === 0 ? `'{"n": 0}'::jsonb` : random.pick([`'{"n": ${n}}'`, 'NULL']);
    return `(${written(tenants[n]!)}, ${written(key)}, ${value})`;
  });
  if (rows.length === 0) rows.push(`('acme', 'k1', '1'::jsonb)`);
  const from = `FROM (VALUES ${rows.join(random.pick([', ', ' ,']))}) AS v`;
  return random.pick([
    () => `(tenant_id, key, value) SELECT * ${from} (t, k, "the value")`,
    () => `(tenant_id, key, value) SELECT v.* ${from}`,
    () => `(value, key, tenant_id, ttl) SELECT column3, v.column2, column1, now() + interval '1 hour' ${from}`,
    () => `(value, key, tenant_id) SELECT "the value", k, t ${from}(t, k, "the value")`,
  ])();
}
