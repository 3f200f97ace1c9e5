-- \copy out and in again, as text and CSV, and COPY with its data in the script.
-- expect: COPY 3
-- expect: COPY 1000
-- expect: 1000|500500
-- expect: 2|with	tab
CREATE TABLE compat_psql_copy (id int, name text);
COPY compat_psql_copy FROM STDIN;
1	plain
2	with\ttab
3	\N
\.
\copy compat_psql_copy TO STDOUT
\copy (SELECT * FROM compat_psql_copy ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)
\copy (SELECT i, 'row ' || i FROM generate_series(1, 1000) AS i) TO 'copied.csv' WITH (FORMAT csv)
TRUNCATE compat_psql_copy;
\copy compat_psql_copy FROM 'copied.csv' WITH (FORMAT csv)
\pset format unaligned
SELECT count(*), sum(id) FROM compat_psql_copy;
\copy compat_psql_copy (id) FROM STDIN
4
not a number
\.
SELECT count(*) FROM compat_psql_copy;
SELECT 2 AS id, E'with\ttab' AS name;
DROP TABLE compat_psql_copy;
