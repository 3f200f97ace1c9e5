// What looks something up in the catalogue, by functions, casts, types and collations, means the home shard's, which alone has the
// client's other tables. In a block on another shard it is answered as at home, or refused; beside a key it is refused, or answered
// alike on all shards. Names are of things that only the home shard has; functions are all those of pg_catalog that take such
// names or OIDs, as the server lists them, beside a hand's list of forms.
import t from 'tap';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';

await loadKeyHash();
const keyOf = (shard: number): string =>
  Array.from({ length: 100 }, (_, n) => `k${n}`).find((key) => Math.floor(hashSlotOf('a', key) / 8192) === shard)!;
const [AT_HOME, ELSEWHERE] = [keyOf(0), keyOf(1)];

const SETTING_UP = [
  'create schema apart',
  'create table plain (a serial primary key, b int)',
  "comment on table plain is 'told'",
  "comment on column plain.a is 'told'",
  'create view seen as select * from plain',
  'create sequence drawn',
  'create function own(int) returns int immutable language sql as $$ select $1 $$',
  'create type pair as (a int)',
  "create type mood as enum ('good', 'bad')",
  'create domain positive as int check (value > 0)',
  'create collation own from "C"',
];
const FORMS: readonly string[] = [
  ...[
    'regclass plain',
    'regtype pair',
    'regproc own',
    'regprocedure own(int)',
    'regnamespace apart',
    'regcollation own',
  ].flatMap((form) => {
    const [type, name] = form.split(' ');
    return [
      `'${name}'::${type}::text`,
      `cast('${name}' as ${type})::text`,
      `pg_catalog.${type} '${name}'`,
      `('${name}'::text || '')::${type}::text`,
      `to_${type}('${name}')::text`,
      `pg_catalog.to_${type}('${name}') is null`,
    ];
  }),
  'regclass(text $$plain$$)::text',
  // To Postgres 15 these are errors of syntax.
  ...['regclass', 'regtype', 'text'].flatMap((type) => [
    `json_value('{"a": "${type === 'regtype' ? 'pair' : 'plain'}"}', '$.a' returning ${type})::text`,
    `json_query('[1]', '$' returning ${type} null on error)::text`,
    `json_object('a': 1 returning ${type})::text`,
    `json_serialize('1' returning ${type})::text`,
    `xmlserialize(content '<a/>' as ${type})::text`,
  ]),
  "has_table_privilege('plain', 'select')",
  "has_sequence_privilege('drawn', 'usage')",
  "has_schema_privilege('apart', 'usage')",
  "has_function_privilege('own(int)', 'execute')",
  "has_type_privilege('pair', 'usage')",
  "has_any_column_privilege('plain', 'select')",
  "has_column_privilege('plain', 'a', 'select')",
  "pg_get_serial_sequence('plain', 'a')",
  "pg_get_viewdef('seen')",
  "pg_get_object_address('table', '{plain}', '{}') is null",
  "obj_description('plain'::regclass)",
  "col_description('plain'::regclass, 1)",
  "pg_relation_size('plain')",
  "pg_total_relation_size('plain'::regclass)",
  "pg_sequence_last_value('drawn')",
  "row_security_active('plain')",
  "pg_table_is_visible('plain'::regclass)",
  "format_type('pair'::regtype, null)",
  "table_to_xml('plain', true, true, '')::text",
  "schema_to_xml('apart', true, true, '')::text",
  'current_schema()',
  'current_schema',
  'current_schemas(false)::text',
  'null::pair::text',
  'row(1)::pair::text',
  '1::positive',
  "'good'::mood::text",
  'enum_range(null::mood)::text',
  "array['good']::mood[]::text",
  `'a' collate own`,
  "json_populate_record(null::plain, '{}')::text",
  "pg_typeof('good'::mood)::text",
];
/** Take an OID or a name of something in the database. */
const CALLABLE = `
  select distinct proname, p.oid, (select string_agg(case type
    when 'regclass'::regtype then '''plain''' when 'name'::regtype then '''plain''' when 'text'::regtype then '''plain'''
    when 'oid'::regtype then '''plain''::regclass' when 'regtype'::regtype then '''pair'''
    when 'regprocedure'::regtype then '''own(int)''' when 'regproc'::regtype then '''own'''
    when 'bool'::regtype then 'true' when 'int2'::regtype then '1::int2' when 'int4'::regtype then '1'
    else 'null::' || type::regtype end, ', ' order by place)
    from unnest(proargtypes::oid[]) with ordinality argument (type, place)) as arguments
  from pg_proc p
  where pronamespace = 'pg_catalog'::regnamespace and prokind = 'f' and not proretset and provolatile <> 'i'
    and proargtypes::oid[] && '{oid,regclass,regtype,regprocedure}'::regtype[]::oid[]
    and not proargtypes::oid[] && '{internal,cstring,anyelement,anyenum,"char"}'::regtype[]::oid[]
    and prorettype not in ('trigger'::regtype, 'internal'::regtype, 'void'::regtype, 'event_trigger'::regtype)
  order by 1, 2`;
/** Their answers are another ones at each moment, or the server's own; or they wait. */
const OF_THE_MOMENT =
  /stat_get|nextoid|loread|lowrite|^lo_|advisory|pg_import|snapshot|xact|filenode|size|relation_filepath|wal/;

type Answer = string;

async function answerOf(client: SqlClient, sql: string, isExtended: boolean): Promise<Answer> {
  const messages = isExtended
    ? await client.send([{ parse: sql }, { bind: [] }, { execute: '' }, 'sync'])
    : await client.answers(sql);
  return errorOf(messages)?.code ?? JSON.stringify(rowsOf(messages));
}

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) ? false : `no Postgres ${version}`;
  t.test(`look-ups in the catalogue, ${version}`, { skip, timeout: 600_000 }, async (t) => {
    const cluster = await kvServers(t, 2, { version });
    const login = { user: cluster.servers[0]!.superuser, database: 'postgres' };
    const router = await kvRouter(t, cluster);
    const home = await SqlClient.connect(cluster.servers[0]!, login);
    await home.run(...SETTING_UP);
    const client = await SqlClient.connect(router, login);
    for (const key of [AT_HOME, ELSEWHERE])
      await client.run(`insert into kv (tenant_id, key, value) values ('a', '${key}', '1')`);
    const listed = (await home.rows(CALLABLE)).filter(([name]) => !OF_THE_MOMENT.test(name!));
    t.ok(listed.length > 100, `${listed.length} functions`);
    const calls = listed.map(([name, , list]) => `(pg_catalog.${name}(${list}))::text`);
    for (const expression of [...FORMS, ...new Set(calls)]) {
      for (const isExtended of [false, true]) {
        const want = await answerOf(home, `select ${expression}`, isExtended);
        const what = `${expression}${isExtended ? ', extended' : ''}`;
        await client.run('begin', `update kv set value = '2' where tenant_id = 'a' and key = '${ELSEWHERE}'`);
        const inBlock = await answerOf(client, `select ${expression}`, isExtended);
        await client.run('rollback');
        t.ok(inBlock === '0A000' || inBlock === want, `in a block: ${what}: ${inBlock} for ${want}`);
        const beside = (key: string): Promise<Answer> =>
          answerOf(client, `select ${expression} from kv where tenant_id = 'a' and key = '${key}'`, isExtended);
        const [here, there] = [await beside(AT_HOME), await beside(ELSEWHERE)];
        // Types and collations have to be the same on all shards.
        const hasOwnType = /pair(?!')|mood|positive|collate own|null::plain/.test(expression);
        t.ok(here === there || hasOwnType, `beside a key: ${what}: ${here} here, ${there} there`);
      }
    }
    await Promise.all([home.end(), client.end()]);
  });
}
