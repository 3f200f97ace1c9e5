// Every part of SELECT, over a few small tables.
import type { Theme } from '../scenario.js';

export const select: Theme = {
  name: 'select',
  fixture: `
    create table item (id int primary key, name text not null, kind text, price numeric(10,2), made date);
    insert into item values
      (1, 'anvil', 'tool', 45.00, '2020-02-29'), (2, 'bolt', 'part', 0.10, '2021-01-01'),
      (3, 'crate', 'box', 12.50, null), (4, 'drill', 'tool', 99.99, '2019-12-31'),
      (5, 'Éclair', null, 2.75, '2022-07-14'), (6, 'fuse', 'part', null, '2021-06-30');
    create table stock (item_id int references item, place text, amount int not null, primary key (item_id, place));
    insert into stock values (1, 'north', 3), (1, 'south', 0), (2, 'north', 1000), (3, 'south', 7), (4, 'north', 2);
    create table folder (id int primary key, parent int references folder, title text);
    insert into folder values (1, null, 'root'), (2, 1, 'docs'), (3, 1, 'src'), (4, 3, 'wire'), (5, 4, 'golden');
    create view tools as select id, name, price from item where kind = 'tool';
    create materialized view places as select place, sum(amount) as total from stock group by place;`,
  scenarios: [
    {
      name: 'constants, aliases and expressions',
      readOnly: true,
      steps: [
        'select 1',
        `select 1 as one, 'two' as two, 3.0 as "Three", null as nothing, true`,
        'select',
        `select 'a' || 'b', 7 / 2, 7 % 2, 7.0 / 2, 2 ^ 10, |/ 25, @ -3, 5 & 3, 5 | 3, 5 # 3, ~5, 1 << 4`,
        `select 1 = 1, 1 <> 2, null is null, null = null, 1 is distinct from null, not true, true and null`,
        `select 5 between 1 and 9, 5 not between symmetric 9 and 1, 'abc' like 'a%', 'abc' ilike 'A_C', 'abc' ~ '^a'`,
        `select case when 1 > 2 then 'no' when 2 > 1 then 'yes' end, case 3 when 1 then 'one' else 'other' end`,
        `select coalesce(null, 2), nullif(1, 1), greatest(1, 5, 3), least('b', 'a'), num_nulls(1, null)`,
        `select cast('12' as int), '12'::int + 1, int '7', float8 '1.5', interval '1 day', date '2020-01-01' + 31`,
        `select (1, 'a') = (1, 'a'), (1, 2) < (1, 3), row(1, null) is null, (1, null) is not null`,
        `select E'a\\tb\\n', U&'\\00e9', $$dollar$$, $tag$with $$ inside$tag$, 'it''s', B'101', X'1F'`,
        `select 'a' collate "C" < 'B' collate "C", 'x' || null, length('naïve'), upper('abc'), substr('hello', 2, 3)`,
        `select 1_000, 0x1F, 0b101`,
      ],
    },
    {
      name: 'selecting from one table with order and limits',
      readOnly: true,
      steps: [
        'select * from item order by id',
        'select id, name from item order by price desc nulls last, id',
        'select name from item order by price nulls first, 1 limit 3',
        'select name from item order by id offset 2 limit 2',
        'select name, price from item order by kind fetch first 2 rows with ties',
        'select id from item order by id limit 0',
        'select id from item order by id limit null offset null',
        'select distinct kind from item order by kind',
        'select distinct on (kind) kind, name from item order by kind, price desc nulls last',
        'select all kind from item order by kind using > nulls last',
        `select i.* , i from item i where i.id = 1`,
        'select item.name from only item where id in (1, 3, 5) order by id',
        `select * from item as t(a, b, c) where a = 2`,
        'select count(*), count(price), count(distinct kind) from item',
        'table folder order by id',
        'select ctid, tableoid::regclass, id from item where id = 1',
      ],
    },
    {
      name: 'joins of every kind',
      readOnly: true,
      steps: [
        'select i.name, s.place, s.amount from item i join stock s on s.item_id = i.id order by 1, 2',
        'select i.name, s.place from item i left join stock s on s.item_id = i.id order by 1, 2',
        'select i.name, s.place from stock s right outer join item i on s.item_id = i.id and s.amount > 5 order by 1, 2',
        'select * from folder a full join folder b on a.parent = b.id order by a.id, b.id',
        'select a.id, b.id from folder a cross join folder b where a.id < b.id order by 1, 2 limit 4',
        'select a.id, b.title from folder a, folder b where a.parent = b.id order by a.id',
        'select id, title, t from folder join (values (1, $$x$$), (2, $$y$$)) v(id, t) using (id) order by id',
        'select * from folder natural join (select 3 as id) n',
        `select i.name, l.total from item i, lateral (select sum(amount) as total from stock where item_id = i.id) l
         order by i.id`,
        `select f.title, g from folder f left join lateral generate_series(1, f.id - 3) g on true order by 1, 2`,
        'select x from (folder a join folder b on a.id = b.parent) as x order by 1 limit 1',
        'select j.id from folder a join folder b using (id) as j order by 1 limit 2',
      ],
    },
    {
      name: 'aggregates, grouping sets and filters',
      readOnly: true,
      steps: [
        'select kind, count(*), sum(price), avg(price), min(name), max(made) from item group by kind order by kind',
        'select kind, count(*) from item group by 1 having count(*) > 1 order by 1',
        'select kind, made is null as unmade, count(*) from item group by rollup (kind, made is null) order by 1, 2, 3',
        'select kind, grouping(kind), sum(price) from item group by grouping sets ((kind), ()) order by 2, 1',
        'select place, item_id, sum(amount) from stock group by cube (place, item_id) order by 1, 2',
        `select count(*) filter (where price > 10), sum(price) filter (where kind = 'none') from item`,
        `select string_agg(name, ', ' order by name desc), array_agg(id order by id) from item`,
        'select json_agg(name order by id), jsonb_object_agg(id, kind) from item where id < 4',
        'select bool_and(price > 0), bool_or(price > 99), every(id > 0) from item',
        'select percentile_cont(0.5) within group (order by price), mode() within group (order by kind) from item',
        'select rank(3) within group (order by id), stddev(id), var_pop(id), corr(id, id * 2) from item',
        'select sum(id), sum(id::bigint), sum(id::float8), avg(id), bit_and(id), bit_or(id) from item',
        'select max(id) from item where false',
        'select kind from item where false group by kind',
      ],
    },
    {
      name: 'window functions',
      readOnly: true,
      steps: [
        'select name, row_number() over (order by id), rank() over (order by kind) from item order by id',
        'select name, sum(price) over (partition by kind order by id) from item order by id',
        'select id, lag(name) over w, lead(name, 2, $$end$$) over w from item window w as (order by id) order by id',
        `select id, first_value(id) over w, last_value(id) over w, nth_value(id, 2) over w from item
         window w as (order by id rows between 1 preceding and 1 following) order by id`,
        'select id, sum(id) over (order by id range between 2 preceding and current row exclude current row) from item',
        'select id, count(*) over (order by kind groups between 1 preceding and current row) from item order by id',
        'select id, ntile(4) over (order by id), percent_rank() over (order by id), cume_dist() over (order by id) from item',
        'select id, dense_rank() over (partition by kind order by price) from item order by id',
      ],
    },
    {
      name: 'subqueries, common table expressions and recursion',
      readOnly: true,
      steps: [
        'select name from item where price = (select max(price) from item)',
        'select name from item i where exists (select from stock where item_id = i.id) order by 1',
        'select name from item where id not in (select item_id from stock) order by 1',
        'select name from item where id = any (select item_id from stock where amount > 5) order by 1',
        'select name from item where price >= all (select price from item where price is not null)',
        'select array(select name from item order by id limit 2), (select count(*) from stock)',
        'with cheap as (select * from item where price < 10) select name from cheap order by id',
        'with a as materialized (select 1 as x), b as not materialized (select x + 1 as y from a) select * from a, b',
        `with recursive path (id, trail) as (
           select id, title from folder where parent is null
           union all select f.id, p.trail || '/' || f.title from folder f join path p on f.parent = p.id)
         select * from path order by id`,
        `with recursive n as (select 1 as i union select i + 1 from n where i < 5) select sum(i) from n`,
        `with recursive t (id, parent) as (select id, parent from folder where id = 1
           union all select f.id, f.parent from folder f join t on f.parent = t.id)
           search depth first by id set ordering select id, ordering from t order by ordering`,
        `with recursive t (a, b) as (values (1, 2) union all select b, a from t) cycle a set again using way
         select a, again, way from t`,
        'select (select (select 1) + 1) + 1',
        'select * from (select id, kind from item order by id desc limit 2) as last',
      ],
    },
    {
      name: 'set operations and VALUES',
      readOnly: true,
      steps: [
        'select 1 union select 2 union select 1 order by 1',
        'select 1 union all select 1',
        'select kind from item intersect select $$tool$$',
        'select id from item except select item_id from stock order by 1',
        'select id from item except all (select 1 union all select 2) order by 1 limit 2',
        'values (1, $$a$$), (2, $$b$$), (3, null)',
        'values (1), (2.5)',
        'select * from (values (1, 2), (3, 4)) as v(a, b) where a > 1',
        '(select 1 limit 1) union all (select 2 order by 1)',
        `select 'text' union select null order by 1 nulls first`,
      ],
    },
    {
      name: 'set-returning functions',
      readOnly: true,
      steps: [
        'select generate_series(1, 3)',
        'select g, g * g from generate_series(10, 1, -3) g',
        `select generate_series('2024-01-30'::date, '2024-02-02', '1 day')::date`,
        'select * from unnest(array[1, 2], array[$$x$$, $$y$$, $$z$$]) with ordinality as u(n, t, o)',
        'select * from rows from (generate_series(1, 2), generate_series(5, 7)) as r(a, b)',
        `select * from json_to_recordset('[{"a":1,"b":"x"},{"a":2}]') as t(a int, b text)`,
        `select * from regexp_matches('a1b2', '([a-z])(\\d)', 'g')`,
        `select * from string_to_table('a,b,,c', ',')`,
        'select generate_series(1, 2), generate_series(1, 3)',
        'select * from generate_series(1, 0)',
      ],
    },
    {
      name: 'row locks, sampling and views',
      readOnly: true,
      steps: [
        'select id from item where id = 1 for update',
        'select id from item where id = 1 for no key update nowait',
        'select i.id from item i join stock s on s.item_id = i.id where i.id = 2 for share of i skip locked',
        'select id from item where id = 3 for key share',
        'select count(*) from item tablesample system (100)',
        'select count(*) from item tablesample bernoulli (100) repeatable (7)',
        'select * from tools order by id',
        'select * from places order by place',
        'select kind, count(*) from item group by kind for update',
      ],
    },
    {
      name: 'JSON_TABLE, JSON constructors and the other additions of Postgres 17 and 18',
      readOnly: true,
      sinceMajor: 17,
      steps: [
        `select * from json_table('[{"a":1},{"a":2}]', '$[*]' columns (n for ordinality, a int path '$.a'))`,
        `select json_object('a': 1, 'b': null absent on null), json_array(1, 2), json_scalar(1), json('{"a":1}')`,
        `select json_query('{"a":[1,2]}', '$.a'), json_value('{"a":1}', '$.a' returning int), json_exists('{}', '$.x')`,
        'select any_value(kind) from item where kind = $$tool$$',
        `select '{"a":1}' is json object, 'x' is json`,
        'select id from folder order by id limit 2 offset 1',
      ],
    },
    {
      name: 'wide rows and many rows',
      readOnly: true,
      steps: [
        `select ${Array.from({ length: 300 }, (_, i) => `${i} as c${i}`).join(', ')}`,
        `select i, repeat('x', 500) from generate_series(1, 500) i`,
        `select repeat('é', 100000)`,
        'select i from generate_series(1, 5000) i',
        `select ${Array.from({ length: 1665 }, (_, i) => i).join(', ')}`,
      ],
    },
    {
      name: 'parameters where values may stand',
      readOnly: true,
      steps: [
        { sql: 'select $1', params: ['untyped'] },
        { sql: 'select $1::int + $2', params: ['1', '2'] },
        { sql: 'select * from item where id = $1', params: ['3'] },
        { sql: 'select name from item where name like $1 order by id limit $2 offset $3', params: ['%r%', '2', '0'] },
        { sql: 'select name from item where id = any($1) order by id', params: ['{1,2,3}'] },
        { sql: 'select name from item where made > $1 or $1 is null order by id', params: [null] },
        { sql: 'select $2::text, $1::text, $2', params: ['a', 'b'] },
        { sql: 'select $1::text || $1::text', params: ['é€😀'] },
        { sql: 'select kind, count(*) from item group by kind having count(*) > $1 order by kind', params: ['1'] },
        { sql: 'select coalesce($1, $2, 0)', params: [null, '7'], types: [23, 23] },
        { sql: 'select $1 = $2', params: ['a', 'a'] },
        { sql: 'select $3::int', params: ['1', '2', '3'] },
      ],
    },
  ],
};
