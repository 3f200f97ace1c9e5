// A simple query ends the unnamed statement, whatever becomes of the query; one that the server skips, behind an error in its
// batch, does not, nor does a Parse that is skipped. All ways a batch can fail, before a query of each kind or behind it, and then
// what the unnamed statement is: to Postgres and through pgkv.
import t from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { startPostgres } from '../support/postgres-server.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';

const KEYED = "select 'keyed' from kv where tenant_id = 'a' and key = 'k1'";
/** The unnamed statement before the batch. */
const BEFORE: readonly string[] = ["select 'before'", KEYED];
/** In front of the query. */
const FIRST: Readonly<Record<string, readonly FrontendMessage[]>> = {
  nothing: [],
  'a Close': [{ close: 'statement', name: 'absent' }],
  'a statement': [{ bind: [] }, { execute: '' }],
  'a named statement': [{ parse: 'select 3', name: 'three' }],
  'an unnamed statement': [{ parse: "select 'in front'" }],
  'an absent portal': [{ execute: 'absent' }],
  'an absent statement': [{ bind: [], statement: 'absent' }],
  'a Parse that fails': [{ parse: 'selec' }],
  'a named Parse that fails': [{ parse: 'selec', name: 'bad' }],
  'an Execute that fails': [{ parse: 'select 1 / 0', name: 'zero' }, { bind: [], statement: 'zero' }, { execute: '' }],
  'an unnamed Execute that fails': [{ parse: 'select 1 / 0' }, { bind: [] }, { execute: '' }],
  'an error, then an unnamed statement': [{ execute: 'absent' }, { parse: "select 'skipped'" }],
};
const QUERIES: readonly string[] = [
  'select 2',
  'select 2; select 3',
  '',
  'selec',
  'select 1 / 0',
  "set work_mem = '3MB'",
  KEYED,
  'select count(*) from kv',
  // Refused by pgkv, and by Postgres outside a block.
  'lock table kv',
];
const BEHIND: Readonly<Record<string, readonly FrontendMessage[]>> = {
  nothing: [],
  'an unnamed statement': [{ parse: "select 'behind'" }],
  'a Close': [{ close: 'statement' }],
};
const ASKED: readonly FrontendMessage[] = [{ bind: [] }, { execute: '' }, 'sync'];

interface Address {
  readonly host: string;
  readonly port: number;
}

t.test('queries that are skipped', { timeout: 600_000, bail: true }, async (t) => {
  const cluster = await kvServers(t, 2);
  const plain = await startPostgres({ version: 'embedded' });
  t.teardown(() => plain.stop());
  const login = { user: plain.superuser, database: 'postgres' };
  const router = await kvRouter(t, cluster);
  const model = await SqlClient.connect(plain, login);
  await model.run('create table kv (tenant_id text, key text, value jsonb)');
  await model.end();
  for (const before of BEFORE) {
    for (const [first, inFront] of Object.entries(FIRST)) {
      for (const query of QUERIES) {
        for (const [behind, rest] of Object.entries(BEHIND)) {
          const fails = /error|absent|fails/.test(first);
          // A query that is skipped is not answered.
          const batch = [...inFront, { query }, ...rest, 'sync'] as FrontendMessage[];
          const until = fails ? 1 : 2;
          const all = async (address: Address): Promise<string[]> => {
            const client = await SqlClient.connect(address, login);
            const told: string[] = [];
            for (const [messages, count] of [
              [[{ parse: before }, 'sync'], 1],
              [batch, until],
              [ASKED, 1],
              [ASKED, 1],
            ] as const) {
              const answers = await client.send(messages, count);
              told.push(`${errorOf(answers)?.code ?? ''}${JSON.stringify(rowsOf(answers))}${client.status}`);
            }
            await client.end();
            return told;
          };
          const [ours, theirs] = await Promise.all([all(router), all(plain)]);
          // The refusal itself has another code.
          const from = query.startsWith('lock') && !fails ? 2 : 0;
          const where = `${before}; ${first}; query ${query}; ${behind}`;
          if (!t.strictSame(ours!.slice(from), theirs!.slice(from), where)) return;
        }
      }
    }
  }
});
