// What one session may have pgkv keep is bounded, by whatever messages it comes, and nothing of it is left of what the client has
// closed again. A client that sends much before it waits is answered all the same.
import t from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const cluster = await kvServers(t, 2);
const login = { user: cluster.servers[0]!.superuser, database: 'postgres' };
const LIMIT_BYTES = 65_536;
const limits = { sessionStatementBytes: LIMIT_BYTES };

/** One for each way of a Parse: by pgkv itself, by a server, by whichever shard the Bind names. */
const TEXTS = [
  'begin',
  'rollback',
  'show pgkv.version',
  'select 1',
  "select value from kv where tenant_id = 't' and key = 'k'",
];

t.test('named statements count, whoever answers them', async (t) => {
  const router = await kvRouter(t, cluster, { limits });
  for (const text of TEXTS) {
    const client = await WireClient.connect(router, login);
    let ended = false;
    for (let name = 0; name < 2 * (LIMIT_BYTES / 72) && !ended; name += 100) {
      const parses = Array.from({ length: 100 }, (_, at): FrontendMessage => ({ parse: text, name: `s${name + at}` }));
      const { messages, outcome } = await client.exchange([...parses, 'sync'], 1);
      ended = outcome === 'closed';
      if (ended) t.equal(errorOf(messages)?.code, '54000', text);
    }
    t.ok(ended, `${text}: the session has come to its limit`);
    client.destroy();
  }
  await router.quiet();
});

t.test('what was described and closed in one batch is not counted any longer', async (t) => {
  const router = await kvRouter(t, cluster, { limits });
  const client = await WireClient.connect(router, login);
  for (let round = 0; round < 40; round++) {
    const messages = Array.from({ length: 50 }, (_, at): FrontendMessage[] => {
      const name = `s${round}_${at}`;
      return [
        { parse: 'select 1 as one', name },
        { describe: 'statement', name },
        { close: 'statement', name },
      ];
    }).flat();
    const { outcome } = await client.exchange([...messages, 'sync'], 1);
    if (outcome !== 'reached') return t.fail(`the session ended in round ${round}`);
  }
  t.pass('2,000 statements came and went');
  client.destroy();
  await router.quiet();
});

t.test('more messages in one batch than pgkv takes at a time', async (t) => {
  const router = await kvRouter(t, cluster);
  const client = await WireClient.connect(router, login);
  const names = Array.from({ length: 11_000 }, (_, at) => `s${at}`);
  for (let first = 0; first < names.length; first += 1_000) {
    const parses = names.slice(first, first + 1_000).map((name): FrontendMessage => ({ parse: 'select 1', name }));
    await client.exchange([...parses, 'sync'], 1);
  }
  const closes = names.map((name): FrontendMessage => ({ close: 'statement', name }));
  const { messages, outcome } = await client.exchange(
    [{ bind: [], statement: 's0' }, { execute: '' }, ...closes, 'sync'],
    1,
  );
  t.equal(outcome, 'reached');
  t.equal(messages.filter(({ type }) => type === 'CloseComplete').length, names.length);
  client.destroy();
  await router.quiet();
});

t.test('names that were given twice leave few statements on the server', async (t) => {
  const router = await kvRouter(t, cluster);
  const client = await router.connect();
  // Keeps the connection with the session.
  await client.run('create temp table kept (n int)');
  for (let at = 0; at < 200; at++) {
    const parse: FrontendMessage = { parse: `select ${at}`, name: `twice${at}` };
    const { messages } = await client.wire.exchange([parse, 'sync', parse, 'sync']);
    t.equal(errorOf(messages)?.code, '42P05');
    if (at % 3 === 0) await client.wire.exchange([{ close: 'statement', name: `twice${at}` }, 'sync']);
  }
  // Of 200 the client has closed 67; no name of its own is on the server, and a second statement of that text not once.
  t.equal(await client.value(`select count(*) from pg_prepared_statements where name like 'twice%'`), '0');
  const left = Number(await client.value('select count(*) from pg_prepared_statements where not from_sql'));
  t.ok(left <= 200 + 2, `${left} are left`);
  for (const at of [0, 1, 198, 199]) {
    const { messages } = await client.wire.exchange([{ bind: [], statement: `twice${at}` }, { execute: '' }, 'sync']);
    t.equal(errorOf(messages)?.code, at % 3 === 0 ? '26000' : undefined, `twice${at}`);
  }
  await client.end();
  await router.quiet();
});
