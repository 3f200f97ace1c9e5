// Workers that merge together (R50), and the owner of a lane that stands still, dies or is told to end; who is handed over and who is
// not; what is seen of it. Real processes, real Postgres.
import { readdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { allowSilentCloses } from '../oracle/watch.js';
import { eventually } from '../support/bystander.js';
import { encodeCancel } from '../support/frontend-message.js';
import { KV, kvServers } from '../support/kv-cluster.js';
import { GET, UPSERT } from '../support/merged-cases.js';
import { batchBytes, directClient, TickClient, together, told } from '../support/merged-clients.js';
import { buildPackage } from '../support/router-process.js';
import { SeededRandom } from '../support/seeded-random.js';
import { handedOver, type SharedWorkersOptions, sharedWorkers } from '../support/shared-workers.js';
import { WireClient } from '../support/wire-client.js';
import { untilWorkers, type WorkerRouter, type WorkerStatus, workerWith } from '../support/worker-router.js';

const { program } = buildPackage(t);
const cluster = await kvServers(t, 1, { tables: [KV] });
const server = cluster.servers[0]!;
const direct = await directClient(server);
t.teardown(() => direct.sql.wire.destroy());

// Those of a worker that is killed.
allowSilentCloses();

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const FAULTS = 6;
const OUTCOME_UNKNOWN = '08007';
const EACH = 4;

interface Status extends WorkerStatus {
  readonly handedOver: number;
  readonly taken: number;
}

interface Bench {
  readonly router: WorkerRouter;
  readonly clients: readonly TickClient[];
  /** Those of the owner's worker, and the others. */
  readonly owners: readonly TickClient[];
  readonly others: readonly TickClient[];
  readonly owner: Status;
}

const folders = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('pgkv-lanes-'));
const put = (key: string, value: string): Buffer => batchBytes(UPSERT, ['t', key, value]);
const get = (key: string): Buffer => batchBytes(GET, ['t', key]);
const valueIn = async (key: string): Promise<string | null> =>
  (await direct.run(`select value::text from kv where tenant_id = 't' and key = '${key}'`))[0]?.[0] ?? null;

/** Clients whose reads and writes are handed over. */
async function start(t: Test, options: Partial<SharedWorkersOptions> = {}): Promise<Bench> {
  const { workers = 2 } = options;
  const router = await sharedWorkers(t, cluster, { program, workers, ...options });
  const clients: TickClient[] = [];
  for (let round = 0; round < EACH; round++)
    for (const client of await router.connectToEach()) clients.push(new TickClient(client));
  const watcher = await router.connect();
  for (let attempt = 0; ; attempt++) {
    if (attempt === 60) throw new Error('nothing is handed over');
    const before = (await handedOver(router)).handed;
    await together(clients, (index) => put(`w${index}`, '1'));
    await together(clients, (index) => get(`w${index}`));
    if ((await handedOver(router)).handed - before >= 2 * EACH * (workers - 1)) break;
  }
  const states = (await untilWorkers(t, router, watcher, 'an owner is shown', (all) =>
    (all as readonly Status[]).some(({ taken }) => taken > 0),
  )) as Status[];
  const owner = states.find(({ taken }) => taken > 0)!;
  t.equal(owner.handedOver, 0);
  const isOwners = ({ sql }: TickClient): boolean => workerWith(sql) === owner.worker;
  return {
    ...{ router, clients, owner },
    owners: clients.filter(isOwners),
    others: clients.filter((client) => !isOwners(client)),
  };
}

function signal(t: Test, { pid }: Status, name: 'SIGSTOP' | 'SIGKILL'): void {
  process.kill(pid, name);
  t.teardown(() => {
    try {
      process.kill(pid, 'SIGCONT');
    } catch {
      // It is gone.
    }
  });
}

t.test('an owner that stands still holds up no reads, and no new writes', async (t) => {
  const { router, others, owner } = await start(t);
  signal(t, owner, 'SIGSTOP');
  const began = performance.now();
  const reads = (await together(others, (index) => get(`w${index}`))).map(told);
  t.strictSame(
    reads.map(({ code, rows }) => [code, rows.length]),
    others.map(() => ['', 1]),
  );
  t.ok(performance.now() - began < 5_000, 'long before the deadline');
  const writes = (await together(others, (index) => put(`s${index}`, '2'))).map(told);
  t.strictSame(
    writes.map(({ code }) => code),
    others.map(() => ''),
  );
  process.kill(owner.pid, 'SIGCONT');
  await eventually(t, 'it is handed statements again', async () => {
    const before = (await handedOver(router)).owned;
    await together(others, (index) => put(`s${index}`, '3'));
    return (await handedOver(router)).owned - before >= others.length;
  });
});

t.test('writes with an owner that stands still: answered when it goes on, unknown when it is given up', async (t) => {
  const { others, owner } = await start(t, { merged: 'deadline_ms = 2000' });
  const questions = others.map((_, index) => put(`stopped${index}`, '1'));
  signal(t, owner, 'SIGSTOP');
  const first = together(others, (index) => questions[index]!);
  await sleep(700);
  process.kill(owner.pid, 'SIGCONT');
  t.strictSame(
    (await first).map((answer) => told(answer).code),
    others.map(() => ''),
  );

  signal(t, owner, 'SIGSTOP');
  const began = performance.now();
  const second = (await together(others, (index) => put(`late${index}`, '1'))).map(told);
  const took = performance.now() - began;
  t.strictSame(
    second.map(({ code }) => code),
    others.map(() => OUTCOME_UNKNOWN),
  );
  t.match(second[0]!.error, { D: /^worker \d: worker \d has not answered for 2000 ms$/ });
  t.ok(took > 2_000 && took < 6_000, `${took} ms`);
  process.kill(owner.pid, 'SIGCONT');
  await sleep(500);
  for (const [index] of others.entries()) t.equal(await valueIn(`late${index}`), null, 'what is so old is not begun');
});

t.test('what waited for a batch of an owner that stood still is not begun when it goes on', async (t) => {
  const { others, owners, owner } = await start(t, { merged: 'deadline_ms = 1000' });
  const locker = await directClient(server);
  t.teardown(() => locker.sql.wire.destroy());
  const given = new Map<string, string>();
  let unknown = 0;
  for (let round = 0; round < 4; round++) {
    // Its batch waits for the lock, for 100 ms: what comes meanwhile waits behind it.
    await locker.run(`begin; update kv set value = '0' where tenant_id = 't' and key = 'w0'`);
    const holder = owners[0]!.ask(put('w0', `${round}`));
    await sleep(20 + 10 * round);
    const first = together(others, (index) => put(`old${index}`, `${10 * round}`));
    await sleep(20);
    signal(t, owner, 'SIGSTOP');
    const codes = (await first).map((answer) => told(answer).code);
    unknown += codes.filter((code) => code === OUTCOME_UNKNOWN).length;
    t.ok(
      codes.every((code) => code === '' || code === OUTCOME_UNKNOWN),
      codes.join(),
    );
    const second = await together(others, (index) => put(`old${index}`, `${10 * round + 1}`));
    for (const [index, answer] of second.entries())
      if (told(answer).code === '') given.set(`old${index}`, `${10 * round + 1}`);
    await locker.run('rollback');
    process.kill(owner.pid, 'SIGCONT');
    t.equal(told(await holder).code, '');
    await together(others, (index) => get(`old${index}`));
    await sleep(200);
    for (const [key, value] of given) t.equal(await valueIn(key), value, `${key} in round ${round}`);
  }
  t.equal(given.size, others.length);
  t.ok(unknown >= others.length, `${unknown} were waiting when the owner stood still`);
});

t.test(
  'an owner that is stopped at random moments, and killed in the end: what was acknowledged is there',
  async (t) => {
    const { router, others, owner } = await start(t, { workers: 3, merged: 'deadline_ms = 1000' });
    const random = new SeededRandom(SEED);
    const codes = new Map<string, number>();
    const wrong: string[] = [];
    /** By key, what may be there: of writes whose outcome is unknown one or the other. */
    const possible = new Map<string, Set<string>>();
    const unknown = new Set<string>();
    /** Stopped between its last look at the time and the call that sends, which no process can rule out: told was "unknown". */
    const late: string[] = [];
    let writes = 0;
    let isOver = false;
    const converse = async (client: TickClient, index: number): Promise<void> => {
      const key = `k${index}`;
      while (!isOver) {
        const value = `${++writes}`;
        const { code } = told(await client.ask(put(key, value)));
        codes.set(code, (codes.get(code) ?? 0) + 1);
        if (code === '') possible.set(key, new Set([value]));
        else if (code === OUTCOME_UNKNOWN) {
          unknown.add(`${key} ${value}`);
          possible.get(key)?.add(value);
        } else wrong.push(`a write is told ${code}`);
        const read = told(await client.ask(get(key)));
        const found = read.rows[0]?.[0] ?? 'nothing';
        if (read.code !== '') wrong.push(`a read is told ${read.code}`);
        else if (unknown.has(`${key} ${found}`) && possible.get(key)?.has(found) === false) {
          late.push(`${key}: ${found}`);
          possible.get(key)?.add(found);
        }
        // Nobody else writes the key.
        else if (code === '' && found !== value) wrong.push(`${found} was read behind ${value}`);
        else if (possible.get(key)?.has(found) === false)
          wrong.push(`${found} was read behind ${[...possible.get(key)!]}`);
      }
    };
    const talks = others.map(converse);
    for (let fault = 0; fault < FAULTS; fault++) {
      await sleep(100 + random.integer(400));
      const isLast = fault === FAULTS - 1;
      if (!isLast) {
        process.kill(owner.pid, 'SIGSTOP');
        await sleep(random.pick([20, 200, 700, 2_500]));
      }
      process.kill(owner.pid, isLast ? 'SIGKILL' : 'SIGCONT');
    }
    const { handed } = await handedOver(router);
    const isHanded = async (): Promise<boolean> => (await handedOver(router)).handed > handed;
    await eventually(t, 'statements are handed over again', isHanded, 15_000);
    isOver = true;
    await Promise.all(talks);
    t.same(wrong, [], `PGKV_SEED=${SEED}`);
    t.ok(late.length <= others.length, `of one batch at most: ${late}`);
    t.comment(JSON.stringify([...codes]));
  },
);

t.test('a statement that waits with the owner can be cancelled', async (t) => {
  const { router, others } = await start(t);
  const [holder, waiter] = others as [TickClient, TickClient];
  const locker = await directClient(server);
  t.teardown(() => locker.sql.wire.destroy());
  await locker.run(`begin; update kv set value = '9' where tenant_id = 't' and key = 'w0'`);
  // Its batch meets the lock, and it runs by itself from then on; the owner keeps the key for it.
  holder.send(put('w0', '10'));
  await sleep(400);
  waiter.send(put('w0', '11'));
  await sleep(100);
  const backendKey = waiter.sql.wire.received.find(({ type }) => type === 'BackendKeyData');
  if (backendKey?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  const { pid, key } = backendKey;
  const wire = await WireClient.open(router);
  wire.sendBytes(encodeCancel(pid, key));
  t.equal(told(await waiter.answer()).code, '57014');
  await locker.run('rollback');
  t.equal(told(await holder.answer()).code, '');
  t.equal(await valueIn('w0'), '10');
  t.equal(told(await waiter.ask(put('w0', '12'))).code, '', 'the key is free again');
});

t.test('SIGTERM under load: every answer that is given is true, none unknown', async (t) => {
  const { router, clients } = await start(t, { workers: 3 });
  const wrong: string[] = [];
  const acknowledged = new Map<string, string>();
  const talks = clients.map(async (client, index) => {
    for (let turn = 0; !client.closed; turn++) {
      const { code } = told(await client.ask(put(`end${index}`, `${turn}`)));
      if (code === '' && !client.closed) acknowledged.set(`end${index}`, `${turn}`);
      else if (code !== '57P01' && !client.closed) wrong.push(code);
    }
  });
  await sleep(300);
  router.signal('SIGTERM');
  await Promise.all(talks);
  t.equal(await router.exited, 0);
  t.same(wrong, []);
  t.equal(acknowledged.size, clients.length);
  for (const [key, value] of acknowledged) t.ok(Number(await valueIn(key)) >= Number(value), key);
  t.same(router.logged('did not end by itself'), []);
});

t.test('the sockets are in a folder of its own, which is gone at the end', async (t) => {
  const before = folders();
  const { router } = await start(t);
  const [folder] = folders().filter((name) => !before.includes(name));
  t.equal(statSync(join(tmpdir(), folder!)).mode & 0o777, 0o700);
  t.same(readdirSync(join(tmpdir(), folder!)).sort(), ['1.sock', '2.sock']);
  router.signal('SIGTERM');
  await router.exited;
  t.notOk(folders().includes(folder!));
});

t.test('"off", and "auto" where few clients are at work: each merges for itself', async (t) => {
  for (const [share, workers] of [
    ['off', 3],
    ['auto', 2],
    ['auto', 4],
  ] as const) {
    const router = await sharedWorkers(t, cluster, { program, workers, share });
    const clients = (await router.connectToEach()).map((client) => new TickClient(client));
    for (let turn = 0; turn < 300; turn++) {
      for (const client of clients) t.equal(told(await client.ask(put(`w${turn % 7}`, `${turn}`))).code, '');
    }
    t.same(await handedOver(router), { handed: 0, owned: 0, takenBack: 0 }, `${share}, ${workers} workers`);
  }
});

t.test('"auto" hands over while many clients are at work', async (t) => {
  const router = await sharedWorkers(t, cluster, { program, workers: 4, share: 'auto' });
  const clients: TickClient[] = [];
  for (let round = 0; round < 16; round++)
    for (const client of await router.connectToEach()) clients.push(new TickClient(client));
  let isOver = false;
  const codes = new Set<string>();
  const talks = clients.map(async (client, index) => {
    for (let turn = 0; !isOver; turn++) codes.add(told(await client.ask(put(`a${index}`, `${turn}`))).code);
  });
  await eventually(t, 'statements are handed over', async () => (await handedOver(router)).handed > 200, 15_000);
  isOver = true;
  await Promise.all(talks);
  t.same([...codes], ['']);
});
