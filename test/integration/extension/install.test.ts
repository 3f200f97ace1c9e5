// The three ways to install pgkv: found by extension_control_path (18), copied among the server's own extensions, run as
// plain SQL; and what lives on through pg_dump.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { ROUTINES_SQL } from '../../../src/backend/pool/routines-sql.js';
import {
  connectTo,
  EXTENSION_FOLDER,
  EXTENSION_SQL,
  EXTENSION_VERSION,
  errorOf,
  onEveryPostgres,
  rowsOf,
  valueFrom,
} from '../../support/kv-extension.js';
import { findPostgres, serverAccount } from '../../support/postgres-binaries.js';
import { startPostgres } from '../../support/postgres-server.js';

const EXTENSION_FILES = readdirSync(EXTENSION_FOLDER).filter((name) => /\.(control|sql)$/.test(name));

/** A folder that the servers' account can read, gone with the test. */
function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'pgkv-install-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  chmodSync(path, 0o755);
  return path;
}

t.test('the control file and the script name one version', async (t) => {
  const control = readFileSync(join(EXTENSION_FOLDER, 'pgkv.control'), 'utf8');
  t.match(control, `default_version = '${EXTENSION_VERSION}'`);
  t.match(EXTENSION_SQL, `RETURN '${EXTENSION_VERSION}';`);
  t.notMatch(EXTENSION_SQL, /^\s*\\/m, 'no psql commands');
  t.notMatch(EXTENSION_SQL, /@extschema|MODULE_PATHNAME/);
});

const embedded = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
t.test('Postgres 18 finds it by extension_control_path, for an ordinary role', embedded, async (t) => {
  const path = folder(t);
  cpSync(EXTENSION_FOLDER, join(path, 'extension'), { recursive: true });
  const server = await startPostgres({
    version: 'embedded',
    parameters: { extension_control_path: `${path}:$system` },
  });
  t.teardown(() => server.stop());
  const admin = await connectTo(t, server);
  await admin.query('CREATE ROLE app LOGIN');
  const app = await connectTo(t, server, { user: 'app' });
  t.equal((await errorOf(app, 'CREATE EXTENSION pgkv')).code, '42501', 'without CREATE on the database: no');
  await admin.query('GRANT CREATE ON DATABASE postgres TO app; CREATE SCHEMA mine AUTHORIZATION app');
  await app.query('CREATE EXTENSION pgkv');
  await app.query(`SELECT pgkv.create_table('mine.kv')`);
  t.equal(await valueFrom(app, `SELECT mine.kv_incr('t', 'k')`), '1');
  t.strictSame(
    await rowsOf(
      app,
      `SELECT extversion, pgkv.version(), extnamespace::regnamespace::text, extconfig::regclass[]::text FROM pg_extension WHERE extname = 'pgkv'`,
    ),
    [[EXTENSION_VERSION, EXTENSION_VERSION, 'pgkv', '{pgkv.shard_state,pgkv.version_mark,pgkv.version_offset}']],
    'the state of the shard and of versions is dumped',
  );
  t.equal(
    await valueFrom(
      app,
      `SELECT count(*)::int FROM pg_proc WHERE proowner <> 'app'::regrole AND pronamespace = 'pgkv'::regnamespace`,
    ),
    0,
    'nothing belongs to a superuser',
  );
  const again = await errorOf(app, EXTENSION_SQL);
  t.match([again.code, again.message], ['55000', 'installed as an extension']);
  t.equal((await errorOf(app, 'DROP EXTENSION pgkv')).code, '2BP01', 'tables hold it');
  await app.query(`SELECT pgkv.drop_table('mine.kv')`);
  await app.query('DROP EXTENSION pgkv');
});

onEveryPostgres(async (t, kv) => {
  const admin = await kv.connect(t);
  const freshDatabase = async (t: Test, name: string) => {
    await admin.query(`CREATE DATABASE ${name}`);
    return kv.connect(t, { database: name });
  };

  t.test('copied among the server’s extensions it is one of them', async (t) => {
    const config = Object.fromEntries(await rowsOf(admin, 'SELECT name, setting FROM pg_config')) as Record<
      string,
      string
    >;
    const answer = runWithCopiedFiles(t, config, [
      `CREATE EXTENSION pgkv VERSION '0.1.0'`,
      `SELECT pgkv.create_table('kv')`,
      'ALTER EXTENSION pgkv UPDATE',
      'SELECT pgkv.refresh_table(relation) FROM pgkv.tables',
      `SELECT kv_incr('t', 'k', 41), kv_incr('t', 'k') AS counted`,
      `SELECT extversion FROM pg_extension WHERE extname = 'pgkv'`,
    ]);
    t.match(answer, /counted = "42"/);
    t.match(answer, `extversion = "${EXTENSION_VERSION}"`);
    t.notMatch(answer, /ERROR|WARNING/);
  });

  t.test('as plain SQL it is one simple query, any number of times, for an ordinary role', async (t) => {
    await admin.query('CREATE ROLE app LOGIN');
    await admin.query('CREATE DATABASE plain OWNER app');
    const app = await kv.connect(t, { user: 'app', database: 'plain' });
    for (let time = 0; time < 3; time++) await app.query(EXTENSION_SQL);
    await app.query(
      `CREATE SCHEMA mine; SET search_path = mine; SELECT pgkv.create_table('kv'); SELECT kv_put('t', 'k', '1')`,
    );
    await app.query(`SELECT pgkv.set_shard_state('s', 5, '{[0,5]}')`);
    await app.query(EXTENSION_SQL);
    await app.query(`SELECT pgkv.refresh_table(relation) FROM pgkv.tables`);
    t.equal(await valueFrom(app, `SELECT kv_incr('t', 'k')`), '2', 'tables stay as they are');
    t.equal(await valueFrom(app, 'SELECT epoch FROM pgkv.shard_state'), '5');
    t.equal(await valueFrom(app, 'SELECT pgkv.version()'), EXTENSION_VERSION);
    await app.query('BEGIN');
    await app.query(EXTENSION_SQL);
    await app.query('ROLLBACK');
  });

  t.test('it does not move into a schema that another role owns', async (t) => {
    const db = await freshDatabase(t, 'squatted');
    await db.query('CREATE ROLE squatter; CREATE SCHEMA pgkv AUTHORIZATION squatter');
    t.match(await errorOf(db, EXTENSION_SQL), { code: '42501', message: /belongs to another role/ });
  });

  const psql = kv.server.psql === undefined ? { skip: 'no psql here' } : {};
  t.test('psql runs it as a file', psql, async (t) => {
    await freshDatabase(t, 'by_psql');
    const file = join(EXTENSION_FOLDER, `pgkv--${EXTENSION_VERSION}.sql`);
    for (const flags of [['-1'], []]) {
      const { host, port, superuser } = kv.server;
      const args = [
        '-X',
        '-q',
        '-v',
        'ON_ERROR_STOP=1',
        ...flags,
        '-h',
        host,
        '-p',
        String(port),
        '-U',
        superuser,
        '-d',
        'by_psql',
        '-f',
        file,
      ];
      const run = spawnSync(kv.server.psql!, args, {
        encoding: 'utf8',
        env: { ...process.env, PGOPTIONS: '-c client_min_messages=warning' },
      });
      t.strictSame([run.status, run.stderr], [0, '']);
    }
  });

  t.test(
    'a dump restores tables, functions, triggers and rows',
    { ...psql, ...needsDump(kv.server.psql) },
    async (t) => {
      const source = await freshDatabase(t, 'dumped');
      await source.query(EXTENSION_SQL);
      await source.query(`SELECT pgkv.create_table('kv'), pgkv.create_table('"B t"', 'bytea')`);
      await source.query(
        `SELECT kv_put('t', 'k{1}', '{"a": 1}', '1 h'), kv_put('t', 'é', NULL), "B t_put"('', '', '\\x00ff')`,
      );
      await source.query(`INSERT INTO kv (tenant_id, key, ttl) VALUES ('t', 'gone', '2020-01-01Z')`);
      const owned = await valueFrom(source, `SELECT pgkv.slot('t', 'é')`);
      await source.query(`SELECT pgkv.set_shard_state('s', 9, '{[1,2],[${owned},${owned}]}', 'c1')`);
      // As if the clock had been an hour ahead once: what the dump is restored to knows it.
      await source.query(`SELECT pgkv.keep_versions_above(pgkv.first_version() + 3600::bigint * 1024000)`);
      const lastVersion = BigInt((await valueFrom(source, `SELECT pgkv.first_version()`)) as string);
      const target = await freshDatabase(t, 'restored');
      const address = ['-h', kv.server.host, '-p', String(kv.server.port), '-U', kv.server.superuser];
      const dump = spawnSync(join(dirname(kv.server.psql!), 'pg_dump'), [...address, 'dumped'], { encoding: 'utf8' });
      t.equal(dump.status, 0, dump.stderr);
      const restore = spawnSync(kv.server.psql!, ['-X', '-q', '-v', 'ON_ERROR_STOP=1', ...address, 'restored'], {
        input: dump.stdout,
        encoding: 'utf8',
      });
      t.strictSame([restore.status, restore.stderr], [0, '']);
      for (const table of ['kv', '"B t"', 'pgkv.shard_state', 'pgkv.tables']) {
        const all = `SELECT r::text FROM ${table} r ORDER BY 1`;
        t.strictSame(await rowsOf(target, all), await rowsOf(source, all), table);
      }
      t.ok(BigInt((await valueFrom(target, `SELECT pgkv.first_version()`)) as string) > lastVersion);
      t.match(await errorOf(target, `INSERT INTO kv (tenant_id, key) VALUES ('t', 'k{1}')`), {
        code: '23514',
        message: /another shard/,
      });
      const before = await valueFrom(target, `SELECT version FROM kv WHERE key = 'é'`);
      t.equal(await valueFrom(target, `SELECT kv_put('t', 'é', '1') - $1`, [before]), '1');
      t.equal((await errorOf(target, `INSERT INTO kv (tenant_id, key, slot) VALUES ('t', 'x', 0)`)).code, '23514');
      await target.query(EXTENSION_SQL);
      await target.query(`SELECT pgkv.refresh_table('kv'), pgkv.drop_table('"B t"')`);
    },
  );

  t.test('no routine can leave anything in a session, as far as pgkv can see', async (t) => {
    const db = await freshDatabase(t, 'read_by_router');
    await db.query(EXTENSION_SQL);
    await db.query(`SELECT pgkv.create_table('kv'), pgkv.create_table('blobs', 'bytea')`);
    const words = String.raw`\m(set_config|advisory\w*|pg_\w*advisory\w*|listen|notify|temp|temporary|prepare|load|setseed)\M`;
    t.strictSame(
      await rowsOf(
        db,
        `SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace IN ('pgkv'::regnamespace, 'public'::regnamespace)
          AND lower(coalesce(pg_get_function_sqlbody(oid), prosrc)) ~ $1`,
        [words],
      ),
      [],
    );
    // EXECUTE is what making and dropping tables takes; nothing that a statement calls unseen does it.
    t.strictSame(
      await rowsOf(db, `SELECT proname FROM pg_proc WHERE oid >= 16384 AND prosrc ~* '\\mexecute\\M' ORDER BY 1`),
      [['drop_table'], ['install_functions'], ['install_triggers'], ['keep_owned_slots'], ['make_table']],
    );
    const kinds = (await rowsOf(db, ROUTINES_SQL)).map(([kind]) => kind as string);
    t.notOk(
      kinds.some((kind) => ['t', 'r', 'n', 's'].includes(kind)),
      'neither writes nor reads leave state unseen',
    );
  });
});

function needsDump(psql: string | undefined): { skip?: string } {
  return psql !== undefined && existsSync(join(dirname(psql), 'pg_dump')) ? {} : { skip: 'no pg_dump here' };
}

/**
 * Runs statements in a server whose share folder has our files among its extensions. The server's own folders must not be
 * written to: this one has its binaries copied, and finds the rest by the place of its binary, as links in the same shape.
 */
function runWithCopiedFiles(t: Test, config: Readonly<Record<string, string>>, statements: readonly string[]): string {
  const root = folder(t);
  const within = (path: string) => join(root, path);
  const [binaries, shared] = [config['BINDIR']!, config['SHAREDIR']!];
  mkdirSync(within(binaries), { recursive: true });
  for (const program of ['postgres', 'initdb']) cpSync(join(binaries, program), within(join(binaries, program)));
  mkdirSync(within(join(shared, 'extension')), { recursive: true });
  const link = (path: string) => {
    mkdirSync(dirname(within(path)), { recursive: true });
    if (!existsSync(within(path))) symlinkSync(path, within(path));
  };
  for (const path of [config['LIBDIR']!, config['PKGLIBDIR']!]) link(path);
  for (const name of readdirSync(shared)) if (name !== 'extension') link(join(shared, name));
  for (const name of readdirSync(join(shared, 'extension'))) link(join(shared, 'extension', name));
  for (const name of EXTENSION_FILES) cpSync(join(EXTENSION_FOLDER, name), within(join(shared, 'extension', name)));

  const account = serverAccount();
  const data = join(root, 'data');
  mkdirSync(data);
  if (account) chownSync(data, account.uid, account.gid);
  const run = (program: string, args: readonly string[], input = '') => {
    const done = spawnSync(within(join(binaries, program)), args, {
      ...account,
      cwd: data,
      input,
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
    });
    if (done.status !== 0) throw new Error(`${program} failed: ${done.error?.message ?? ''}${done.stderr}`);
    return done.stdout + done.stderr;
  };
  run('initdb', ['-D', data, '--encoding=UTF8', '--locale=C', '--no-sync', '--auth=trust']);
  return run('postgres', ['--single', '-F', '-D', data, 'postgres'], statements.map((sql) => `${sql}\n`).join(''));
}
