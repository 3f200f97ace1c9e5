// Nothing a session leaves behind reaches another, and each keeps its own, whichever connection serves it. What a
// session must see is taken from the server itself: the same statements on a connection of its own.
import t, { type Test } from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { type LiveRouter, liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { STATE_KINDS, STATE_KINDS_SETUP, type StateKind } from '../support/session-kinds.js';
import { SqlClient } from '../support/sql-client.js';

const server = await startPostgres({ version: '15' });
t.teardown(() => server.stop());
const direct = () => SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
const setup = await direct();
await setup.run(STATE_KINDS_SETUP);
await setup.end();

/** OIDs of tables made in one run differ from those of the next. */
const comparable = (messages: readonly BackendMessage[]): unknown[] =>
  messages.map((message) =>
    message.type === 'RowDescription'
      ? { ...message, columns: message.columns.map((column) => ({ ...column, tableOid: 0 })) }
      : message,
  );

const answers = async (client: SqlClient, statements: readonly string[]) =>
  comparable(await client.answers(...statements));

interface Expected {
  readonly fresh: unknown[];
  readonly made: unknown[];
  readonly own: unknown[];
  readonly undone: unknown[];
}

async function onTheServer(kind: StateKind): Promise<Expected> {
  const first = await direct();
  const fresh = await answers(first, kind.probe);
  await first.end();
  const client = await direct();
  const made = await answers(client, kind.make);
  const own = await answers(client, kind.probe);
  await client.answers(...kind.undo);
  const undone = await answers(client, kind.probe);
  await client.end();
  return { fresh, made, own, undone };
}

async function holds(t: Test, what: string, condition: () => boolean): Promise<void> {
  const end = performance.now() + 2_000;
  while (!condition() && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 5));
  t.ok(condition(), what);
}

async function checkKind(t: Test, live: LiveRouter, kind: StateKind, size: number): Promise<void> {
  const { pool } = live.router;
  const { fresh, made, undone, ...server } = await onTheServer(kind);
  const own = kind.lost ? fresh : server.own;
  if (kind.leavesNothing) t.strictSame(server.own, fresh, 'the probe shows nothing');
  else t.notSame(server.own, fresh, 'the probe shows the state');
  const [a, b] = [await live.connect(), await live.connect()];
  t.strictSame(await answers(b, kind.probe), fresh, 'before');

  t.strictSame(await answers(a, kind.make), made, 'making it is answered as by the server');
  if (kind.pins) {
    await holds(t, 'the session keeps its connection', () => pool.idleCount === pool.openCount - 1);
    const meanwhile = answers(b, kind.probe);
    t.strictSame(await answers(a, kind.probe), own, 'its session sees it');
    if (size === 1) t.equal(pool.waitingCount, 1, 'the other waits');
    else t.strictSame(await meanwhile, fresh, 'the other sees nothing of it');
    await a.answers(...kind.undo);
    t.strictSame(await answers(a, kind.probe), undone, 'it has ended');
    if (kind.pinsToTheEnd) await a.end();
    t.strictSame(await meanwhile, fresh, 'the other sees nothing of it afterwards');
  } else {
    for (let round = 0; round < 2; round++) {
      await holds(t, 'the connection goes back', () => pool.idleCount === pool.openCount);
      t.strictSame(await answers(b, kind.probe), fresh, 'the other sees nothing of it');
      t.strictSame(await answers(a, kind.probe), own, 'its session sees it');
    }
    const both = await Promise.all([answers(a, kind.probe), answers(b, kind.probe), answers(a, []), answers(b, [])]);
    t.strictSame(both.slice(0, 2), [own, fresh], 'both at the same time');
    await a.answers(...kind.undo);
    t.strictSame(await answers(a, kind.probe), undone, 'it has ended');
  }
  await holds(t, 'no pin is left', () => pool.idleCount === pool.openCount);
  t.strictSame(await answers(b, kind.probe), fresh, 'the other afterwards');

  // Again, and this time its session goes without a word.
  const c = await live.connect();
  await c.answers(...kind.make);
  c.wire.destroy();
  t.strictSame(await answers(b, kind.probe), fresh, 'the other after its session vanished');
  await b.end();
  if (!a.wire.closed) await a.end();
  await live.quiet();
}

for (const size of [1, 2]) {
  t.test(`state of a session, pool of ${size}`, async (t) => {
    const live = await liveRouter(t, [server], { pool: { sizeMax: size } });
    for (const kind of STATE_KINDS.filter((kind) => kind.name.includes(process.env['KIND'] ?? ''))) {
      await t.test(kind.name, (t) => checkKind(t, live, kind, size));
    }
  });
}
