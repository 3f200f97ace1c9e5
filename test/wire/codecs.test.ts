// What pgkv encodes, pg-protocol reads or would have written itself; what pgkv reads of a server's messages never
// reaches beyond the message.
import { createRequire } from 'node:module';
import fc from 'fast-check';
import t from 'tap';
import { PgkvError } from '../../src/base/errors.js';
import * as client from '../../src/wire/client-messages.js';
import { encodeErrorResponse, readErrorFields } from '../../src/wire/error-fields.js';
import { Frontend } from '../../src/wire/protocol.js';
import { readRowValues } from '../../src/wire/row-values.js';
import * as server from '../../src/wire/server-messages.js';
import { BackendMessageReader } from '../support/backend-message.js';
import { encode, frame, int16, int32 } from '../support/frontend-message.js';

interface Oracle {
  readonly serialize: {
    query(text: string): Buffer;
    parse(query: { name?: string; text: string; types?: number[] }): Buffer;
    bind(config: {
      portal?: string;
      statement?: string;
      values?: (string | Buffer | null)[];
      binary?: boolean;
    }): Buffer;
    close(target: { type: 'S' | 'P'; name?: string }): Buffer;
    describe(target: { type: 'S' | 'P'; name?: string }): Buffer;
    sync(): Buffer;
    end(): Buffer;
    requestSsl(): Buffer;
    cancel(pid: number, key: number): Buffer;
    password(text: string): Buffer;
    sendSASLInitialResponseMessage(mechanism: string, response: string): Buffer;
    startup(options: Record<string, string>): Buffer;
  };
}
interface Parser {
  parse(buffer: Buffer, callback: (message: Record<string, unknown>) => void): void;
}

const require = createRequire(import.meta.url);
const { serialize } = require('pg-protocol') as Oracle;
const { Parser: OracleParser } = require('pg-protocol/dist/parser') as { Parser: new () => Parser };

const TEXTS = ['', 'a', 'SELECT 1', 'ünï😀', "it''s", 'x'.repeat(70_000), '\u{1F600}'.repeat(300)];
const NAMES = ['', 's', 'pgkv_12', 'a name'];

function oracleReads(bytes: Buffer): Record<string, unknown> {
  const messages: Record<string, unknown>[] = [];
  new OracleParser().parse(bytes, (message) => messages.push(message));
  if (messages.length !== 1) throw new Error(`${messages.length} messages instead of one`);
  const [message] = messages;
  // An error's own text is not enumerable.
  return { ...message, message: message!['message'] };
}

t.test('messages to servers are byte for byte those of pg-protocol', async (t) => {
  t.same(client.SYNC, serialize.sync());
  t.same(client.TERMINATE, serialize.end());
  t.same(client.SSL_REQUEST, serialize.requestSsl());
  t.same(client.encodeCancelRequest(4711, int32(-12)), serialize.cancel(4711, -12));
  const startup = { user: 'ann', database: 'ünï' };
  t.same(
    client.encodeStartup(new Map(Object.entries({ ...startup, client_encoding: 'UTF8' }))),
    serialize.startup(startup),
  );
  for (const text of TEXTS) {
    t.ok(client.encodeQuery(text).equals(serialize.query(text)), `Query of ${text.length}`);
    t.ok(client.encodePassword(Buffer.from(`${text}\0`)).equals(serialize.password(text)), 'PasswordMessage');
    const scram = serialize.sendSASLInitialResponseMessage('SCRAM-SHA-256', text);
    t.ok(client.encodeSaslInitialResponse('SCRAM-SHA-256', Buffer.from(text)).equals(scram), 'SASLInitialResponse');
    for (const name of NAMES) {
      const types = [23, 0, 2 ** 31 - 1];
      const tail = Buffer.concat([Buffer.from(`${text}\0`), int16(3), ...types.map(int32)]);
      t.ok(client.encodeParse(name, tail).equals(serialize.parse({ name, text, types })), `Parse of ${name}`);
    }
  }
  for (const name of NAMES) {
    for (const type of ['S', 'P'] as const) {
      t.same(client.encodeNamed(Frontend.describe, type, name), serialize.describe({ type, name }));
      t.same(client.encodeNamed(Frontend.close, type, name), serialize.close({ type, name }));
    }
  }
});

t.test('a Bind gets another statement name and keeps all else, wherever it stands in its chunk', async (t) => {
  for (const [statement, name] of [
    ['', 'pgkv_1'],
    ['a long name of the client', 'p'],
    ['x', ''],
    ['ünï', 'pgkv_99'],
  ] as const) {
    for (const portal of ['', 'p']) {
      const values = ['1', null, Buffer.from([0, 1, 2])];
      const [from, to] = [statement, name].map((each) => serialize.bind({ portal, statement: each, values })) as [
        Buffer,
        Buffer,
      ];
      for (const before of [0, 9]) {
        const buffer = Buffer.concat([Buffer.alloc(before, 1), from, Buffer.from('behind')]);
        const nameStart = before + 5 + portal.length + 1;
        const nameEnd = nameStart + Buffer.byteLength(statement);
        const made = client.encodeBindFor(buffer, before, before + from.length, nameStart, nameEnd, name);
        t.same(made, to, `"${statement}" becomes "${name}"`);
      }
    }
  }
});

t.test('the length of a rewritten Bind comes from its parts, not from what the client claimed', async (t) => {
  const bytes = encode({ bind: [], statement: 'abc' });
  const lying = Buffer.from(bytes);
  lying.writeInt32BE(0x7fffffff, 1);
  const made = client.encodeBindFor(lying, 0, lying.length, 6, 9, 'pgkv_1');
  t.equal(made.readInt32BE(1), made.length - 1);
});

t.test('the end of a string is looked for inside its message only', async (t) => {
  const buffer = Buffer.from('abc\0def\0');
  t.equal(client.stringEnd(buffer, 0, 8), 3);
  t.equal(client.stringEnd(buffer, 3, 8), 3);
  t.equal(client.stringEnd(buffer, 4, 8), 7);
  for (const [offset, end] of [
    [4, 7],
    [0, 3],
    [8, 8],
    [9, 8],
  ] as const) {
    t.equal(client.stringEnd(buffer, offset, end), -1);
  }
});

t.test('messages to clients are read by pg-protocol and by the reader of the tests', async (t) => {
  const key = Buffer.from([1, 2, 3, 4]);
  const error = new PgkvError('unsupported_protocol', { message: 'nö', detail: 'why', hint: 'instead' });
  const expected: [Buffer, Record<string, unknown>][] = [
    [server.PARSE_COMPLETE, { name: 'parseComplete', length: 4 }],
    [server.BIND_COMPLETE, { name: 'bindComplete', length: 4 }],
    [server.CLOSE_COMPLETE, { name: 'closeComplete', length: 4 }],
    [server.NO_DATA, { name: 'noData', length: 4 }],
    [server.NO_PARAMETERS, { name: 'parameterDescription', dataTypeIDs: [] }],
    [server.READY_IDLE, { name: 'readyForQuery', status: 'I' }],
    [server.READY_FAILED, { name: 'readyForQuery', status: 'E' }],
    [server.AUTHENTICATION_OK, { name: 'authenticationOk' }],
    [
      server.encodeAuthenticationSasl(['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256']),
      { name: 'authenticationSASL', mechanisms: ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'] },
    ],
    [
      server.encodeAuthenticationSaslContinue(Buffer.from('r=ab')),
      { name: 'authenticationSASLContinue', data: 'r=ab' },
    ],
    [server.encodeAuthenticationSaslFinal(Buffer.from('v=cd')), { name: 'authenticationSASLFinal', data: 'v=cd' }],
    [
      server.encodeParameterStatus('TimeZone', 'Zürich'),
      { name: 'parameterStatus', parameterName: 'TimeZone', parameterValue: 'Zürich' },
    ],
    [server.encodeBackendKeyData(7, key), { name: 'backendKeyData', processID: 7, secretKey: 0x01020304 }],
    [server.encodeCommandComplete('SELECT 1'), { name: 'commandComplete', text: 'SELECT 1' }],
    [server.encodeTextRow('wärt'), { name: 'dataRow', fields: ['wärt'] }],
    [
      server.encodeTextRowDescription('pgkv.söhow'),
      {
        name: 'rowDescription',
        fieldCount: 1,
        fields: [{ name: 'pgkv.söhow', dataTypeID: 25, dataTypeSize: -1, dataTypeModifier: -1, format: 'text' }],
      },
    ],
    [
      server.encodeError(error, 'FATAL'),
      { name: 'error', severity: 'FATAL', code: '0A000', message: 'nö', detail: 'why', hint: 'instead' },
    ],
  ];
  const reader = new BackendMessageReader();
  for (const [bytes, message] of expected) {
    t.equal(bytes.readInt32BE(1), bytes.length - 1);
    t.match(oracleReads(bytes), message);
    const [decoded] = reader.push(bytes);
    t.not(decoded!.type, 'Malformed');
  }
  // pg-protocol does not know it.
  t.match(reader.push(server.encodeNegotiateProtocolVersion(0x00030002, ['_pq_.ä', '_pq_.b'])), [
    { type: 'NegotiateProtocolVersion', minor: 0x00030002, unrecognized: ['_pq_.ä', '_pq_.b'] },
  ]);
});

t.test('errors of any text survive being written and read; a NUL ends a text and cannot add a field', async () => {
  const fields = fc.dictionary(fc.constantFrom(...'SVCMDHPpqWstcdnFLR'), fc.string({ unit: 'binary' }));
  fc.assert(
    fc.property(fields, (given) => {
      const bytes = encodeErrorResponse(given);
      const wellFormed = Object.entries(given).map(([key, text]) => [
        key,
        Buffer.from(text.split('\0')[0]!).toString(),
      ]);
      const expected = JSON.stringify(Object.fromEntries(wellFormed));
      const [decoded] = new BackendMessageReader().push(bytes);
      const ours = JSON.stringify(readErrorFields(Buffer.concat([bytes, Buffer.from('MX\0')]), 0, bytes.length));
      return bytes.readInt32BE(1) === bytes.length - 1 && decoded!.type === 'ErrorResponse' && ours === expected;
    }),
  );
});

t.test('malformed errors give the fields in front of the fault', async (t) => {
  const read = (body: string): Record<string, string> => {
    const bytes = frame('E', Buffer.from(body, 'latin1'));
    return readErrorFields(Buffer.concat([bytes, Buffer.from('XYZ\0\0')]), 0, bytes.length);
  };
  t.same(read('SERROR\0C42601\0\0'), { S: 'ERROR', C: '42601' });
  t.same(read('SERROR\0C42601'), { S: 'ERROR' }, 'a text without an end');
  t.same(read('SERROR\0'), { S: 'ERROR' }, 'no terminator');
  t.same(read('SERROR\0M'), { S: 'ERROR' });
  t.same(read(''), {});
});

t.test('row values are read inside their row only', async (t) => {
  const row = (count: number, body: Buffer) => frame('D', int16(count), body);
  const good = row(3, Buffer.concat([int32(1), Buffer.from('a'), int32(-1), int32(0)]));
  t.same(readRowValues(Buffer.concat([Buffer.alloc(3), good]), 3, 3 + good.length), ['a', null, '']);
  t.same(readRowValues(row(0, Buffer.alloc(0)), 0, 7), []);
  const bad = [
    row(1, int32(1)), // a value that is not there
    row(1, Buffer.concat([int32(0x7fffffff), Buffer.from('a')])),
    row(2, Buffer.concat([int32(1), Buffer.from('a')])), // fewer values than announced
    row(1, Buffer.from([0, 0])), // half a length
    row(-1, Buffer.alloc(0)), // a negative count
    frame('D'), // no count
  ];
  for (const bytes of bad) {
    // What follows must not be taken for the missing part.
    for (const behind of [Buffer.alloc(0), Buffer.alloc(64), Buffer.alloc(64, 0xff)]) {
      const buffer = Buffer.concat([bytes, behind]);
      t.throws(() => readRowValues(buffer, 0, bytes.length), RangeError, `${bytes.toString('hex')} ${behind[0]}`);
    }
  }
});
