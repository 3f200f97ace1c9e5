// No session keeps a server connection without a reason: whatever clients do beside each other in a pool that is too small for
// them, once they have given up what they hold (DISCARD ALL) or have gone, every lease comes back by itself. A failure names
// its seed; PGKV_SEED plays one, PGKV_RUNS more of them.
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { stretched } from '../support/machine-speed.js';
import { SeededRandom } from '../support/seeded-random.js';
import type { SqlClient } from '../support/sql-client.js';

const SEEDS = process.env['PGKV_SEED']
  ? [Number(process.env['PGKV_SEED'])]
  : Array.from({ length: Number(process.env['PGKV_RUNS'] ?? 6) }, (_, index) => 9_000 + index);
const LASTING = 4;
const ACTIONS = 10;

const pipelined = (sql: string, name = ''): FrontendMessage[] => [
  { parse: sql, name },
  { bind: [], statement: name },
  { execute: '' },
  'sync',
];

/** What clients do; those of one number use tables of their own. */
const actions = (own: string): readonly (readonly FrontendMessage[])[] => [
  [{ query: `create temp table mine_${own} as select 1 as x` }],
  [{ query: `drop table if exists mine_${own}` }],
  [{ query: `create table plain_${own} (id int)` }],
  [{ query: `drop table if exists plain_${own}` }],
  [{ query: `create or replace function f_${own}() returns int language sql as 'select 1'` }],
  [{ query: `select f_${own}()` }],
  [{ query: `do $$ begin perform 1; end $$` }],
  [{ query: `set datestyle = 'German'; set timezone = 'Asia/Tokyo'` }],
  [{ query: `select set_config('app.tenant', '${own}', false)` }],
  [{ query: `set search_path = pg_catalog; set search_path = public` }],
  [{ query: `begin; set local work_mem = '77MB'; select 1; rollback` }],
  [{ query: 'listen news' }],
  [{ query: 'unlisten *' }],
  [{ query: 'select pg_advisory_lock(1)' }],
  [{ query: 'select pg_advisory_unlock_all()' }],
  [{ query: 'begin' }, { query: 'select 1' }, { query: 'commit' }],
  [{ query: 'begin; select no_such_column' }, { query: 'rollback' }],
  [{ query: `set statement_timeout = '9s'` }],
  [{ query: `set default_transaction_isolation = 'serializable'; set default_transaction_read_only = on` }],
  [{ query: 'reset all' }],
  [{ query: `insert into kv (tenant_id, key, value) values ('t', '${own}', '1') on conflict do nothing` }],
  [{ query: `select value from kv where tenant_id = 't' and key = '${own}'` }],
  pipelined('select 1/0'),
  pipelined(`select 'intruder'`, 's1'),
  pipelined(`select * from plain_${own}`),
  pipelined(`select value from kv where tenant_id = 't'`),
  [{ query: `prepare p_${own} as select 1` }, { query: `execute p_${own}` }, { query: 'deallocate all' }],
  [{ query: 'begin; declare c cursor with hold for select generate_series(1, 9); commit' }, { query: 'rollback' }],
  [{ query: 'close all' }],
  [{ query: 'begin; declare c cursor with hold for select 1; rollback' }, { query: 'rollback' }],
  [{ query: `set client_encoding = 'LATIN1'; set application_name = 'other'; set bytea_output = escape` }],
  [{ query: 'create temp table copied (x text); copy copied from stdin' }, { copyFail: 'no more' }],
  [{ query: `set role pg_monitor; set app.trace = 'on'` }, { query: 'reset role' }],
  [{ parse: 'select generate_series(1, 9)' }, { bind: [], portal: 'p' }, { execute: 'p', rows: 2 }, 'sync'],
];

const readiesOf = (messages: readonly FrontendMessage[]): number =>
  messages.filter((message) => message === 'sync' || (typeof message === 'object' && 'query' in message)).length;

const cluster = await kvServers(t, 1);

for (const seed of SEEDS) {
  t.test(`seed ${seed}`, async (t) => {
    const random = new SeededRandom(seed);
    const size = random.between(2, 3);
    const live = await kvRouter(t, cluster, { pool: { sizeMax: size, waitTimeoutMs: 20_000 } });
    const lasting = await Promise.all(Array.from({ length: LASTING }, () => live.connect()));
    const act = async (client: SqlClient, own: string): Promise<void> => {
      const messages = random.pick(actions(own));
      await client.wire.exchange(messages, readiesOf(messages));
    };
    const perform = async (client: SqlClient, index: number): Promise<void> => {
      for (let action = 0; action < ACTIONS; action++) {
        await act(client, String(index));
        // Who holds a connection for long makes room for the others in the end.
        if (action % 3 === 2) await client.wire.exchange([{ query: 'discard all' }], 1);
        if (random.chance(0.2)) await sleep(random.integer(30));
      }
      await client.wire.exchange([{ query: 'discard all' }], 1);
    };
    const visit = async (): Promise<void> => {
      for (let round = 0; round < 4; round++) {
        const client = await live.connect();
        const work = act(client, 'fleeting').catch(() => undefined);
        await Promise.race([work, sleep(random.integer(20))]);
        client.wire.destroy();
      }
    };
    await Promise.all([...lasting.map(perform), visit()]);
    const { pool } = live.router;
    const until = performance.now() + (await stretched(3_000));
    while ((pool.heldFor !== '' || pool.waitingCount > 0) && performance.now() < until) await sleep(10);
    t.equal(pool.heldFor, '', 'every lease has come back');
    t.equal(pool.waitingCount, 0, 'nobody waits');
    for (const client of lasting) t.equal(await client.value('select 1'), '1');
    for (const client of lasting) client.wire.destroy();
  });
}
