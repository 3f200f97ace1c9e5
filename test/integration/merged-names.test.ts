// Functions and operators of users under names of Postgres's own (D11 rule 1): a statement's text does not tell them apart,
// and what volatile ones do to a connection would be there for its next user. Where there are such, nothing is merged.
import t from 'tap';
import { KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { FILL } from '../support/merged-cases.js';
import { batchBytes, becomesMerged, directClient, tickClients, told } from '../support/merged-clients.js';

const cluster = await kvServers(t, 1, { tables: [KV] });
const direct = await directClient(cluster.servers[0]!);
t.teardown(() => direct.sql.wire.destroy());

const onServer = (sql: string) => direct.run(sql);

await onServer(FILL);
const VOLATILE = 'volatile language sql as $$ select $1::text $$';

for (const [what, expression, create, drop] of [
  ['a function', 'upper(value)', `create function upper(jsonb) returns text ${VOLATILE}`, 'drop function upper(jsonb)'],
  [
    'an operator',
    'value || 1',
    `create function shown(jsonb, int) returns text ${VOLATILE};
      create operator || (leftarg = jsonb, rightarg = int, function = shown)`,
    'drop function shown(jsonb, int) cascade',
  ],
] as const) {
  t.test(`${what} that may change the connection`, async (t) => {
    await onServer(create);
    const live = await kvRouter(t, cluster);
    const clients = await tickClients(live, 8);
    const read = (i: number): Buffer =>
      batchBytes(`SELECT ${expression} FROM kv WHERE tenant_id = $1 AND key = $2`, ['t', `k${i}`]);
    t.same(told(await clients[0]!.ask(read(1))).rows, [['{"n": 1}']]);
    t.notOk(await becomesMerged(live, clients, read, 12));
    await onServer(drop);

    const usual = await kvRouter(t, cluster);
    const others = await tickClients(usual, 8);
    const plain = (i: number): Buffer =>
      batchBytes('SELECT upper(key) FROM kv WHERE tenant_id = $1 AND key = $2', ['t', `k${i}`]);
    t.ok(await becomesMerged(usual, others, plain), 'without it');
  });
}
