// Clients beyond a limit: whatever they open the connection with, they are told why in a way that drivers understand, the
// log says so once a second, and a flood of them costs no more than so many sockets.
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect as connectSocket, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import t, { type Test } from 'tap';
import { makeAuthority, makeCertificate, noOpenssl } from '../support/certificates.js';
import { askForEncryption, directTlsSocket, encryptedSocket } from '../support/encrypted-socket.js';
import { encodeCancel, encodeStartup, REQUEST_CODES } from '../support/frontend-message.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { errorOf } from '../support/sql-client.js';
import { PROTOCOL_3_0, WireClient } from '../support/wire-client.js';

const server = await startPostgres({ version: '15' });
t.teardown(() => server.stop());
const startup = encodeStartup(PROTOCOL_3_0, { user: 'postgres', database: 'postgres' });

async function isRefused(t: Test, wire: WireClient, what: string): Promise<void> {
  const { messages } = await wire.wait('closed');
  const error = errorOf(messages);
  t.match(error, { code: '53300', fields: { S: 'FATAL', D: /clients\.connections_max/ } }, what);
  t.equal(messages.length, 1, `${what}: nothing but the error`);
}

const linesOf = (live: LiveRouter) => live.logged('warn').filter(({ msg }) => msg === 'clients refused');

t.test('whatever a client asks for first, it is told of the limit behind its start-up packet', async (t) => {
  const live = await liveRouter(t, [server], { clients: { connectionsMax: 1 } });
  const address = { host: live.host, port: live.port };
  const holder = await live.connect();
  const plain = await WireClient.open(address);
  plain.sendBytes(startup);
  await isRefused(t, plain, 'in the clear');
  for (const name of ['ssl', 'gssenc'] as const) {
    const { socket, answer } = await askForEncryption(address, REQUEST_CODES[name]);
    t.equal(answer, 'N', `${name}Request`);
    const wire = new WireClient(socket);
    wire.sendBytes(startup);
    await isRefused(t, wire, name);
  }
  const dripping = await WireClient.open(address);
  for (const byte of startup) dripping.sendBytes(Buffer.of(byte));
  await isRefused(t, dripping, 'in pieces');
  await isRefused(t, await WireClient.open(address), 'who says nothing is told after a while');
  const half = await WireClient.open(address);
  half.sendBytes(startup.subarray(0, 9));
  await isRefused(t, half, 'who stops half way, too');
  const endless = await WireClient.open(address);
  endless.sendBytes(Buffer.alloc(100_000, 0x7f));
  t.equal((await endless.wait('closed')).outcome, 'reached', 'what is no packet is not waited for');

  const { counters } = live.router;
  t.equal(counters.clientsRefused, 6);
  t.equal(counters.startupsPending, 0, 'they are none of those in start-up');
  t.equal(await holder.value('select 1'), '1');
  await holder.end();
});

t.test('a cancel request is heard at the limit', async (t) => {
  const live = await liveRouter(t, [server], { clients: { connectionsMax: 1 } });
  const client = await live.connect();
  const key = client.wire.received.find((message) => message.type === 'BackendKeyData');
  if (key?.type !== 'BackendKeyData') throw new Error('no key');
  const running = client.fails('select pg_sleep(60)');
  await sleep(100);
  const cancel = await WireClient.open({ host: live.host, port: live.port });
  cancel.sendBytes(encodeCancel(key.pid, key.key));
  t.strictSame((await cancel.wait('closed')).messages, []);
  t.equal(await running, '57014');
  await client.end();
});

t.test('over TLS', { skip: noOpenssl }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-refused-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const authority = makeAuthority(folder, 'authority');
  const tls = makeCertificate(folder, 'server', authority, 'IP:127.0.0.1,DNS:localhost');
  const live = await liveRouter(t, [server], {
    clients: { connectionsMax: 1, startupTimeoutMs: 3_000 },
    tls: { ...tls, required: true },
  });
  const address = { host: live.host, port: live.port };
  const holder = new WireClient(await encryptedSocket(address));
  t.equal((await holder.startUp({ user: 'postgres', database: 'postgres' })).outcome, 'reached');
  for (const [name, socket] of [
    ['by SSLRequest', await encryptedSocket(address)],
    ['directly', await directTlsSocket(address, { ALPNProtocols: ['postgresql'] })],
  ] as const) {
    const wire = new WireClient(socket);
    wire.sendBytes(startup);
    await isRefused(t, wire, name);
  }
  const client = new pg.Client({ ...address, user: 'postgres', ssl: { rejectUnauthorized: false } });
  client.on('error', () => undefined);
  await t.rejects(client.connect(), { code: '53300', message: /too many/ }, 'node-pg');
  const silent = new WireClient((await askForEncryption(address)).socket);
  t.strictSame(await silent.wait('closed'), { messages: [], outcome: 'reached' }, 'who begins no handshake is cut off');
  holder.destroy();
});

t.test('the log has one line a second, with their number', async (t) => {
  const live = await liveRouter(t, [server], { clients: { connectionsMax: 1 } });
  const holder = await live.connect();
  const refused = async (): Promise<void> => {
    const wire = await WireClient.open({ host: live.host, port: live.port });
    wire.sendBytes(startup);
    await wire.wait('closed');
  };
  const before = performance.now();
  for (let round = 0; round < 20; round++) await refused();
  const told = () => linesOf(live).reduce((sum, line) => sum + (line['clients'] as number), 0);
  while (told() < 20) await sleep(50);
  const seconds = (performance.now() - before) / 1_000;
  t.ok(linesOf(live).length <= 2 + seconds, `${linesOf(live).length} lines in ${seconds.toFixed(1)} s`);
  t.match(linesOf(live)[0], {
    clients: 1,
    reason: 'the limit clients.connections_max is reached',
    address: '127.0.0.1',
  });
  t.equal(told(), 20, 'all are counted');
  await holder.end();
});

t.test('of a flood so many are heard, and the others are cut off', async (t) => {
  const live = await liveRouter(t, [server], { clients: { connectionsMax: 1 } });
  const holder = await live.connect();
  const sockets: Socket[] = [];
  let answered = 0;
  let closed = 0;
  for (let index = 0; index < 1_100; index++) {
    const socket = connectSocket({ host: live.host, port: live.port });
    socket.once('data', () => answered++);
    socket.on('error', () => undefined);
    socket.once('close', () => closed++);
    sockets.push(socket);
    if (index % 50 === 49)
      await Promise.all(sockets.slice(-50).map((each) => each.connecting && once(each, 'connect')));
  }
  while (closed < 1_100) await sleep(50);
  t.ok(answered >= 1_000, `${answered} were told`);
  t.equal(live.router.counters.clientsRefused, 1_100);
  t.equal(await holder.value('select 1'), '1');
  await holder.end();
});
