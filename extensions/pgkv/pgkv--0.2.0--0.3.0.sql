-- pgkv 0.2.0 to 0.3.0, for ALTER EXTENSION pgkv UPDATE: what differs between the two whole scripts, in the order and the
-- words of pgkv--0.3.0.sql (a test compares what both ways leave behind). Nothing changes for tables.

CREATE OR REPLACE FUNCTION pgkv.version() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN '0.3.0';

---------------------------------------------------------------------------------------------------------------------
-- Transactions over several shards (D14): all branches but one are prepared; the last one writes the decision and commits,
-- and its commit is the decision. Who finds a prepared branch without its coordinator decides by settle().
--
-- A gid is pgkv:<cluster>:<shard of the decision>:<number>:<role that logged in>; the first three in hex.

CREATE TABLE IF NOT EXISTS pgkv.decisions (
  gid text PRIMARY KEY,
  outcome text NOT NULL CHECK (outcome IN ('commit', 'abort')),
  decided_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS decisions_decided_at ON pgkv.decisions (decided_at);
COMMENT ON TABLE pgkv.decisions IS
  'What became of transactions over several shards that were decided on this one; kept for a day after.';

CREATE OR REPLACE FUNCTION pgkv.gid_role(gid text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN substring(gid FROM '^pgkv:[0-9a-f]{16}:[0-9a-f]{12}:[0-9a-f]{24}:(.+)$');

-- A commit that a crash may take back decides nothing. Refused instead of set: code that sets something in its session is
-- searched for by routers, who say SET LOCAL themselves.
CREATE OR REPLACE FUNCTION pgkv.require_durable_commit() RETURNS void
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
    RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'a transaction over several shards needs synchronous_commit = on';
  END IF;
END $$;

-- Said by each branch before it writes: whether it could be prepared, and finished by pgkv_recover if pgkv dies.
CREATE OR REPLACE FUNCTION pgkv.begin_branch() RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  has_set boolean := current_setting('server_version_num')::integer >= 160000;
BEGIN
  IF current_setting('max_prepared_transactions') = '0' THEN
    RAISE EXCEPTION USING ERRCODE = '0A000',
      MESSAGE = 'this shard cannot take part in a transaction over several shards: max_prepared_transactions = 0';
  END IF;
  IF to_regrole('pgkv_recover') IS NULL THEN
    RAISE EXCEPTION USING ERRCODE = '0A000',
      MESSAGE = 'this shard cannot take part in a transaction over several shards: it has no role pgkv_recover, which auth.sql creates';
  END IF;
  IF NOT pg_has_role('pgkv_recover', current_user, CASE WHEN has_set THEN 'SET' ELSE 'MEMBER' END) THEN
    RAISE EXCEPTION USING ERRCODE = '0A000',
      MESSAGE = format('transactions of role %I over several shards could not be recovered; missing on this shard: GRANT %I TO pgkv_recover%s',
        current_user, current_user, CASE WHEN has_set THEN ' WITH INHERIT FALSE, SET TRUE' ELSE '' END);
  END IF;
  PERFORM pgkv.require_durable_commit();
END $$;
COMMENT ON FUNCTION pgkv.begin_branch() IS 'Raises 0A000 where the transaction could not be prepared and recovered.';

CREATE OR REPLACE FUNCTION pgkv.write_decision(gid text, outcome text) RETURNS boolean
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO pgkv.decisions AS d (gid, outcome) VALUES ($1, $2) ON CONFLICT ON CONSTRAINT decisions_pkey DO NOTHING;
  RETURN FOUND;
END $$;
REVOKE ALL ON FUNCTION pgkv.write_decision(text, text) FROM PUBLIC;

-- Waits for a recoverer that is about to decide. SET ROLE does not change session_user.
CREATE OR REPLACE FUNCTION pgkv.decide(gid text) RETURNS void
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pgkv.gid_role($1) IS DISTINCT FROM session_user THEN
    RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = format('transaction %L is not one of role %I', $1, session_user);
  END IF;
  IF NOT pgkv.write_decision($1, 'commit') THEN
    RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = 'the transaction over several shards was aborted by recovery',
      DETAIL = 'It was taken for one that was left behind.';
  END IF;
  PERFORM pgkv.require_durable_commit();
END $$;
COMMENT ON FUNCTION pgkv.decide(text) IS
  'Decides that a transaction of this role over several shards commits, if the transaction that says so does.';
GRANT EXECUTE ON FUNCTION pgkv.decide(text) TO PUBLIC;

-- Aborts unless it was decided otherwise. Waits for the branch that is about to decide, and is right whatever that does.
CREATE OR REPLACE FUNCTION pgkv.settle(gid text) RETURNS text
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'pgkv.settle needs READ COMMITTED: it reads what it has waited for';
  END IF;
  PERFORM pgkv.require_durable_commit();
  IF pgkv.write_decision($1, 'abort') THEN RETURN 'abort'; END IF;
  RETURN (SELECT d.outcome FROM pgkv.decisions d WHERE d.gid = $1);
END $$;
COMMENT ON FUNCTION pgkv.settle(text) IS 'For pgkv_recover: commit or abort, for good once this has committed.';
REVOKE ALL ON FUNCTION pgkv.settle(text) FROM PUBLIC;

-- For who has seen on every shard what is prepared. @returns how many were removed; there may be more
CREATE OR REPLACE FUNCTION pgkv.collect_decisions(held text[]) RETURNS bigint
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  removed bigint;
BEGIN
  DELETE FROM pgkv.decisions d WHERE d.gid = ANY (ARRAY(
    SELECT o.gid FROM pgkv.decisions o
    WHERE o.decided_at < clock_timestamp() - interval '24 hours' AND o.gid <> ALL ($1) LIMIT 10000));
  GET DIAGNOSTICS removed = ROW_COUNT;
  RETURN removed;
END $$;
COMMENT ON FUNCTION pgkv.collect_decisions(text[]) IS
  'For pgkv_recover: removes decisions older than a day but for those of transactions that are still prepared somewhere.';
REVOKE ALL ON FUNCTION pgkv.collect_decisions(text[]) FROM PUBLIC;
