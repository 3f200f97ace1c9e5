// Rights at log-in while connections of the role are open: whatever became of a role on the servers, whoever logs in
// through pgkv is let in, refused, and allowed as plain Postgres would have it. And with shards that are down, or that do not
// agree on a role.
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { evenSpread, fixedCatalog, KV, prepareShard } from '../support/kv-cluster.js';
import { liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';
import { type WireAddress, WireClient } from '../support/wire-client.js';

const SERVICE_PASSWORD = 'of the service role';
const AUTH_SQL = readFileSync(new URL('../../config/auth.sql', import.meta.url), 'utf8');
const servers = await Promise.all([1, 2].map(() => startPostgres({ version: '15', hba: 'scram' })));
t.teardown(() => Promise.all(servers.map((server) => server.stop())));
const [home] = servers as [(typeof servers)[0], ...typeof servers];
const admins = await Promise.all(
  servers.map(({ socketDir, port, superuser }) =>
    SqlClient.connect({ host: socketDir, port }, { user: superuser, database: 'postgres' }),
  ),
);
t.teardown(() => admins.map((admin) => admin.wire.destroy()));
const everywhere = async (...statements: string[]) => {
  for (const admin of admins) await admin.run(...statements);
};
for (const server of servers) await prepareShard({ ...server, host: server.socketDir }, [KV]);
await everywhere(AUTH_SQL, `alter role pgkv_service password '${SERVICE_PASSWORD}'`, 'create table secret (a int)');
await everywhere('create database other', 'create role helper nologin');

/** Roles are the same on all shards when their verifiers are, salt and all. */
async function verifierOf(password: string): Promise<string> {
  await admins[0]!.run(`create role of_password password '${password}'`);
  const verifier = await admins[0]!.value(`select rolpassword from pg_authid where rolname = 'of_password'`);
  await admins[0]!.run('drop role of_password');
  return verifier!;
}
const OLD = await verifierOf('old');
const NEW = await verifierOf('new');

const scram = (overrides: object = {}) => ({
  auth: { method: 'scram-sha-256' as const, failureDelayMs: 0, cacheMs: 0, ...overrides },
  pool: { sizeMax: 6 },
});
const options = { servicePassword: SERVICE_PASSWORD, catalog: fixedCatalog(evenSpread(2, [KV])) };

/** How a log-in ends, and what the session may do: what must be as on the server. */
async function outcome(address: WireAddress, password: string, database = 'postgres'): Promise<unknown> {
  const wire = await WireClient.open(address);
  const { messages } = await wire.startUp({ user: 'app', password, database });
  const refusal = errorOf(messages);
  if (refusal !== null) {
    wire.destroy();
    return { refused: refusal.code };
  }
  const client = new SqlClient(wire);
  const asked = [
    'select current_user::regrole::oid',
    'select count(*) from secret',
    'select rolconnlimit from pg_roles where rolname = current_user',
  ];
  const answers: unknown[] = [];
  for (const sql of asked) {
    const messages = await client.answers(sql);
    answers.push(errorOf(messages)?.code ?? rowsOf(messages));
  }
  await client.end();
  return answers;
}

/** `before` makes the role, `change` is what happens to it while its connections are open. */
const CHANGES: Readonly<
  Record<
    string,
    { readonly before?: string[]; readonly change: string[]; readonly password?: string; readonly database?: string }
  >
> = {
  nothing: { change: [] },
  NOLOGIN: { change: ['alter role app nologin'] },
  'NOLOGIN and back': { change: ['alter role app nologin', 'alter role app login'] },
  'CONNECT revoked': {
    change: ['revoke connect on database postgres from public', 'grant connect on database postgres to pgkv_service'],
  },
  'CONNECT of another database revoked': {
    change: ['revoke connect on database other from public'],
    database: 'other',
  },
  'no such database': { change: [], database: 'nowhere' },
  'CONNECTION LIMIT 0': { change: ['alter role app connection limit 0'] },
  'another password': { change: [`alter role app password '${NEW}'`] },
  'another password, the new one given': { change: [`alter role app password '${NEW}'`], password: 'new' },
  'no password': { change: ['alter role app password null'] },
  expired: { change: [`alter role app valid until '2020-01-01'`] },
  dropped: { change: ['drop role app'] },
  'made anew': {
    before: ['grant select on secret to app'],
    change: ['revoke select on secret from app', 'drop role app', `create role app login password '${OLD}'`],
  },
  'made anew with another password': {
    before: ['grant select on secret to app'],
    change: ['revoke select on secret from app', 'drop role app', `create role app login password '${NEW}'`],
    password: 'new',
  },
  'renamed, and another renamed in its place': {
    before: ['grant select on secret to app', `create role stranger login`],
    change: [
      'alter role app rename to former',
      'alter role stranger rename to app',
      `alter role app password '${OLD}'`,
    ],
  },
  'a superuser now': { change: ['alter role app superuser'] },
  'a right given': { change: ['grant select on secret to app'] },
};

const CLEAN = `
  do $$ declare r text; begin
    foreach r in array array['app', 'former', 'stranger'] loop
      if exists (select from pg_roles where rolname = r) then execute format('drop owned by %I', r); execute format('drop role %I', r); end if;
    end loop;
  end $$;
  grant connect on database postgres to public; grant connect on database other to public;`;

async function compared(t: Test, busy: boolean): Promise<void> {
  const live = await liveRouter(t, servers, scram({ allow: [{ superusers: true }] }), options);
  for (const [name, { before = [], change, password = 'old', database = 'postgres' }] of Object.entries(CHANGES)) {
    await everywhere(CLEAN, `create role app login password '${OLD}'`, ...before);
    const open = database === 'nowhere' ? 'postgres' : database;
    const one = await live.connect({ user: 'app', password: 'old', database: open });
    await one.run('select 1');
    if (busy) await one.run('begin', 'select 1');
    else await one.end();
    await everywhere(...change);
    const there = await outcome(home, password, database);
    t.strictSame(await outcome(live, password, database), there, `${name}: as on the server`);
    t.strictSame(await outcome(live, password, database), there, `${name}: again`);
    if (busy) one.wire.destroy();
  }
  await everywhere(CLEAN);
  await live.quiet();
}

t.test('what becomes of a role counts at the next log-in, with idle connections of it', (t) => compared(t, false));
t.test('the same with a transaction of it under way', (t) => compared(t, true));

t.test('a session of a role that was made anew gets no connection of its successor', async (t) => {
  await everywhere(CLEAN, `create role app login password '${OLD}'`);
  const live = await liveRouter(t, servers, scram(), options);
  const old = await live.connect({ user: 'app', password: 'old' });
  await old.run('select 1');
  await everywhere('drop role app', `create role app login password '${OLD}'`, 'grant select on secret to app');
  const successor = await live.connect({ user: 'app', password: 'old' });
  t.strictSame(await successor.rows('select count(*) from secret'), [['0']]);
  for (const sql of [
    'select count(*) from secret',
    'select 1',
    `select * from kv where tenant_id = 't' and key = 'k'`,
  ]) {
    const refusal = await old.failsWith(sql);
    t.equal(refusal.code, '28000', sql);
    t.match(refusal.message, /role "app" was dropped or made anew/);
  }
  await old.end();
  await successor.end();
  await everywhere(CLEAN);
  await live.quiet();
});

t.test('CONNECTION LIMIT above 0 is one of server connections, which clients share', async (t) => {
  await everywhere(CLEAN, `create role app login password '${OLD}' connection limit 1`);
  const live = await liveRouter(t, servers, scram(), options);
  const clients = [
    await live.connect({ user: 'app', password: 'old' }),
    await live.connect({ user: 'app', password: 'old' }),
  ];
  for (const client of clients) t.equal(await client.value('select current_user'), 'app');
  await everywhere('alter role app connection limit 0');
  t.strictSame(await outcome(live, 'old'), { refused: '53300' });
  for (const client of clients) await client.end();
  await everywhere(CLEAN);
  await live.quiet();
});

t.test('a role that the shards do not agree on is refused at log-in, by the name of the shard', async (t) => {
  const live = await liveRouter(t, servers, scram(), options);
  const refusal = async () => {
    const wire = await WireClient.open(live);
    const error = errorOf((await wire.startUp({ user: 'app', password: 'old', database: 'postgres' })).messages);
    wire.destroy();
    return error;
  };
  const [, there] = admins;
  await everywhere(CLEAN, `create role app login password '${OLD}'`);
  t.equal(await refusal(), null, 'the same verifier');
  await there!.run(`alter role app password 'other'`);
  const differing = await refusal();
  t.equal(differing?.code, '28P01');
  t.match(differing?.fields['M'], /role "app" has another stored password on shard s2/);
  await there!.run('drop role app');
  const missing = await refusal();
  t.equal(missing?.code, '28P01');
  t.match(missing?.fields['M'], /role "app" does not exist on shard s2/);
  await there!.run(`create role app nologin password '${OLD}'`);
  const barred = await refusal();
  t.equal(barred?.code, '28000');
  t.match(barred?.fields['M'], /not permitted to log in on shard s2/);
  await everywhere(CLEAN);
  await live.quiet();
});

t.test('auth.sql that was not run is named; that of pgkv 0.1 will do', async (t) => {
  await everywhere(CLEAN, `create role app login password '${OLD}'`);
  const live = await liveRouter(t, [home], scram(), { servicePassword: SERVICE_PASSWORD });
  await admins[0]!.run('drop function pgkv.role_login(text)');
  const client = await live.connect({ user: 'app', password: 'old' });
  t.equal(await client.value('select current_user'), 'app');
  await client.end();
  await admins[0]!.run('drop function pgkv.role_verifier(text)');
  const wire = await WireClient.open(live);
  const refusal = errorOf((await wire.startUp({ user: 'app', password: 'old', database: 'postgres' })).messages);
  wire.destroy();
  t.equal(refusal?.code, '08006');
  t.match(refusal?.fields['M'], /auth\.sql has to be run/);
  t.match(live.logged('info').at(-1), { msg: 'login failed', reason: /role_verifier/ });
  await admins[0]!.run(AUTH_SQL);
  await everywhere(CLEAN);
  await live.quiet();
});

t.test('superusers and auth.allow', async (t) => {
  await everywhere(
    CLEAN,
    `create role app login password '${OLD}'`,
    `create role stranger login superuser password 'old'`,
  );
  const attempt = async (allow: object[], user: string, database = 'postgres') => {
    const live = await liveRouter(t, [home], scram({ allow }), { servicePassword: SERVICE_PASSWORD });
    const wire = await WireClient.open(live);
    const error = errorOf((await wire.startUp({ user, password: 'old', database })).messages);
    wire.destroy();
    await live.quiet();
    return error === null ? 'in' : `${error.code} ${error.fields['M']}`;
  };
  const from = `host "127.0.0.1", user "app", database "postgres"`;
  t.match(await attempt([], 'stranger'), /^28000 role "stranger" is a superuser/);
  t.equal(await attempt([], 'app'), 'in');
  t.equal(await attempt([{ roles: ['stranger'], superusers: true }], 'stranger'), 'in');
  t.equal(
    await attempt([{ roles: ['stranger'], superusers: true }], 'app'),
    `28000 no entry of auth.allow for ${from}`,
  );
  t.equal(await attempt([{ hosts: ['127.0.0.0/8'], refuse: true }, {}], 'app'), `28000 auth.allow refuses ${from}`);
  t.equal(await attempt([{ databases: ['other'] }], 'app', 'other'), 'in');
  await everywhere(CLEAN);
});

// The last one: the home shard does not come back.
t.test('any shard that answers lets a client in, before and behind the life of the cache', async (t) => {
  await everywhere(CLEAN, `create role app login password '${OLD}'`);
  await admins[1]!.run('grant all on kv to app');
  const lives = [];
  for (const cacheMs of [0, 600_000]) {
    const live = await liveRouter(t, servers, scram({ cacheMs }), options);
    const before = await live.connect({ user: 'app', password: 'old' });
    await before.run('select 1');
    await before.end();
    lives.push(live);
  }
  admins[0]!.wire.destroy();
  await home.stop();
  for (const live of lives) {
    const client = await live.connect({ user: 'app', password: 'old' });
    const codes = new Set<string>();
    for (let key = 0; key < 32; key++) {
      const answers = await client.answers(`select version from kv where tenant_id = 't' and key = '${key}'`);
      codes.add(errorOf(answers)?.code ?? 'answered');
    }
    t.strictSame([...codes].toSorted(), ['08006', 'answered'], 'keys of the shard that is there are served');
    t.equal(await outcome(live, 'wrong').then(JSON.stringify), '{"refused":"28P01"}');
    await client.end();
    await live.quiet();
  }
});
