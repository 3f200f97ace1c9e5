// The protocol oracle accepts what Postgres does and names what no server may do, however the bytes are cut.
import t from 'tap';
import { ProtocolOracle, type Rule } from '../../oracle/protocol-oracle.js';
import {
  cstring,
  encode,
  encodeCancel,
  encodeRequest,
  encodeStartup,
  type FrontendMessage,
  frame,
  int16,
  int32,
  REQUEST_CODES,
} from '../../support/frontend-message.js';

/** Bytes of the client, or of the server. */
type Part = { readonly from: 'client' | 'server'; readonly bytes: Buffer };

const PROTOCOL_3_0 = 3 << 16;
const sent = (...messages: readonly FrontendMessage[]): Part => ({
  from: 'client',
  bytes: Buffer.concat(messages.map(encode)),
});
const told = (...messages: readonly Buffer[]): Part => ({ from: 'server', bytes: Buffer.concat(messages) });

const ready = (status: string) => frame('Z', Buffer.from(status));
const complete = (tag: string) => frame('C', cstring(tag));
const fields = (severity: string, code: string) =>
  Buffer.concat([cstring(`S${severity}`), cstring(`V${severity}`), cstring(`C${code}`), cstring('Mm'), Buffer.of(0)]);
const error = (code = '22012') => frame('E', fields('ERROR', code));
const fatal = frame('E', fields('FATAL', '57P01'));
const notice = frame('N', fields('NOTICE', '00000'));
const parameter = frame('S', cstring('TimeZone'), cstring('UTC'));
const notification = frame('A', int32(7), cstring('c'), cstring(''));
const parsed = frame('1');
const bound = frame('2');
const closed = frame('3');
const empty = frame('I');
const noData = frame('n');
const suspended = frame('s');
const described = (columns: number) =>
  frame('T', int16(columns), ...Array.from({ length: columns }, () => Buffer.concat([cstring('c'), Buffer.alloc(18)])));
const row = (columns: number) => frame('D', int16(columns), ...Array.from({ length: columns }, () => int32(-1)));
const parameters = frame('t', int16(0));
const copyIn = frame('G', Buffer.of(0), int16(0));
const copyOut = frame('H', Buffer.of(0), int16(0));
const copyData = frame('d', Buffer.from('x\n'));
const copyDone = frame('c');
const called = frame('V', int32(-1));

const START: readonly Part[] = [
  { from: 'client', bytes: encodeStartup(PROTOCOL_3_0, { user: 'u' }) },
  told(frame('R', int32(0)), parameter, frame('K', int32(1), int32(2)), ready('I')),
];
const BATCH: readonly FrontendMessage[] = [{ parse: 'select 1' }, { bind: [] }, { execute: '' }, 'sync'];
const BEGUN: readonly Part[] = [sent({ query: 'begin' }), told(complete('BEGIN'), ready('T'))];
const COPY_FROM: FrontendMessage = { query: 'copy a from stdin' };

/** Plays a transcript, each part in pieces of `size` bytes. */
function judge(parts: readonly Part[], size = Number.POSITIVE_INFINITY): ProtocolOracle {
  const oracle = new ProtocolOracle();
  for (const { from, bytes } of parts) {
    for (let at = 0; at < bytes.length; at += size) {
      const piece = bytes.subarray(at, at + size);
      if (from === 'client') oracle.fromClient(piece);
      else oracle.fromServer(piece);
    }
  }
  return oracle;
}

const GOOD: Readonly<Record<string, readonly Part[]>> = {
  'a query with rows': [
    sent({ query: 'select 1' }),
    told(described(2), row(2), row(2), complete('SELECT 2'), ready('I')),
  ],
  'several statements in a query, and an empty one': [
    sent({ query: 'select 1; insert …' }, { query: ';' }),
    told(described(1), row(1), complete('SELECT 1'), complete('INSERT 0 1'), ready('I'), empty, ready('I')),
  ],
  'an error behind rows': [sent({ query: 'select 1 / x' }), told(described(1), row(1), error(), ready('I'))],
  'a table made of a query': [sent({ query: 'create table a as …' }), told(complete('SELECT 5'), ready('I'))],
  'notices, settings and notifications anywhere': [
    told(notice, parameter, notification),
    sent(...BATCH),
    told(notice, parsed, parameter, bound, row(1), notification, complete('SELECT 1'), parameter, ready('I')),
  ],
  'a batch that fails is skipped up to its Sync': [
    sent({ parse: 'a', name: 's' }, ...BATCH, { query: 'select 1' }),
    told(error(), ready('I'), described(1), row(1), complete('SELECT 1'), ready('I')),
  ],
  'a Query behind an error is skipped as well': [
    sent({ parse: 'a' }, { query: 'select 1' }, 'sync'),
    told(error(), ready('I')),
  ],
  'descriptions, closing and flushing': [
    sent({ parse: 'select 1', name: 's' }, { describe: 'statement', name: 's' }, 'flush', { bind: [], statement: 's' }),
    told(parsed, parameters, described(1), bound),
    sent({ describe: 'portal' }, { execute: '' }, { close: 'statement', name: 's' }, 'sync'),
    told(described(1), row(1), complete('SELECT 1'), closed, ready('I')),
    sent({ parse: 'begin' }, { describe: 'statement' }, { bind: [] }, { describe: 'portal' }, { execute: '' }, 'sync'),
    told(parsed, parameters, noData, bound, noData, complete('BEGIN'), ready('T')),
  ],
  'a portal with a row limit': [
    sent({ parse: 'select …' }, { bind: [] }, { execute: '', rows: 2 }, { execute: '', rows: 2 }, 'sync'),
    told(parsed, bound, row(1), row(1), suspended, row(1), complete('SELECT 1'), ready('I')),
  ],
  'an error at the Sync itself': [
    sent(...BATCH),
    told(parsed, bound, row(1), complete('SELECT 1'), error(), ready('I')),
  ],
  'a FunctionCall': [
    sent({ functionCall: 1, args: [] }, { functionCall: 2, args: [] }),
    told(called, ready('I'), error(), ready('I')),
  ],
  'COPY in': [
    sent(COPY_FROM, { copyData: 'x\n' }),
    told(copyIn),
    sent({ copyData: 'y\n' }, 'flush', 'copyDone'),
    told(complete('COPY 2'), ready('I')),
    sent({ query: 'select 1' }),
    told(described(1), row(1), complete('SELECT 1'), ready('I')),
  ],
  'COPY in by Execute, a Sync in its middle': [
    sent({ parse: 'copy a from stdin' }, { bind: [] }, { execute: '' }),
    told(parsed, bound, copyIn),
    sent({ copyData: 'y\n' }, 'sync', { copyData: 'y\n' }, 'copyDone', 'sync'),
    told(complete('COPY 2'), ready('I')),
  ],
  'COPY in that fails in its middle': [
    sent(COPY_FROM),
    told(copyIn),
    sent({ copyData: 'y\n' }),
    told(error(), ready('I')),
    sent({ copyData: 'y\n' }, 'copyDone', { query: 'select 1' }),
    told(described(1), row(1), complete('SELECT 1'), ready('I')),
  ],
  'COPY in that the client ends': [sent(COPY_FROM), told(copyIn), sent({ copyFail: 'no' }), told(error(), ready('I'))],
  'COPY out': [
    sent({ query: 'copy a to stdout' }),
    told(copyOut, copyData, copyData, copyDone, complete('COPY 2'), ready('I')),
  ],
  'a block that is committed': [
    ...BEGUN,
    sent({ query: 'select 1; commit' }),
    told(complete('INSERT 0 1'), complete('COMMIT'), ready('I')),
  ],
  'a block that fails': [
    ...BEGUN,
    sent({ query: 'select 1 / 0' }, { query: 'select 1' }, { query: ';' }),
    told(error(), ready('E'), error('25P02'), ready('E'), empty, ready('E')),
    sent({ query: 'commit' }),
    told(complete('ROLLBACK'), ready('I')),
  ],
  savepoints: [
    ...BEGUN,
    sent({ query: 'savepoint a' }, { query: 'x' }, { query: 'rollback to a' }, { query: 'release a' }),
    told(complete('SAVEPOINT'), ready('T'), error(), ready('E'), complete('ROLLBACK'), ready('T')),
    told(complete('RELEASE'), ready('T')),
    sent({ query: 'rollback' }),
    told(complete('ROLLBACK'), ready('I')),
  ],
  'chained blocks': [
    ...BEGUN,
    sent({ query: 'commit and chain' }, { query: 'rollback and chain' }, { query: 'commit' }),
    told(complete('COMMIT'), ready('T'), complete('ROLLBACK'), ready('T'), complete('COMMIT'), ready('I')),
  ],
  'a named ROLLBACK TO': [
    sent({ parse: 'rollback to a', name: 'r' }, 'sync'),
    told(parsed, ready('I')),
    ...BEGUN,
    sent({ bind: [], statement: 'r' }, { execute: '' }, 'sync'),
    told(bound, complete('ROLLBACK'), ready('T')),
  ],
  'the connection lost at a batch that commits': [
    ...BEGUN,
    sent({ parse: 'commit' }, { bind: [] }, { execute: '' }, 'sync'),
    told(error('08007'), ready('I')),
  ],
  'a batch that is lost before its Sync': [
    sent({ parse: 'a' }, { bind: [] }, { execute: '' }, 'flush'),
    told(parsed, bound, complete('INSERT 0 1'), error('08007')),
    sent({ parse: 'a' }, 'sync'),
    told(ready('I')),
  ],
  'a BEGIN that is lost': [
    sent({ query: 'begin' }, { query: 'a' }),
    told(error('40001'), ready('E'), error('25P02'), ready('E')),
    sent({ query: 'rollback' }, { parse: 'begin' }, { bind: [] }, { execute: '' }, 'sync'),
    told(complete('ROLLBACK'), ready('I'), error('40001'), ready('E')),
    sent({ query: 'rollback' }),
    told(complete('ROLLBACK'), ready('I')),
  ],
  'a commit that fails': [...BEGUN, sent({ query: 'commit' }), told(error('40001'), ready('I'))],
  FATAL: [sent({ query: 'select 1' }), told(fatal)],
  'a message without a name, then FATAL': [sent({ raw: frame('?') }), told(fatal)],
};

const BAD: readonly (readonly [name: string, rule: Rule, parts: readonly Part[]])[] = [
  ['two ReadyForQuery for a Sync', 'unasked answer', [sent('sync'), told(ready('I'), ready('I'))]],
  [
    'two ReadyForQuery for a Query',
    'unasked answer',
    [sent({ query: 'a' }), told(complete('SET'), ready('I'), ready('I'))],
  ],
  ['a Query without an answer', 'missing answer', [sent({ query: 'a' }), told(ready('I'))]],
  ['an Execute without an answer', 'missing answer', [sent(...BATCH), told(parsed, bound, row(1), ready('I'))]],
  ['rows without an end', 'missing answer', [sent({ query: 'a' }), told(described(1), row(1), ready('I'))]],
  [
    'two errors in a batch',
    'second error',
    [sent({ parse: 'a' }, { bind: [] }, 'sync'), told(error(), error(), ready('I'))],
  ],
  ['two errors, the Sync not sent yet', 'second error', [sent({ parse: 'a' }, { bind: [] }), told(error(), error())]],
  ['two errors in a Query', 'second error', [sent({ query: 'a; b' }), told(error(), error(), ready('I'))]],
  [
    'two errors before the Sync has come',
    'second error',
    [sent({ parse: 'a' }, 'flush'), told(parsed, error('08006'), error('08006'))],
  ],
  ['an error behind a batch', 'unasked answer', [sent({ parse: 'a' }, 'sync'), told(parsed, ready('I'), error())]],
  ['an error of nobody', 'unasked answer', [told(error())]],
  ['rows of nobody', 'unasked answer', [sent({ query: 'a' }), told(complete('SET'), ready('I'), row(1))]],
  ['ParseComplete twice', 'wrong answer', [sent({ parse: 'a' }, { bind: [] }, 'sync'), told(parsed, parsed)]],
  ['BindComplete first', 'wrong answer', [sent({ parse: 'a' }, { bind: [] }, 'sync'), told(bound, parsed)]],
  ['a result behind an error', 'wrong answer', [sent({ query: 'a; b' }), told(error(), complete('SET'))]],
  ['an answer behind an error', 'wrong answer', [sent({ parse: 'a' }, { bind: [] }, 'sync'), told(error(), bound)]],
  ['a row without a description', 'wrong answer', [sent({ query: 'a' }), told(row(1))]],
  ['rows of another width', 'rows', [sent({ query: 'a' }), told(described(2), row(1))]],
  ['fewer rows than the tag says', 'rows', [sent({ query: 'a' }), told(described(1), row(1), complete('SELECT 2'))]],
  ['more rows than the tag says', 'rows', [sent(...BATCH), told(parsed, bound, row(1), row(1), complete('SELECT 1'))]],
  [
    'fewer rows than the limit before PortalSuspended',
    'rows',
    [sent({ parse: 'a' }, { bind: [] }, { execute: '', rows: 2 }, 'sync'), told(parsed, bound, row(1), suspended)],
  ],
  ['PortalSuspended without a limit', 'wrong answer', [sent(...BATCH), told(parsed, bound, row(1), suspended)]],
  [
    'no description of parameters',
    'wrong answer',
    [sent({ parse: 'a' }, { describe: 'statement' }, 'sync'), told(parsed, noData)],
  ],
  ['idle behind BEGIN', 'status', [sent({ query: 'begin' }), told(complete('BEGIN'), ready('I'))]],
  ['in a block behind COMMIT', 'status', [...BEGUN, sent({ query: 'commit' }), told(complete('COMMIT'), ready('T'))]],
  [
    'in a block behind ROLLBACK',
    'status',
    [...BEGUN, sent({ query: 'rollback' }), told(complete('ROLLBACK'), ready('T'))],
  ],
  ['failed without an error', 'status', [...BEGUN, sent({ query: 'a' }), told(complete('SET'), ready('E'))]],
  ['in order behind an error', 'status', [...BEGUN, sent({ query: 'a' }), told(error(), ready('T'))]],
  ['idle behind an error in a block', 'status', [...BEGUN, sent({ query: 'a' }), told(error('08007'), ready('I'))]],
  [
    'idle behind a Parse in a block that was refused',
    'status',
    [...BEGUN, sent({ parse: 'commit now' }, 'sync'), told(error('42601'), ready('I'))],
  ],
  ['failed behind an error outside a block', 'status', [sent({ query: 'a' }), told(error('08006'), ready('E'))]],
  ['a block of nobody', 'status', [sent({ query: 'a' }), told(complete('SET'), ready('T'))]],
  [
    'a statement that succeeds in a failed block',
    'status',
    [...BEGUN, sent({ query: 'a' }, { query: 'b' }), told(error(), ready('E'), complete('INSERT 0 1'))],
  ],
  [
    'COMMIT of a failed block',
    'status',
    [...BEGUN, sent({ query: 'a' }, { query: 'commit' }), told(error(), ready('E'), complete('COMMIT'))],
  ],
  ['SAVEPOINT outside a block', 'status', [sent({ query: 'savepoint a' }), told(complete('SAVEPOINT'))]],
  ['a status without a name', 'status', [sent('sync'), told(ready('X'))]],
  ['bytes behind FATAL', 'after FATAL', [sent({ query: 'a' }), told(fatal), told(ready('I'))]],
  ['a message behind FATAL in one packet', 'after FATAL', [sent({ query: 'a' }), told(fatal, ready('I'))]],
  ['the end of a COPY before its end', 'unasked answer', [sent(COPY_FROM), told(copyIn, complete('COPY 1'))]],
  ['ReadyForQuery in a COPY', 'missing answer', [sent({ query: 'a' }), told(copyOut, copyData, ready('I'))]],
  ['an ERROR for a message without a name', 'wrong answer', [sent({ raw: frame('?') }), told(error())]],
  ['a second greeting', 'unasked answer', [told(frame('K', int32(1), int32(2)))]],
  ['an impossible length', 'malformed', [{ from: 'server', bytes: Buffer.from('Z\0\0\0\0', 'latin1') }]],
];

/** Whole, byte by byte, and in pieces that end in the middle of headers. */
const SIZES = [Number.POSITIVE_INFINITY, 1, 3, 7];

for (const [name, parts] of Object.entries(GOOD)) {
  t.test(`accepted: ${name}`, async (t) => {
    for (const size of SIZES) t.equal(judge([...START, ...parts], size).violation, null, `in pieces of ${size}`);
    if (name.includes('FATAL')) return;
    // The connection goes on, and is still watched.
    const after = [...START, ...parts, sent('sync'), told(ready('X'))];
    t.equal(judge(after).violation?.rule, 'status', 'and what follows is judged');
  });
}

for (const [name, rule, parts] of BAD) {
  t.test(`refused: ${name}`, async (t) => {
    for (const size of SIZES) {
      const { violation } = judge([...START, ...parts], size);
      t.equal(violation?.rule, rule, `in pieces of ${size}: ${violation?.text}`);
      t.ok(violation?.recent.length, 'with what came before');
    }
  });
}

t.test('start-up', async (t) => {
  const startup: Part = { from: 'client', bytes: encodeStartup(PROTOCOL_3_0, { user: 'u' }) };
  const password: Part = sent({ password: 'secret\0' });
  const asked = told(frame('R', int32(3)));
  const welcome = told(frame('R', int32(0)), parameter, frame('K', int32(1), int32(2)), ready('I'));
  const encryption: Part = { from: 'client', bytes: encodeRequest(REQUEST_CODES.ssl) };
  const declined: Part = { from: 'server', bytes: Buffer.from('N') };
  const good: readonly (readonly Part[])[] = [
    [startup, asked, password, welcome],
    [encryption, declined, startup, told(frame('v', int32(0), int32(0))), asked, password, welcome],
    [startup, asked, password, told(fatal)],
    [startup, sent({ query: 'a' }), welcome, told(complete('SET'), ready('I'))],
    [told(fatal)],
    [encryption, told(fatal)],
    [{ from: 'client', bytes: encodeCancel(1, Buffer.alloc(4)) }],
  ];
  for (const parts of good) for (const size of SIZES) t.equal(judge(parts, size).violation, null);
  const bad: readonly (readonly Part[])[] = [
    [startup, told(ready('I'))],
    [startup, told(error())],
    [startup, asked, told(parsed)],
    [told(ready('I'))],
    [{ from: 'client', bytes: encodeCancel(1, Buffer.alloc(4)) }, told(ready('I'))],
  ];
  for (const parts of bad) for (const size of SIZES) t.equal(judge(parts, size).violation?.rule, 'start-up');
});

t.test('a server that closes owes a word to whoever waits', async (t) => {
  const closes = (parts: readonly Part[], clientFirst = false) => {
    const oracle = judge([...START, ...parts]);
    if (clientFirst) oracle.clientEnded();
    oracle.serverEnded();
    return oracle.violation?.rule;
  };
  t.equal(closes([sent({ query: 'a' })]), 'silent close');
  t.equal(closes([sent(...BATCH), told(parsed, bound)]), 'silent close');
  t.equal(closes([sent({ query: 'a' })], true), undefined, 'the client had gone');
  t.equal(closes([sent({ query: 'a' }), told(fatal)]), undefined, 'it has told');
  t.equal(closes([sent({ query: 'a' }, 'terminate')]), undefined, 'nobody waits');
  t.equal(closes([]), undefined);
  t.equal(closes([sent({ query: 'a' }), told(row(3).subarray(0, 6))]), undefined, 'nothing fits into a message');
});

t.test('what is not judged any more', async (t) => {
  // Whether the server has read the Sync before its error or behind it cannot be seen.
  const unclear = [
    sent(COPY_FROM),
    told(copyIn),
    sent({ copyData: 'x' }, 'sync'),
    told(error(), ready('I'), ready('I')),
  ];
  t.equal(judge([...START, ...unclear]).violation, null);
  const encrypted: Part = { from: 'client', bytes: encodeRequest(REQUEST_CODES.ssl) };
  t.equal(judge([encrypted, told(Buffer.from('S')), told(Buffer.alloc(40, 7))]).violation, null);
});

t.test('long messages are watched without being kept', async (t) => {
  const oracle = judge(START);
  const wide = frame('D', int16(1), int32(4_000_000), Buffer.alloc(4_000_000));
  oracle.fromClient(encode({ query: `select ${'x'.repeat(1_000_000)}` }));
  oracle.fromServer(described(1));
  for (let at = 0; at < wide.length; at += 50_000) oracle.fromServer(wide.subarray(at, at + 50_000));
  oracle.fromServer(Buffer.concat([complete('SELECT 1'), ready('I')]));
  t.equal(oracle.violation, null);
  oracle.fromServer(ready('I'));
  t.equal(oracle.violation?.rule, 'unasked answer');
});

t.test('many messages are answered in turn', async (t) => {
  const oracle = judge(START);
  for (let turn = 0; turn < 3_000; turn++) {
    oracle.fromClient(Buffer.concat(BATCH.map(encode)));
    if (turn % 3 !== 2) continue;
    const answer = Buffer.concat([parsed, bound, row(1), complete('SELECT 1'), ready('I')]);
    oracle.fromServer(Buffer.concat([answer, answer, answer]));
  }
  t.equal(oracle.violation, null);
  oracle.fromServer(ready('I'));
  t.equal(oracle.violation?.rule, 'unasked answer');
});
