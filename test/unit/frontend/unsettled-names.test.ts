// Names whose fate hangs on an answer: told right however answers and messages follow one another, and no more are kept than
// answers are owed, for a client that never waits for all of them, too.
import t from 'tap';
import { forwarded, Reply, ReplyQueue } from '../../../src/backend/replies/reply-queue.js';
import { UnsettledNames } from '../../../src/frontend/unit/unsettled-names.js';
import { SeededRandom } from '../../support/seeded-random.js';

const MESSAGES = 50_000;
const OWED_MAX = 300;

t.test('of any number of names, those are open whose message is owed and of an earlier batch', async (t) => {
  const random = new SeededRandom(7);
  const replies = new ReplyQueue();
  const names = new UnsettledNames();
  /** By name, the batch of its last change, and where it stands. */
  const changes: { name: string; batch: number; place: number }[] = [];
  let batch = 0;
  let most = 0;
  for (let message = 0; message < MESSAGES; message++) {
    const name = `s${message}`;
    replies.push(forwarded(Reply.parse));
    names.changed(name, replies);
    changes.push({ name, batch, place: replies.nextPlace - 1 });
    if (random.integer(5) === 0) {
      replies.push(forwarded(Reply.sync));
      batch++;
    }
    // Never all of them.
    while (replies.length > OWED_MAX || (replies.length > 2 && random.integer(2) === 0)) replies.pop();
    most = Math.max(most, names.size);
    const asked = changes[Math.max(0, changes.length - 1 - random.integer(2 * OWED_MAX))]!;
    const isOpen = !replies.isGone(asked.place) && asked.batch < batch;
    if (names.isOpen(asked.name, replies) !== isOpen) return t.fail(`${asked.name} behind message ${message}`);
  }
  t.ok(most <= 1_000, `${most} names at one time`);
});
