// Transactions that wait for each other over several shards (R66): of each circle one ends by 40P01 within two seconds, and the
// others go on; who waits without a circle waits on, longer than any bound. Circles are generated: of two to four transactions over
// four shards, blocks (with savepoints, statements on several shards, branches beside the circle), writes outside blocks, and
// sessions of a server itself; of clients of two routers.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { type Clock, systemClock, type Timer } from '../../src/base/clock.js';
import { locksQuery } from '../../src/main/lock-looks.js';
import { startRouter } from '../../src/main.js';
import { createLogger } from '../../src/telemetry/log.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo, rowsOf, valueFrom } from '../support/kv-extension.js';
import { routerSettings } from '../support/live-router.js';
import { stretched } from '../support/machine-speed.js';
import { SeededRandom } from '../support/seeded-random.js';
import { GRANTS } from '../support/spread-servers.js';
import { SqlClient } from '../support/sql-client.js';

const SHARDS = 4;
const WITHIN_MS = 2_000;
const ROUNDS = Number(process.env['PGKV_ROUNDS'] ?? (process.env['PGKV_LONG'] === '1' ? 200 : 6));
const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const random = new SeededRandom(SEED);
const cluster = await kvServers(t, SHARDS, { stated: true });
const admins = await Promise.all(cluster.servers.map((server) => connectTo(t, server)));
for (const admin of admins) await admin.query(GRANTS);
const TICK_MS = 300;
/** Of the other router: a tick is pending while transactions are watched. */
const ticks = new Set<Timer>();
const clock: Clock = {
  ...systemClock,
  after(ms, act) {
    const pending = systemClock.after(ms, () => {
      ticks.delete(pending);
      act();
    });
    if (ms === TICK_MS) ticks.add(pending);
    const cancel = (): void => {
      ticks.delete(pending);
      pending.cancel();
    };
    return { cancel };
  },
};
/** Two, as two processes: what the other has begun, each knows from the servers alone. */
const live = await kvRouter(t, cluster);
const other = await startRouter({
  settings: routerSettings(cluster.servers, {}),
  log: createLogger({ level: 'info', format: 'json', values: false }, { write: () => undefined }),
  version: '0.0.0-test',
  clock,
  catalog: cluster.catalog,
  probeAs: { user: cluster.servers[0]!.superuser, database: 'postgres' },
});
const connectThere = () =>
  SqlClient.connect({ host: '127.0.0.1', port: other.port }, { user: 'app', database: 'postgres' });
const setup = await live.connect({ user: 'app' });
for (let n = 0; n < 120; n++) await setup.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('a', 'k${n}', '0')`);
const keys = await Promise.all(
  admins.map(async (admin) => (await rowsOf(admin, 'SELECT key FROM kv ORDER BY key')).map(([key]) => String(key))),
);
t.ok(
  keys.every((own) => own.length >= 12),
  'each shard has keys',
);
const WAITING = `SELECT count(*)::int FROM pg_locks WHERE NOT granted`;
const waitingOn = async (shard: number) => Number(await valueFrom(admins[shard]!, WAITING));
const isLocked = async ({ shard, key }: Place): Promise<boolean> => {
  const free = `SELECT FROM kv WHERE tenant_id = 'a' AND key = '${key}' FOR UPDATE SKIP LOCKED`;
  return (await rowsOf(admins[shard]!, free)).length === 0;
};
const set = (...names: readonly string[]) =>
  `UPDATE kv SET value = '1' WHERE tenant_id = 'a' AND key ${names.length === 1 ? `= '${names[0]}'` : `IN (${names.map((name) => `'${name}'`).join(', ')})`}`;
const read = (name: string) => `SELECT FROM kv WHERE tenant_id = 'a' AND key = '${name}'`;
const locked = (name: string) => `${read(name)} FOR UPDATE`;

interface Place {
  readonly shard: number;
  readonly key: string;
}
type Kind = 'block' | 'block with savepoint' | 'block by lists' | 'write' | 'server session';
interface Member {
  readonly kind: Kind;
  readonly client: SqlClient;
  readonly own: Place;
  readonly next: Place;
}
type Told = { readonly at: number; readonly code: string; readonly detail: string };

/** Keys of the last four are never in a circle. */
const place = (shard: number, at: number): Place => ({ shard, key: keys[shard]![at]! });
const beside = () => place(random.integer(SHARDS), 8 + random.integer(4)).key;

async function begin({ kind, client, own }: Member): Promise<void> {
  if (kind === 'write') return;
  await client.run('BEGIN');
  if (random.chance(0.5) && kind !== 'server session') await client.run(read(beside()));
  if (kind === 'block with savepoint') await client.run('SAVEPOINT a', set(own.key), read(beside()), 'ROLLBACK TO a');
  await client.run(random.chance(0.5) || kind === 'block by lists' ? set(own.key) : locked(own.key));
  if (kind === 'block with savepoint') await client.run('SAVEPOINT b');
}

/** Waits for the next one. */
async function reach(member: Member, others: () => Promise<unknown>): Promise<Told> {
  const { kind, client, own, next } = member;
  const sql = kind === 'write' || kind === 'block by lists' ? set(own.key, next.key) : set(next.key);
  const told = await client.run(sql).then(
    () => null,
    (error: { code: string; fields: Record<string, string> }) => error,
  );
  const at = performance.now();
  // All that it has locked it has let go of, but for what it has locked in front of a savepoint.
  if (told !== null && kind !== 'block with savepoint') await others();
  if (kind !== 'write') await client.run(told === null ? 'COMMIT' : 'ROLLBACK');
  return { at, code: told?.code ?? '', detail: told?.fields['D'] ?? '' };
}

function drawKind(own: Place, next: Place): Kind {
  if (own.shard === next.shard) return random.chance(0.5) ? 'server session' : 'block';
  return random.pick<Kind>(['block', 'block', 'block with savepoint', 'block by lists', 'write']);
}

async function circle(): Promise<readonly Member[]> {
  const size = random.between(2, 4);
  const shards = Array.from({ length: size }, () => random.integer(SHARDS));
  if (new Set(shards).size === 1) shards[0] = (shards[0]! + 1) % SHARDS;
  const places = shards.map((shard, index) => place(shard, index));
  return Promise.all(
    places.map(async (own, index): Promise<Member> => {
      const next = places[(index + 1) % size]!;
      const kind = drawKind(own, next);
      const server = cluster.servers[own.shard]!;
      const client =
        kind === 'server session'
          ? await SqlClient.connect(server, { user: server.superuser, database: 'postgres' })
          : await (random.chance(0.5) ? live.connect({ user: 'app' }) : connectThere());
      return { kind, client, own, next };
    }),
  );
}

t.test(`circles over shards end, by one of them each: seed ${SEED}`, { timeout: 3_600_000 }, async (t) => {
  for (let round = 0; round < ROUNDS; round++) {
    const members = await circle();
    const what = `round ${round}: ${members.map(({ kind, own }) => `${kind} on ${own.shard}`).join(', ')}`;
    for (const member of members) await begin(member);
    // A write takes its keys at once, gives back what it has where it meets a lock, and queues for one shard after the other (R72): there
    // may be no circle then, and all get what they want. All that are begun before it have theirs.
    const inTurn = [...members].sort((one, other) => Number(one.kind === 'write') - Number(other.kind === 'write'));
    const ends: Promise<Told>[] = [];
    for (const member of inTurn.reverse()) {
      const own = ends.length;
      ends.push(reach(member, () => Promise.all(ends.filter((_, index) => index !== own))));
      const isInCircle = async (): Promise<boolean> => (await waitingOn(member.next.shard)) > 0 && isLocked(member.own);
      if (member.kind === 'write') for (let tries = 0; tries < 20 && !(await isInCircle()); tries++) await sleep(10);
      else await sleep(random.integer(150));
    }
    const since = performance.now();
    const told = await Promise.all(ends);
    const victims = told.filter(({ code }) => code !== '');
    const [first] = victims;
    const mayEnd = members.some(({ kind }) => kind === 'write');
    if (first !== undefined || !mayEnd) {
      t.strictSame(
        victims.map(({ code }) => code),
        ['40P01'],
        `${what}: one of them`,
      );
      t.match(first?.detail, /wait for each other on shards "s\d"/, what);
    }
    const took = Math.max(...(first === undefined ? told.map(({ at }) => at) : [first.at])) - since;
    t.ok(took < (await stretched(WITHIN_MS)), `${what}: ${took} ms`);
    await Promise.all(members.map(({ client }) => client.end()));
  }
});

t.test('sessions that end in blocks on several shards, in whatever way, are watched no more', async (t) => {
  const ways: readonly ((client: SqlClient) => void)[] = [
    ({ wire }) => wire.send('terminate'),
    ({ wire }) => wire.socket.end(),
    ({ wire }) => wire.destroy(),
    // A violation of the protocol: FATAL.
    ({ wire }) => wire.sendBytes(Buffer.from('~\0\0\0\x04', 'latin1')),
  ];
  const open = async (at: number) => {
    const client = await connectThere();
    await client.run('BEGIN', set(keys[0]![at]!), set(keys[1]![at]!));
    return client;
  };
  for (const [at, leave] of ways.entries()) {
    const [one, other] = [await open(2 * at), await open(2 * at + 1)];
    t.equal(ticks.size, 1, 'they are watched');
    // One of them at work.
    other.wire.send({ query: set(keys[0]![2 * at]!) });
    while ((await waitingOn(0)) === 0) await sleep(10);
    leave(other);
    leave(one);
    for (let tries = 0; tries < 300 && ticks.size > 0; tries++) await sleep(10);
    t.equal(ticks.size, 0, `way ${at}`);
    one.wire.destroy();
    other.wire.destroy();
  }
  while ((await waitingOn(0)) > 0) await sleep(10);
});

t.test('a server where more stand in front of each other than can be looked at shows no waits', async (t) => {
  const sessions = await Promise.all(Array.from({ length: 4 }, () => connectTo(t, cluster.servers[0]!)));
  const waits: Promise<unknown>[] = [];
  for (const [index, session] of sessions.entries()) {
    const locking = session.query('SELECT pg_advisory_lock(7)');
    if (index === 0) await locking;
    else waits.push(locking);
    while ((await waitingOn(0)) < index) await sleep(10);
  }
  // The first of those that wait stands behind one, the third behind three.
  t.equal((await rowsOf(admins[0]!, locksQuery(6))).length, 3);
  t.equal((await rowsOf(admins[0]!, locksQuery(5))).length, 0);
  for (const session of sessions) {
    await session.query('SELECT pg_advisory_unlock_all()');
  }
  await Promise.all(waits);
});

t.test('who waits without a circle waits on', async (t) => {
  const [holder, ...waiters] = await Promise.all(Array.from({ length: 5 }, () => live.connect({ user: 'app' })));
  const [a, b, c, d] = [0, 1, 2, 3].map((shard) => keys[shard]![0]!) as [string, string, string, string];
  await holder!.run('BEGIN', set(a), set(b));
  // A chain: each waits for the one before, over another shard; two wait for the same.
  await waiters[0]!.run('BEGIN', set(c));
  await waiters[1]!.run('BEGIN', set(d), 'SAVEPOINT a');
  const copying = `COPY kv (tenant_id, key, value) FROM STDIN`;
  const ends = [waiters[0]!.run(set(a)), waiters[1]!.run(set(c)), waiters[2]!.run(set(b, d))];
  const copied = waiters[3]!.send([{ query: copying }, { copyData: Buffer.from(`a\t${a}\t1\n`) }, 'copyDone'], 1);
  let over = 0;
  for (const end of ends) void end.finally(() => over++);
  await sleep(6_500);
  t.equal(over, 0, 'they wait');
  t.equal(await waitingOn(0), 2);
  await holder!.run('ROLLBACK');
  await ends[0];
  await waiters[0]!.run('COMMIT');
  await ends[1];
  await waiters[1]!.run('COMMIT');
  await ends[2];
  t.match(JSON.stringify(await copied), /23505/, 'the key is there');
  for (const client of [holder!, ...waiters]) await client.end();
  await setup.end();
  await other.stop();
});
