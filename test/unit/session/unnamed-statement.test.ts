// The unnamed statement as a session believes it to be, against a server's, whatever of a pipeline was refused or skipped.
import t from 'tap';
import { assuming, Reply, ReplyQueue } from '../../../src/backend/replies/reply-queue.js';
import { UnnamedStatement } from '../../../src/session/unnamed-statement.js';
import { encodeNamed, encodeParse } from '../../../src/wire/client-messages.js';
import { Frontend } from '../../../src/wire/protocol.js';
import { SeededRandom } from '../../support/seeded-random.js';
import { ExtendedServer, numberedSource } from '../backend/extended-server.js';

const RUNS = 3_000;
const STEPS = 40;

/** Plays one run; what is wrong at the end of it, or null. */
function play(seed: number): string | null {
  const random = new SeededRandom(seed);
  const replies = new ReplyQueue();
  const server = new ExtendedServer(replies);
  const unnamed = new UnnamedStatement();
  for (let step = 0; step < STEPS; step++) {
    if (random.chance(0.5)) {
      const parsed = random.chance(0.7) ? numberedSource(step) : null;
      const change = unnamed.change(parsed, replies);
      const undo = (refused: boolean): void => unnamed.undo(change, refused);
      replies.push(assuming(parsed === null ? Reply.close : Reply.parse, false, { undo }));
      server.output.push(parsed === null ? encodeNamed(Frontend.close, 'S', '') : encodeParse('', parsed.parseTail));
    } else server.sync();
    server.output.flush();
    const answers = random.integer(server.waiting + 1);
    for (let count = 0; count < answers; count++) server.answer(random.chance(0.2));
  }
  server.sync();
  server.output.flush();
  while (server.waiting > 0) server.answer(false);
  const held = server.statements.get('');
  return unnamed.source?.text === held ? null : `the session has ${unnamed.source?.text}, the server ${held}`;
}

t.test('whatever is skipped or refused, the session knows the statement that the server has', async (t) => {
  const wrong = Array.from({ length: RUNS }, (_, seed) => [seed, play(seed)] as const).filter(([, found]) => found);
  t.same(wrong.slice(0, 3), []);
});
