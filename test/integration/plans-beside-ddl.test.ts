// DDL that is run on a server, beside pgkv: what a session has parsed since then is what the server makes of it now, whichever
// connection gets it and whatever other sessions have prepared there before. Steps of several sessions are generated.
//   PGKV_SEED=7            that seed
import t from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { SeededRandom } from '../support/seeded-random.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const ROUNDS = process.env['PGKV_LONG'] ? 400 : 40;
const CONNECTIONS = 6;
const READ = 'select * from plain';

const run: readonly FrontendMessage[] = [{ bind: [], statement: 's' }, { execute: '' }];
/** How the statement is run; each ends outside a block. */
const WAYS: Readonly<Record<string, readonly (readonly FrontendMessage[])[]>> = {
  'by itself': [[...run, 'sync']],
  'in a block': [[{ query: 'begin' }], [...run, 'sync'], [{ query: 'commit' }]],
  'behind a Describe in a block': [
    [{ query: 'begin' }],
    [{ describe: 'statement', name: 's' }, ...run, 'sync'],
    [{ query: 'commit' }],
  ],
  'in a pipeline': [[...run, 'sync', ...run, 'sync']],
  'twice in a batch': [[...run, ...run, 'sync']],
  'behind a BEGIN in its batch': [
    [{ parse: 'begin' }, { bind: [] }, { execute: '' }, ...run, 'sync'],
    [{ query: 'commit' }],
  ],
};

const readies = (messages: readonly FrontendMessage[]): number =>
  messages.filter((message) => message === 'sync' || (typeof message !== 'string' && 'query' in message)).length;

t.test('DDL beside pgkv', { timeout: 300_000 }, async (t) => {
  t.comment(`PGKV_SEED=${SEED}`);
  const random = new SeededRandom(SEED);
  const cluster = await kvServers(t, 1);
  const server = cluster.servers[0]!;
  const login = { user: server.superuser, database: 'postgres' };
  const owner = await SqlClient.connect(server, login);
  await owner.run('create table plain (a int)', 'insert into plain values (1)');
  const router = await kvRouter(t, cluster, { pool: { sizeMax: CONNECTIONS } });
  let columns = 1;
  for (let round = 0; round < ROUNDS; round++) {
    if (random.chance(0.5)) await owner.run(`alter table plain add column c${columns++} int`);
    const client = await SqlClient.connect(router, login);
    await client.send([{ parse: READ, name: 's' }, 'sync'], 1);
    // Others hold connections meanwhile, so that the statement is run on another one than its Parse was.
    const holders = await Promise.all(
      Array.from({ length: random.between(0, CONNECTIONS - 2) }, () => SqlClient.connect(router, login)),
    );
    for (const holder of holders) await holder.run('begin', 'select 1');
    for (let count = random.between(1, 2); count > 0; count--) {
      const [way, steps] = random.pick(Object.entries(WAYS));
      for (const step of steps) {
        const answers = await client.send(step, readies(step));
        const widths = new Set(rowsOf(answers).map((row) => row.length));
        const where = `round ${round}, ${way}, ${holders.length} others`;
        if (!t.equal(errorOf(answers)?.message, undefined, where)) return;
        if (!t.same([...widths], widths.size === 0 ? [] : [columns], where)) return;
      }
    }
    for (const one of [client, ...holders]) await one.end();
  }
  await owner.end();
  await router.quiet();
});
