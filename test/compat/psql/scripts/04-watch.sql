-- \watch ends at the first error, so the sequence bounds it to two rounds.
-- expect: division by zero
CREATE SEQUENCE compat_psql_rounds;
SELECT 12 / (3 - nextval('compat_psql_rounds')) AS quotient \watch 0.1
SELECT last_value FROM compat_psql_rounds;
DROP SEQUENCE compat_psql_rounds;
