// How a router with workers starts, reloads, loses one of its processes, and ends. Real processes, real Postgres.
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectSocket, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { restartDelayMs } from '../../src/control/workers.js';
import { eventually } from '../support/bystander.js';
import { makeAuthority, makeCertificate, noOpenssl } from '../support/certificates.js';
import { encryptedSocket } from '../support/encrypted-socket.js';
import { freePort, type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { buildPackage } from '../support/router-process.js';
import { errorOf, type SqlClient } from '../support/sql-client.js';
import {
  startWorkerRouter,
  untilWorkers,
  type WorkerRouter,
  workerConfig,
  workerRouter,
  workerWith,
} from '../support/worker-router.js';

const { program } = buildPackage(t);
const server = await startPostgres({ version: 'embedded' });
t.teardown(() => server.stop());

const POOL = '[pool]\nsize_max = 8\n';

const start = (t: Test, more = ''): Promise<WorkerRouter> =>
  workerRouter(t, { program, servers: [server], workers: 2, more: `${more}${POOL}` });

const lastWord = async (t: Test, client: SqlClient) => {
  const { messages, outcome } = await client.wire.wait('closed', 5_000);
  t.equal(outcome, 'reached', 'the connection was closed');
  return errorOf(messages)?.code;
};

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

const portOpens = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connectSocket(port, '127.0.0.1');
    const settle = (open: boolean) => {
      socket.destroy();
      resolve(open);
    };
    socket.on('connect', () => settle(true)).on('error', () => settle(false));
  });

t.test('SIGTERM lets transactions end on every worker, then ends all processes', async (t) => {
  const router = await start(t);
  const busy = await router.connectToEach();
  const idle = await router.connectToEach();
  const workers = await router.workers(idle[0]!);
  for (const client of busy) await client.run('BEGIN', 'SELECT 1');
  // As systemd does: to every process of the service.
  router.signal('SIGTERM');
  for (const { pid } of workers) process.kill(pid, 'SIGTERM');
  for (const client of idle) t.equal(await lastWord(t, client), '57P01');
  await eventually(t, 'nobody is taken any more', async () => !(await portOpens(router.port)));
  const ready = await fetch(`http://127.0.0.1:${router.httpPort}/ready`);
  t.match(await ready.json(), { status: 503, detail: /draining/ });
  for (const client of busy) {
    t.equal(await client.value('SELECT 42'), '42', `worker ${workerWith(client)} serves the transaction`);
    t.same(await client.run('COMMIT'), ['COMMIT']);
    t.equal(await lastWord(t, client), '57P01');
  }
  t.equal(await router.exited, 0);
  for (const { pid } of workers) t.notOk(isRunning(pid));
  t.same(router.logged('did not end by itself'), []);
});

t.test('a second SIGTERM ends at once', async (t) => {
  const router = await start(t);
  const busy = await router.connectToEach();
  const workers = await router.workers(busy[0]!);
  for (const client of busy) await client.run('BEGIN', 'SELECT 1');
  router.signal('SIGTERM');
  await sleep(500);
  t.ok(
    workers.every(({ pid }) => isRunning(pid)),
    'the transactions are waited for',
  );
  router.signal('SIGTERM');
  for (const client of busy) t.equal(await lastWord(t, client), '57P01');
  t.equal(await router.exited, 1);
  for (const { pid } of workers) t.notOk(isRunning(pid));
});

t.test(
  'SIGHUP reaches every worker; a certificate that is not usable changes nothing',
  { skip: noOpenssl },
  async (t) => {
    const place = await workerConfig(t, {
      servers: [server],
      workers: 2,
      more: `[tls]\ncert_file = "cert.pem"\nkey_file = "key.pem"\n${POOL}`,
    });
    const authority = makeAuthority(place.folder, 'authority');
    const use = (name: string) => {
      const { certFile, keyFile } = makeCertificate(place.folder, name, authority, 'IP:127.0.0.1');
      copyFileSync(certFile, join(place.folder, 'cert.pem'));
      copyFileSync(keyFile, join(place.folder, 'key.pem'));
    };
    use('first');
    const router = await startWorkerRouter(t, { program, servers: [server], workers: 2 }, place);
    const shown = async () => {
      const names = new Set<string>();
      for (let n = 0; n < 4; n++) {
        const socket = await encryptedSocket(router);
        names.add(String(socket.getPeerCertificate().subject.CN));
        socket.destroy();
      }
      return [...names];
    };
    t.same(await shown(), ['first']);
    use('second');
    t.same(await shown(), ['first'], 'until it is told');
    router.signal('SIGHUP');
    await eventually(t, 'logged', () => router.logged('reloaded').length === 1);
    await sleep(100);
    t.same(await shown(), ['second']);

    writeFileSync(join(place.folder, 'cert.pem'), 'nonsense');
    router.signal('SIGHUP');
    const refused = 'reload failed, what was in force stays in force';
    await eventually(t, 'refused', () => router.logged(refused).length === 1);
    t.same(await shown(), ['second']);
    const [client] = await router.connectToEach();
    const [one, two] = await router.workers(client!);
    process.kill(two!.pid, 'SIGKILL');
    await untilWorkers(
      t,
      router,
      client!,
      'replaced',
      (all) => all.length === 2 && all[1]!.pid !== two!.pid && all[1]!.serving,
    );
    t.ok(isRunning(one!.pid));
    t.same(await shown(), ['second'], 'also by a worker that began later');
  },
);

t.test('a worker that is killed takes its own sessions along, and is replaced', async (t) => {
  const router = await start(t);
  const [a, b] = await router.connectToEach();
  let watcher = await router.connect();
  while (workerWith(watcher) !== 1) watcher = await router.connect();
  await a!.run('BEGIN', 'SELECT 1');
  for (let n = 0; n < 20; n++) await b!.value('SELECT 1');
  const before = await untilWorkers(t, router, watcher, 'reported', (all) => all[1]!.statements >= 20);
  const counted = await router.metrics();
  process.kill(before[1]!.pid, 'SIGKILL');
  t.equal((await b!.wire.wait('closed', 5_000)).outcome, 'reached');
  t.equal(await a!.value('SELECT 7'), '7', 'the other transaction goes on');
  t.same(await a!.run('COMMIT'), ['COMMIT']);
  const isReplaced = (pid: number) => async () => {
    const [, two] = await router.workers(watcher);
    return two?.serving === true && two.pid !== pid;
  };
  await eventually(t, 'replaced', isReplaced(before[1]!.pid), 8_000);
  const told = 'a worker has ended, its sessions with it; it is replaced';
  t.match(router.logged(told), [
    { level: 'error', worker: 2, workerPid: before[1]!.pid, exit: 'SIGKILL', delayMs: 100 },
  ]);
  const [, next] = await router.connectToEach();
  t.equal(await next!.value('SELECT 1'), '1');
  const later = await router.metrics();
  for (const name of ['pgkv_statements_total', 'pgkv_logins_succeeded_total', 'pgkv_client_bytes_in_total']) {
    t.ok(later.get(name)! >= counted.get(name)!, `${name} does not go down`);
  }
  t.equal(later.get('pgkv_worker_clients_connected{worker="2"}'), 1, 'its clients are not counted any more');
  t.equal(later.get('pgkv_worker_restarts_total'), 1);

  const [, again] = await router.workers(watcher);
  process.kill(again!.pid, 'SIGKILL');
  await eventually(t, 'replaced again', isReplaced(again!.pid), 8_000);
  t.equal(router.logged(told).at(-1)?.['delayMs'], 200, 'a little later each time');
});

t.test('the back-off grows to a bound', async (t) => {
  t.same([1, 2, 3, 4].map(restartDelayMs), [100, 200, 400, 800]);
  t.equal(restartDelayMs(40), 30_000);
});

t.test('while no worker is left the control process waits for the next ones', async (t) => {
  const router = await start(t);
  const [client] = await router.connectToEach();
  for (const { pid } of await router.workers(client!)) process.kill(pid, 'SIGKILL');
  t.equal((await client!.wire.wait('closed', 5_000)).outcome, 'reached');
  // Those who come now wait; only who was on the way to a worker that died is cut.
  const later = await Promise.allSettled(Array.from({ length: 20 }, () => router.connect({ timeoutMs: 20_000 })));
  const served = later.flatMap((attempt) => (attempt.status === 'fulfilled' ? [attempt.value] : []));
  t.ok(served.length >= 18, `${served.length} of 20 are served`);
  for (const each of served) t.equal(await each.value('SELECT 1'), '1');
  for (const attempt of later) if (attempt.status === 'rejected') t.match(attempt.reason.message, /: closed$/);
});

t.test('a worker that does not answer keeps few clients waiting, and loses none', async (t) => {
  const router = await start(t);
  const [client] = await router.connectToEach();
  const [, stalled] = await router.workers(client!);
  process.kill(stalled!.pid, 'SIGSTOP');
  t.teardown(() => isRunning(stalled!.pid) && process.kill(stalled!.pid, 'SIGCONT'));
  const early: SqlClient[] = [];
  const attempts = Array.from({ length: 8 }, async () => early.push(await router.connect({ timeoutMs: 20_000 })));
  await eventually(t, 'all but the one on its way are served by the other', () => early.length === 7, 8_000);
  t.ok(early.every((each) => workerWith(each) === 1));
  for (let n = 0; n < 4; n++) t.equal(workerWith(await router.connect()), 1, 'who comes now does not wait');
  t.equal(router.logged('a worker does not answer; new clients go to others').length, 1);
  process.kill(stalled!.pid, 'SIGCONT');
  await Promise.all(attempts);
  t.equal(workerWith(early[7]!), 2);
  await eventually(t, 'it takes clients again', async () => workerWith(await router.connect()) === 2);
});

t.test('without their control process the workers end', async (t) => {
  const router = await start(t);
  const clients = await router.connectToEach();
  const workers = await router.workers(clients[0]!);
  router.signal('SIGKILL');
  for (const client of clients) t.equal(await lastWord(t, client), '57P01', 'clients are told');
  await eventually(t, 'all are gone', () => workers.every(({ pid }) => !isRunning(pid)));
  t.equal(router.logged('the control process is gone: ending').length, 2);
});

t.test('connections that do not fit into a server are refused, and what would fit is said', async (t) => {
  const small = await startPostgres({ version: 'embedded', parameters: { max_connections: '30' } });
  t.teardown(() => small.stop());
  const configure = (servers: PostgresServer[], size: number) =>
    workerConfig(t, { servers, workers: 3, more: `[pool]\nsize_max = ${size}\n` });
  const started = async (servers: PostgresServer[], size: number) => {
    const place = await configure(servers, size);
    return startWorkerRouter(t, { program, servers, workers: 3 }, place);
  };
  // Of 30, 3 are reserved.
  await t.rejects(
    started([server, small], 8),
    /shard s2: the connections of pgkv do not fit: \(pool\.size_max 8 \+ 4\) x workers 3 \+ reserved 3 = 39, max_connections = 30\s+Lower workers/,
  );
  const fitting = await started([server, small], 5);
  t.equal(await (await fitting.connect()).value('SELECT 1'), '1');

  const port = await freePort();
  const late = await started([server, { ...server, port }], 8);
  t.equal(await (await late.connect()).value('SELECT 1'), '1', 'a server that is down keeps nobody from starting');
  const tooSmall = await startPostgres({
    version: 'embedded',
    parameters: { max_connections: '30', port: String(port) },
  });
  t.teardown(() => tooSmall.stop());
  await eventually(
    t,
    'told when it comes up',
    () => /s2: the connections of pgkv do not fit/.test(late.output()),
    8_000,
  );
});

t.test('a port that is taken is named', async (t) => {
  const holder = createServer().listen(0, '127.0.0.1');
  t.teardown(() => holder.close());
  await new Promise((resolve) => holder.once('listening', resolve));
  const { port } = holder.address() as { port: number };
  const options = { program, servers: [server], workers: 2, more: `[listen]\nport = ${port}\n${POOL}` };
  await t.rejects(
    workerRouter(t, options),
    new RegExp(`port ${port} on 127\\.0\\.0\\.1 is in use.*choose another \\(port in \\[listen\\]\\)`),
  );
});

t.test('SIGHUP takes over what can change, names the rest, and refuses a broken file by name and line', async (t) => {
  const place = await workerConfig(t, { servers: [server], workers: 2, more: POOL });
  const router = await startWorkerRouter(t, { program, servers: [server], workers: 2 }, place);
  const [client] = await router.connectToEach();
  t.match(await client!.value('SHOW pgkv.status'), /"epoch"/);
  const before = readFileSync(place.configFile, 'utf8');
  const change = async (text: string, message: string): Promise<Record<string, unknown>> => {
    const count = router.logged(message).length;
    writeFileSync(place.configFile, text);
    router.signal('SIGHUP');
    await eventually(t, message, () => router.logged(message).length > count);
    return router.logged(message).at(-1)!;
  };
  const changed = before
    .replace(/\[admin\]\nroles = .*/, '[admin]\nroles = ["nobody"]')
    .replace('workers = 2', 'workers = 3');
  t.match(await change(changed, 'reloaded'), { changed: ['admin.roles'] });
  t.match(router.logged('changed in the file, in force at the next start').at(-1), { settings: ['workers'] });
  const all = await router.connectToEach();
  for (const each of all) {
    await eventually(t, 'in force', async () => (await each.fails('SHOW pgkv.status').catch(() => '')) === '42501');
  }
  const refused = 'reload failed, what was in force stays in force';
  const broken = await change(`${changed}\n[pool]\nsize_max = "many"\n`, refused);
  t.match(broken['reason'], /pgkv.toml:\d+: /);
  t.equal(await client!.fails('SHOW pgkv.status'), '42501', 'what was in force stays');
});

t.test(
  'a certificate that was replaced under its old name is named by SIGHUP, and one that does not fit refused',
  {
    skip: noOpenssl,
  },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'pgkv-renewed-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const [one, other] = [makeAuthority(folder, 'one'), makeAuthority(folder, 'other')];
    const current = { certFile: join(folder, 'current.crt'), keyFile: join(folder, 'current.key') };
    const install = (certFile: string, keyFile: string) => {
      copyFileSync(certFile, current.certFile);
      copyFileSync(keyFile, current.keyFile);
    };
    install(one.certFile, one.keyFile);
    const tls = `[tls]\ncert_file = "${current.certFile}"\nkey_file = "${current.keyFile}"\n`;
    for (const workers of [1, 2]) {
      install(one.certFile, one.keyFile);
      const router = await workerRouter(t, { program, servers: [server], workers, more: `${POOL}${tls}` });
      const after = async (message: string): Promise<Record<string, unknown>> => {
        const count = router.logged(message).length;
        router.signal('SIGHUP');
        await eventually(t, message, () => router.logged(message).length > count);
        return router.logged(message).at(-1)!;
      };
      t.strictSame((await after('reloaded'))['changed'], []);
      install(other.certFile, other.keyFile);
      t.strictSame((await after('reloaded'))['changed'], ['the certificate']);
      install(one.certFile, other.keyFile);
      const refused = await after('reload failed, what was in force stays in force');
      t.match(refused['reason'], /pgkv\.toml:\d+: tls\.key_file: the key in .* does not belong to the certificate in /);
    }
  },
);
