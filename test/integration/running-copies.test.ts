// SHOW pgkv.copies: what clients copy right now, in both directions, and nothing of it once the copy is over, however it ends.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { connectTo } from '../support/kv-extension.js';
import { timeLimit } from '../support/machine-speed.js';
import { GRANTS } from '../support/spread-servers.js';
import { SqlClient } from '../support/sql-client.js';

const cluster = await kvServers(t, 3, { stated: true });
for (const server of cluster.servers) await (await connectTo(t, server)).query(GRANTS);
const live = await kvRouter(t, cluster);
const connect = (user: string): Promise<SqlClient> => SqlClient.connect(live, { user, database: 'postgres' });
const admin = await connect('postgres');
t.teardown(() => admin.end());

interface Shown {
  readonly rows: number;
  readonly bytes: number;
  readonly startedAt: string;
}

const shown = async (): Promise<Shown[]> =>
  (await admin.rows('SHOW pgkv.copies')).map(([row]) => JSON.parse(row!) as Shown);

async function becomes(t: Test, what: string, wanted: (copies: Shown[]) => boolean): Promise<void> {
  const isOver = timeLimit(5_000);
  for (;;) {
    const copies = await shown();
    if (wanted(copies)) {
      t.pass(what);
      return;
    }
    if (await isOver()) throw new Error(`${what}: not, but ${JSON.stringify(copies)}`);
    await sleep(10);
  }
}

const DATA = Array.from({ length: 500 }, (_, n) => `shown\tk${n}\t${n}\n`).join('');
const ENDS: Readonly<Record<string, (client: SqlClient) => Promise<unknown>>> = {
  'it is committed': (client) => client.wire.exchange(['copyDone'], 1),
  'the client gives it up': (client) => client.wire.exchange([{ copyFail: 'no more' }], 1),
  'a line is wrong': (client) => client.wire.exchange([{ copyData: 'too few\n' }, 'copyDone'], 1),
  'the client is gone': async (client) => client.wire.destroy(),
};

for (const [how, end] of Object.entries(ENDS)) {
  t.test(`a COPY FROM STDIN is shown until ${how}`, async (t) => {
    const client = await connect('app');
    await client.run('DELETE FROM kv');
    const before = Date.now();
    await client.wire.exchange([{ query: 'copy kv (tenant_id, key, value) from stdin' }], { type: 'CopyInResponse' });
    client.wire.send({ copyData: DATA });
    await becomes(t, 'all rows are counted', ([copy]) => copy?.rows === 500);
    const [copy, ...more] = await shown();
    t.strictSame(more, []);
    const { startedAt, ...rest } = copy!;
    const place = { user: 'app', database: 'postgres', table: 'public.kv', direction: 'in' };
    t.strictSame(rest, { pid: client.wire.pid, ...place, rows: 500, bytes: DATA.length, worker: 1 });
    t.ok(Date.parse(startedAt) >= before && Date.parse(startedAt) <= Date.now(), startedAt);
    await end(client);
    await becomes(t, 'it is shown no more', (copies) => copies.length === 0);
    if (!client.wire.closed) await client.end();
  });
}

t.test('a COPY TO STDOUT is shown, as far as it has come, while its client does not read', async (t) => {
  const client = await connect('app');
  await client.run('DELETE FROM kv');
  const wide = 'x'.repeat(8_000);
  const rows = Array.from({ length: 4_000 }, (_, n) => `wide\tk${n}\t"${wide}"\n`).join('');
  t.match(
    await client.send([{ query: 'copy kv (tenant_id, key, value) from stdin' }, { copyData: rows }, 'copyDone']),
    [{ type: 'CopyInResponse' }, { type: 'CommandComplete', tag: 'COPY 4000' }],
  );
  for (const end of ['reads on', 'goes']) {
    const reader = await connect('app');
    reader.wire.socket.pause();
    reader.wire.send({ query: 'copy kv (key, value) to stdout' });
    await becomes(
      t,
      'rows are counted',
      ([copy]) => copy !== undefined && copy.rows > 100 && copy.bytes > copy.rows * 8_000,
    );
    t.match(await shown(), [{ pid: reader.wire.pid, table: 'public.kv', direction: 'out', user: 'app' }]);
    t.ok((await shown())[0]!.rows < 4_000, 'it waits for its client');
    reader.wire.socket.resume();
    if (end === 'goes') reader.wire.destroy();
    else t.match((await reader.wire.wait(1)).messages.at(-2), { type: 'CommandComplete', tag: 'COPY 4000' });
    await becomes(t, 'it is shown no more', (copies) => copies.length === 0);
    if (end !== 'goes') await reader.end();
  }
  await client.end();
});

t.test('it is for the roles that admin.roles names', async (t) => {
  const client = await connect('app');
  t.equal(await client.fails('SHOW pgkv.copies'), '42501');
  await client.end();
});
