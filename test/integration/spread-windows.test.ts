// Statements of a batch over several shards that are run side by side (D14, R69), as executemany sends them: generated batches, whole and in
// pieces, with errors in any place, to plain Postgres and through pgkv; and what running side by side must not bring about.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { encodeCancel } from '../support/frontend-message.js';
import type { LiveRouter } from '../support/live-router.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { type SpreadServers, said, spreadServers, TENANTS } from '../support/spread-servers.js';
import { errorOf, type SqlClient, tagsOf } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const BATCHES = Number(process.env['PGKV_STATEMENTS'] ?? 24);
/** Another's lock is waited for so long before what is side by side gives way. */
const WINDOW_LOCK_MS = 100;

const NAMED: Readonly<Record<string, string>> = {
  put: `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3)
    ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`,
  back: `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3)
    ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING key, value`,
  set: 'UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2',
  timed: "UPDATE kv SET value = $3, ttl = now() + interval '1 day' WHERE tenant_id = $1 AND key = $2",
  add: 'INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3)',
  drop: 'DELETE FROM kv WHERE tenant_id = $1 AND key = $2',
  get: 'SELECT value FROM kv WHERE tenant_id = $1 AND key = $2',
};
const VALUED: ReadonlySet<string> = new Set(['put', 'back', 'set', 'timed', 'add']);

const skip = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
for (const shards of [1, 3, 5]) {
  t.test(`${shards} shards`, { ...skip, timeout: 240_000 }, async (t) => {
    const servers = await spreadServers(t, 'embedded', shards);
    for (const of of [servers.client, servers.plain]) await prepare(of);
    await generated(t, servers, shards);
    if (shards !== 3) return;
    await manyRows(t, servers);
    await locked(t, servers);
    await oneOrder(t, servers);
    await noticed(t, servers);
    await cancelled(t, servers);
  });
}

async function prepare(of: SqlClient): Promise<void> {
  const parses = Object.entries(NAMED).map(([name, parse]): FrontendMessage => ({ parse, name }));
  await of.send([...parses, 'sync']);
}

async function generated(
  t: Test,
  { client, plain, rows, fill, prepared }: SpreadServers,
  shards: number,
): Promise<void> {
  await t.test(`the same rows and answers as on one server (seed ${SEED})`, async (t) => {
    const random = new SeededRandom(SEED, shards);
    for (let n = 0; n < BATCHES; n++) {
      if (n % 8 === 0) await fill();
      const pieces = inPieces(random, batch(random));
      const about = JSON.stringify(pieces);
      const [here, there] = await Promise.all([client, plain].map((of) => inTurn(of, pieces)));
      if (!t.strictSame(here, there, about)) return;
      if (!t.strictSame(await rows(client), await rows(plain), about)) return;
    }
    t.strictSame(await prepared(), []);
  });
}

/** What all of the pieces are answered, and which statements had run before what failed. */
async function inTurn(of: SqlClient, pieces: readonly FrontendMessage[][]): Promise<unknown[]> {
  for (const piece of pieces.slice(0, -1)) {
    of.wire.send(...piece);
    await sleep(3);
  }
  const tags: unknown[] = [];
  const told = await said(
    {
      send: async (messages: FrontendMessage[]) => {
        const answers = await of.send(messages);
        tags.push(
          tagsOf(answers),
          answers.map(({ type }) => type).filter((type) => type !== 'RowDescription'),
        );
        return answers;
      },
    } as unknown as SqlClient,
    pieces.at(-1)!,
  );
  return errorOfSaid(told) ? [...told, tags[0]] : [...told, ...tags];
}

const errorOfSaid = ([first]: unknown[]): boolean => typeof first === 'string';

const key = (random: SeededRandom): [string, string] => [random.pick(TENANTS), `k${random.integer(40)}`];

function run(random: SeededRandom, name: string, of: readonly string[] = key(random)): FrontendMessage[] {
  const bind = VALUED.has(name) ? [...of, `{"n": ${random.integer(99)}}`] : [...of];
  const describes = random.oneIn(3);
  return [
    { bind, statement: name },
    ...(describes ? [{ describe: 'portal' } as const] : []),
    // What a portal that is suspended has written is not seen by statements behind it: Postgres takes it for one command with them.
    { execute: '', rows: name !== 'back' && random.oneIn(6) ? 1 : 0 },
  ];
}

/** Mostly of one statement; sometimes it reads first, or fails somewhere. */
function batch(random: SeededRandom): FrontendMessage[] {
  const messages: FrontendMessage[] = [];
  if (random.oneIn(4)) for (let n = random.between(1, 3); n > 0; n--) messages.push(...run(random, 'get'));
  const usual = random.pick(['put', 'put', 'back', 'set', 'drop', 'timed']);
  const count = random.between(2, 60);
  const badAt = random.oneIn(3) ? random.integer(count) : -1;
  for (let n = 0; n < count; n++) {
    if (n === badAt) messages.push(...bad(random));
    else
      messages.push(
        ...run(random, random.oneIn(10) ? random.pick(Object.keys(NAMED).filter((name) => name !== 'add')) : usual),
      );
  }
  return [...messages, 'sync'];
}

function bad(random: SeededRandom): FrontendMessage[] {
  const of = key(random);
  return random.pick([
    () => [...run(random, 'put', of), ...run(random, 'add', of)],
    () => [{ bind: [...of, '{"n": '], statement: 'put' }, { execute: '' }],
    () => [{ bind: of, statement: 'set' }, { execute: '' }],
    () => [{ bind: of, statement: 'nobody' }, { execute: '' }],
    () => [{ execute: 'nobody' }],
    () => [{ parse: 'nonsense' }],
  ])() as FrontendMessage[];
}

/** A prepared statement of no name would be read as of the batch before. */
function inPieces(random: SeededRandom, messages: FrontendMessage[]): FrontendMessage[][] {
  if (random.oneIn(2)) return [messages];
  const pieces: FrontendMessage[][] = [];
  for (let at = 0; at < messages.length; ) {
    const length = random.between(1, 40);
    pieces.push(messages.slice(at, at + length));
    at += length;
  }
  return pieces;
}

const puts = (keys: readonly string[], value: string): FrontendMessage[] => [
  ...keys.flatMap((of): FrontendMessage[] => [{ bind: ['acme', of, value], statement: 'put' }, { execute: '' }]),
  'sync',
];
const names = (count: number): string[] => Array.from({ length: count }, (_, n) => `key ${String(n).padStart(4, '0')}`);

async function manyRows(t: Test, { client, plain, rows }: SpreadServers): Promise<void> {
  await t.test('a thousand rows take a few times what one server takes, not a round trip each', async (t) => {
    const timed = async (of: SqlClient, value: string): Promise<number> => {
      const began = performance.now();
      t.equal(tagsOf(await of.send(puts(names(1000), value))).length, 1000);
      return performance.now() - began;
    };
    for (const of of [client, plain]) await timed(of, '0');
    const ratios: number[] = [];
    for (let n = 1; n <= 3; n++) ratios.push((await timed(client, `${n}`)) / (await timed(plain, `${n}`)));
    t.comment(`ratio ${ratios.map((ratio) => ratio.toFixed(1))}`);
    // Statement by statement it is 25 and more.
    t.ok(Math.min(...ratios) < 10, `${ratios}`);
    t.strictSame(await rows(client), await rows(plain));
  });
}

async function locked(t: Test, { client, live, rows }: SpreadServers): Promise<void> {
  await t.test('what another session has locked is waited for', async (t) => {
    const other = await live.connect({ user: 'app' });
    const all = names(60);
    await client.send(puts(all, '1'));
    await other.run('BEGIN', `UPDATE kv SET value = '2' WHERE tenant_id = 'acme' AND key = '${all[30]}'`);
    const answers = client.send(puts(all, '3'));
    await sleep(3 * WINDOW_LOCK_MS);
    await other.run('COMMIT');
    t.equal(tagsOf(await answers).length, 60);
    t.ok((await rows(client)).filter(([, of]) => all.includes(of!)).every(([, , value]) => value === '3'));
  });

  await t.test('the same behind a statement on several shards, which waits briefly at first', async (t) => {
    const other = await live.connect({ user: 'app' });
    const all = names(60);
    const early = all.slice(0, 12).map((key) => `'${key}'`);
    const spread: FrontendMessage[] = [
      { parse: `UPDATE kv SET value = '4' WHERE tenant_id = 'acme' AND key IN (${early.join()})` },
      { bind: [] },
      { execute: '' },
    ];
    await other.run('BEGIN', `UPDATE kv SET value = '2' WHERE tenant_id = 'acme' AND key = '${all[30]}'`);
    const answers = client.send([...spread, ...puts(all.slice(12), '5')]);
    await sleep(5 * WINDOW_LOCK_MS);
    await other.run('COMMIT');
    const told = await answers;
    t.equal(errorOf(told), null);
    t.equal(tagsOf(told).length, 49);
    await other.end();
  });
}

async function cancel(live: LiveRouter, { wire: { received } }: SqlClient): Promise<void> {
  const data = received.find(({ type }) => type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  const wire = await WireClient.open(live);
  wire.sendBytes(encodeCancel(data.pid, data.key));
  await wire.wait('closed');
  wire.destroy();
}

/** On one server clients that write keys in one order never wait for each other in a circle. */
async function oneOrder(t: Test, { live, rows, client }: SpreadServers): Promise<void> {
  await t.test('clients that lock in one order do not stop each other', async (t) => {
    const clients = await Promise.all(Array.from({ length: 4 }, () => live.connect({ user: 'app' })));
    for (const of of clients) await prepare(of);
    for (let round = 0; round < 12; round++) {
      const answers = await Promise.all(clients.map((of, n) => of.send(puts(names(40), `${4 * round + n}`))));
      for (const one of answers) t.equal(errorOf(one)?.message, undefined, `round ${round}`);
      const values = (await rows(client)).filter(([, of]) => names(40).includes(of!)).map(([, , value]) => value);
      t.equal(new Set(values).size, 1, 'one of them was last on all');
    }
  });
}

async function noticed(t: Test, { client, admins }: SpreadServers): Promise<void> {
  await t.test('notices stand where one server tells them', async (t) => {
    for (const admin of admins) {
      await admin.query(`CREATE FUNCTION says() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE NOTICE 'wrote %', NEW.key; RETURN NEW; END $$`);
      await admin.query(`CREATE TRIGGER says BEFORE UPDATE ON kv FOR EACH ROW WHEN (NEW.key LIKE 'key 000%')
        EXECUTE FUNCTION says()`);
    }
    const answers = await client.send(puts(names(12), '5'));
    const told = answers.map((message) => {
      if (message.type === 'NoticeResponse') return message.fields['M']!;
      return message.type === 'CommandComplete' ? 'done' : '';
    });
    const expected = names(12).flatMap((of) => [...(of < 'key 001' ? [`wrote ${of}`] : []), 'done']);
    t.strictSame(
      told.filter((one) => one !== ''),
      expected,
    );
    for (const admin of admins) await admin.query('DROP FUNCTION says() CASCADE');
  });
}

async function cancelled(t: Test, { client, live, rows, prepared }: SpreadServers): Promise<void> {
  await t.test('a batch that is cancelled has done nothing, wherever it is', async (t) => {
    const other = await live.connect({ user: 'app' });
    const all = names(80);
    await client.send(puts(all, '1'));
    const before = await rows(client);
    const random = new SeededRandom(SEED, 7);
    for (let round = 0; round < 12; round++) {
      const at = random.pick(all);
      await other.run('BEGIN', `SELECT 1 FROM kv WHERE tenant_id = 'acme' AND key = '${at}' FOR UPDATE`);
      const answers = client.send(puts(all, '6'));
      await sleep(random.integer(3 * WINDOW_LOCK_MS));
      await cancel(live, client);
      const error = errorOf(await answers);
      t.equal(error?.code, '57014', `round ${round}`);
      await other.run('ROLLBACK');
      t.strictSame(await rows(client), before);
    }
    t.strictSame(await prepared(), []);
  });
}
