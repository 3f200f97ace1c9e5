// DISCARD SEQUENCES in the middle of a batch, ended by an error at any of its messages, as a cancel may: no statement of it fails
// a later one, and a connection on which one is left serves nobody else.
import { Duplex } from 'node:stream';
import t from 'tap';
import { ServerConnection } from '../../../src/backend/connection/server-connection.js';
import { SettingsRegistry } from '../../../src/backend/connection/settings-group.js';
import { createPoolCounters } from '../../../src/backend/pool/pool-limits.js';
import { internParameters } from '../../../src/backend/replies/parameter-status.js';
import { forwarded, Reply } from '../../../src/backend/replies/reply-queue.js';
import { discardSequencesInBatch } from '../../../src/execute/leased/discard-sequences.js';
import { encodeParse, SYNC } from '../../../src/wire/client-messages.js';
import { encodeErrorResponse } from '../../../src/wire/error-fields.js';

const frame = (type: string, body = Buffer.alloc(0)): Buffer => {
  const head = Buffer.alloc(5);
  head.write(type, 'latin1');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
};
const ANSWERS: Readonly<Record<string, Buffer>> = {
  P: frame('1'),
  B: frame('2'),
  C: frame('3'),
  E: frame('C', Buffer.from('DISCARD SEQUENCES\0')),
  S: frame('Z', Buffer.from('I')),
};

/** A server that has statements by name. @param failsAt number of the message, of all, that is answered by an error */
function bench(failsAt: number) {
  const statements = new Set<string>();
  const errors: string[] = [];
  let count = 0;
  let isSkipping = false;
  const answer = (message: Buffer): Buffer | null => {
    const type = String.fromCharCode(message[0]!);
    if (type === 'S') isSkipping = false;
    if (isSkipping) return null;
    const [name] = message.toString('latin1', type === 'C' ? 6 : 5).split('\0');
    const isTaken = type === 'P' && name !== '' && statements.has(name!);
    if (count++ === failsAt || isTaken) {
      isSkipping = true;
      errors.push(isTaken ? '42P05' : '57014');
      return encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: errors.at(-1)!, M: 'no' });
    }
    if (type === 'P') statements.add(name!);
    else if (type === 'C' && message[5] === 0x53) statements.delete(name!);
    return ANSWERS[type]!;
  };
  const stream = new Duplex({
    read: () => undefined,
    write(chunk: Buffer, _encoding, done) {
      for (let at = 0; at < chunk.length; at += 1 + chunk.readInt32BE(at + 1)) {
        const told = answer(chunk.subarray(at, at + 1 + chunk.readInt32BE(at + 1)));
        if (told !== null) stream.push(told);
      }
      done();
    },
  });
  const connection = new ServerConnection({
    stream,
    readBuffer: null,
    address: 'h:1',
    pid: 1,
    secretKey: Buffer.alloc(4),
    parameters: internParameters(new Map()),
    settings: new SettingsRegistry().empty,
    createdAt: 0,
    preparedMax: 10,
    errorCounts: createPoolCounters().errors,
    messageBytesMax: 10_000,
  });
  return { connection, statements, errors };
}

const quiet = () => new Promise((resolve) => setImmediate(resolve));

t.test('an error at any message of it', async (t) => {
  for (let failsAt = 0; failsAt < 7; failsAt++) {
    const { connection, statements, errors } = bench(failsAt);
    const batch = async (): Promise<void> => {
      connection.send(encodeParse('', Buffer.from('select 1\0\0\0')), forwarded(Reply.parse));
      discardSequencesInBatch(connection);
      connection.send(SYNC, forwarded(Reply.sync));
      connection.output.flush();
      await quiet();
    };
    await batch();
    statements.delete('');
    t.equal(connection.replies.length, 0);
    t.equal(connection.retired, statements.size > 0, `at message ${failsAt}: ${[...statements]}`);
    await batch();
    statements.delete('');
    t.same(errors, ['57014'], 'the next one is not refused');
    t.equal(statements.size, 0);
    connection.destroy('the end');
  }
});
