-- 100,000 rows at once and by FETCH_COUNT (a cursor of psql's own), and one line of 5 MB.
-- expect: 100000
\pset format unaligned
\pset tuples_only on
SELECT i, md5(i::text) FROM generate_series(1, 100000) AS i;
\set FETCH_COUNT 1000
SELECT i, md5(i::text) FROM generate_series(1, 100000) AS i;
\set FETCH_COUNT 0
SELECT repeat('0123456789', 500000);
