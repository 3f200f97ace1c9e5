// standard_conforming_strings = off, given at start-up: literals of keys and values mean what they mean to Postgres, in texts that
// are read here and in those that another session has sent before. Such sessions are not merged; they are answered all the same.
import t from 'tap';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';

const cluster = await kvServers(t, 2);
const [server] = cluster.servers;
const login = { user: server!.superuser, database: 'postgres' };
const OFF = { standard_conforming_strings: 'off', escape_string_warning: 'off', backslash_quote: 'on' };
const LITERALS = [
  "'plain'",
  String.raw`'a\nb'`,
  String.raw`'a\\b'`,
  String.raw`'a\'b'`,
  String.raw`'\x41\102\u0043'`,
  String.raw`E'a\tb'`,
  String.raw`$$a\nb$$`,
  String.raw`'it''s \\ one'`,
  String.raw`'ends in \\'`,
];

t.test('keys and values are what Postgres reads', async (t) => {
  const router = await kvRouter(t, cluster);
  const direct = await SqlClient.connect(server!, { ...login, parameters: OFF });
  const usual = await router.connect();
  const off = await SqlClient.connect(router, { ...login, parameters: OFF });
  t.equal(await off.value('show standard_conforming_strings'), 'off');
  for (const [at, literal] of LITERALS.entries()) {
    const wanted = await direct.value(`select ${literal}::text`);
    await off.run(`insert into kv (tenant_id, key, value) values ('t${at}', ${literal}, to_jsonb(${literal}::text))`);
    const read = `select key, value #>> '{}' from kv where tenant_id = 't${at}' and key = ${literal}`;
    // Twice, as the second time the text is known; in between a session that reads it otherwise.
    for (let time = 0; time < 2; time++) {
      t.same(await off.rows(read), [[wanted, wanted]], `${literal}, simple`);
      const { messages } = await off.wire.exchange([{ parse: read }, { bind: [] }, { execute: '' }, 'sync']);
      t.same([errorOf(messages), rowsOf(messages)], [null, [[wanted, wanted]]], `${literal}, extended`);
      await usual.send([{ query: read }]);
    }
    const other = await usual.wire.exchange([
      { parse: 'select key from kv where tenant_id = $1 and key = $2' },
      { bind: [`t${at}`, wanted!] },
      { execute: '' },
      'sync',
    ]);
    t.same(rowsOf(other.messages), [[wanted]], `${literal}: others find it by its value`);
  }
  await Promise.all([direct.end(), usual.end(), off.end()]);
  await router.quiet();
});
