-- pgkv 0.1.0 to 0.2.0, for ALTER EXTENSION pgkv UPDATE: what differs between the two whole scripts, in the order and the
-- words of pgkv--0.2.0.sql (a test compares what both ways leave behind). Then, as the owner of the tables:
-- SELECT pgkv.refresh_table(relation) FROM pgkv.tables.

CREATE OR REPLACE FUNCTION pgkv.version() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN '0.2.0';

-- Since 0.2.0. Null: set up by an older pgkv, which gave clusters no name.
ALTER TABLE pgkv.shard_state ADD COLUMN IF NOT EXISTS cluster_id text;
-- Who a server says it is (D28): asked by routers on each new connection, under the role of whoever logs in.
CREATE OR REPLACE FUNCTION pgkv.identity() RETURNS TABLE (cluster_id text, shard text, epoch bigint)
  LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
SELECT s.cluster_id, s.shard_name, s.epoch FROM pgkv.shard_state s
$$;
COMMENT ON FUNCTION pgkv.identity() IS 'Cluster, shard and epoch of the map of this server; no row before init.';
GRANT EXECUTE ON FUNCTION pgkv.identity() TO PUBLIC;

-- An older epoch never overwrites a newer one, whoever comes last; a shard never passes to another cluster.
DROP FUNCTION IF EXISTS pgkv.set_shard_state(text, bigint, text);
CREATE OR REPLACE FUNCTION pgkv.set_shard_state(name text, epoch bigint, ranges text, cluster text DEFAULT NULL)
  RETURNS void LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  present pgkv.shard_state;
BEGIN
  INSERT INTO pgkv.shard_state AS s (shard_name, epoch, slots, cluster_id) VALUES ($1, $2, $3::int4multirange, $4)
  ON CONFLICT (only_row) DO UPDATE
    SET shard_name = excluded.shard_name, epoch = excluded.epoch, slots = excluded.slots,
      cluster_id = COALESCE(s.cluster_id, excluded.cluster_id), updated_at = statement_timestamp()
    WHERE s.epoch <= excluded.epoch AND COALESCE(s.cluster_id = excluded.cluster_id, true);
  IF FOUND THEN RETURN; END IF;
  SELECT * INTO present FROM pgkv.shard_state;
  IF present.cluster_id <> $4 THEN
    RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = format('this server belongs to another cluster, %s', present.cluster_id),
      HINT = 'Use an empty database for another cluster.';
  END IF;
  RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = format('epoch %s is older than the epoch of this shard', $2),
    HINT = 'Another router changed the map meanwhile: read it again.';
END $$;
COMMENT ON FUNCTION pgkv.set_shard_state(text, bigint, text, text) IS
  'Sets the name of the shard, the epoch of the map, the owned hash slots, e.g. ''{[0,8191],[12000,12100]}'', and the cluster.';
