// What a connection's list of prepared statements says is what its server has, whatever of a pipeline the server refused or
// skipped; and there are never more than are allowed.
import t from 'tap';
import { PreparedStatements } from '../../../src/backend/replies/prepared-statements.js';
import { ReplyQueue } from '../../../src/backend/replies/reply-queue.js';
import { SeededRandom } from '../../support/seeded-random.js';
import { ExtendedServer, numberedSource } from './extended-server.js';

const MAX = 4;
const RUNS = 3_000;
const STEPS = 60;

const sources = Array.from({ length: 7 }, (_, n) => numberedSource(n));

/** Plays one run; what is wrong at the end of it, or null. */
function play(seed: number): string | null {
  const random = new SeededRandom(seed);
  const replies = new ReplyQueue();
  const server = new ExtendedServer(replies);
  const prepared = new PreparedStatements(replies, server.output, MAX);
  for (let step = 0; step < STEPS; step++) {
    if (random.chance(0.35)) {
      prepared.prepare(random.pick(sources), random.pick(['a', 'a', 'a', 'b']));
    } else if (random.chance(0.15)) prepared.forget(random.pick(sources));
    else if (random.chance(0.1)) prepared.schemaChanged(step);
    else if (random.chance(0.3)) server.sync();
    server.output.flush();
    const answers = random.integer(server.waiting + 1);
    for (let count = 0; count < answers; count++) server.answer(random.chance(0.15));
  }
  server.sync();
  server.output.flush();
  while (server.waiting > 0) server.answer(false);
  return difference(server, prepared);
}

function difference(server: ExtendedServer, prepared: PreparedStatements): string | null {
  const known = new Map([...prepared.bySource].map(([source, { name }]) => [name, source.text]));
  for (const [orphan, source] of prepared.orphans) known.set(orphan.name, source.text);
  for (const [name, text] of server.statements) {
    if (known.get(name) !== text) return `the server has ${name} as "${text}", the list has "${known.get(name)}"`;
  }
  for (const name of known.keys()) if (!server.statements.has(name)) return `${name} is listed, and not there`;
  return null;
}

t.test('whatever is skipped or refused, the list is what the server has', async (t) => {
  const wrong = Array.from({ length: RUNS }, (_, seed) => [seed, play(seed)] as const).filter(([, found]) => found);
  t.same(wrong.slice(0, 3), []);
});

t.test('orphans are closed ahead of the next Parse', async (t) => {
  const replies = new ReplyQueue();
  const server = new ExtendedServer(replies);
  const prepared = new PreparedStatements(replies, server.output, MAX);
  const answerAll = (fails = false): void => {
    server.output.flush();
    while (server.waiting > 0) server.answer(fails);
  };
  prepared.prepare(sources[0]!, 'a');
  server.sync();
  answerAll();
  // Refused; the Close behind it is skipped, and by then the text has been prepared anew behind the Sync.
  prepared.prepare(sources[1]!, 'a');
  prepared.forget(sources[0]!);
  server.sync();
  prepared.prepare(sources[0]!, 'a');
  server.sync();
  server.output.flush();
  server.answer(true);
  answerAll();
  t.equal(prepared.orphans.size, 1);
  t.equal(server.statements.size, 2);
  prepared.prepare(sources[2]!, 'a');
  server.sync();
  answerAll();
  t.equal(prepared.orphans.size, 0);
  t.equal(difference(server, prepared), null);
});
