// config/auth.sql on a real server: what the function gives, to whom, and that running the file twice is safe.
import { execFile, execFileSync, spawn } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { defaultSettings } from '../../../src/config/load.js';

const BINARIES = '/usr/lib/postgresql/15/bin';
const run = promisify(execFile);
const authSql = fileURLToPath(new URL('../../../config/auth.sql', import.meta.url));
const serviceQuery = defaultSettings().auth.service.query;

/** Postgres refuses root. */
function serverUser(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

t.test('auth.sql', { skip: existsSync(`${BINARIES}/postgres`) ? false : 'needs Debian PostgreSQL 15' }, async (t) => {
  const user = serverUser();
  const folder = mkdtempSync(path.join(tmpdir(), 'pgkv-auth-sql-'));
  if (user.uid !== undefined && user.gid !== undefined) chownSync(folder, user.uid, user.gid);
  const data = `${folder}/data`;
  await run(
    `${BINARIES}/initdb`,
    ['-D', data, '-U', 'boss', '--auth=trust', '--no-sync', '--locale=C', '--encoding=UTF8'],
    user,
  );
  // Only a Unix socket in a folder of its own: no port can be busy.
  const server = spawn(
    `${BINARIES}/postgres`,
    ['-D', data, '-k', folder, '-c', 'listen_addresses=', '-c', 'fsync=off', '-c', 'shared_buffers=8MB'],
    { ...user, stdio: 'ignore' },
  );
  const ended = new Promise((resolve) => server.once('exit', resolve));
  t.teardown(async () => {
    server.kill('SIGINT');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  });

  const psql = async (role: string, ...more: string[]) => {
    const base = ['-X', '-At', '-v', 'ON_ERROR_STOP=1', '-h', folder, '-U', role, '-d', 'postgres'];
    const { stdout } = await run(`${BINARIES}/psql`, [...base, ...more]);
    return stdout.trim();
  };
  const lookup = (role: string, name: string) => {
    const prepared = `PREPARE q(text) AS ${serviceQuery}; EXECUTE q('${name}')`;
    return psql(role, '-q', '-c', prepared);
  };
  for (let attempt = 0; ; attempt++) {
    try {
      await psql('boss', '-c', 'SELECT 1');
      break;
    } catch (error) {
      if (attempt === 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  await psql('boss', '-f', authSql);
  await psql('boss', '-f', authSql);
  const long = 'l'.repeat(63);
  await psql(
    'boss',
    '-c',
    `CREATE ROLE alice LOGIN PASSWORD 'secret' VALID UNTIL '2099-01-01 00:00+00'; CREATE ROLE "Bob's" NOLOGIN;
     CREATE ROLE ${long} LOGIN PASSWORD 'x'; CREATE ROLE mallory LOGIN`,
  );

  t.test('the service role reads verifier and expiry of a role', async (t) => {
    t.match(await lookup('pgkv_service', 'alice'), /^alice\|SCRAM-SHA-256\$4096:\S+\|2099-01-01 /);
    t.equal(await lookup('pgkv_service', "Bob''s"), "Bob's||", 'roles without login or password too');
    t.match(
      await lookup('pgkv_service', `${long}tail`),
      new RegExp(`^${long}\\|SCRAM`),
      'long names are cut as by Postgres',
    );
    t.equal(await lookup('pgkv_service', 'nobody'), '');
  });

  t.test('nobody else does', async (t) => {
    await t.rejects(lookup('mallory', 'alice'), /permission denied for schema pgkv/);
    await psql('boss', '-c', 'GRANT USAGE ON SCHEMA pgkv TO mallory');
    await t.rejects(lookup('mallory', 'alice'), /permission denied for function role_verifier/);
    await t.rejects(psql('pgkv_service', '-c', 'SELECT * FROM pg_authid'), /permission denied/);
  });

  t.test('a caller cannot put its own objects in the place of a catalogue', async (t) => {
    const script = `CREATE TEMP TABLE pg_authid (rolname name, rolpassword text, rolvaliduntil timestamptz);
      GRANT ALL ON pg_authid TO PUBLIC;
      INSERT INTO pg_authid VALUES ('alice', 'forged', NULL); SET search_path = pg_temp, pg_catalog;
      SELECT rolpassword FROM pgkv.role_verifier('alice')`;
    t.match(await psql('pgkv_service', '-q', '-c', script), /^SCRAM-SHA-256/);
    const settings = "SELECT prosecdef, proconfig FROM pg_proc WHERE oid = 'pgkv.role_verifier(text)'::regprocedure";
    t.equal(await psql('boss', '-c', settings), 't|{"search_path=pg_catalog, pg_temp"}');
  });
});
