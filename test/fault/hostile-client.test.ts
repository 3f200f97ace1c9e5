// Bytes no driver sends: the client gets a clear error with an SQLSTATE where the protocol allows one, is cut off where
// it does not, and nobody else notices. What Postgres answers to the same bytes decides wherever it answers at all.
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { Bystander, reset, serverAtRest } from '../support/bystander.js';
import {
  cstring,
  encode,
  encodeAll,
  encodeCancel,
  encodeRequest,
  encodeStartup,
  type FrontendMessage,
  frame,
  int16,
  int32,
  REQUEST_CODES,
} from '../support/frontend-message.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { stretched } from '../support/machine-speed.js';
import { startPostgres } from '../support/postgres-server.js';
import { errorOf, SqlClient } from '../support/sql-client.js';
import { type Exchange, PROTOCOL_3_0, type WireAddress, WireClient } from '../support/wire-client.js';

const server = await startPostgres({ version: '15' });
t.teardown(() => server.stop());
const DIRECT = { user: server.superuser, database: 'postgres' };
const direct = await SqlClient.connect(server, DIRECT);
t.teardown(() => direct.end());
await direct.run('CREATE TABLE kept (id int PRIMARY KEY, v text)');

const LOGIN = { user: server.superuser, database: 'postgres' };
const startup = (parameters: Readonly<Record<string, string>>, protocol = PROTOCOL_3_0) =>
  encodeStartup(protocol, parameters);
const packet = (length: number, ...rest: readonly Buffer[]) => Buffer.concat([int32(length), ...rest]);
const header = (tag: string, length: number) => Buffer.concat([Buffer.from(tag, 'latin1'), int32(length)]);

/** Every test ends with a router in which nothing is left, and a server on which nothing runs. */
async function attacked(t: Test, attack: (live: LiveRouter) => Promise<void>, overrides = {}): Promise<void> {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 3 }, ...overrides });
  const bystander = await Bystander.start(live);
  await attack(live);
  await bystander.stop(t);
  await live.quiet();
  await serverAtRest(t, server, { direct });
}

/** What comes back to these very first bytes, up to the end of the connection. */
async function toFirstBytes(live: LiveRouter, bytes: Buffer, behave: 'wait' | 'end' = 'wait'): Promise<Exchange> {
  const client = await WireClient.open(live, 3_000);
  client.sendBytes(bytes);
  if (behave === 'end') client.socket.end();
  const exchange = await client.wait('closed');
  client.destroy();
  return exchange;
}

t.test('first bytes that are no start-up packet', async (t) => {
  const user = { user: server.superuser };
  const cases: readonly [name: string, bytes: Buffer, sqlstate: string | null][] = [
    ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), null],
    ['a TLS ClientHello, without TLS', Buffer.from('1603010200010001fc0303', 'hex'), null],
    ['zeros', Buffer.alloc(64), null],
    ['ones', Buffer.alloc(64, 0xff), null],
    ['a Query', encode({ query: 'SELECT 1' }), null],
    ...[0, 3, 4, 7, 10_001, -1, 2 ** 31 - 1].map((length): [string, Buffer, null] => [
      `length ${length}`,
      packet(length, int32(PROTOCOL_3_0)),
      null,
    ]),
    ['no terminator', packet(13, int32(PROTOCOL_3_0), Buffer.from('user\0')), '08P01'],
    ['protocol 2.0', startup(user, 2 << 16), '0A000'],
    ['protocol 4.0', startup(user, 4 << 16), '0A000'],
    ['no user', startup({ database: 'postgres' }), '28000'],
    ['an empty user', startup({ user: '', database: 'postgres' }), '28000'],
    ['an unknown user', startup({ user: 'nobody knows', database: 'postgres' }), '28000'],
    [
      'an unknown user of invalid UTF-8',
      packet(16, int32(PROTOCOL_3_0), Buffer.from('user\0\xff\0\0', 'latin1')),
      '28000',
    ],
    ['an unknown database', startup({ ...user, database: 'nothing' }), '3D000'],
    ['a wrong setting', startup({ ...user, database: 'postgres', TimeZone: 'Nowhere/Never' }), '22023'],
    ['an unknown setting', startup({ ...user, database: 'postgres', no_such_setting: '1' }), '42704'],
    ['replication', startup({ ...user, replication: 'true' }), '0A000'],
    ['plaintext behind SSLRequest', Buffer.concat([encodeRequest(REQUEST_CODES.ssl), startup(user)]), '08P01'],
    ['one byte behind GSSENCRequest', Buffer.concat([encodeRequest(REQUEST_CODES.gssenc), Buffer.of(0)]), '08P01'],
    ['a cancel key of 3 bytes', encodeCancel(1, Buffer.alloc(3)), null],
    ['a cancel key of 257 bytes', encodeCancel(1, Buffer.alloc(257)), null],
    ['a cancel of nobody', encodeCancel(1, Buffer.alloc(4)), null],
  ];
  await attacked(t, async (live) => {
    for (const [name, bytes, sqlstate] of cases) {
      const { messages, outcome } = await toFirstBytes(live, bytes);
      t.equal(outcome, 'reached', `${name}: the connection is closed`);
      t.equal(errorOf(messages)?.code ?? null, sqlstate, name);
      const severity = sqlstate === null ? undefined : 'FATAL';
      t.equal(errorOf(messages)?.fields['S'], severity, `${name}: severity`);
      // As from Postgres, the words of the server may come behind AuthenticationOk.
      const others = messages.filter(({ type }) => type !== 'ErrorResponse' && type !== 'Authentication');
      t.same(others, [], `${name}: nothing else is said`);
    }
    t.ok(live.router.counters.protocolViolations > 0);
    t.equal(live.router.counters.startupsPending, 0);
  });
});

t.test('start-up packets cut anywhere and then nothing: the connection ends without a word', async (t) => {
  const whole = startup(LOGIN);
  await attacked(t, async (live) => {
    for (let length = 0; length < whole.length; length += 3) {
      const { messages, outcome } = await toFirstBytes(live, whole.subarray(0, length), 'end');
      t.same([outcome, messages.length], ['reached', 0], `${length} bytes`);
    }
  });
});

t.test('encryption requests are answered once each, in either order, then a login follows', async (t) => {
  await attacked(t, async (live) => {
    for (const codes of [['gssenc', 'ssl'], ['ssl', 'gssenc'], ['ssl']] as const) {
      const client = await WireClient.open(live);
      const answers: string[] = [];
      // The one-byte answers are no messages: take them from the socket before the reader of messages sees them.
      client.socket.removeAllListeners('data');
      for (const code of codes) {
        const answer = new Promise<Buffer>((resolve) => client.socket.once('data', resolve));
        client.sendBytes(encodeRequest(REQUEST_CODES[code]));
        answers.push((await answer).toString('latin1'));
      }
      t.same(
        answers,
        codes.map(() => 'N'),
      );
      const greeting = new Promise<Buffer>((resolve) => client.socket.once('data', resolve));
      client.sendBytes(startup(LOGIN));
      t.equal((await greeting).toString('latin1', 0, 1), 'R');
      client.destroy();
    }
  });
});

t.test('messages after login that Postgres cuts a client off for', async (t) => {
  const cases: readonly [name: string, bytes: Buffer, sqlstate: string][] = [
    ...['Q', 'P', 'B', 'D', 'E', 'C', 'S', 'H', 'F', 'd', 'c', 'f', 'X'].flatMap((tag) =>
      [0, 3, -1, -(2 ** 31), 2 ** 31 - 1].map((length): [string, Buffer, string] => [
        `${tag} of length ${length}`,
        header(tag, length),
        '08P01',
      ]),
    ),
    ['a Sync over its limit', header('S', 10_001), '08P01'],
    ['a Query over the limit of the settings', header('Q', 1_048_577), '54000'],
    ['a Bind over the limit of the settings', header('B', 2_097_153), '54000'],
    ['type 0', Buffer.alloc(5), '08P01'],
    ['type 255', Buffer.alloc(5, 0xff), '08P01'],
    ['a message only servers send', header('T', 4), '08P01'],
    ['a password in trust mode', encode({ password: 'x\0' }), '08P01'],
    ['a second StartupMessage', startup(LOGIN), '08P01'],
    ['an SSLRequest in the session', encodeRequest(REQUEST_CODES.ssl), '08P01'],
    ['a Query that is fine, then garbage', Buffer.concat([encode({ query: 'SELECT 1' }), Buffer.alloc(9)]), '08P01'],
  ];
  await attacked(
    t,
    async (live) => {
      for (const [name, bytes, sqlstate] of cases) {
        const { wire } = await live.connect();
        wire.sendBytes(bytes);
        const { messages, outcome } = await wire.wait('closed', 3_000);
        t.equal(outcome, 'reached', `${name}: the connection is closed`);
        const last = messages.at(-1);
        t.match(last, { type: 'ErrorResponse', fields: { S: 'FATAL', C: sqlstate } }, name);
        wire.destroy();
      }
    },
    { clients: { queryBytesMax: 1_048_576, messageBytesMax: 2_097_152 } },
  );
});

/** Statements have other names on the server; its words show them (a listed difference). */
const comparable = (message: BackendMessage): unknown =>
  message.type !== 'ErrorResponse'
    ? message
    : { ...message, fields: { ...message.fields, M: message.fields['M']?.replace(/"(s1|pgkv_\d+ ?)"/, '(name)') } };

const PREPARED: readonly FrontendMessage[] = [{ parse: 'SELECT $1::int4, $2::text', name: 's1' }, 'sync'];

/** The same bytes to Postgres and through pgkv; the connection's fate and every message have to be the same. */
async function sameAsPostgres(live: LiveRouter, bytes: Buffer): Promise<{ ours: unknown; theirs: unknown }> {
  const [theirs, ours] = await Promise.all([server, live].map((address) => answersTo(address, bytes)));
  return { ours, theirs };
}

async function answersTo(address: WireAddress, bytes: Buffer): Promise<unknown> {
  const client = await WireClient.connect(address, LOGIN);
  await client.exchange(PREPARED);
  client.sendBytes(bytes);
  // Answered whatever came of the bytes, unless the connection was closed for them.
  client.send('copyDone', 'sync', { query: 'SHOW port' });
  const messages: unknown[] = [];
  for (;;) {
    const { messages: more, outcome } = await client.wait({ type: 'CommandComplete' }, 3_000);
    messages.push(...more.map(comparable));
    const last = more.at(-1);
    if (outcome === 'reached' && last?.type === 'CommandComplete' && last.tag !== 'SHOW') continue;
    client.destroy();
    return { outcome, messages };
  }
}

t.test('messages in a wrong order or with a wrong body are answered as Postgres answers them', async (t) => {
  const select = 'SELECT 1';
  const cases: readonly [name: string, messages: readonly FrontendMessage[]][] = [
    ['Sync alone', ['sync']],
    ['Flush alone', ['flush']],
    ['Syncs', ['sync', 'sync', 'sync']],
    ['Bind of an unknown statement', [{ bind: [], statement: 'none' }, 'sync']],
    ['Bind of an unnamed statement that was never parsed', [{ bind: [] }, 'sync']],
    ['Execute of an unknown portal', [{ execute: 'none' }, 'sync']],
    ['Execute without Bind', [{ execute: '' }, 'sync']],
    ['Describe of an unknown statement', [{ describe: 'statement', name: 'none' }, 'sync']],
    ['Describe of an unknown portal', [{ describe: 'portal', name: 'none' }, 'sync']],
    ['Describe of neither', [{ raw: frame('D', Buffer.from('X\0')) }, 'sync']],
    ['Close of neither', [{ raw: frame('C', Buffer.from('X\0')) }, 'sync']],
    ['Close of what is not there', [{ close: 'statement', name: 'none' }, { close: 'portal', name: 'none' }, 'sync']],
    ['a name twice', [{ parse: select, name: 's1' }, 'sync']],
    ['too few parameters', [{ bind: ['1'], statement: 's1' }, { execute: '' }, 'sync']],
    ['too many formats', [{ bind: ['1', '2'], statement: 's1', formats: [0, 0, 0] }, 'sync']],
    ['an unknown format', [{ bind: ['1', '2'], statement: 's1', formats: [7] }, { execute: '' }, 'sync']],
    ['COPY data outside a copy', [{ copyData: 'x' }, 'copyDone', { copyFail: 'no' }]],
    ['COPY data between Parse and Sync', [{ parse: select }, { copyData: 'x' }, { bind: [] }, { execute: '' }, 'sync']],
    ['a Query between Parse and Sync', [{ parse: select }, { query: select }, 'sync']],
    [
      'messages behind an error are skipped',
      [{ parse: 'SELEC' }, { parse: select }, { bind: [] }, { execute: '' }, 'sync'],
    ],
    ['a function that is not there', [{ functionCall: 1, args: [] }]],
    ['a function in the middle of a batch', [{ parse: select }, { functionCall: 1, args: [] }, 'sync']],
    ['invalid UTF-8 in a Query', [{ query: Buffer.from("SELECT '\xff\xfe'", 'latin1') }]],
    ['invalid UTF-8 in a Parse', [{ parse: Buffer.from("SELECT '\xc0\x80'", 'latin1') }, 'sync']],
    ['invalid UTF-8 in a name', [{ parse: select, name: Buffer.from('\xff', 'latin1') }, 'sync']],
    [
      'invalid UTF-8 in a parameter',
      [{ bind: ['1', Buffer.from('\xe4', 'latin1')], formats: [0, 0], statement: 's1' }, { execute: '' }, 'sync'],
    ],
    ['NUL in a parameter', [{ bind: ['1', 'a\0b'], statement: 's1' }, { execute: '' }, 'sync']],
    ['a Query without an end', [{ raw: frame('Q', Buffer.from('SELECT 7')) }]],
    ['a Query with NUL in its text', [{ query: 'SELECT 7\0, 8' }]],
    ['an empty Query body', [{ raw: frame('Q') }]],
    ['bytes behind a Query', [{ raw: frame('Q', cstring('SELECT 7'), Buffer.from('x')) }]],
    ['an empty Parse', [{ raw: frame('P') }, 'sync']],
    ['a Parse without a type count', [{ raw: frame('P', cstring(''), cstring(select)) }, 'sync']],
    [
      'a Parse with fewer types than announced',
      [{ raw: frame('P', cstring(''), cstring(select), int16(2), int32(23)) }, 'sync'],
    ],
    ['a Parse with a negative type count', [{ raw: frame('P', cstring(''), cstring(select), int16(-1)) }, 'sync']],
    ['an empty Bind', [{ raw: frame('B') }, 'sync']],
    ['a Describe whose name has no end', [{ raw: frame('D', Buffer.from('Ss1')) }, 'sync']],
    ['a Close whose name has no end', [{ raw: frame('C', Buffer.from('Ss1')) }, 'sync']],
    [
      'a Bind whose value is longer than it',
      [{ raw: frame('B', cstring(''), cstring('s1'), int16(0), int16(2), int32(0x7fffffff)) }, 'sync'],
    ],
    [
      'a Bind whose value has a negative length',
      [{ raw: frame('B', cstring(''), cstring('s1'), int16(0), int16(2), int32(-2), int32(-1), int16(0)) }, 'sync'],
    ],
    [
      'a Bind of 65,535 values that are not there',
      [{ raw: frame('B', cstring(''), cstring('s1'), int16(0), int16(-1)) }, 'sync'],
    ],
    ['an empty Execute', [{ raw: frame('E') }, 'sync']],
    ['an Execute without a count', [{ raw: frame('E', cstring('')) }, 'sync']],
    ['an empty FunctionCall', [{ raw: frame('F') }]],
    ['a text of many NULs', [{ raw: frame('Q', Buffer.alloc(300)) }]],
    ['a name as long as a text', [{ parse: select, name: 'n'.repeat(5_000) }, 'sync']],
    ["a name of pgkv's own", [{ bind: [], statement: 'pgkv_1' }, 'sync']],
  ];
  await attacked(t, async (live) => {
    for (const [name, messages] of cases) {
      const { ours, theirs } = await sameAsPostgres(live, encodeAll(messages));
      t.strictSame(ours, theirs, name);
    }
  });
});

t.test('bodies of the extended protocol broken at random are answered as Postgres answers them', async (t) => {
  const good: readonly FrontendMessage[] = [
    { parse: 'SELECT $1', types: [25] },
    { bind: ['5', 'x'], statement: 's1', resultFormats: [0, 1] },
    { describe: 'statement', name: 's1' },
    { execute: '', rows: 1 },
    { close: 'portal' },
  ];
  const edit = fc.record({ at: fc.nat(40), byte: fc.constantFrom(0, 1, 2, 0x31, 0x53, 0x7f, 0x80, 0xff) });
  const broken = fc
    .tuple(fc.constantFrom(...good), fc.array(edit, { maxLength: 2 }), fc.nat(5))
    .map(([message, edits, cut]) => {
      const bytes = encode(message);
      const body = Buffer.from(bytes.subarray(5, bytes.length - (cut > 3 ? cut - 2 : 0)));
      for (const { at, byte } of edits) body[at % body.length] = byte;
      return frame(bytes.toString('latin1', 0, 1), body);
    });
  await attacked(t, async (live) => {
    await fc.assert(
      fc.asyncProperty(fc.array(broken, { minLength: 1, maxLength: 4 }), async (frames) => {
        const { ours, theirs } = await sameAsPostgres(live, Buffer.concat([...frames, encode('sync')]));
        const same = JSON.stringify(ours) === JSON.stringify(theirs);
        if (!same) t.strictSame(ours, theirs, Buffer.concat(frames).toString('latin1'));
        return same;
      }),
      { numRuns: 60, endOnFailure: true },
    );
  });
});

t.test('12 MB announced by 100 clients, 10 bytes sent: no memory is set aside for them', async (t) => {
  await attacked(t, async (live) => {
    const before = process.memoryUsage().arrayBuffers;
    const clients = await Promise.all(Array.from({ length: 100 }, () => live.connect()));
    for (const { wire } of clients) wire.sendBytes(Buffer.concat([header('Q', 12 * 2 ** 20), Buffer.alloc(5, 0x20)]));
    await sleep(100);
    t.ok(process.memoryUsage().arrayBuffers - before < 8 * 2 ** 20);
    t.equal(live.router.listener.connections.size, 101);
    for (const { wire } of clients) wire.destroy();
  });
});

t.test('a message of 3 MB sent in one, and one of 20 KB sent byte by byte, are served', async (t) => {
  await attacked(t, async (live) => {
    const client = await live.connect();
    const text = 'x'.repeat(3 * 2 ** 20);
    t.equal(await client.value(`SELECT length('${text}')`), String(text.length));
    const bytes = encode({ query: `SELECT length('${'y'.repeat(20_000)}')` });
    for (let offset = 0; offset < bytes.length; offset++) client.wire.sendBytes(bytes.subarray(offset, offset + 1));
    const { messages } = await client.wire.wait(1);
    t.equal(errorOf(messages), null);
    await client.end();
  });
});

t.test('more clients than allowed are refused in words, and let in when there is room', async (t) => {
  await attacked(
    t,
    async (live) => {
      const [a, b] = [await live.connect(), await live.connect()];
      const { messages, outcome } = await toFirstBytes(live, startup(LOGIN));
      t.equal(outcome, 'reached');
      t.match(errorOf(messages)?.fields, { S: 'FATAL', C: '53300', D: /clients.connections_max/ });
      await a.end();
      await b.end();
      const again = await live.connect();
      t.equal(await again.value('SELECT 1'), '1');
      await again.end();
    },
    { clients: { connectionsMax: 3 } },
  );
});

t.test('logins with SCRAM', async (t) => {
  const guarded = await startPostgres({ version: '15', hba: 'scram' });
  t.teardown(() => guarded.stop());
  const owner = await SqlClient.connect(
    { host: guarded.socketDir, port: guarded.port },
    { user: guarded.superuser, database: 'postgres' },
  );
  t.teardown(() => owner.end());
  await owner.run(readFileSync(new URL('../../config/auth.sql', import.meta.url), 'utf8'));
  await owner.run(`ALTER ROLE pgkv_service PASSWORD 'service'`, `CREATE ROLE ann LOGIN PASSWORD 'right'`);
  const live = await liveRouter(
    t,
    [guarded],
    { auth: { method: 'scram-sha-256', failureDelayMs: 50 }, clients: { startupTimeoutMs: 800 } },
    { servicePassword: 'service' },
  );
  const ann = { user: 'ann', database: 'postgres' };
  /** A client that has sent its StartupMessage and been asked for SASL. */
  const asked = async (user = 'ann') => {
    const client = await WireClient.open(live, 3_000);
    const { messages } = await client.exchange([{ raw: startup({ ...ann, user }) }], { type: 'Authentication' });
    t.match(messages, [{ type: 'Authentication', code: 10 }]);
    return client;
  };
  const clientFirst = Buffer.from('n,,n=,r=clientnonce');
  const saslInitial = (mechanism: string, data: Buffer) =>
    encode({ password: Buffer.concat([cstring(mechanism), int32(data.length), data]) });
  const refused = async (client: WireClient, bytes: Buffer): Promise<string | undefined> => {
    client.sendBytes(bytes);
    const { messages, outcome } = await client.wait('closed');
    client.destroy();
    t.equal(outcome, 'reached', 'the connection is closed');
    const error = errorOf(messages);
    t.equal(error?.fields['S'], 'FATAL');
    return error?.code;
  };

  await t.test('the right password is accepted, and a wrong one and an unknown user look the same', async (t) => {
    const client = await SqlClient.connect(live, { ...ann, password: 'right' });
    t.equal(await client.value('SELECT current_user'), 'ann');
    await client.end();
    const errors: BackendMessage[] = [];
    for (const user of ['ann', 'who']) {
      const wire = await WireClient.open(live, 3_000);
      const began = performance.now();
      const { messages, outcome } = await wire.startUp({ ...ann, user, password: 'wrong' });
      wire.destroy();
      t.equal(outcome, 'closed');
      t.ok(performance.now() - began >= 49, 'after the pause');
      t.same(
        messages.slice(0, -1).map((message) => (message.type === 'Authentication' ? message.code : message.type)),
        [10, 11],
      );
      errors.push(messages.at(-1)!);
      t.match(messages.at(-1), {
        type: 'ErrorResponse',
        fields: { C: '28P01', M: `password authentication failed for user "${user}"` },
      });
    }
    t.same(JSON.stringify(errors[0]).replace('ann', 'who'), JSON.stringify(errors[1]));
  });

  await t.test("an unknown database is refused in the server's words", async (t) => {
    const wire = await WireClient.open(live, 3_000);
    const { messages } = await wire.startUp({ user: 'ann', database: 'nothing', password: 'right' });
    wire.destroy();
    t.match(messages.at(-1), { type: 'ErrorResponse', fields: { S: 'FATAL', C: '3D000' } });
  });

  await t.test('anything but SASL messages ends the login', async (t) => {
    t.equal(await refused(await asked(), startup(ann)), '08P01', 'a second StartupMessage');
    t.equal(await refused(await asked(), encode({ query: 'SELECT 1' })), '08P01', 'a Query');
    t.equal(await refused(await asked(), encode('sync')), '08P01', 'a Sync');
    t.equal(await refused(await asked(), encodeRequest(REQUEST_CODES.ssl)), '08P01', 'an SSLRequest');
    t.equal(await refused(await asked(), Buffer.alloc(40, 0xff)), '08P01', 'garbage');
    for (const length of [0, 3, -1, 65_536, 2 ** 31 - 1]) {
      t.equal(await refused(await asked(), header('p', length)), '08P01', `a message of length ${length}`);
    }
  });

  await t.test('SASL messages that are none end the login', async (t) => {
    const bodies: readonly [string, Buffer][] = [
      ['nothing', frame('p')],
      ['a plain password', encode({ password: 'right\0' })],
      ['an unknown mechanism', saslInitial('SCRAM-SHA-1', clientFirst)],
      ['channel binding without TLS', saslInitial('SCRAM-SHA-256-PLUS', clientFirst)],
      [
        'a length beyond the message',
        encode({ password: Buffer.concat([cstring('SCRAM-SHA-256'), int32(1_000), clientFirst]) }),
      ],
      ['a negative length', encode({ password: Buffer.concat([cstring('SCRAM-SHA-256'), int32(-2), clientFirst]) })],
      ['no nonce', saslInitial('SCRAM-SHA-256', Buffer.from('n,,n=,'))],
      ['invalid UTF-8', saslInitial('SCRAM-SHA-256', Buffer.from('n,,n=\xff,r=\xff', 'latin1'))],
      ['garbage behind the mechanism', saslInitial('SCRAM-SHA-256', Buffer.alloc(500, 0x2c))],
    ];
    for (const [name, bytes] of bodies) {
      t.match(await refused(await asked(), bytes), /^(08P01|28000|28P01|0A000)$/, name);
    }
    const second = await asked();
    await second.exchange([{ raw: saslInitial('SCRAM-SHA-256', clientFirst) }], { type: 'Authentication' });
    t.match(
      await refused(second, encode({ password: 'c=biws,r=another,p=AAAA' })),
      /^(08P01|28P01)$/,
      'a foreign nonce',
    );
    const third = await asked('who');
    await third.exchange([{ raw: saslInitial('SCRAM-SHA-256', clientFirst) }], { type: 'Authentication' });
    t.equal(await refused(third, startup(ann)), '08P01', 'a second StartupMessage behind the first SASL message');
  });

  await t.test('a client that falls silent or vanishes during the login is forgotten', async (t) => {
    const silent = await asked();
    const began = performance.now();
    const { messages } = await silent.wait('closed');
    t.match(errorOf(messages)?.fields, { C: '08P01', S: 'FATAL' });
    const elapsed = performance.now() - began;
    t.ok(elapsed < (await stretched(2_000)), 'within the time-out');
    silent.destroy();
    const [fin, rst] = [await asked(), await asked()];
    fin.socket.end();
    reset(rst.socket as Socket);
    await live.quiet();
    t.equal(live.router.counters.startupsPending, 0);
    fin.destroy();
  });
  await live.quiet();
});
