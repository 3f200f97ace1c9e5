// The scan for [Parse] Bind [Describe] Execute Sync accepts that shape whole in one chunk and nothing else: a batch
// taken for one that is not is sent in other words than the client's.
import fc from 'fast-check';
import t from 'tap';
import { scanSingleBatch } from '../../src/frontend/unit/single-batch.js';
import { encode, encodeAll, type FrontendMessage, frame } from '../support/frontend-message.js';

const PARSE: FrontendMessage = { parse: 'SELECT $1, $2', types: [23, 25] };
const BIND: FrontendMessage = { bind: ['1', Buffer.from([0, 0xff])], resultFormats: [1] };
const NAMED_BIND: FrontendMessage = { bind: [null], statement: 'a statement' };
const DESCRIBE: FrontendMessage = { describe: 'portal' };
const EXECUTE: FrontendMessage = { execute: '', rows: 7 };

const ACCEPTED: readonly (readonly FrontendMessage[])[] = [
  [PARSE, BIND, DESCRIBE, EXECUTE, 'sync'],
  [PARSE, BIND, EXECUTE, 'sync'],
  [{ parse: '' }, { bind: [] }, EXECUTE, 'sync'],
  [NAMED_BIND, DESCRIBE, EXECUTE, 'sync'],
  [NAMED_BIND, EXECUTE, 'sync'],
  [BIND, DESCRIBE, EXECUTE, 'sync'],
  [BIND, EXECUTE, 'sync'],
];

const without = (list: readonly FrontendMessage[], index: number) => list.filter((_, at) => at !== index);
const FULL = ACCEPTED[0]!;

const REFUSED: readonly (readonly FrontendMessage[])[] = [
  [],
  ['sync'],
  [PARSE, 'sync'],
  [PARSE, { describe: 'statement' }, 'sync'],
  [{ parse: 'SELECT 1', name: 's' }, BIND, EXECUTE, 'sync'],
  [PARSE, NAMED_BIND, EXECUTE, 'sync'], // the Bind is of another statement than the Parse
  [PARSE, { bind: [], portal: 'p' }, EXECUTE, 'sync'],
  [PARSE, BIND, { execute: 'p' }, 'sync'],
  [PARSE, BIND, { describe: 'portal', name: 'p' }, EXECUTE, 'sync'],
  [PARSE, BIND, { describe: 'statement' }, EXECUTE, 'sync'],
  [PARSE, DESCRIBE, BIND, EXECUTE, 'sync'],
  [PARSE, PARSE, BIND, EXECUTE, 'sync'],
  [PARSE, BIND, BIND, EXECUTE, 'sync'],
  [PARSE, BIND, DESCRIBE, DESCRIBE, EXECUTE, 'sync'],
  [PARSE, BIND, EXECUTE, EXECUTE, 'sync'],
  [PARSE, BIND, EXECUTE, 'flush', 'sync'],
  [PARSE, BIND, EXECUTE, 'flush'],
  [PARSE, BIND, EXECUTE],
  [PARSE, BIND, { close: 'portal' }, EXECUTE, 'sync'],
  [{ query: 'SELECT 1' }, BIND, EXECUTE, 'sync'],
  // Texts that do not end inside their message; a NUL follows further on.
  [{ raw: frame('P', Buffer.from('\0SELECT 1')) }, BIND, EXECUTE, 'sync'],
  [{ raw: frame('P', Buffer.from('\0SELECT 1\0\0')) }, BIND, EXECUTE, 'sync'],
  [{ raw: frame('B', Buffer.from('\0a statement')) }, EXECUTE, 'sync'],
  // Bytes behind the last field.
  [BIND, { raw: frame('E', Buffer.alloc(6)) }, 'sync'],
  [BIND, { raw: frame('D', Buffer.from('P\0\0')) }, EXECUTE, 'sync'],
  [BIND, EXECUTE, { raw: frame('S', Buffer.alloc(1)) }],
  ...FULL.map((_, index) => without(FULL, index)).filter(
    (list) => !ACCEPTED.some((good) => encodeAll(good).equals(encodeAll(list))),
  ),
];

/** What a batch is, decided in the slow and plain way: message by message, by another reader. */
function isSingleBatch(bytes: Buffer): boolean {
  const messages: { type: string; body: Buffer }[] = [];
  let offset = 0;
  while (messages.at(-1)?.type !== 'S') {
    if (offset + 5 > bytes.length) return false;
    const length = bytes.readInt32BE(offset + 1);
    if (length < 4 || offset + 1 + length > bytes.length) return false;
    messages.push({
      type: bytes.toString('latin1', offset, offset + 1),
      body: bytes.subarray(offset + 5, offset + 1 + length),
    });
    offset += 1 + length;
    if (messages.length > 5) return false;
  }
  const parse = messages[0]!.type === 'P' ? messages.shift() : undefined;
  if (!['BES', 'BDES'].includes(messages.map(({ type }) => type).join(''))) return false;
  const [bind, ...rest] = messages;
  const execute = rest.at(-2)!.body;
  if (rest.at(-1)!.body.length !== 0 || execute.length !== 5 || execute[0] !== 0) return false;
  if (rest.length === 3 && !rest[0]!.body.equals(Buffer.from('P\0'))) return false;
  if (bind!.body[0] !== 0 || bind!.body.length < 8) return false;
  const nameEnd = bind!.body.indexOf(0, 1);
  if (nameEnd < 0 || (parse !== undefined && nameEnd !== 1)) return false;
  if (parse === undefined) return true;
  const textEnd = parse.body.indexOf(0, 1);
  return parse.body[0] === 0 && textEnd > 0 && textEnd + 3 <= parse.body.length;
}

t.test('the shapes drivers send are accepted, wherever in the buffer they begin', async (t) => {
  for (const messages of ACCEPTED) {
    const bytes = encodeAll(messages);
    const lengths = messages.map((message) => encode(message).length);
    const [first] = messages;
    const parses = typeof first === 'object' && 'parse' in first;
    const parseEnd = parses ? lengths[0]! : 0;
    const bindEnd = parseEnd + lengths[parses ? 1 : 0]!;
    const name = messages[0] === NAMED_BIND ? 'a statement' : '';
    for (const start of [0, 1, 17]) {
      const buffer = Buffer.concat([Buffer.alloc(start, 0x50), bytes, Buffer.from('behind')]);
      const batch = scanSingleBatch(buffer, start);
      t.match(batch, { parses, bindStart: start + parseEnd, bindEnd: start + bindEnd, end: start + bytes.length });
      t.equal(batch!.describes, messages.includes(DESCRIBE));
      t.equal(buffer.toString('utf8', batch!.nameStart, batch!.nameEnd), name);
      if (!parses) continue;
      t.equal(batch!.parseEnd, start + parseEnd);
      const { parse } = messages[0] as { parse: string };
      t.equal(buffer.toString('utf8', batch!.textStart, batch!.textEnd), parse);
    }
  }
});

t.test('every other order, name or target is not a single batch', async (t) => {
  for (const messages of REFUSED) {
    const bytes = encodeAll(messages);
    t.equal(isSingleBatch(bytes), false, 'the plain reader agrees');
    t.equal(scanSingleBatch(bytes, 0), null, JSON.stringify(messages));
  }
});

t.test('a batch that is not whole yet is none, cut anywhere', async (t) => {
  for (const messages of ACCEPTED) {
    const bytes = encodeAll(messages);
    for (let length = 0; length < bytes.length; length++) {
      if (scanSingleBatch(bytes.subarray(0, length), 0) !== null) t.fail(`accepted ${length} of ${bytes.length} bytes`);
      // The rest lies in memory right behind the view: it must not be looked at.
      const shared = Buffer.concat([bytes]).subarray(0, length);
      if (scanSingleBatch(shared, 0) !== null) t.fail('read beyond the view');
    }
  }
  t.pass();
});

t.test('broken in any byte, cut or run together, it is accepted only if it still is exactly that shape', async (t) => {
  const edit = fc.record({
    at: fc.nat(200),
    byte: fc.oneof(fc.nat(255), fc.constantFrom(0, 0x50, 0x42, 0x44, 0x45, 0x53, 4, 0xff)),
  });
  let accepted = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...ACCEPTED, ...REFUSED.filter((list) => list.length > 0)),
      fc.array(edit, { maxLength: 3 }),
      fc.nat(6),
      (messages, edits, cut) => {
        const whole = encodeAll(messages);
        const bytes = whole.subarray(0, whole.length - (cut > 3 ? cut : 0));
        for (const { at, byte } of edits) bytes[at % bytes.length] = byte;
        const batch = scanSingleBatch(bytes, 0);
        if (batch !== null) {
          accepted++;
          const inOrder = [0, batch.bindStart, batch.nameStart, batch.nameEnd, batch.bindEnd, batch.end, bytes.length];
          if (inOrder.some((offset, index) => index > 0 && offset < inOrder[index - 1]!)) return false;
        }
        return (batch !== null) === isSingleBatch(bytes);
      },
    ),
    { numRuns: 20_000 },
  );
  t.ok(accepted > 1_000, `${accepted} accepted`);
});
