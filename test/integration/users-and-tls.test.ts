// Who gets in, as whom, and over what: SCRAM users whose verifiers stand on the server, TLS towards clients and towards
// servers, and the packets a connection may begin with.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import { type Certificate, makeAuthority, makeCertificate, noOpenssl } from '../support/certificates.js';
import { askForEncryption, directTlsSocket, encryptedSocket } from '../support/encrypted-socket.js';
import { encodeCancel, encodeRequest, encodeStartup, frame, REQUEST_CODES } from '../support/frontend-message.js';
import { type LiveRouter, liveRouter, type RouterOverrides } from '../support/live-router.js';
import { stretched } from '../support/machine-speed.js';
import { serverAccount } from '../support/postgres-binaries.js';
import { type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { errorOf, SqlClient } from '../support/sql-client.js';
import { PROTOCOL_3_0, PROTOCOL_3_2, WireClient } from '../support/wire-client.js';

const SERVICE_PASSWORD = 'of the service role';
const FAILURE_DELAY_MS = 60;

const server = await startPostgres({ version: '15', hba: 'scram' });
t.teardown(() => server.stop());
const superuser = () =>
  SqlClient.connect({ host: server.socketDir, port: server.port }, { user: server.superuser, database: 'postgres' });
const admin = await superuser();
t.teardown(() => admin.wire.destroy());
await admin.run(readFileSync(new URL('../../config/auth.sql', import.meta.url), 'utf8'));
await admin.run(`
  alter role pgkv_service password '${SERVICE_PASSWORD}';
  create role alice login password 'of alice';
  create role bob login password 'of bob';
  create role expired login password 'of expired' valid until '2020-01-01';
  create role unexpired login password 'of unexpired' valid until '2100-01-01 00:00:00+05:30';
  create role endless login password 'of endless' valid until 'infinity';
  create role forbidden nologin password 'of forbidden';
  create role nopassword login;
  create role limited login password 'of limited' connection limit 1;
  create role shut login password 'of shut' connection limit 0;
  create role changing login password 'old';
  create role cached login password 'old';
  create role "Ünï ""Q""" login password 'pässwörd';
  set password_encryption = 'md5';
  create role old login password 'of old';
  reset password_encryption;
  create table public.of_alice (x int);
  create table public.of_bob (x int);
  alter table of_alice owner to alice;
  alter table of_bob owner to bob;
  grant select on of_bob to alice;
`);

const folder = mkdtempSync(join(tmpdir(), 'pgkv-tls-'));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));

const scramRouter = (t: Test, overrides: RouterOverrides = {}) =>
  liveRouter(
    t,
    [server],
    { ...overrides, auth: { method: 'scram-sha-256', failureDelayMs: FAILURE_DELAY_MS, ...overrides.auth } },
    { servicePassword: SERVICE_PASSWORD },
  );

const signIn = (live: LiveRouter, user: string, password: string, database = 'postgres') =>
  live.connect({ user, password, database });

/** The error a login ends with, and how long it took. */
async function refusal(live: LiveRouter, user: string, password: string, database = 'postgres') {
  const wire = await WireClient.open({ host: live.host, port: live.port });
  const start = performance.now();
  const { messages, outcome } = await wire.startUp({ user, password, database });
  const elapsedMs = performance.now() - start;
  const error = errorOf(messages);
  const first = messages.flatMap((message) =>
    message.type === 'Authentication' && message.code === 11 ? [message.data.toString('latin1')] : [],
  )[0];
  const { closed } = wire;
  wire.destroy();
  if (error === null) throw new Error(`${user} was let in`);
  return { error, elapsedMs, closed: closed || outcome === 'closed', ...challengeOf(first ?? '') };
}

function challengeOf(serverFirst: string): { salt: string | undefined; iterations: string | undefined } {
  return { salt: /s=([^,]*)/.exec(serverFirst)?.[1], iterations: /i=(\d+)/.exec(serverFirst)?.[1] };
}

t.test('SCRAM users of the server', async (t) => {
  const live = await scramRouter(t);

  await t.test("the right password lets in, as the client's own role", async (t) => {
    const client = await signIn(live, 'alice', 'of alice');
    t.strictSame(await client.rows('select current_user, session_user'), [['alice', 'alice']]);
    t.equal(await client.value(`select usename from pg_stat_activity where pid = pg_backend_pid()`), 'alice');
    t.strictSame(await client.run('insert into of_alice values (1)', 'select * from of_bob'), [
      'INSERT 0 1',
      'SELECT 0',
    ]);
    t.equal(await client.fails('insert into of_bob values (1)'), '42501', 'grants hold');
    t.equal(await client.fails('select * from pg_authid'), '42501');
    t.equal(
      await client.fails(`select * from pgkv.role_verifier('bob')`),
      '42501',
      'nobody else may look up verifiers',
    );
    const other = await signIn(live, 'bob', 'of bob');
    t.strictSame(await other.rows('select current_user, session_user'), [['bob', 'bob']]);
    t.equal(await other.fails('select * from of_alice'), '42501');
    await client.end();
    await other.end();
  });

  await t.test('a wrong password and an unknown role cannot be told apart', async (t) => {
    const wrong = [await refusal(live, 'alice', 'nonsense'), await refusal(live, 'alice', 'nonsense')] as const;
    const unknown = [await refusal(live, 'nobody_here', 'nonsense'), await refusal(live, 'nobody_here', 'x')] as const;
    for (const [name, [first, second]] of [
      ['alice', wrong],
      ['nobody_here', unknown],
    ] as const) {
      t.strictSame(first.error.fields['M'], `password authentication failed for user "${name}"`);
      t.equal(first.error.code, '28P01');
      t.equal(first.error.fields['S'], 'FATAL');
      t.ok(first.closed, 'the connection is closed');
      t.equal(first.salt, second.salt, `${name}: the salt does not change`);
      t.equal(first.salt?.length, wrong[0].salt?.length);
      t.equal(first.iterations, wrong[0].iterations);
      t.ok(first.elapsedMs >= FAILURE_DELAY_MS - 2, 'slowed down');
    }
    t.not(unknown[0].salt, wrong[0].salt);
    t.not((await refusal(live, 'somebody_else', 'x')).salt, unknown[0].salt, 'each unknown role has its own');
    t.strictSame(Object.keys(wrong[0].error.fields).toSorted(), Object.keys(unknown[0].error.fields).toSorted());
    // In turn, so that both meet the machine as it is.
    const times = new Map<string, number[]>([
      ['alice', []],
      ['nobody_here', []],
    ]);
    for (let round = 0; round < 5; round++) {
      for (const [user, of] of times) of.push((await refusal(live, user, 'x')).elapsedMs);
    }
    const [known, stranger] = [...times.values()].map((of) => of.toSorted((a, b) => a - b)[2]!) as [number, number];
    t.ok(Math.abs(known - stranger) < (await stretched(40)), `${Math.round(known)} ms and ${Math.round(stranger)} ms`);
  });

  await t.test('roles that may not log in, or no longer', async (t) => {
    t.equal((await refusal(live, 'expired', 'of expired')).error.code, '28P01', 'VALID UNTIL');
    t.equal((await refusal(live, 'nopassword', '')).error.code, '28P01');
    t.equal((await refusal(live, 'nopassword', 'x')).error.code, '28P01');
    t.equal((await refusal(live, 'forbidden', 'x')).error.code, '28P01', 'NOLOGIN, wrong password');
    const forbidden = await refusal(live, 'forbidden', 'of forbidden');
    t.equal(forbidden.error.code, '28000', "NOLOGIN, right password: the server's own words");
    t.equal(forbidden.error.fields['M'], 'role "forbidden" is not permitted to log in');
    for (const name of ['unexpired', 'endless']) {
      const client = await signIn(live, name, `of ${name}`);
      t.equal(await client.value('select current_user'), name);
      await client.end();
    }
    const strange = await signIn(live, 'Ünï "Q"', 'pässwörd');
    t.equal(await strange.value('select current_user'), 'Ünï "Q"');
    await strange.end();
  });

  await t.test('a role whose password is stored as MD5 is refused', async (t) => {
    const refused = await refusal(live, 'old', 'of old');
    t.equal(refused.error.code, '28P01');
    t.equal(refused.error.fields['M'], 'password authentication failed for user "old"');
  });

  await t.test("an unknown database is refused in the server's words", async (t) => {
    const { error } = await refusal(live, 'alice', 'of alice', 'no_such_database');
    t.equal(error.code, '3D000');
    t.equal(error.fields['M'], 'database "no_such_database" does not exist');
  });

  await t.test('CONNECTION LIMIT of a role', async (t) => {
    const refused = await refusal(live, 'shut', 'of shut');
    t.equal(refused.error.code, '53300');
    t.equal(refused.error.fields['M'], 'too many connections for role "shut"');
    const [a, b] = [await signIn(live, 'limited', 'of limited'), await signIn(live, 'limited', 'of limited')];
    await a.run('begin', 'select 1');
    const waiting = b.value('select current_user');
    await sleep(50);
    t.equal(live.router.pool.waitingCount, 1, 'a second connection is refused, so the statement waits for the first');
    await a.run('commit');
    t.equal(await waiting, 'limited');
    await a.end();
    await b.end();
  });

  await t.test('a changed password takes effect', async (t) => {
    const before = await signIn(live, 'changing', 'old');
    await admin.run(`alter role changing password 'new'`);
    t.equal(await before.value('select 1'), '1', 'a session goes on');
    const login = () => signIn(live, 'changing', 'new');
    const client = await login().catch(login);
    t.equal(await client.value('select current_user'), 'changing', 'the new one at the second attempt at the latest');
    t.equal((await refusal(live, 'changing', 'old')).error.code, '28P01', 'the old one no more');
    await before.end();
    await client.end();
    await admin.run('drop role changing');
    t.equal((await refusal(live, 'changing', 'new')).error.code, '28P01', 'a role that was dropped');
  });

  await t.test('garbage in place of SASL messages', async (t) => {
    const begin = async () => {
      const wire = await WireClient.open({ host: live.host, port: live.port });
      wire.sendBytes(encodeStartup(PROTOCOL_3_0, { user: 'alice', database: 'postgres' }));
      await wire.wait({ type: 'Authentication' });
      return wire;
    };
    const initial = (length: number, data: string) => {
      const bytes = Buffer.alloc(4);
      bytes.writeInt32BE(length);
      return frame('p', Buffer.from('SCRAM-SHA-256\0'), bytes, Buffer.from(data));
    };
    for (const [name, bytes] of [
      ['length −1 and bytes behind it', initial(-1, 'n,,n=,r=abc')],
      ['length too short', initial(3, 'n,,n=,r=abc')],
      ['length too long', initial(300, 'n,,n=,r=abc')],
      ['length −2', initial(-2, '')],
      ['no mechanism', frame('p', Buffer.from('SCRAM'))],
      ['unknown mechanism', frame('p', Buffer.from('PLAIN\0'), Buffer.from([0, 0, 0, 0]))],
      ['a query', frame('Q', Buffer.from('select 1\0'))],
      ['a second start-up', encodeStartup(PROTOCOL_3_0, { user: 'bob', database: 'postgres' })],
      ['a password', frame('p', Buffer.from('of alice\0'))],
    ] as const) {
      const wire = await begin();
      wire.sendBytes(bytes);
      const { messages, outcome } = await wire.wait('closed', 3_000);
      t.equal(outcome, 'reached', `${name}: closed`);
      t.equal(errorOf(messages)?.code, '08P01', name);
      await wire.end();
    }
  });
});

t.test('a verifier that is not kept is asked for at every login', async (t) => {
  const live = await scramRouter(t, { auth: { cacheMs: 0 } });
  const before = await signIn(live, 'cached', 'old');
  await admin.run(`alter role cached password 'new'`);
  const after = await signIn(live, 'cached', 'new');
  t.equal(await after.value('select current_user'), 'cached');
  t.equal((await refusal(live, 'cached', 'old')).error.code, '28P01');
  await admin.run(`alter role cached valid until '2020-01-01'`);
  t.equal((await refusal(live, 'cached', 'new')).error.code, '28P01');
  await before.end();
  await after.end();
});

t.test('a server that does not let a role in any more is not told as one that cannot be reached', async (t) => {
  // What is known of the role would be believed for ten minutes.
  const live = await scramRouter(t, { auth: { cacheMs: 600_000 } });
  const closeConnections = () =>
    admin.run(`select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename in ('turned', 'renamed')`);
  const kinds: readonly (readonly [change: string, code: string])[] = [
    [`alter role turned password 'new'`, '28P01'],
    ['alter role turned nologin', '28000'],
    ['alter role turned rename to renamed', '28P01'],
    ['revoke connect on database turning from public, turned', '28000'],
  ];
  for (const [change, code] of kinds) {
    await admin.run('drop role if exists turned, renamed', `create role turned login password 'old'`);
    await admin.run('drop database if exists turning', 'create database turning');
    const login = { user: 'turned', password: 'old', database: 'turning' };
    // The role of the kind before is known still, until somebody is refused.
    const client = await live.connect(login).catch(() => live.connect(login));
    t.equal(await client.value('select 1'), '1');
    await admin.run(change);
    await closeConnections();
    for (let round = 0; round < 2; round++) {
      const error = await client.failsWith('select 1');
      t.equal(error.code, code, change);
      t.match(error.fields['M'], /does not let the role in; nothing was sent \(.*127\.0\.0\.1:\d+: /);
    }
    client.wire.destroy();
    if (code === '28P01' && change.includes('password')) {
      const again = await live.connect({ ...login, password: 'new' });
      t.equal(await again.value('select 1'), '1', 'the new password is right at once');
      again.wire.destroy();
    }
    await live.quiet();
    await closeConnections();
  }
  // Nobody has asked meanwhile: the log-in itself finds out.
  await admin.run('drop role if exists turned, renamed', `create role turned login password 'old'`);
  const login = { user: 'turned', password: 'old', database: 'postgres' };
  const first = await live.connect(login).catch(() => live.connect(login));
  await first.end();
  await admin.run(`alter role turned password 'new'`);
  await closeConnections();
  await live.router.pool.closeIdle('postgres');
  t.equal((await refusal(live, 'turned', 'old')).error.code, '28P01');
  const second = await live.connect({ ...login, password: 'new' });
  t.equal(await second.value('select 1'), '1');
  await second.end();
  await live.quiet();
  await closeConnections();
  await admin.run('drop role turned', 'drop database turning');
});

t.test('a service role that cannot log in keeps everybody out, in words', async (t) => {
  const live = await liveRouter(t, [server], { auth: { method: 'scram-sha-256' } }, { servicePassword: 'wrong' });
  const { error } = await refusal(live, 'alice', 'of alice');
  t.equal(error.code, '08006');
  t.equal(error.fields['M'], 'the role cannot be looked up at present');
  t.equal(error.fields['D'], undefined, 'nobody who has not logged in hears of servers and service roles');
  const [told] = live.logged('info').filter(({ msg }) => msg === 'login failed');
  t.match(told, { role: 'alice', address: '127.0.0.1', sqlstate: '08006' });
  t.match(told?.['reason'], /127\.0\.0\.1:\d+.*password authentication failed for user "pgkv_service"/);
  t.notMatch(JSON.stringify(error.fields), /of alice|wrong/);
});

t.test('trust is for clients of this machine', async (t) => {
  const outside = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
  const trusting = await startPostgres({ version: '15' });
  t.teardown(() => trusting.stop());
  const live = await liveRouter(
    t,
    [trusting],
    {},
    {
      adjust: (settings) => ({ ...settings, listen: { ...settings.listen, host: '0.0.0.0' } }),
    },
  );
  const inside = await live.connect();
  t.equal(await inside.value('select current_user'), 'postgres', 'loopback');
  await inside.end();
  await t.test('not for others', { skip: outside === undefined && 'no address but loopback' }, async (t) => {
    const wire = await WireClient.open({ host: outside!, port: live.port });
    const { messages } = await wire.startUp({ user: 'postgres', database: 'postgres' });
    t.equal(errorOf(messages)?.code, '28000');
    await wire.end();
  });
});

t.test('the packets a connection begins with', async (t) => {
  const live = await scramRouter(t);
  const address = { host: live.host, port: live.port };

  await t.test('SSLRequest and GSSENCRequest without TLS are declined, and it goes on in the clear', async (t) => {
    for (const code of [REQUEST_CODES.ssl, REQUEST_CODES.gssenc]) {
      const { socket, answer } = await askForEncryption(address, code);
      t.equal(answer, 'N');
      const wire = new WireClient(socket);
      const { outcome } = await wire.startUp({ user: 'alice', password: 'of alice', database: 'postgres' });
      t.equal(outcome, 'reached');
      await wire.end();
    }
    const { socket } = await askForEncryption(address, REQUEST_CODES.gssenc);
    socket.write(encodeRequest(REQUEST_CODES.ssl));
    const [answer] = (await once(socket, 'data')) as [Buffer];
    t.equal(answer.toString(), 'N', 'one after the other');
    socket.destroy();
  });

  await t.test('protocol versions and options are negotiated', async (t) => {
    const greet = async (protocol: number, parameters: Record<string, string> = {}) => {
      const wire = await WireClient.open(address);
      const options = { user: 'alice', password: 'of alice', database: 'postgres', protocol, parameters };
      const { messages, outcome } = await wire.startUp(options);
      const negotiation = messages.find((message) => message.type === 'NegotiateProtocolVersion');
      const key = messages.find((message) => message.type === 'BackendKeyData');
      await wire.end();
      return {
        outcome,
        negotiation: negotiation?.type === 'NegotiateProtocolVersion' ? negotiation : undefined,
        keyBytes: key?.type === 'BackendKeyData' ? key.key.length : 0,
        first: messages[0]?.type,
        error: errorOf(messages),
      };
    };
    const old = await greet(PROTOCOL_3_0);
    t.strictSame([old.outcome, old.negotiation, old.keyBytes], ['reached', undefined, 4]);
    const recent = await greet(PROTOCOL_3_2);
    t.strictSame([recent.outcome, recent.negotiation, recent.keyBytes], ['reached', undefined, 32]);
    const future = await greet((3 << 16) | 9999);
    t.equal(future.first, 'NegotiateProtocolVersion', 'before anything else');
    t.equal(future.negotiation?.minor, PROTOCOL_3_2);
    t.equal(future.keyBytes, 32);
    const optional = await greet(PROTOCOL_3_0, { '_pq_.test_protocol_negotiation': '1', '_pq_.other': 'x' });
    t.strictSame(optional.negotiation?.unrecognized.toSorted(), ['_pq_.other', '_pq_.test_protocol_negotiation']);
    t.equal(optional.negotiation?.minor, PROTOCOL_3_0);
    t.equal(optional.outcome, 'reached');
    for (const version of [2 << 16, 4 << 16, 1 << 16]) t.equal((await greet(version)).error?.code, '0A000');
  });

  await t.test('whatever else comes first is answered as by the server, or not at all', async (t) => {
    /** SQLSTATE and first words of the answer; '' for a connection closed without one. */
    const answerTo = async (to: { host: string; port: number }, bytes: Buffer): Promise<string> => {
      const wire = await WireClient.open(to);
      wire.sendBytes(bytes);
      wire.socket.end();
      const { messages } = await wire.wait('closed');
      wire.destroy();
      const error = errorOf(messages);
      return error === null ? messages.map(({ type }) => type).join() : `${error.fields['S']} ${error.code}`;
    };
    const int32 = (...values: number[]) =>
      Buffer.concat(
        values.map((value) => {
          const bytes = Buffer.alloc(4);
          bytes.writeInt32BE(value | 0);
          return bytes;
        }),
      );
    const firsts: Buffer[] = [
      Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
      Buffer.from('\0'),
      Buffer.alloc(64),
      Buffer.alloc(16, 0xff),
    ];
    for (const length of [0, 4, 7, 8, 9, 11, 12, 16, 20, 9_999, 2 ** 31 - 1, -1]) {
      // Not below 3.0, which Postgres answers in the words of older protocols.
      for (const code of [REQUEST_CODES.cancel, PROTOCOL_3_0, 4 << 16, 5 << 16]) {
        for (const body of [
          Buffer.alloc(0),
          Buffer.alloc(8),
          Buffer.from('user\0alice'),
          Buffer.from('user\0\0\0'),
          Buffer.from('\0'),
        ]) {
          firsts.push(Buffer.concat([int32(length, code), body]));
        }
      }
    }
    for (const body of [
      '',
      '\0',
      'user\0alice\0',
      'user\0alice\0\0x',
      'user\0\0',
      'database\0postgres\0\0',
      'a\0b\0user',
    ]) {
      firsts.push(frame('', Buffer.concat([int32(PROTOCOL_3_0), Buffer.from(body)])));
    }
    for (const bytes of firsts) {
      t.equal(
        await answerTo(address, bytes),
        await answerTo(server, bytes),
        JSON.stringify(bytes.toString('latin1').slice(0, 60)),
      );
    }
  });

  await t.test('connections that never log in use up no more than their address is allowed', async (t) => {
    const narrow = await scramRouter(t, { clients: { startupPendingPerAddressMax: 3 } });
    const to = { host: narrow.host, port: narrow.port };
    const open = [await WireClient.open(to), await WireClient.open(to), await WireClient.open(to)];
    for (const wire of open) wire.sendBytes(Buffer.from('\0'));
    const refused = await WireClient.open(to);
    const { messages } = await refused.startUp({ user: 'alice', password: 'of alice', database: 'postgres' });
    const error = errorOf(messages);
    t.equal(error?.code, '53300');
    t.match(error?.fields['D'], /startup_pending_per_address_max/);
    refused.destroy();
    open.pop()!.destroy();
    let client: SqlClient | null = null;
    for (let attempt = 0; client === null && attempt < 100; attempt++) {
      client = await signIn(narrow, 'alice', 'of alice').catch(() => null);
    }
    t.ok(client, 'as soon as one of them is gone');
    await client?.end();
    for (const wire of open) wire.destroy();
    await narrow.quiet();
  });

  await t.test('a cancel key works in full only', async (t) => {
    for (const protocol of [PROTOCOL_3_0, PROTOCOL_3_2]) {
      const client = await live.connect({ user: 'alice', password: 'of alice', protocol });
      const key = client.wire.received.find((message) => message.type === 'BackendKeyData');
      if (key?.type !== 'BackendKeyData') throw new Error('no key');
      const cancel = async (pid: number, bytes: Buffer) => {
        const wire = await WireClient.open(address);
        wire.sendBytes(encodeCancel(pid, bytes));
        const { messages } = await wire.wait('closed', 3_000);
        t.equal(messages.length, 0, 'a cancel is never answered');
      };
      let over = false;
      const running = client.fails('select pg_sleep(10)').finally(() => {
        over = true;
      });
      await sleep(30);
      const wrong = Buffer.from(key.key);
      wrong[0]! ^= 1;
      await cancel(key.pid, wrong);
      await cancel(key.pid + 1, key.key);
      await cancel(key.pid, Buffer.concat([key.key, Buffer.alloc(4)]));
      if (key.key.length > 4) await cancel(key.pid, key.key.subarray(0, 4));
      await sleep(50);
      t.notOk(over, 'still running');
      await cancel(key.pid, key.key);
      t.equal(await running, '57014');
      await client.end();
    }
  });
});

t.test('TLS', { skip: noOpenssl }, async (t) => {
  const authority = makeAuthority(folder, 'authority');
  const first = makeCertificate(folder, 'first', authority, 'IP:127.0.0.1,DNS:localhost');
  const second = makeCertificate(folder, 'second', authority, 'IP:127.0.0.1,DNS:localhost');
  const current: Certificate = { certFile: join(folder, 'current.crt'), keyFile: join(folder, 'current.key') };
  const install = ({ certFile, keyFile }: Certificate) => {
    copyFileSync(certFile, current.certFile);
    copyFileSync(keyFile, current.keyFile);
  };
  const subject = (socket: TLSSocket) => socket.getPeerCertificate().subject.CN;
  const overTls = async (live: LiveRouter, socket?: TLSSocket) => {
    const wire = new WireClient(socket ?? (await encryptedSocket({ host: live.host, port: live.port })));
    const { messages, outcome } = await wire.startUp({ user: 'alice', password: 'of alice', database: 'postgres' });
    if (outcome !== 'reached') throw errorOf(messages) ?? new Error(outcome);
    return new SqlClient(wire);
  };

  await t.test('required: nothing goes in the clear', async (t) => {
    install(first);
    const live = await scramRouter(t, {
      tls: { ...current, required: true },
      listen: { socketDir: folder },
    });
    const address = { host: live.host, port: live.port };
    const { error } = await refusal(live, 'alice', 'of alice');
    t.equal(error.code, '28000');
    t.match(error.fields['H'], /TLS/);
    const client = await overTls(live);
    t.equal(await client.value('select current_user'), 'alice');
    await client.end();
    const local = await SqlClient.connect(
      { host: folder, port: live.port },
      { user: 'alice', password: 'of alice', database: 'postgres' },
    );
    t.equal(await local.value('select 1'), '1', 'a Unix socket is exempt');
    await local.end();

    await t.test('direct TLS names the protocol, or is closed', async (t) => {
      const named = await overTls(live, await directTlsSocket(address, { ALPNProtocols: ['postgresql'] }));
      t.equal((named.wire.socket as TLSSocket).alpnProtocol, 'postgresql');
      t.equal(await named.value('select 1'), '1');
      await named.end();
      for (const options of [{}, { ALPNProtocols: ['http/1.1'] }]) {
        const outcome = await directTlsSocket(address, options).then(
          async (socket) => {
            const wire = new WireClient(socket);
            const { messages } = await wire.startUp({ user: 'alice', password: 'of alice', database: 'postgres' });
            const let_in = messages.some((message) => message.type === 'Authentication');
            socket.destroy();
            return let_in ? 'let in' : 'closed';
          },
          () => 'refused in the handshake',
        );
        t.not(outcome, 'let in', JSON.stringify(options));
      }
    });

    await t.test('bytes in the clear behind SSLRequest close the connection', async (t) => {
      const wire = await WireClient.open(address);
      const startup = encodeStartup(PROTOCOL_3_0, { user: 'alice', database: 'postgres' });
      wire.sendBytes(Buffer.concat([encodeRequest(REQUEST_CODES.ssl), startup]));
      const { messages } = await wire.wait('closed', 3_000);
      t.equal(errorOf(messages)?.code, '08P01');
      await wire.end();
    });

    await t.test('SSLRequest inside TLS is refused', async (t) => {
      const wire = new WireClient(await encryptedSocket(address));
      wire.sendBytes(encodeRequest(REQUEST_CODES.ssl));
      const { messages } = await wire.wait('closed', 3_000);
      t.equal(errorOf(messages)?.code, '0A000');
      await wire.end();
    });

    await t.test('SCRAM with channel binding, by psql', { skip: server.psql === undefined && 'no psql' }, async (t) => {
      const run = (password: string) =>
        psql(
          server.psql!,
          `host=127.0.0.1 port=${live.port} user=alice dbname=postgres sslmode=require channel_binding=require`,
          password,
        );
      t.strictSame(await run('of alice'), { code: 0, output: 'alice\n' });
      const wrong = await run('nonsense');
      t.equal(wrong.code, 2);
      t.match(wrong.output, /password authentication failed for user "alice"/);
    });
  });

  await t.test('a new certificate is for new connections; old ones live on', async (t) => {
    install(first);
    const live = await scramRouter(t, { tls: { ...current } });
    const before = await overTls(live);
    t.equal(subject(before.wire.socket as TLSSocket), 'first');
    install(second);
    live.router.reload();
    const after = await overTls(live);
    t.equal(subject(after.wire.socket as TLSSocket), 'second');
    t.equal(await before.value('select 1'), '1');
    copyFileSync(first.keyFile, current.keyFile);
    t.throws(() => live.router.reload(), /does not belong/);
    rmSync(current.certFile);
    t.throws(() => live.router.reload(), /ENOENT/);
    const still = await overTls(live);
    t.equal(subject(still.wire.socket as TLSSocket), 'second', 'what cannot be used changes nothing');
    const clear = await signIn(live, 'alice', 'of alice');
    t.equal(await clear.value('select 1'), '1', 'TLS is offered, not required');
    for (const client of [before, after, still, clear]) await client.end();
  });

  await t.test('a TLS version below the oldest accepted is refused', async (t) => {
    install(first);
    const live = await scramRouter(t, { tls: { ...current, minVersion: 'TLSv1.3' } });
    const address = { host: live.host, port: live.port };
    await t.rejects(encryptedSocket(address, { maxVersion: 'TLSv1.2' }));
    const client = await overTls(live, await encryptedSocket(address, { minVersion: 'TLSv1.3' }));
    t.equal(await client.value('select 1'), '1');
    await client.end();
  });

  await t.test('a cancel over TLS', async (t) => {
    install(first);
    const live = await scramRouter(t, { tls: { ...current, required: true } });
    const client = await overTls(live);
    const key = client.wire.received.find((message) => message.type === 'BackendKeyData');
    if (key?.type !== 'BackendKeyData') throw new Error('no key');
    const running = client.fails('select pg_sleep(10)');
    await sleep(30);
    const wire = new WireClient(await encryptedSocket({ host: live.host, port: live.port }));
    wire.sendBytes(encodeCancel(key.pid, key.key));
    await wire.wait('closed', 3_000);
    t.equal(await running, '57014');
    await wire.end();
    await client.end();
  });

  await t.test('towards servers', async (t) => {
    const stranger = makeAuthority(folder, 'stranger');
    const elsewhere = makeCertificate(folder, 'elsewhere', authority, 'DNS:elsewhere.example');
    const byAddress = makeCertificate(folder, 'by-address', authority, 'IP:127.0.0.1');
    const localhost = makeCertificate(folder, 'localhost', authority, 'DNS:localhost');
    const otherAddress = makeCertificate(folder, 'other-address', authority, 'IP:127.0.0.2,DNS:localhost');
    const start = async (certificate: Certificate | null) => {
      const account = serverAccount();
      if (account && certificate) {
        for (const file of Object.values(certificate)) chownSync(file, account.uid, account.gid);
        chownSync(folder, account.uid, account.gid);
      }
      const parameters: Record<string, string> =
        certificate === null
          ? {}
          : { ssl: 'on', ssl_cert_file: certificate.certFile, ssl_key_file: certificate.keyFile };
      const started = await startPostgres({ version: '15', parameters });
      t.teardown(() => started.stop());
      return started;
    };
    const [plain, encrypted, misnamed] = [await start(null), await start(first), await start(elsewhere)];
    const [addressed, local, other] = [await start(byAddress), await start(localhost), await start(otherAddress)];
    const encryptedConnection = async (
      t: Test,
      behind: PostgresServer,
      tls: 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full',
      ca?: Certificate,
    ): Promise<string | null> => {
      const servers = ca === undefined ? { tls } : { tls, tlsCaFile: ca.certFile };
      const live = await liveRouter(t, [behind], { servers });
      try {
        const client = await live.connect();
        const ssl = await client.value('select ssl from pg_stat_ssl where pid = pg_backend_pid()');
        await client.end();
        return ssl;
      } catch (error) {
        return (error as Error).message;
      }
    };
    const expectations = [
      ['disable', encrypted, 'disable', undefined, 'f'],
      ['prefer with TLS', encrypted, 'prefer', undefined, 't'],
      ['prefer without', plain, 'prefer', undefined, 'f'],
      ['require with TLS', encrypted, 'require', undefined, 't'],
      ['require without', plain, 'require', undefined, /08006/],
      ['verify-ca', misnamed, 'verify-ca', authority, 't'],
      ['verify-ca with another authority', encrypted, 'verify-ca', stranger, /08006/],
      ['verify-full', encrypted, 'verify-full', authority, 't'],
      ['verify-full of another name', misnamed, 'verify-full', authority, /08006/],
      ['verify-full of an address', addressed, 'verify-full', authority, 't'],
      ['verify-full of an address by a certificate for localhost', local, 'verify-full', authority, /08006/],
      ['verify-full of an address by one for another', other, 'verify-full', authority, /08006/],
      ['verify-full with another authority', encrypted, 'verify-full', stranger, /08006/],
      ["verify-full with the system's authorities", encrypted, 'verify-full', undefined, /08006/],
      ['verify-full without TLS', plain, 'verify-full', authority, /08006/],
    ] as const;
    for (const [name, behind, tls, ca, expected] of expectations) {
      await t.test(name, async (t) => {
        const answer = await encryptedConnection(t, behind, tls, ca);
        if (typeof expected === 'string') t.equal(answer, expected);
        else t.match(answer, expected);
      });
    }
  });
});

/** Runs `select current_user` in psql. */
async function psql(program: string, connection: string, password: string): Promise<{ code: number; output: string }> {
  const child = spawn(program, ['-X', '-A', '-t', '-c', 'select current_user', connection], {
    env: { ...process.env, PGPASSWORD: password, PGCONNECT_TIMEOUT: '10' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const [code] = (await once(child, 'close')) as [number];
  return { code, output };
}
