// What INSERTs that are written together (R58) owe each client: its own errors, state and statements, whatever others do beside it,
// and true answers where a connection breaks in the midst of it.
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { encodeCancel } from '../support/frontend-message.js';
import { connectTo, rowsOf } from '../support/kv-extension.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { type SpreadServers, spreadServers } from '../support/spread-servers.js';
import { errorOf, type SqlClient, tagsOf } from '../support/sql-client.js';

const CLIENTS = 6;
const ROWS = 9;
const skip = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};

const insert = (name: string): string =>
  `INSERT INTO kv (tenant_id, key) VALUES ${Array.from({ length: ROWS }, (_, n) => `('t', '${name} ${n}')`)}`;

const trigger = (name: string, forEach: string, body: string): string =>
  `CREATE FUNCTION ${name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body} RETURN NULL; END $$;
    CREATE TRIGGER ${name} AFTER INSERT ON kv FOR EACH ${forEach} EXECUTE FUNCTION ${name}()`;

const untrigger = (name: string): string => `DROP TRIGGER ${name} ON kv; DROP FUNCTION ${name}`;

const connected = ({ live }: SpreadServers): Promise<SqlClient[]> =>
  Promise.all(Array.from({ length: CLIENTS }, () => live.connect({ user: 'app' })));

t.test('beside each other', skip, async (t) => {
  const servers = await spreadServers(t, 'embedded', 2);
  const { admins, live } = servers;

  t.test('the unnamed statement of one that is cancelled is its own', async (t) => {
    for (const admin of admins) await admin.query(trigger('lasts', 'STATEMENT', 'PERFORM pg_sleep(1);'));
    const clients = await connected(servers);
    const [last, ...others] = clients as [SqlClient, ...SqlClient[]];
    await last.send([{ parse: 'SELECT $1::text' }, 'sync']);
    const told: Promise<unknown>[] = [];
    // Two groups are under way; the last one waits.
    for (const [n, one] of others.slice(0, 2).entries()) {
      told.push(one.run(insert(`busy ${n}`)));
      await sleep(100);
    }
    const text = `INSERT INTO kv (tenant_id, key) VALUES ('t', $1), ('t', 'c 1'), ('t', 'c 2'), ('t', 'c 3')`;
    const answers = last.send([{ parse: text }, { bind: ['c'] }, { execute: '' }, 'sync']);
    await sleep(50);
    await cancel(last, live);
    t.equal(errorOf(await answers)?.code, '57014');
    await Promise.all(told);
    for (const admin of admins) await admin.query(untrigger('lasts'));
    t.strictSame(tagsOf(await last.send([{ bind: ['c'] }, { execute: '' }, 'sync'])), ['INSERT 0 4']);
  });

  t.test('a connection that breaks before the decision leaves nothing unknown', { timeout: 60_000 }, async (t) => {
    await admins[1]!.query(trigger('lasts', 'STATEMENT', 'PERFORM pg_sleep(0.4);'));
    const clients = await connected(servers);
    let broken = 0;
    for (let round = 0; round < 12 && broken < 2; round++) {
      const told = clients.map((one, n) => one.answers(insert(`broken ${round} ${n}`)));
      await sleep(200);
      // Where this shard decides its transaction is open, and waits for the other one to prepare.
      const ended = await rowsOf(
        admins[0]!,
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'`,
      );
      broken += ended.length;
      for (const answers of await Promise.all(told)) t.not(errorOf(answers)?.code, '08007');
    }
    t.ok(broken > 0, 'some were broken');
    t.strictSame(await servers.prepared(), []);
    await admins[1]!.query(untrigger('lasts'));
  });
});

t.test("what a trigger leaves is the client's whose rows it is for", skip, async (t) => {
  const servers = await spreadServers(t, 'embedded', 2, async (server) => {
    const admin = await connectTo(t, server);
    await admin.query(trigger('leaves', 'ROW', `PERFORM set_config('app.left', NEW.key, false);`));
    return server;
  });
  const clients = await connected(servers);
  for (let round = 0; round < 4; round++) {
    await Promise.all(clients.map((one, n) => one.run(insert(`c${n} r${round}`))));
    await isOwn(t, clients);
  }
  const next = await Promise.all(Array.from({ length: 4 }, () => servers.live.connect({ user: 'app' })));
  for (const one of next) t.notOk(await one.value(`SELECT current_setting('app.left', true)`), 'of a new session');
});

async function isOwn(t: Test, clients: readonly SqlClient[]): Promise<void> {
  for (const [n, one] of clients.entries()) {
    const left = await one.value(`SELECT current_setting('app.left', true)`);
    t.ok(left === null || left === '' || left.startsWith(`c${n} `), `client ${n} sees ${left}`);
  }
}

/** A CancelRequest for the client's session. */
async function cancel(client: SqlClient, { host, port }: SpreadServers['live']): Promise<void> {
  const data = client.wire.received.find((message) => message.type === 'BackendKeyData');
  if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
  const socket = connect(port, host);
  socket.end(encodeCancel(data.pid, data.key));
  await once(socket, 'close');
}
