// Statements on whole databases want nobody to be connected: idle connections of pgkv's own do not stand in their way, on any
// of its pools, nor after any way of sending them. Clients that use the database do, as with Postgres.
import t from 'tap';
import { liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';

const server = await startPostgres({ version: 'embedded' });
t.teardown(() => server.stop());

/** Of a database `d`. */
const STATEMENTS: readonly (readonly [statement: string, undo: string])[] = [
  ['CREATE DATABASE copy TEMPLATE d', 'DROP DATABASE copy'],
  ['CREATE DATABASE copy WITH TEMPLATE = "d" ENCODING utf8', 'DROP DATABASE copy'],
  ['ALTER DATABASE d RENAME TO other', 'ALTER DATABASE other RENAME TO d'],
  ['ALTER DATABASE d SET TABLESPACE pg_default', 'SELECT 1'],
  ['DROP DATABASE d', 'CREATE DATABASE d'],
  ['drop database if exists "d"', 'CREATE DATABASE d'],
];

t.test('idle connections make way', async (t) => {
  const live = await liveRouter(t, [server]);
  const admin = await live.connect();
  await admin.run('CREATE DATABASE d');
  for (const [statement, undo] of STATEMENTS) {
    for (const form of ['simple', 'extended'] as const) {
      const clients = await Promise.all([1, 2, 3].map(() => live.connect({ database: 'd' })));
      await Promise.all(clients.map((client) => client.run('BEGIN', 'SELECT 1', 'COMMIT')));
      const run = async () => void (form === 'simple' ? await admin.run(statement) : await admin.extended(statement));
      await t.resolves(run(), `${statement}, ${form}`);
      await admin.run(undo);
      for (const client of clients) client.wire.destroy();
    }
  }
});

t.test('one that a client uses does not', async (t) => {
  const live = await liveRouter(t, [server]);
  const admin = await live.connect();
  const client = await live.connect({ database: 'd' });
  await client.run('BEGIN', 'SELECT 1');
  t.equal(await admin.fails('DROP DATABASE d'), '55006');
  await client.run('COMMIT');
  await t.resolves(admin.run('DROP DATABASE d'));
});

t.test('the template that is copied without being named', async (t) => {
  const live = await liveRouter(t, [server]);
  const admin = await live.connect();
  const client = await live.connect({ database: 'template1' });
  await client.run('SELECT 1');
  await t.resolves(admin.run('CREATE DATABASE fresh'));
  await admin.run('DROP DATABASE fresh');
});
