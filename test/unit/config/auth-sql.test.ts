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

  const psqlIn = async (database: string, role: string, ...more: string[]) => {
    const base = ['-X', '-At', '-v', 'ON_ERROR_STOP=1', '-h', folder, '-U', role, '-d', database];
    const { stdout } = await run(`${BINARIES}/psql`, [...base, ...more]);
    return stdout.trim();
  };
  const psql = (role: string, ...more: string[]) => psqlIn('postgres', role, ...more);
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
    t.match(await lookup('pgkv_service', "Bob''s"), /^Bob's\|\|\|/, 'roles without login or password too');
    t.match(
      await lookup('pgkv_service', `${long}tail`),
      new RegExp(`^${long}\\|SCRAM`),
      'long names are cut as by Postgres',
    );
    t.equal(await lookup('pgkv_service', 'nobody'), '');
  });

  t.test('and all else that decides whether it may log in', async (t) => {
    for (const sql of [
      'CREATE DATABASE closed',
      'REVOKE CONNECT ON DATABASE closed FROM PUBLIC',
      'CREATE DATABASE alices OWNER alice',
      'REVOKE CONNECT ON DATABASE alices FROM PUBLIC',
      'ALTER ROLE alice CONNECTION LIMIT 3',
    ]) {
      await psql('boss', '-c', sql);
    }
    const login = (name: string) =>
      psql(
        'pgkv_service',
        '-c',
        `SELECT rolname, left(rolpassword, 13), extract(year FROM rolvaliduntil AT TIME ZONE 'UTC'), rolcanlogin,
           rolsuper, rolconnlimit, databases, role_oid = '"${name}"'::regrole FROM pgkv.role_login('${name}')`,
      );
    t.equal(await login('alice'), 'alice|SCRAM-SHA-256|2099|t|f|3|{alices,postgres,template1}|t');
    t.equal(await login('boss'), 'boss|||t|t|-1|{alices,closed,postgres,template1}|t');
    await psql('boss', '-c', 'CREATE ROLE shut NOLOGIN');
    t.equal(await login('shut'), 'shut|||f|f|-1|{postgres,template1}|t');
    await psql('boss', '-c', 'DROP DATABASE closed', '-c', 'DROP DATABASE alices');
    const three = `SELECT count(*) FROM pgkv.role_verifier('alice') v JOIN pgkv.role_login('alice') l
      USING (rolname, rolpassword, rolvaliduntil)`;
    t.equal(await psql('pgkv_service', '-c', three), '1', 'the older function says the same, in part');
  });

  t.test('what was there before is not trusted', async (t) => {
    const FORGED = `(text) RETURNS TABLE (rolname name, rolpassword text, rolvaliduntil timestamptz) LANGUAGE sql AS
      $$ SELECT 'alice'::name, 'forged', NULL::timestamptz $$`;
    const prepared = async (database: string, ...statements: string[]) => {
      await psql('boss', '-c', `CREATE DATABASE ${database}`);
      for (const sql of statements) await psqlIn(database, 'boss', '-c', sql);
      return (role = 'boss') => psqlIn(database, role, '-f', authSql);
    };
    const answer = (database: string) =>
      psqlIn(database, 'pgkv_service', '-c', `SELECT left(rolpassword, 13) FROM pgkv.role_verifier('alice')`);

    const owned = await prepared('owned', 'CREATE SCHEMA pgkv AUTHORIZATION mallory');
    await t.rejects(owned(), /schema pgkv belongs to the role mallory/);
    await t.rejects(owned('mallory'), /has to be run as a superuser/);

    const open = await prepared('open', 'CREATE SCHEMA pgkv', 'GRANT CREATE, USAGE ON SCHEMA pgkv TO mallory');
    await psqlIn('open', 'mallory', '-c', `CREATE FUNCTION pgkv.role_verifier${FORGED}`);
    await t.rejects(open(), /mallory may create functions in schema pgkv/);
    await psqlIn('open', 'boss', '-c', 'REVOKE CREATE ON SCHEMA pgkv FROM mallory');
    await open();
    t.equal(await answer('open'), 'SCRAM-SHA-256');
    t.equal(
      await psqlIn('open', 'boss', '-c', `SELECT DISTINCT proowner::regrole FROM pg_proc WHERE proname ~ '^role_'`),
      'boss',
      'a function that is replaced would keep its owner',
    );
    await t.rejects(
      psqlIn('open', 'mallory', '-c', `SELECT * FROM pgkv.role_verifier('alice')`),
      /permission denied for function/,
      'and its grants',
    );
    await t.rejects(
      psqlIn('open', 'mallory', '-c', `CREATE OR REPLACE FUNCTION pgkv.role_verifier${FORGED}`),
      /permission denied|must be owner/,
    );

    const overloaded = await prepared(
      'overloaded',
      'CREATE SCHEMA pgkv',
      `CREATE FUNCTION pgkv.role_login${FORGED.replace('(text)', '(name)')}`,
    );
    await t.rejects(overloaded(), /there is another function of this name: pgkv\.role_login\(name\)/);

    // Operators and functions of the names that the script uses, in front of the search_path of whoever runs it.
    const lured = await prepared(
      'lured',
      'CREATE SCHEMA lure',
      `CREATE FUNCTION lure.same(name, name) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN CREATE ROLE lured SUPERUSER; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $$`,
      'CREATE OPERATOR lure.= (LEFTARG = name, RIGHTARG = name, FUNCTION = lure.same)',
      `CREATE FUNCTION lure.format(text, name) RETURNS text LANGUAGE sql AS $$ SELECT 'lured' $$`,
      'ALTER DATABASE lured SET search_path = lure, pg_catalog',
    );
    await lured();
    t.equal(await answer('lured'), 'SCRAM-SHA-256');
    t.equal(await psql('boss', '-c', `SELECT count(*) FROM pg_roles WHERE rolname = 'lured'`), '0');
  });

  t.test('pgkv_recover can act for every role that may log in, but for those that are not its business', async (t) => {
    const granted = () =>
      psql(
        'boss',
        '-c',
        `SELECT string_agg(roleid::regrole::text, ',' ORDER BY roleid::regrole::text) FROM pg_auth_members
          WHERE member = 'pgkv_recover'::regrole AND NOT admin_option`,
      );
    await psql('boss', '-c', 'CREATE ROLE "Later: on" LOGIN', '-c', 'CREATE ROLE snoop LOGIN IN ROLE pgkv_recover');
    t.notMatch(await granted(), 'Later');
    await psql('boss', '-f', authSql);
    t.equal(
      await granted(),
      `"Later: on",alice,${long},mallory`,
      'no superuser, no service, no NOLOGIN, no member of it',
    );
    const role = `SELECT rolcanlogin, rolinherit, rolsuper, rolpassword IS NULL FROM pg_authid WHERE rolname = 'pgkv_recover'`;
    t.equal(await psql('boss', '-c', role), 't|f|f|t');
    await psql('boss', '-c', 'CREATE TABLE hers (i int)', '-c', 'ALTER TABLE hers OWNER TO alice');
    await t.rejects(psql('pgkv_recover', '-c', 'SELECT * FROM hers'), /permission denied/, 'it inherits nothing');
    t.equal(await psql('pgkv_recover', '-q', '-c', 'SET ROLE alice', '-c', 'SELECT count(*) FROM hers'), '0');
    await psql('boss', '-c', 'DROP TABLE hers', '-c', 'DROP ROLE snoop', '-c', 'DROP ROLE "Later: on"');
  });

  t.test('nobody else does', async (t) => {
    await t.rejects(lookup('mallory', 'alice'), /permission denied for schema pgkv/);
    await psql('boss', '-c', 'GRANT USAGE ON SCHEMA pgkv TO mallory');
    await t.rejects(lookup('mallory', 'alice'), /permission denied for function role_(login|verifier)/);
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
