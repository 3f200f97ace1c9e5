// Servers that talk nonsense, stall or refuse, in the middle of a session and at every stage of the login: it costs that
// statement and that connection, never more.
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { takeViolations } from '../oracle/watch.js';
import { eventually, reset } from '../support/bystander.js';
import { ask, endingOf, FaultBench, struckBy } from '../support/fault-bench.js';
import type { Script } from '../support/fault-proxy.js';
import { cstring, frame, int16, int32 } from '../support/frontend-message.js';
import { stretched } from '../support/machine-speed.js';
import { errorOf } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const bench = await FaultBench.start(t);
// Some of the nonsense is a well-formed lie, and is passed on: it is not pgkv that breaks the protocol then.
t.teardown(takeViolations);

t.test('nonsense in the middle of a session costs that statement and that connection only', async (t) => {
  const { live, proxy } = await bench.behindProxy(t);
  const row = frame('D', int16(1), int32(1), Buffer.from('1'));
  const ready = frame('Z', Buffer.from('I'));
  const complete = frame('C', cstring('SELECT 1'));
  const head = (tag: string, length: number) => Buffer.concat([Buffer.from(tag), int32(length)]);
  const cases: readonly [name: string, bytes: Buffer][] = [
    ['an unknown type', Buffer.from([0xff, 0, 0, 0, 4])],
    ['type 0', Buffer.alloc(5)],
    ['HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ...[0, 3, -1, -(2 ** 31)].map((length): [string, Buffer] => [`a length of ${length}`, head('C', length)]),
    ['an error of 2 GB', head('E', 2 ** 31 - 1)],
    ['a description of 65 MB', head('T', 65 * 2 ** 20)],
    ['an answer to another question', frame('2')],
    ['ParseComplete to a simple query', frame('1')],
    ['a row of nobody', Buffer.concat([ready, row])],
    ['a second ReadyForQuery', Buffer.concat([complete, ready, ready])],
    ['a ReadyForQuery without a status', frame('Z')],
    ['a ReadyForQuery of an unknown status', frame('Z', Buffer.from('X'))],
    ['a ReadyForQuery with more behind', frame('Z', Buffer.from('II'))],
    ['an authentication request', frame('R', int32(0))],
    ['a cancel key', frame('K', int32(1), int32(2))],
    ['NegotiateProtocolVersion', frame('v', int32(0), int32(0))],
    ['a ParameterStatus without an end', frame('S', Buffer.from('TimeZone'))],
    ['a ParameterStatus of one text', frame('S', cstring('TimeZone'))],
    [
      'an ERROR that nobody asked for',
      Buffer.concat([complete, ready, frame('E', cstring('SERROR'), Buffer.alloc(1))]),
    ],
  ];
  let client = await bench.connect(live);
  for (const [name, bytes] of cases) {
    await client.value('SELECT 1');
    const connections = proxy.connections;
    const ending = await struckBy(proxy, { kind: 'say', after: 0, bytes }, () => ask(client, [{ query: 'SELECT 1' }]));
    t.match(ending, { outcome: /done|error/, code: /^(08006)?$/, status: 'I' }, name);
    client = await bench.goesOn(t, live, client, ending);
    t.equal(proxy.connections, connections + 1, `${name}: the connection was replaced`);
  }
  // A type byte that Postgres uses, the length of a message of 2 GB: rows are passed on as they come, so the client has
  // it in part and cannot be told more.
  const ending = await struckBy(
    proxy,
    { kind: 'say', after: 0, bytes: Buffer.concat([head('D', 0x7fffffff), Buffer.alloc(9)]) },
    async () => {
      client.wire.send({ query: 'SELECT 1' });
      await sleep(50);
      for (const connection of live.router.pool.connections()) connection.destroy('the test cuts it');
      return endingOf(await client.wire.wait('closed', 3_000));
    },
  );
  t.equal(ending.status, '');
  client.wire.destroy();
});

t.test("a FATAL error is passed on in the server's words, and ends the session as it does there", async (t) => {
  const { live, proxy } = await bench.behindProxy(t);
  const client = await bench.connect(live);
  await client.value('SELECT 1');
  const bytes = frame(
    'E',
    cstring('SFATAL'),
    cstring('VFATAL'),
    cstring('C57P01'),
    cstring('Mgoing away'),
    Buffer.alloc(1),
  );
  const ending = await struckBy(proxy, { kind: 'say', after: 0, bytes }, () => ask(client, [{ query: 'SELECT 1' }]));
  t.same(ending, { outcome: 'error', code: '57P01', status: '' });
  client.wire.destroy();
});

t.test('a server that stalls holds its client only; when that goes, the place is free', async (t) => {
  const { live, proxy } = await bench.behindProxy(t, { pool: { sizeMax: 2, waitTimeoutMs: 600 } });
  const [a, b] = [await bench.connect(live), await bench.connect(live)];
  await a.run('BEGIN', 'SELECT 1');
  await b.value('SELECT 1');
  proxy.arm({ kind: 'stall', side: 'answer', after: 3 });
  b.wire.send({ query: 'SELECT 1' });
  await eventually(t, 'the fault strikes', () => proxy.struck);
  proxy.disarm();
  const c = await bench.connect(live);
  t.equal(await c.fails('SELECT 1'), '53300', 'both places are taken');
  // After a FIN, which may be half a close, the answer would be awaited, as by Postgres.
  reset(b.wire.socket as Socket);
  t.equal(await c.value('SELECT 1'), '1', 'now one is free');
  t.equal(await a.value('SELECT 1'), '1', 'the transaction was not touched');
  await a.run('COMMIT');
  await Promise.all([a.end(), c.end()]);
});

t.test('a server that fails during the login', async (t) => {
  const { live, proxy } = await bench.behindProxy(t);
  const say =
    (...bytes: readonly Buffer[]): Script =>
    (socket) =>
      void socket.write(Buffer.concat(bytes));
  const asks = (method: number, data: Buffer = Buffer.alloc(0)) => frame('R', int32(method), data);
  const okay = asks(0);
  const fatal = frame(
    'E',
    cstring('SFATAL'),
    cstring('VFATAL'),
    cstring('C57P03'),
    cstring('Mstarting up'),
    Buffer.alloc(1),
  );
  const cases: readonly [name: string, script: Script, code: string][] = [
    ['closes at once', (socket) => void socket.end(), '08006'],
    ['resets', (socket) => void socket.resetAndDestroy(), '08006'],
    ['says nothing', () => undefined, '08006'],
    ['lets pgkv in and says nothing more', say(okay), '08006'],
    ['half a message', say(Buffer.from('5200000008', 'hex')), '08006'],
    ['refuses', say(fatal), '57P03'],
    ['refuses and closes', (socket) => void socket.end(fatal), '57P03'],
    ['refuses behind AuthenticationOk', say(okay, fatal), '57P03'],
    ['asks for a password', say(asks(3)), '28000'],
    ['asks for an MD5 password', say(asks(5, int32(1))), '28000'],
    ['asks for Kerberos', say(asks(7)), '08006'],
    ['asks for what nobody knows', say(asks(99)), '08006'],
    ['asks for SASL without a mechanism', say(asks(10, Buffer.alloc(1))), '28000'],
    ['asks for SCRAM', say(asks(10, Buffer.concat([cstring('SCRAM-SHA-256'), Buffer.alloc(1)]))), '28000'],
    ['goes on with a SASL exchange that never began', say(asks(11, Buffer.from('r=x'))), '08006'],
    ['ends a SASL exchange that never began', say(asks(12, Buffer.from('v=x'))), '08006'],
    ['is ready before it has let pgkv in', say(frame('K', int32(1), int32(2)), frame('Z', Buffer.from('I'))), '08006'],
    ['an authentication request without a number', say(frame('R')), '08006'],
    ['a cancel key without a key', say(okay, frame('K')), '08006'],
    ['a ParameterStatus without an end', say(okay, frame('S', Buffer.from('TimeZone'))), '08006'],
    ['a row', say(okay, frame('D', int16(0))), '08006'],
    ['a row of 2 GB', say(okay, Buffer.concat([Buffer.from('D'), int32(0x7fffffff)])), '08006'],
    ['HTTP', say(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')), '08006'],
    ['a length of 0', say(Buffer.from('5200000000', 'hex')), '08006'],
    ['a length of 2 GB', say(Buffer.from('457fffffff', 'hex')), '08006'],
  ];
  for (const [name, script, code] of cases) {
    proxy.script = script;
    const client = await WireClient.open(live);
    const began = performance.now();
    const { messages, outcome } = await client.startUp(bench.login);
    client.destroy();
    t.equal(outcome, 'closed', name);
    t.match(errorOf(messages)?.fields, { S: 'FATAL', C: code }, name);
    const elapsed = performance.now() - began;
    t.ok(elapsed < (await stretched(2_000)), `${name}: in time`);
    t.equal(live.router.pool.openCount, 0, `${name}: nothing is kept`);
  }
  proxy.script = null;
  const client = await bench.connect(live);
  t.equal(await client.value('SELECT 1'), '1', 'as soon as the server is well, so is pgkv');
  await client.end();
});

t.test('a login cut at every seventh byte of the greeting', async (t) => {
  const { live, proxy } = await bench.behindProxy(t, { pool: { sizeMax: 1, idleTimeoutMs: 1 } });
  for (let after = 0; ; after += 7) {
    await eventually(t, 'no connection is open', () => live.router.pool.openCount === 0);
    proxy.arm({ kind: 'cut', side: 'answer', after });
    const client = await WireClient.open(live);
    const { messages, outcome } = await client.startUp(bench.login);
    const { struck } = proxy;
    proxy.disarm();
    client.destroy();
    if (!struck) {
      t.equal(outcome, 'reached');
      t.ok(after > 300, `${after} bytes`);
      break;
    }
    // At its very last byte the login is through, and the client greeted, before the connection goes.
    if (outcome === 'closed') t.match(errorOf(messages)?.fields, { S: 'FATAL', C: '08006' }, `cut at ${after}`);
  }
  await live.quiet();
});

t.test('what a server says right behind its greeting is heard', async (t) => {
  const { live, proxy } = await bench.behindProxy(t);
  const status = (name: string, value: string) => frame('S', cstring(name), cstring(value));
  const greeting = [
    frame('R', int32(0)),
    ...Object.entries({
      server_version: '15.0',
      client_encoding: 'UTF8',
      standard_conforming_strings: 'on',
      TimeZone: 'UTC',
    }).map(([name, value]) => status(name, value)),
    frame('K', int32(1), int32(2)),
    frame('Z', Buffer.from('I')),
  ];
  const told = status('TimeZone', 'Europe/Berlin');
  const answer = Buffer.concat([frame('C', cstring('SET')), frame('Z', Buffer.from('I'))]);
  const sockets: Socket[] = [];
  // pgkv's own questions have connections of their own.
  const askers = new Set<Socket>();
  proxy.script = (socket, chunk) => {
    if (sockets.includes(socket)) {
      // The second half of the message that the greeting's packet ended with, then the answer.
      if (chunk.includes('SELECT 1\0')) askers.add(socket);
      if (chunk[0] === 0x51) socket.write(answer);
      return;
    }
    sockets.push(socket);
    socket.write(Buffer.concat([...greeting, told.subarray(0, 9)]));
    setTimeout(() => socket.write(told.subarray(9)), 30);
  };
  const client = await bench.connect(live);
  await sleep(60);
  t.same(await client.run('SELECT 1'), ['SET'], 'the stream is read on where it was left');
  t.equal(client.told('TimeZone'), 'Europe/Berlin');
  t.equal(askers.size, 1);
  await client.end();
  proxy.script = null;
});

t.test('TLS that is not given as asked for', async (t) => {
  const cases: readonly [name: string, answer: Buffer, detail: RegExp][] = [
    ['nothing', Buffer.alloc(0), /no answer within 300 ms/],
    ['S and silence', Buffer.from('S'), /no answer within 300 ms/],
    ['bytes behind the answer', Buffer.from('N!'), /unencrypted data/],
    ['another letter', Buffer.from('X'), /no valid answer/],
    ['an error instead of an answer', Buffer.from('E'), /no valid answer/],
  ];
  for (const tls of ['prefer', 'require'] as const) {
    const { live, proxy } = await bench.behindProxy(t, { servers: { tls, connectTimeoutMs: 300 } });
    for (const [name, answer, detail] of cases) {
      proxy.sslAnswer = answer;
      const client = await WireClient.open(live);
      const { messages, outcome } = await client.startUp(bench.login);
      client.destroy();
      t.equal(outcome, 'closed');
      t.match(errorOf(messages)?.fields, { S: 'FATAL', C: '08006', D: detail }, `${tls}: ${name}`);
    }
    await proxy.down();
  }
  // The file was there when pgkv started.
  const overrides = { servers: { tls: 'verify-ca', tlsCaFile: '/gone/authorities.pem' } } as const;
  const { live, proxy } = await bench.behindProxy(t, overrides);
  proxy.sslAnswer = Buffer.from('S');
  const client = await WireClient.open(live);
  const { messages } = await client.startUp(bench.login);
  client.destroy();
  t.match(errorOf(messages)?.fields, { S: 'FATAL', C: '08006', D: /authorities.pem/ });
  await proxy.down();
});
