// Catalogue queries as tools send them, EXPLAIN, and maintenance commands.
import type { Theme } from '../scenario.js';

export const catalog: Theme = {
  name: 'catalogue, EXPLAIN and maintenance',
  fixture: `
    create table thing (id serial primary key, name text not null default 'x', tags text[], made timestamptz);
    create index thing_name on thing (name) where name <> '';
    create table part (thing_id int references thing on delete cascade, n int check (n > 0));
    create view named as select name from thing;
    comment on table thing is 'a thing';
    insert into thing (name) values ('one'), ('two');`,
  scenarios: [
    {
      name: 'what psql sends for its backslash commands',
      readOnly: true,
      steps: [
        `SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c
         LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relname OPERATOR(pg_catalog.~) '^(thing)$' COLLATE pg_catalog.default
           AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 2, 3;`,
        `SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
           (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d
            WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef), a.attnotnull
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = 'thing'::regclass AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum;`,
        `SELECT c2.relname, i.indisprimary, i.indisunique, pg_catalog.pg_get_indexdef(i.indexrelid, 0, true),
           pg_catalog.pg_get_constraintdef(con.oid, true), contype
         FROM pg_catalog.pg_class c, pg_catalog.pg_class c2, pg_catalog.pg_index i
         LEFT JOIN pg_catalog.pg_constraint con ON (conrelid = i.indrelid AND conindid = i.indexrelid)
         WHERE c.oid = 'thing'::regclass AND c.oid = i.indrelid AND i.indexrelid = c2.oid ORDER BY c2.relname;`,
        `SELECT conname, pg_catalog.pg_get_constraintdef(r.oid, true) FROM pg_catalog.pg_constraint r
         WHERE r.conrelid = 'part'::regclass AND r.contype = 'f' ORDER BY conname`,
        `SELECT n.nspname as "Schema", c.relname as "Name",
           CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' END as "Type",
           pg_catalog.pg_get_userbyid(c.relowner) as "Owner"
         FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r','v','S') AND n.nspname = 'public' ORDER BY 1, 2;`,
        `SELECT d.datname FROM pg_catalog.pg_database d WHERE d.datname = current_database()`,
        `SELECT r.rolname, r.rolsuper, r.rolcanlogin FROM pg_catalog.pg_roles r WHERE r.rolname IN ('app', 'postgres') ORDER BY 1`,
        `SELECT extname FROM pg_catalog.pg_extension ORDER BY 1`,
      ],
    },
    {
      name: 'information_schema and catalogue functions',
      readOnly: true,
      steps: [
        `select table_name, table_type from information_schema.tables where table_schema = 'public' order by 1`,
        `select column_name, data_type, is_nullable, column_default from information_schema.columns
         where table_name = 'thing' order by ordinal_position`,
        `select constraint_name, constraint_type from information_schema.table_constraints
         where table_schema = 'public' and constraint_type in ('PRIMARY KEY', 'FOREIGN KEY') order by 1`,
        `select to_regclass('thing') is not null, to_regclass('no_such'), 'thing'::regclass::text`,
        `select format_type(23, -1), pg_typeof(1), obj_description('thing'::regclass)`,
        `select oid, typname, typlen, typcategory from pg_type where typname in ('int4', 'text', 'jsonb') order by oid`,
        `select relname, relkind, relnatts from pg_class where relname = 'thing'`,
        `select attrelid::regclass, attname, atttypid::regtype from pg_attribute where attrelid = 'thing'::regclass and attnum > 0 order by attnum`,
        `select pg_get_viewdef('named'), pg_get_indexdef('thing_name'::regclass)`,
        `select n.nspname from pg_namespace n where nspname in ('public', 'pg_catalog') order by 1`,
        `select has_schema_privilege('public', 'usage'), pg_table_is_visible('thing'::regclass)`,
        `select 'thing'::regclass::oid = c.oid as same, c.oid from pg_class c where relname = 'thing'`,
        `select pg_relation_size('thing') > 0, pg_size_pretty(123456789::bigint)`,
        `select setting from pg_settings where name = 'server_encoding'`,
        `select t.oid, t.typarray from pg_type t where t.typname = 'thing'`,
      ],
    },
    {
      name: 'EXPLAIN',
      readOnly: true,
      steps: [
        'explain (costs off) select * from thing where id = 1',
        'explain (costs off, verbose) select t.id, p.n from thing t join part p on p.thing_id = t.id',
        'explain (costs off, format json) select 1',
        'explain (costs off, format yaml) select 1',
        'explain (costs off, format xml) select 1',
        'explain (analyze, costs off, timing off, summary off, buffers off) select count(*) from generate_series(1, 10)',
        'explain (costs off) insert into thing (name) values ($$x$$)',
        'explain (costs off) update thing set name = $$y$$ where id = 1',
        'explain (costs off) create table x as select 1',
        'explain (costs off, settings) select 1',
        'explain (no_such_option) select 1',
        'explain select no_such',
        'explain (costs off) select * from named',
        'explain (costs off) declare c cursor for select 1',
        { sql: 'explain (costs off) select * from thing where id = $1', params: ['1'] },
      ],
    },
    {
      name: 'generic plans of EXPLAIN',
      readOnly: true,
      sinceMajor: 16,
      modes: ['simple'],
      steps: ['explain (costs off, generic_plan) select * from thing where id = $1'],
    },
    {
      name: 'VACUUM, ANALYZE, REINDEX and their like',
      steps: [
        'vacuum thing',
        'vacuum (analyze, verbose false) thing',
        'vacuum full thing',
        'analyze thing (name)',
        'analyze',
        'reindex table thing',
        'reindex index concurrently thing_name',
        'reindex index no_such_index',
        'create index concurrently later on thing (made)',
        'create unique index concurrently on thing (name)',
        'drop index concurrently later',
        'begin',
        'vacuum thing',
        'rollback',
        'begin',
        'create index concurrently on thing (id)',
        'rollback',
        'begin',
        'reindex table concurrently thing',
        'rollback',
        'cluster thing using thing_pkey',
        'cluster thing',
        'alter table thing set (autovacuum_enabled = off)',
        'create index on thing (lower(name))',
        'comment on index thing_name is $$x$$',
        'lock table thing',
        'begin',
        'lock table thing in access share mode',
        'lock table thing, part in share mode nowait',
        `select mode from pg_locks where relation = 'part'::regclass and pid = pg_backend_pid()`,
        'commit',
        'checkpoint',
        'security label on table thing is $$x$$',
        'alter database no_such set work_mem = 1',
        'alter role app set work_mem = $$4MB$$',
        'alter role app reset work_mem',
      ],
    },
  ],
};
