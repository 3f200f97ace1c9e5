-- \gset, \gdesc, \gexec, \gx, \crosstabview, pipelined output, variables, prepared statements of SQL.
-- expect: the sum is 3
-- expect: numeric(10,2)
-- expect: -[ RECORD 1 ]
-- expect: pgkv-gexec
-- expect: twice
SELECT 1 + 2 AS sum, 'x' AS letter \gset
\echo the sum is :sum :letter
SELECT 1::int AS i, 2.5::numeric(10,2) AS n, now() AS at, ARRAY['a'] AS list \gdesc
SELECT format('SELECT %L AS out', 'pgkv-gexec' || i) FROM generate_series(1, 3) AS i \gexec
SELECT 1 AS a, 'b' AS c \gx
SELECT a, b, a * b AS p FROM generate_series(1, 3) AS a, generate_series(1, 3) AS b \crosstabview
\set name 'it''s quoted'
SELECT :'name' AS literal, :"letter" FROM (SELECT 1 AS x) AS t;
SELECT 1 AS first \; SELECT 2 AS second \; SELECT 3 AS third;
PREPARE twice (int) AS SELECT $1 * 2 AS twice;
EXECUTE twice(21);
DEALLOCATE twice;
\if :{?sum}
\echo it is set
\endif
SELECT 'to a pipe' AS c \g | cat
\pset null '(null)'
SELECT NULL AS nothing, true AS yes, '{1,2}'::int[] AS list, E'two\nlines' AS text;
\pset format csv
SELECT 1 AS a, 'x,y' AS b;
\pset format html
SELECT '<tag>' AS a;
SELECT 1 AS a, 2 AS b, 3 AS c WHERE false;
