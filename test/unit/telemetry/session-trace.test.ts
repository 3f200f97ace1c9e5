// Protocol messages as trace lines: all types, no secrets, any bytes.
import { createRequire } from 'node:module';
import fc from 'fast-check';
import t from 'tap';
import { type Direction, describeMessage, UNTYPED } from '../../../src/telemetry/session-trace.js';

// tap's loader takes pg-protocol's ES module for CommonJS and fails: required, it loads.
const { serialize } = createRequire(import.meta.url)('pg-protocol') as typeof import('pg-protocol');

const text = (value: string) => Buffer.from(`${value}\0`);
const int16 = (value: number) => Buffer.from([(value >> 8) & 255, value & 255]);
const int32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const value = (content: string | Buffer) => Buffer.concat([int32(Buffer.byteLength(content)), Buffer.from(content)]);

function show(direction: Direction, letter: string, parts: readonly Buffer[], values = false): string {
  return describeMessage(direction, letter === '' ? UNTYPED : letter.charCodeAt(0), Buffer.concat(parts), { values });
}
const frontend = (letter: string, ...parts: Buffer[]) => show('from-client', letter, parts);
const backend = (letter: string, ...parts: Buffer[]) => show('to-client', letter, parts);

/** A whole frame as pg-protocol writes it. */
function frame(bytes: Buffer, values: boolean): string {
  return describeMessage('from-client', bytes[0]!, bytes.subarray(5), { values });
}

t.test('messages of clients', async (t) => {
  const cases: [string, string][] = [
    [frontend('', int32(80877103)), 'Startup SSLRequest'],
    [frontend('', int32(80877104)), 'Startup GSSENCRequest'],
    [frontend('', int32(80877102), int32(7), Buffer.from('topkey')), 'Startup CancelRequest pid=7 key of 6 bytes'],
    [
      frontend('', int32(196610), text('user'), text('alice'), text('database'), text('kv'), text('')),
      'Startup 3.2 user="alice" database="kv"',
    ],
    [frontend('Q', text("SELECT 'hidden'")), 'Query SELECT ?'],
    [frontend('P', text('s1'), text('SELECT 7'), int16(1), int32(25)), 'Parse "s1" SELECT ? parameters=1'],
    [
      frontend('B', text('p'), text('s'), int16(1), int16(1), int16(2), value('hidden'), int32(-1), int16(1), int16(1)),
      'Bind "p" "s" (6 bytes, NULL) results=binary',
    ],
    [frontend('E', text('p'), int32(0)), 'Execute "p"'],
    [frontend('E', text(''), int32(9)), 'Execute "" rows=9'],
    [frontend('D', Buffer.from('S'), text('s')), 'Describe statement "s"'],
    [frontend('C', Buffer.from('P'), text('p')), 'Close portal "p"'],
    [frontend('S'), 'Sync'],
    [frontend('H'), 'Flush'],
    [frontend('X'), 'Terminate'],
    [frontend('F', int32(42), int16(0), int16(1), value('hidden'), int16(0)), 'FunctionCall oid=42 (6 bytes)'],
    [frontend('d', Buffer.from('hidden')), 'CopyData 6 bytes'],
    [frontend('c'), 'CopyDone'],
    [frontend('f', text('hidden')), 'CopyFail'],
    [frontend('p', text('hidden')), 'Password 7 bytes, never shown'],
    [frontend('z', Buffer.from('hidden')), 'Unknown(0x7a) 6 bytes'],
  ];
  for (const [line, expected] of cases) t.equal(line, `client > ${expected}`);
  t.equal(show('to-server', 'S', []), 'server < Sync');
});

t.test('messages of servers', async (t) => {
  const fields = (...pairs: [string, string][]) => [...pairs.map(([k, v]) => text(k + v)), Buffer.from([0])];
  const duplicate: [string, string][] = [
    ['S', 'FEHLER'],
    ['V', 'ERROR'],
    ['C', '23505'],
    ['M', 'duplicate key "hidden"'],
    ['D', 'Key (k)=(hidden)'],
  ];
  const column = [int32(1), int16(1), int32(25), int16(-1), int32(-1)];
  const cases: [string, string][] = [
    [backend('R', int32(0)), 'Authentication Ok'],
    [backend('R', int32(10), text('SCRAM-SHA-256'), text('')), 'Authentication SASL SCRAM-SHA-256'],
    [backend('R', int32(11), Buffer.from('r=hidden')), 'Authentication SASLContinue'],
    [backend('R', int32(99)), 'Authentication Unknown(99)'],
    [backend('K', int32(7), Buffer.from('topsecretkey')), 'BackendKeyData pid=7 key of 12 bytes'],
    [backend('S', text('TimeZone'), text('UTC')), 'ParameterStatus TimeZone="UTC"'],
    [backend('Z', Buffer.from('I')), 'ReadyForQuery idle'],
    [backend('Z', Buffer.from('T')), 'ReadyForQuery in transaction'],
    [backend('Z', Buffer.from('E')), 'ReadyForQuery in failed transaction'],
    [
      backend('T', int16(2), text('a'), ...column, int16(0), text('b'), ...column, int16(1)),
      'RowDescription (a:25, b:25:binary)',
    ],
    [backend('D', int16(2), value('hidden'), int32(-1)), 'DataRow (6 bytes, NULL)'],
    [backend('C', text('SELECT 1')), 'CommandComplete SELECT 1'],
    [backend('E', ...fields(...duplicate)), 'ErrorResponse ERROR 23505 duplicate key ?...'],
    [backend('N', ...fields(['S', 'NOTICE'], ['C', '00000'], ['M', 'hidden'])), 'NoticeResponse NOTICE 00000 ?'],
    [backend('A', int32(7), text('chan'), text('hidden')), 'NotificationResponse pid=7 "chan" 6 bytes'],
    [backend('1'), 'ParseComplete'],
    [backend('2'), 'BindComplete'],
    [backend('3'), 'CloseComplete'],
    [backend('n'), 'NoData'],
    [backend('s'), 'PortalSuspended'],
    [backend('I'), 'EmptyQueryResponse'],
    [backend('t', int16(2), int32(25), int32(20)), 'ParameterDescription (25, 20)'],
    [backend('d', Buffer.from('h')), 'CopyData 1 byte'],
    [backend('c'), 'CopyDone'],
    [backend('G', Buffer.from([0]), int16(3)), 'CopyInResponse text columns=3'],
    [backend('H', Buffer.from([1]), int16(1)), 'CopyOutResponse binary columns=1'],
    [backend('W', Buffer.from([0]), int16(0)), 'CopyBothResponse text columns=0'],
    [backend('V', value('hidden')), 'FunctionCallResponse 6 bytes'],
    [backend('v', int32(196608), int32(1), text('_pq_.x')), 'NegotiateProtocolVersion 3.0 unknown options (_pq_.x)'],
  ];
  for (const [line, expected] of cases) t.equal(line, `client < ${expected}`);
  t.equal(
    show('from-server', 'E', fields(...duplicate), true),
    'server > ErrorResponse ERROR 23505 duplicate key "hidden" detail="Key (k)=(hidden)"',
  );
});

t.test('values are shown where asked for, secrets never', async (t) => {
  const bind = serialize.bind({ portal: '', statement: 's', values: ['shown', null, Buffer.from([0, 255])] });
  t.equal(frame(bind, true), 'client > Bind "" "s" ("shown", NULL, \\x00ff) results=text');
  t.match(frame(bind, false), /\(5 bytes, NULL, 2 bytes\)/);
  t.equal(frame(serialize.parse({ text: "SELECT 'shown'" }), true), `client > Parse "" SELECT 'shown' parameters=0`);
  t.equal(frame(serialize.copyData(Buffer.from('a\tb\n')), true), 'client > CopyData 4 bytes "a b "');
  t.notMatch(frame(serialize.password('hidden'), true), /hidden/);
  t.notMatch(frame(serialize.sendSASLInitialResponseMessage('SCRAM-SHA-256', 'hidden'), true), /hidden/);
  t.notMatch(show('to-client', 'K', [int32(1), Buffer.from('hidden')], true), /hidden/);
  t.notMatch(show('to-client', 'R', [int32(12), Buffer.from('v=hidden')], true), /hidden/);
});

t.test('a line is one line and short, whatever is in the message', async (t) => {
  t.ok(frontend('Q', text(`SELECT ${'a, '.repeat(100_000)} b`)).length < 300);
  t.match(backend('D', int16(1000), ...Array.from({ length: 1000 }, () => value('x'))), /, \.\.\. 1000 in all\)$/);
  t.notMatch(backend('C', text('a\nb\u001b[2J\u2028')), /[\p{Cc}\u2028]/u);
  const multibyte = show('from-client', 'd', [Buffer.from('é'.repeat(2000))], true);
  t.match(multibyte, /"é+\.\.\."$/, 'cut inside a character it is still text');
});

t.test('no bytes make it throw, and what is cut is called malformed', async (t) => {
  t.equal(frontend('P', text('s')), 'client > Parse malformed, 2 bytes');
  t.equal(backend('D', int16(1), int32(-7)), 'client < DataRow malformed, 6 bytes');
  t.equal(frontend(''), 'client > Startup malformed, 0 bytes');
  const types = fc.oneof(
    fc.integer({ min: 0, max: 255 }),
    fc.constantFrom(...Buffer.from('QPBEDCSFdcfpRKSZTDENAtGHWVv')),
  );
  const sides = fc.constantFrom<Direction>('from-client', 'to-client', 'to-server', 'from-server');
  const anything = fc.property(
    sides,
    types,
    fc.uint8Array({ maxLength: 40 }),
    fc.boolean(),
    (side, type, bytes, values) => {
      const line = describeMessage(side, type, Buffer.from(bytes), { values });
      return !/[\n\r]/.test(line) && line.length < 5000;
    },
  );
  t.doesNotThrow(() => fc.assert(anything, { numRuns: 5000, seed: 11 }));
});
