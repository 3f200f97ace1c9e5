// The first packet of a connection: read the same however it is cut, and refused where no valid one can follow. The
// bytes are hand-made: lengths that lie and texts without an end cannot be had from an encoder.
import fc from 'fast-check';
import t from 'tap';
import { PgkvError } from '../../src/base/errors.js';
import { encodeCancelRequest, encodeStartup as encodeOurStartup, SSL_REQUEST } from '../../src/wire/client-messages.js';
import { readStartupPacket, type StartupPacket } from '../../src/wire/startup-packet.js';
import { encodeCancel, encodeRequest, encodeStartup, int32, REQUEST_CODES } from '../support/frontend-message.js';

const V3 = 3 << 16;

/** `bytes` overrides the length word. */
function packet(code: number, body: Buffer | string, bytes?: number): Buffer {
  const text = typeof body === 'string' ? Buffer.from(body, 'latin1') : body;
  return Buffer.concat([int32(bytes ?? text.length + 8), int32(code), text]);
}

function refusal(buffer: Buffer): string | null {
  try {
    readStartupPacket(buffer);
    return null;
  } catch (error) {
    if (error instanceof PgkvError) return `${error.sqlstate} ${error.message}`;
    throw error;
  }
}

const GOLDEN: readonly { name: string; bytes: Buffer; read: StartupPacket }[] = [
  { name: 'SSLRequest', bytes: Buffer.from('0000000804d2162f', 'hex'), read: { kind: 'ssl', bytes: 8 } },
  { name: 'GSSENCRequest', bytes: Buffer.from('0000000804d21630', 'hex'), read: { kind: 'gssenc', bytes: 8 } },
  {
    name: 'CancelRequest',
    bytes: Buffer.from('0000001004d2162e0000000700000009', 'hex'),
    read: { kind: 'cancel', bytes: 16, pid: 7, secretKey: Buffer.from([0, 0, 0, 9]) },
  },
  {
    name: 'StartupMessage',
    bytes: Buffer.from(
      `00000021 00030000 ${Buffer.from('user\0ann\0database\0kv\0o\0\0\0').toString('hex')}`.replaceAll(' ', ''),
      'hex',
    ),
    read: {
      kind: 'startup',
      bytes: 33,
      version: V3,
      parameters: new Map(Object.entries({ user: 'ann', database: 'kv', o: '' })),
      protocolOptions: [],
    },
  },
  {
    name: 'StartupMessage of 3.2 with protocol options',
    bytes: packet(V3 | 2, '_pq_.a\x001\0user\0u\0_pq_.b\0\0\0'),
    read: {
      kind: 'startup',
      bytes: 33,
      version: V3 | 2,
      parameters: new Map([['user', 'u']]),
      protocolOptions: ['_pq_.a', '_pq_.b'],
    },
  },
  {
    name: 'the least StartupMessage',
    bytes: packet(V3, '\0'),
    read: { kind: 'startup', bytes: 9, version: V3, parameters: new Map(), protocolOptions: [] },
  },
];

t.test('packets read as the manual says, and wait for their last byte', async (t) => {
  for (const { name, bytes, read } of GOLDEN) {
    t.equal(bytes.readInt32BE(0), bytes.length, `${name} is well formed`);
    t.same(readStartupPacket(bytes), read, name);
    const early = Array.from(
      { length: bytes.length },
      (_, length) => readStartupPacket(bytes.subarray(0, length)).kind,
    );
    t.same(new Set(early), new Set(['incomplete']), name);
    t.same(readStartupPacket(Buffer.concat([bytes, Buffer.from('behind it')])), read, `${name}, more bytes behind it`);
  }
});

t.test('what our own encoders and those of the tests make is read back', async (t) => {
  const parameters = { user: 'ünï', database: 'd b', options: '-c a=b' };
  for (const bytes of [encodeOurStartup(new Map(Object.entries(parameters))), encodeStartup(V3, parameters)]) {
    t.match(readStartupPacket(bytes), { kind: 'startup', parameters: new Map(Object.entries(parameters)) });
  }
  t.same(SSL_REQUEST, encodeRequest(REQUEST_CODES.ssl));
  t.same(encodeCancelRequest(-5, Buffer.alloc(32, 1)), encodeCancel(-5, Buffer.alloc(32, 1)));
});

t.test('cancel keys of 4 to 256 bytes, and no others', async (t) => {
  for (let length = 0; length <= 260; length++) {
    const key = Buffer.alloc(length, length);
    const bytes = encodeCancel(-1, key);
    if (length >= 4 && length <= 256) t.match(readStartupPacket(bytes), { kind: 'cancel', pid: -1, secretKey: key });
    else t.same(readStartupPacket(bytes), { kind: 'none' }, `a key of ${length} bytes`);
  }
});

t.test('a length no packet has is noticed at its fourth byte', async (t) => {
  for (const bytes of [0, 1, 2, 3, 4, 5, 6, 7, 10_001, 2 ** 31 - 1, -1, -(2 ** 31)]) {
    t.same(readStartupPacket(int32(bytes)), { kind: 'none' }, String(bytes));
    t.same(readStartupPacket(int32(bytes).subarray(0, 3)), { kind: 'incomplete' });
  }
  t.same(readStartupPacket(int32(10_000)), { kind: 'incomplete' });
  const longest = packet(V3, `user\0${'u'.repeat(10_000 - 8 - 7)}\0\0`);
  t.equal(longest.length, 10_000);
  t.match(readStartupPacket(longest), { kind: 'startup', bytes: 10_000 });
});

t.test('a body of a request is passed over, as Postgres does; a cancel request has one', async (t) => {
  for (const code of [REQUEST_CODES.ssl, REQUEST_CODES.gssenc]) {
    t.match(readStartupPacket(packet(code, 'xyz')), { bytes: 11 });
  }
  t.same(readStartupPacket(packet(REQUEST_CODES.cancel, '')), { kind: 'none' });
  t.same(readStartupPacket(packet(REQUEST_CODES.cancel, Buffer.alloc(4))), { kind: 'none' });
});

t.test('versions other than 3 are refused by name; any minor of 3 is read', async (t) => {
  for (const [major, minor] of [
    [0, 0],
    [1, 0],
    [2, 0],
    [4, 0],
    [0x7fff, 0],
    [0xffff, 0xffff],
    [1234, 5677],
  ] as const) {
    const code = (major << 16) | minor;
    t.match(
      refusal(packet(code, 'user\0u\0\0')),
      new RegExp(`^0A000 unsupported frontend protocol ${major}.${minor}:`),
    );
  }
  for (const minor of [0, 1, 2, 3, 9999, 0xffff]) {
    t.match(readStartupPacket(packet(V3 | minor, 'user\0u\0\0')), { kind: 'startup', version: V3 | minor });
  }
});

t.test('texts without an end, in the wrong place or behind the end are refused', async (t) => {
  const bodies = [
    'user\0u\0', // no terminator
    'user\0u', // the value does not end
    'user', // the name does not end
    'user\0', // no value, no terminator
    'user\0u\0\0x', // bytes behind the terminator
    'user\0u\0\0\0', // a NUL behind the terminator
    '\0user\0u\0\0', // the terminator first
    '', // nothing at all
  ];
  for (const body of bodies) {
    t.match(refusal(packet(V3, body)), /^08P01 invalid startup packet layout/, JSON.stringify(body));
    // The end must not be looked for in what happens to follow.
    t.match(
      refusal(Buffer.concat([packet(V3, body), Buffer.alloc(9)])),
      /^08P01/,
      `${JSON.stringify(body)}, NULs behind it`,
    );
  }
  // As Postgres reads it.
  t.match(readStartupPacket(packet(V3, 'u')), { kind: 'startup', bytes: 9, parameters: new Map() }, 'one byte is none');
});

t.test(
  'a name that occurs twice counts as its last, as in Postgres; only a prefix makes a protocol option',
  async (t) => {
    t.match(readStartupPacket(packet(V3, 'user\0a\0user\0b\0\0')), { parameters: new Map([['user', 'b']]) });
    t.match(readStartupPacket(packet(V3, '_pq_\0a\0x_pq_.y\0b\0_PQ_.z\0c\0\0')), {
      parameters: new Map(Object.entries({ _pq_: 'a', 'x_pq_.y': 'b', '_PQ_.z': 'c' })),
      protocolOptions: [],
    });
  },
);

t.test('whatever comes first is a packet, not one yet, or an error of ours; never beyond its own bytes', async () => {
  const code = fc.constantFrom(V3, V3 | 2, REQUEST_CODES.ssl, REQUEST_CODES.cancel, REQUEST_CODES.gssenc);
  const text = fc
    .array(fc.constantFrom('user', '_pq_.a', 'database', '\0', 'x'), { maxLength: 8 })
    .map((parts) => parts.join(''));
  fc.assert(
    fc.property(fc.oneof(code, fc.integer()), text, fc.integer({ min: -3, max: 3 }), (asked, body, lie) => {
      const bytes = packet(asked, body, body.length + 8 + lie);
      const outcomes = [Buffer.alloc(0), Buffer.alloc(20), Buffer.alloc(20, 1)].map((behind) => {
        const buffer = Buffer.concat([bytes.subarray(0, Math.max(0, bytes.readInt32BE(0))), behind]);
        const refused = refusal(buffer);
        return (
          refused ??
          JSON.stringify(readStartupPacket(buffer), (_, value) => (value instanceof Map ? [...value] : value))
        );
      });
      const [alone, ...others] = outcomes;
      return alone!.includes('incomplete') || others.every((other) => other === alone);
    }),
    { numRuns: 2_000 },
  );
});
