// INSERTs of many clients over several shards at the same time, which are written together (R58): each client's own statements, to
// plain Postgres one after the other and through pgkv beside those of others, get the same answers and leave the same rows, though
// some of a group fail; and they are written together, with the right slots.
import t, { type Test } from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { rowsOf, valueFrom } from '../support/kv-extension.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { literal, type SpreadServers, said, spreadServers, TENANTS } from '../support/spread-servers.js';
import { SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const STATEMENTS = Number(process.env['PGKV_STATEMENTS'] ?? 25);
const CLIENTS = 8;

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  for (const shards of version === '15' ? [3] : [2, 5])
    t.test(`Postgres ${version}, ${shards} shards`, skip, (t) => groups(t, version, shards));
}

async function groups(t: Test, version: '15' | 'embedded', shards: number): Promise<void> {
  const servers = await spreadServers(t, version, shards);
  const { live, cluster, admins, rows, client, plain, prepared, decisions } = servers;
  await t.test(`the same rows and answers as on one server (seed ${SEED})`, async (t) => {
    const each = Array.from({ length: CLIENTS }, async (_, nth) => {
      const random = new SeededRandom(SEED, nth);
      const here = await live.connect({ user: 'app' });
      const there = await SqlClient.connect(cluster.servers[0]!, { user: 'app', database: 'plain' });
      t.teardown(() => there.end());
      for (let n = 0; n < STATEMENTS; n++) {
        const drawn = draw(random, `c${nth}`);
        for (const messages of batches(random, drawn, n)) {
          const told = await said(here, messages);
          const wanted = await said(there, messages);
          if (!t.strictSame(told, wanted, `client ${nth}: ${drawn.text} ${JSON.stringify(messages)}`)) return;
        }
      }
    });
    await Promise.all(each);
    t.strictSame(await rows(client), await rows(plain));
    t.strictSame(await prepared(), []);
    for (const admin of admins) {
      t.strictSame(await rowsOf(admin, 'SELECT FROM kv WHERE slot <> pgkv.slot(tenant_id, key)'), []);
      t.strictSame(await rowsOf(admin, 'SELECT FROM kv WHERE NOT slot <@ pgkv.owned_slots()'), []);
    }
  });
  await together(t, servers);
  t.ok((await decisions()) > 0);
}

async function together(t: Test, { live, admins, decisions, client, rows, prepared }: SpreadServers): Promise<void> {
  const insert = (name: string): string =>
    `INSERT INTO kv (tenant_id, key) VALUES ${Array.from({ length: 9 }, (_, n) => `('acme', '${name} ${n}')`)}`;
  const clients = await Promise.all(Array.from({ length: 12 }, () => live.connect({ user: 'app' })));
  // With settings of their own they have nothing to do with what has failed before.
  for (const one of clients) await one.run(`SET TimeZone = 'Asia/Tokyo'`);

  t.test('many are one transaction', async (t) => {
    await client.run('DELETE FROM kv', insert('first'));
    const before = await decisions();
    await Promise.all(clients.map((one, n) => one.run(insert(`together ${n}`))));
    t.ok((await decisions()) - before < clients.length / 2, 'they are decided together');
    t.equal(await client.value('SELECT count(*) FROM kv'), `${9 * clients.length + 9}`);
    // One after the other is told 'INSERT 0 1' of a transaction: they have one id on a shard.
    const ids = await valueFrom(admins[0]!, `SELECT count(DISTINCT xmin::text) FROM kv WHERE key LIKE 'together%'`);
    t.ok(Number(ids) < clients.length / 2, `${ids} transactions`);
  });

  t.test('one that cannot be written leaves the others theirs', async (t) => {
    await client.run('DELETE FROM kv', insert('there'));
    for (let round = 0; round < 30; round++) {
      const bad = round % clients.length;
      const told = await Promise.all(
        clients.map((one, n) =>
          one.run(insert(n === bad ? 'there' : `r${round} c${n}`)).then(
            () => 'written',
            (error: Error & { code?: string }) => error.code,
          ),
        ),
      );
      t.strictSame(
        told,
        clients.map((_, n) => (n === bad ? '23505' : 'written')),
      );
    }
    t.equal(await client.value('SELECT count(*) FROM kv'), `${9 + 30 * 9 * (clients.length - 1)}`);
    t.strictSame(await prepared(), []);
  });

  t.test('what has expired, and what waits for a lock, is no hindrance', async (t) => {
    await client.run('DELETE FROM kv', insert('old'));
    for (const admin of admins) await admin.query(`UPDATE kv SET ttl = now() - interval '1 hour'`);
    await admins[1]!.query('BEGIN; SELECT FROM kv FOR UPDATE');
    const told = clients.map((one, n) => one.run(insert(n === 3 ? 'old' : `new ${n}`)));
    await Promise.all(told.filter((_, n) => n !== 3));
    await admins[1]!.query('COMMIT');
    await told[3];
    t.equal((await rows(client)).length, 9 * clients.length);
    t.strictSame(await prepared(), []);
  });

  t.test('a warning is told to the client whose it is', async (t) => {
    const warn = `CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN IF NEW.key LIKE 'warn%' THEN RAISE WARNING 'of %', NEW.key; END IF; RETURN NULL; END $$;
      CREATE TRIGGER warn AFTER INSERT ON kv FOR EACH ROW EXECUTE FUNCTION warn()`;
    for (const admin of admins) await admin.query(warn);
    const told = await Promise.all(clients.map((one, n) => one.answers(insert(n === 5 ? 'warn' : `still ${n}`))));
    const warnings = told.map((answers) => answers.filter(({ type }) => type === 'NoticeResponse').length);
    t.strictSame(
      warnings,
      clients.map((_, n) => (n === 5 ? 9 : 0)),
    );
    for (const admin of admins) await admin.query('DROP TRIGGER warn ON kv; DROP FUNCTION warn()');
  });

  t.test('a client that goes takes nothing along', async (t) => {
    await client.run('DELETE FROM kv');
    const gone = await live.connect({ user: 'app' });
    gone.wire.send({ query: insert('gone') });
    const told = clients.map((one, n) => one.run(insert(`stays ${n}`)));
    gone.wire.destroy();
    await Promise.all(told);
    const count = Number(await client.value('SELECT count(*) FROM kv'));
    t.equal(count % 9, 0);
    t.ok(count >= 9 * clients.length);
  });
}

interface Drawn {
  readonly text: string;
  readonly types: readonly number[];
  readonly values: readonly (string | Buffer | null)[];
  readonly isSimple: boolean;
}

const OIDS = { text: 25, jsonb: 3802, timestamptz: 1184 };

/** Of keys of its own. */
function draw(random: SeededRandom, name: string): Drawn {
  const isSimple = random.oneIn(3);
  const isDeclared = random.oneIn(3);
  const types: number[] = [];
  const values: (string | Buffer | null)[] = [];
  const put = (type: keyof typeof OIDS, value: string | null): string => {
    if (isSimple || random.oneIn(30)) return value === null ? 'NULL' : literal(value);
    types.push(isDeclared ? OIDS[type] : 0);
    const isBinary = value !== null && type !== 'timestamptz' && random.oneIn(4);
    const head = type === 'jsonb' ? [Buffer.from([1])] : [];
    values.push(isBinary ? Buffer.concat([...head, Buffer.from(value)]) : value);
    const cast = random.oneIn(40) ? `::${type}` : '';
    return `$${values.length}${cast}`;
  };
  if (random.oneIn(10)) return { text: `DELETE FROM kv WHERE key LIKE '${name} %'`, types, values, isSimple };
  const order = random.pick([
    ['tenant_id', 'key', 'value'],
    ['value', 'key', 'tenant_id'],
    ['key', 'ttl', 'tenant_id'],
    ['tenant_id', 'key', 'version', 'value'],
  ]);
  const count = random.between(2, 9);
  // Of several errors Postgres tells the first row's.
  const badRow = random.oneIn(9) ? random.integer(count) : -1;
  const row = (index: number): string => {
    const cells = order.map((column) => {
      switch (column) {
        case 'tenant_id':
          return put('text', random.pick(TENANTS));
        case 'key':
          return put('text', `${name} ${badRow < 0 ? random.integer(400) : `bad ${random.integer(1e9)}`} ü`);
        case 'ttl':
          return random.oneIn(3) ? 'DEFAULT' : put('timestamptz', '2099-01-01 00:00:00+00');
        case 'version':
          return random.oneIn(2) ? 'DEFAULT' : '7';
        default:
          return put('jsonb', index === badRow ? '{"n": ' : random.oneIn(9) ? null : `{"n": ${random.integer(99)}}`);
      }
    });
    return `(${cells.join(', ')})`;
  };
  const rows = Array.from({ length: count }, (_, index) => row(index)).join(random.pick([',', ', ', '\n  ,']));
  // The rest is not written together.
  const tail = random.oneIn(8) ? random.pick(['ON CONFLICT DO NOTHING', 'RETURNING key']) : '';
  return { text: `INSERT INTO kv (${order.join(', ')}) VALUES ${rows} ${tail}`, types, values, isSimple };
}

function batches(random: SeededRandom, { text, types, values, isSimple }: Drawn, n: number): FrontendMessage[][] {
  if (isSimple) return [[{ query: text }]];
  const name = random.oneIn(2) ? `s${n}` : '';
  const formats = values.map((value) => (Buffer.isBuffer(value) ? 1 : 0));
  const parse: FrontendMessage = { parse: text, name, types: types.some((type) => type !== 0) ? types : [] };
  const bind: FrontendMessage = { bind: values, formats: formats.includes(1) ? formats : [], statement: name };
  const describe: FrontendMessage = { describe: 'portal' };
  const execute: FrontendMessage = { execute: '' };
  return random.pick([
    [[parse, bind, execute, 'sync']],
    [[parse, bind, describe, execute, 'sync']],
    [
      [parse, 'sync'],
      [bind, execute, 'sync'],
    ],
    [
      [parse, { describe: 'statement', name }, 'sync'],
      [bind, describe, execute, 'sync'],
    ],
  ]);
}
