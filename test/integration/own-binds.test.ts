// Binds of statements that pgkv answers itself, with every count of formats, values and result formats: what Postgres says of the
// same messages for a statement like it, outside and inside a block, is what the client hears.
import t from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { type WireAddress, WireClient } from '../support/wire-client.js';

const cluster = await kvServers(t, 2);
const [server] = cluster.servers;
const login = { user: server!.superuser, database: 'postgres' };

/** Each of pgkv's own, and one that Postgres answers in the same way. */
const LIKE: readonly (readonly [own: string, plain: string])[] = [
  ['show pgkv.version', 'show server_version'],
  ['begin', 'begin'],
];
const TYPES = [[], [23], [25, 23], [0]];
const FORMATS = [[], [1], [7], [0, 1], [0, 0, 0]];
const RESULT_FORMATS = [[], [1], [7], [0, 1]];

/** Without values: a version has no equal. */
function told(messages: readonly BackendMessage[]): unknown[] {
  return messages.map((message) => {
    switch (message.type) {
      case 'DataRow':
        return { type: message.type, count: message.values.length };
      case 'RowDescription':
        return { type: message.type, columns: message.columns.map(({ name: _, ...column }) => column) };
      case 'ErrorResponse': {
        const { F: _file, L: _line, R: _routine, ...fields } = message.fields;
        return { type: message.type, fields };
      }
      default:
        return message;
    }
  });
}

function* binds(): Generator<{ name: string; messages: FrontendMessage[] }> {
  for (const types of TYPES) {
    for (const formats of FORMATS) {
      for (let values = 0; values <= 2; values++) {
        for (const resultFormats of RESULT_FORMATS) {
          for (const statement of ['', 's']) {
            yield {
              name: JSON.stringify({ types, formats, values, resultFormats, statement }),
              messages: [
                { parse: '', name: statement, types },
                { describe: 'statement', name: statement },
                { bind: new Array<null>(values).fill(null), statement, formats, resultFormats },
                { describe: 'portal' },
                { execute: '' },
                { close: 'statement', name: statement },
                'sync',
              ],
            };
          }
        }
      }
    }
  }
}

/** A Describe of the statement takes a BEGIN to a server. */
const withText = (messages: readonly FrontendMessage[], parse: string): FrontendMessage[] =>
  messages
    .filter((message) => parse !== 'begin' || typeof message !== 'object' || !('describe' in message))
    .map((message) => (typeof message === 'object' && 'parse' in message ? { ...message, parse } : message));

async function play(address: WireAddress, text: string, before: readonly string[]): Promise<Map<string, unknown>> {
  const client = await WireClient.connect(address, login);
  const heard = new Map<string, unknown>();
  for (const { name, messages } of binds()) {
    for (const sql of before) await client.query(sql);
    const { messages: answers } = await client.exchange(withText(messages, text));
    heard.set(name, told(answers));
    await client.query('rollback');
    // What an error has kept from being closed.
    await client.exchange([{ close: 'statement', name: 's' }, 'sync']);
  }
  client.destroy();
  return heard;
}

t.test('a Bind that does not fit is refused in the words of Postgres', async (t) => {
  const router = await kvRouter(t, cluster);
  for (const [own, plain] of LIKE) {
    for (const before of own === 'begin' ? [[]] : [[], ['begin'], ['begin', 'select 1 from pg_class limit 1']]) {
      const [expected, answered] = [await play(server!, plain, before), await play(router, own, before)];
      const differing = [...expected].filter(
        ([name, one]) => JSON.stringify(one) !== JSON.stringify(answered.get(name)),
      );
      for (const [name, one] of differing.slice(0, 5)) t.same(answered.get(name), one, `${own}, ${before}: ${name}`);
      t.equal(differing.length, 0, `${own} behind ${before.length} statements: ${expected.size} Binds`);
    }
  }
  await router.quiet();
});

const EXPLAINED: readonly (readonly [text: string, values: readonly string[]])[] = [
  ['select value from kv where tenant_id = $1 and key = $2', ['a', 'b']],
  ["select value from kv where tenant_id = 'a' and key = $1", ['b']],
  ["insert into kv (tenant_id, key, value) values ('a', $1, $2)", ['b', '1']],
  ['select kv_get($1, $2)', ['a', 'b']],
  ['select count(*) from kv where tenant_id = $1', ['a']],
  ['select key from kv where tenant_id = $1 and key in ($2, $3)', ['a', 'k0', 'k1']],
  ['select k.key from kv k join kv l on k.key = l.key where k.key = $1', ['a']],
  ['select $1::int + 1', ['1']],
];

t.test('EXPLAIN (ROUTE) says the same in every form of the protocol', async (t) => {
  const router = await kvRouter(t, cluster);
  const client = await WireClient.connect(router, login);
  const linesOf = (messages: readonly BackendMessage[]): (string | undefined)[] =>
    messages.flatMap((message) => (message.type === 'DataRow' ? [message.values[0]?.toString()] : []));
  for (const [text, values] of EXPLAINED) {
    const literal = text.replace(/\$(\d)/g, (_, number) => `'${values[number - 1]}'`);
    const expected = linesOf(await client.query(`explain (route) ${literal}`)).filter(
      (line) => !line!.startsWith('Template'),
    );
    t.ok(expected.length > 1, expected.join(', '));
    for (const [sql, bind] of [
      [text, values],
      [literal, []],
    ] as const) {
      for (let form = 0; form < 32; form++) {
        const [name, portal] = [form & 1 ? 's' : '', form & 2 ? 'p' : ''];
        const parse = { parse: `explain (route) ${sql}`, name };
        const messages: FrontendMessage[] = [
          parse,
          ...(form & 4 ? [{ describe: 'statement', name } as const] : []),
          ...(form & 8 ? (['sync'] as const) : []),
          { bind, statement: name, portal },
          ...(form & 16 ? [{ describe: 'portal', name: portal } as const] : []),
          { execute: portal },
          { close: 'statement', name },
          'sync',
        ];
        const { messages: answers } = await client.exchange(messages);
        const told = linesOf(answers).filter((line) => !line!.startsWith('Template'));
        if (told.join() !== expected.join()) t.same(told, expected, `${sql}, form ${form}`);
      }
    }
  }
  client.destroy();
  await router.quiet();
});

t.test('EXPLAIN (ROUTE) takes the values that its text has parameters for', async (t) => {
  const router = await kvRouter(t, cluster);
  const client = await WireClient.connect(router, login);
  const text = 'explain (route) select value from kv where tenant_id = $1 and key = $2';
  for (let count = 0; count <= 3; count++) {
    const bind = ['a', 'b', 'c'].slice(0, count);
    const { messages } = await client.exchange([{ parse: text }, { bind }, { execute: '' }, 'sync']);
    const error = messages.find(({ type }) => type === 'ErrorResponse');
    const code = error?.type === 'ErrorResponse' ? error.fields['C'] : undefined;
    t.equal(code, count === 2 ? undefined : '08P01', `${count} values`);
  }
  const { messages } = await client.exchange([{ parse: text }, { describe: 'statement', name: '' }, 'sync']);
  const described = messages.find((message) => message.type === 'ParameterDescription');
  t.match(described, { typeOids: [25, 25] });
  client.destroy();
  await router.quiet();
});
