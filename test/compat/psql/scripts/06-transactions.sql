-- BEGIN, SAVEPOINT, errors inside, ON_ERROR_ROLLBACK, AUTOCOMMIT off, cursors, WITH HOLD, LISTEN.
-- expect: current transaction is aborted
-- expect: kept by ON_ERROR_ROLLBACK
-- expect: Asynchronous notification "compat_psql" with payload "heard"
CREATE TABLE compat_psql_tx (a int PRIMARY KEY, note text);
BEGIN;
INSERT INTO compat_psql_tx VALUES (1, 'one');
SAVEPOINT here;
INSERT INTO compat_psql_tx VALUES (1, 'again');
SELECT 1;
ROLLBACK TO here;
INSERT INTO compat_psql_tx VALUES (2, 'two');
COMMIT;
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO compat_psql_tx VALUES (3, 'kept by ON_ERROR_ROLLBACK');
SELECT 1/0;
COMMIT;
\set ON_ERROR_ROLLBACK off
TABLE compat_psql_tx;
\set AUTOCOMMIT off
DELETE FROM compat_psql_tx;
ROLLBACK;
\set AUTOCOMMIT on
BEGIN ISOLATION LEVEL REPEATABLE READ;
SHOW transaction_isolation;
DECLARE c CURSOR WITH HOLD FOR SELECT a FROM compat_psql_tx ORDER BY a;
FETCH 1 FROM c;
COMMIT;
FETCH ALL FROM c;
CLOSE c;
BEGIN;
SELECT 1/0;
COMMIT;
LISTEN compat_psql;
NOTIFY compat_psql, 'heard';
UNLISTEN *;
DO $$ BEGIN RAISE NOTICE 'a notice'; END $$;
SELECT * FROM no_such_table;
\errverbose
SET TimeZone = 'Asia/Tokyo';
SELECT timestamptz '2024-02-29 12:00:00+00';
RESET TimeZone;
CREATE TEMP TABLE compat_psql_temp AS SELECT 1 AS a;
SELECT * FROM compat_psql_temp;
DISCARD ALL;
SELECT * FROM compat_psql_temp;
DROP TABLE compat_psql_tx;
