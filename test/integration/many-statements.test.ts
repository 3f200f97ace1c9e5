// Texts of very many statements on keys of one shard, as pg_dump --inserts makes them: through pgkv and on the shard itself the
// same answers and the same rows, errors in the middle and their places included.
import t, { type Test } from 'tap';
import { initialView } from '../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import type { BackendMessage } from '../support/backend-message.js';
import { evenSpread, KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { seeded } from '../support/seeded-random.js';
import { SqlClient } from '../support/sql-client.js';

const SHARDS = 3;
const HOME = 0;
const AWAY = 1;
await loadKeyHash();
const cluster = await kvServers(t, SHARDS, { tables: [KV] });
const view = initialView(
  evenSpread(SHARDS, [KV]).shards.map((shard) => ({ ...shard, nodes: [{ host: '', port: 0 }] })),
  [KV],
);
/** All keys with it are on the shard. */
const tagOn = (shard: number): string => {
  for (let n = 0; ; n++) if (view.shardOfSlot[hashSlotOf('t', `{g${n}}`)] === shard) return `{g${n}}`;
};
const TAG = tagOn(AWAY);

const live = await kvRouter(t, cluster);
const server = cluster.servers[AWAY]!;
const there = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
const here = await live.connect();
t.teardown(() => Promise.all([there.end(), here.end()]));

const random = seeded(7);
const below = (count: number): number => Math.floor(random() * count);
const key = (): string => `'${TAG}${below(40)}'`;
const value = (): string => (below(9) === 0 ? `'{"a": "it''s; ä😀"}'` : `'${below(1000)}'`);
const KINDS: readonly (() => string)[] = [
  () =>
    `insert into kv (tenant_id, key, value) values ('t', ${key()}, ${value()}) on conflict (tenant_id, key) do nothing`,
  () =>
    `INSERT INTO public.kv (value, key, tenant_id) VALUES (${value()}, ${key()}, 't') ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value`,
  () => `update kv set value = ${value()} where tenant_id = 't' and key = ${key()} returning key, value`,
  () => `delete from kv where tenant_id = 't' and key in (${key()}, ${key()})`,
  () => `select key, value from kv where tenant_id = 't' and key = ${key()} -- a; b`,
  () => `select kv_get('t', ${key()}) is null as "it;s"`,
];

/** What a client sees of it. */
const seen = (messages: readonly BackendMessage[]): unknown =>
  messages.map((message) => {
    switch (message.type) {
      case 'CommandComplete':
        return message.tag;
      case 'ErrorResponse':
        return { code: message.fields['C'], position: message.fields['P'] };
      case 'DataRow':
        return message;
      default:
        return message.type;
    }
  });
const ROWS = `select key, value from kv where tenant_id = 't' order by key`;

/** The same rows are there and here before and behind it: what one has done is undone, then the other does it. */
async function alike(t: Test, text: string, what: string): Promise<void> {
  await there.run('begin');
  // The unique index on a shard has the slot in it (D4).
  const theirs = await there.send([{ query: text.replace(/(on conflict \(tenant_id, key)\)/gi, '$1, slot)') }]);
  const rows = there.status === 'T' ? await there.rows(ROWS) : null;
  await there.run('rollback');
  const before = await there.rows(ROWS);
  const ours = await here.send([{ query: text }]);
  const mask = (messages: readonly BackendMessage[]) => seen(messages.filter(({ type }) => type !== 'ReadyForQuery'));
  t.same(mask(ours), mask(theirs), `${what}: the same answers`);
  t.same(await there.rows(ROWS), rows ?? before, `${what}: the same rows`);
}

t.test('hundreds of statements in one text are answered as the shard itself answers them', async (t) => {
  for (let round = 0; round < 12; round++) {
    const kinds = Array.from({ length: 1 + below(3) }, () => KINDS[below(KINDS.length)]!);
    const statements = Array.from({ length: 40 + below(round === 0 ? 2000 : 400) }, () =>
      kinds[below(kinds.length)]!(),
    );
    await alike(t, `${statements.join('\n;')}\n`, `round ${round}`);
  }
});

t.test('an error in the middle undoes all of the text, and says where it stands', async (t) => {
  await here.run(
    `insert into kv (tenant_id, key, value) values ('t', '${TAG}there', '1') on conflict (tenant_id, key) do nothing`,
  );
  const insert = (n: number): string => `insert into kv (tenant_id, key, value) values ('t', '${TAG}new${n}', '"é"')`;
  for (const wrong of [
    `insert into kv (tenant_id, key, value) values ('t', '${TAG}there', '1')`,
    `insert into kv (tenant_id, key, value) values ('t', '${TAG}x', '{')`,
    `select nothing from kv where tenant_id = 't' and key = '${TAG}x'`,
  ]) {
    const statements = Array.from({ length: 300 }, (_, n) => (n === 200 ? wrong : insert(n)));
    await alike(t, statements.join('; /* ; */ '), wrong);
  }
});

t.test('keys of several shards are refused with the reason, and nothing is done', async (t) => {
  const before = await there.rows(ROWS);
  const statements = Array.from(
    { length: 200 },
    (_, n) => `insert into kv (tenant_id, key, value) values ('t', '${n < 150 ? TAG : tagOn(HOME)}no${n}', '1')`,
  );
  t.match(await here.failsWith(statements.join(';')), { code: '0A000', message: /several|shard/ });
  t.same(await there.rows(ROWS), before);
});

t.test('unlike statements beyond the limit get 54000, which names the setting', async (t) => {
  const statements = Array.from(
    { length: 900 },
    (_, n) => `select value as a${n} from kv where tenant_id = 't' and key = '${TAG}'`,
  );
  t.match(await here.failsWith(statements.join(';')), { code: '54000', message: /limits\.statement_tokens/ });
});
