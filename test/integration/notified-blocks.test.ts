// A session that listens hears nothing inside a block, as on Postgres: not while its BEGIN is held back, not while the block is on
// another shard than the one it listens on, not once it has failed. What was sent meanwhile comes behind the block's end, all of it
// and in order. Each block is played to Postgres, too.
import t from 'tap';
import { initialView } from '../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { evenSpread, KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { SqlClient } from '../support/sql-client.js';
import { type WireAddress, WireClient } from '../support/wire-client.js';

const SHARDS = 2;
await loadKeyHash();
const cluster = await kvServers(t, SHARDS);
const [home] = cluster.servers;
const login = { user: home!.superuser, database: 'postgres' };
const view = initialView(
  evenSpread(SHARDS, [KV]).shards.map((shard) => ({ ...shard, nodes: [{ host: '', port: 0 }] })),
  [KV],
);
const keyOn = (shard: number): string => {
  for (let n = 0; ; n++) if (view.shardOfSlot[hashSlotOf('t', `k${n}`)] === shard) return `k${n}`;
};
const READS = [0, 1].map((shard) => `select value from kv where tenant_id = 't' and key = '${keyOn(shard)}'`);

const simple = (sql: string): FrontendMessage[] => [{ query: sql }];
const extended = (sql: string): FrontendMessage[] => [{ parse: sql }, { bind: [] }, { execute: '' }, 'sync'];
const BODIES: readonly (readonly string[])[] = [
  [],
  ['select 1'],
  [READS[0]!],
  [READS[1]!],
  [READS[1]!, READS[1]!],
  ['select no_such_column'],
  [READS[1]!, 'select 1/0'],
  ['savepoint a', READS[1]!, 'rollback to a'],
];
const ENDS = ['commit', 'rollback'];

const payloads = (messages: readonly BackendMessage[]): string[] =>
  messages.flatMap((message) => (message.type === 'NotificationResponse' ? [message.payload] : []));

/** What was heard before the end of the block was answered, and behind it. */
async function play(address: WireAddress, body: readonly string[], end: string, form: typeof simple) {
  const client = await WireClient.connect(address, login);
  const sender = await SqlClient.connect(home!, login);
  await client.query('listen news');
  await sender.run("notify news, 'before'");
  await client.wait({ type: 'NotificationResponse' });
  let number = 0;
  const inside: BackendMessage[] = [];
  const send = () => sender.run(`notify news, '${number++}'`);
  for (const sql of ['begin', ...body]) {
    inside.push(...(await client.exchange(form(sql))).messages);
    await send();
  }
  // What has been sent by now is with the server's session, or about to be.
  await client.wait({ type: 'NotificationResponse' }, 30);
  inside.push(...client.takeReceived());
  const before = payloads(inside).length;
  const { messages } = await client.exchange(form(end));
  const behind = [...messages];
  while (payloads(behind).length < number) {
    const { messages: more, outcome } = await client.wait({ type: 'NotificationResponse' });
    behind.push(...more);
    if (outcome !== 'reached') break;
  }
  client.destroy();
  await sender.end();
  return { before, heard: payloads(behind), expected: Array.from({ length: number }, (_, index) => `${index}`) };
}

t.test('nothing is heard in a block, and all behind it', async (t) => {
  const router = await kvRouter(t, cluster);
  for (const [index, body] of BODIES.entries()) {
    for (const [nth, form] of [simple, extended].entries()) {
      const end = ENDS[(index + nth) % ENDS.length]!;
      const about = `begin; ${[...body, end].join('; ')}`;
      for (const address of [home!, router]) {
        const { before, heard, expected } = await play(address, body, end, form);
        const name = `${address === router ? 'pgkv' : 'Postgres'}: ${about}`;
        t.same({ before, heard }, { before: 0, heard: expected }, name);
      }
    }
  }
  await router.quiet();
});
