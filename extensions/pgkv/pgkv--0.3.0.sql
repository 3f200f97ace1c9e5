-- pgkv 0.3.0: what a shard needs to hold key-value tables (docs/DECISIONS.md, D1 to D4, D6, D9, D14).
--
-- This file is both the script of CREATE EXTENSION pgkv and, on servers where files cannot be installed, plain SQL: it
-- may be sent as one simple query or run by `psql -1 -f`, again and again. So it holds no psql commands, no
-- transaction control and no placeholders of extension scripts.
--
-- No setting of the caller may change what this does, search_path least of all: function bodies that run under the
-- caller's search_path name every schema, operators included. Functions that run once a table instead of once a row
-- fix search_path with a SET clause (0.9 µs a call on Postgres 15, 0.25 µs on 18).

DO $$
BEGIN
  IF pg_catalog.to_regprocedure('pgkv.slot(text,text)') IS NOT NULL THEN
    IF EXISTS (SELECT FROM pg_catalog.pg_depend WHERE classid = 'pg_catalog.pg_proc'::regclass AND deptype = 'e'
               AND objid = pg_catalog.to_regprocedure('pgkv.slot(text,text)')) THEN
      RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'pgkv is installed as an extension in this database',
        HINT = 'Update it with ALTER EXTENSION pgkv UPDATE.';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pgkv') THEN
      RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'pgkv is installed as plain SQL in this database',
        HINT = 'Update it by running the newer script as plain SQL, as its owner.';
    END IF;
  END IF;
  IF pg_catalog.to_regnamespace('pgkv') IS NULL THEN
    CREATE SCHEMA pgkv;
  -- Who owns a schema can replace what is in it: functions that others run, triggers of others' tables.
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
                WHERE n.nspname = 'pgkv' AND NOT r.rolsuper AND r.rolname <> current_user) THEN
    RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'schema pgkv belongs to another role',
      HINT = 'Install or update pgkv as the owner of the schema, or drop the schema first.';
  END IF;
END $$;

GRANT USAGE ON SCHEMA pgkv TO PUBLIC;

CREATE OR REPLACE FUNCTION pgkv.version() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN '0.3.0';
COMMENT ON FUNCTION pgkv.version() IS 'Version of the pgkv extension, however it was installed.';

---------------------------------------------------------------------------------------------------------------------
-- Hash slots (D1, D2): XXH32, 32-bit unsigned numbers held in bigint.
-- https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
--
-- The one-line functions have bodies of standard SQL: their operators are bound when they are made, and the planner
-- puts them inline. It does so only where an argument used twice is a variable or cheap, hence the statements of one
-- step each below. 3.5 µs for an 8-byte key, 6 µs for 25 bytes, 0.1 ms for 1 KiB.

-- Four bytes, the lowest first.
CREATE OR REPLACE FUNCTION pgkv.xxh32_word(data bytea, place integer) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN (get_byte(data, place) | (get_byte(data, place + 1) << 8) | (get_byte(data, place + 2) << 16)
    | (get_byte(data, place + 3) << 24))::bigint & 4294967295;

-- h + a × b; a in two halves of 16 bits, since the product of two 32-bit numbers overflows a bigint.
CREATE OR REPLACE FUNCTION pgkv.xxh32_add(h bigint, a bigint, b bigint) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN (h + ((((a >> 16) * b) & 65535) << 16) + (a & 65535) * b) & 4294967295;

CREATE OR REPLACE FUNCTION pgkv.xxh32_rotate(h bigint, bits integer) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN ((h << bits) | (h >> (32 - bits))) & 4294967295;

CREATE OR REPLACE FUNCTION pgkv.xxh32_turn(h bigint, bits integer, b bigint) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN pgkv.xxh32_add(0, pgkv.xxh32_rotate(h, bits), b);

CREATE OR REPLACE FUNCTION pgkv.xxh32_fold(h bigint, bits integer, b bigint) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN pgkv.xxh32_add(0, h # (h >> bits), b);

CREATE OR REPLACE FUNCTION pgkv.xxh32_join(h1 bigint, h2 bigint, h3 bigint, h4 bigint) RETURNS bigint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE
  RETURN pgkv.xxh32_rotate(h1, 1) + pgkv.xxh32_rotate(h2, 7) + pgkv.xxh32_rotate(h3, 12) + pgkv.xxh32_rotate(h4, 18);

CREATE OR REPLACE FUNCTION pgkv.xxh32(data bytea) RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
  size integer := pg_catalog.length(data);
  stripes integer := size OPERATOR(pg_catalog.&) -16;
  words integer := size OPERATOR(pg_catalog.&) -4;
  word bigint;
  h bigint := 374761393;
  h1 bigint := 606290984;
  h2 bigint := 2246822519;
  h3 bigint := 0;
  h4 bigint := 1640531535;
BEGIN
  IF stripes OPERATOR(pg_catalog.>) 0 THEN
    FOR place IN 0 .. stripes OPERATOR(pg_catalog.-) 1 BY 16 LOOP
      word := pgkv.xxh32_word(data, place);
      h1 := pgkv.xxh32_add(h1, word, 2246822519);
      h1 := pgkv.xxh32_turn(h1, 13, 2654435761);
      word := pgkv.xxh32_word(data, place OPERATOR(pg_catalog.+) 4);
      h2 := pgkv.xxh32_add(h2, word, 2246822519);
      h2 := pgkv.xxh32_turn(h2, 13, 2654435761);
      word := pgkv.xxh32_word(data, place OPERATOR(pg_catalog.+) 8);
      h3 := pgkv.xxh32_add(h3, word, 2246822519);
      h3 := pgkv.xxh32_turn(h3, 13, 2654435761);
      word := pgkv.xxh32_word(data, place OPERATOR(pg_catalog.+) 12);
      h4 := pgkv.xxh32_add(h4, word, 2246822519);
      h4 := pgkv.xxh32_turn(h4, 13, 2654435761);
    END LOOP;
    h := pgkv.xxh32_join(h1, h2, h3, h4);
  END IF;
  h := pgkv.xxh32_add(h, 1, size);
  FOR place IN stripes .. words OPERATOR(pg_catalog.-) 1 BY 4 LOOP
    word := pgkv.xxh32_word(data, place);
    h := pgkv.xxh32_add(h, word, 3266489917);
    h := pgkv.xxh32_turn(h, 17, 668265263);
  END LOOP;
  FOR place IN words .. size OPERATOR(pg_catalog.-) 1 LOOP
    h := pgkv.xxh32_add(h, pg_catalog.get_byte(data, place), 374761393);
    h := pgkv.xxh32_turn(h, 11, 2654435761);
  END LOOP;
  h := pgkv.xxh32_fold(h, 15, 2246822519);
  h := pgkv.xxh32_fold(h, 13, 3266489917);
  RETURN h OPERATOR(pg_catalog.#) (h OPERATOR(pg_catalog.>>) 16);
END $$;
COMMENT ON FUNCTION pgkv.xxh32(bytea) IS 'XXH32 with seed 0.';

-- Works on bytes, so that no collation has a say: { and } are never part of another character in UTF-8.
CREATE OR REPLACE FUNCTION pgkv.slot(tenant text, key text) RETURNS integer
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT AS $$
DECLARE
  part pg_catalog.bytea := pg_catalog.convert_to(key, 'UTF8');
  opened integer := pg_catalog."position"(part, E'\\x7b');
  tail pg_catalog.bytea;
  closed integer;
BEGIN
  IF opened OPERATOR(pg_catalog.>) 0 THEN
    tail := pg_catalog.substring(part, opened OPERATOR(pg_catalog.+) 1);
    closed := pg_catalog."position"(tail, E'\\x7d');
    IF closed OPERATOR(pg_catalog.>) 1 THEN
      part := pg_catalog.substring(tail, 1, closed OPERATOR(pg_catalog.-) 1);
    END IF;
  END IF;
  RETURN pgkv.xxh32(pg_catalog.convert_to(tenant, 'UTF8') OPERATOR(pg_catalog.||) E'\\x00' OPERATOR(pg_catalog.||) part)
    OPERATOR(pg_catalog.&) 16383;
END $$;
COMMENT ON FUNCTION pgkv.slot(text, text) IS
  'Hash slot, 0 to 16383, of a tenant''s key; of {tag} alone where the key contains a non-empty one.';

---------------------------------------------------------------------------------------------------------------------
-- Versions (D3).

-- Milliseconds since 1970 × 1024, with the clock's microseconds: a key that is deleted and made again within one
-- millisecond still gets a higher version, as no key is written a thousand times in a millisecond. (Not above a life that
-- begins and ends while the INSERT, with its version already, waits for whoever holds the key.)
--
-- The clock may go back, or a standby with another clock take over, and the next life of a key must not begin lower. So
-- what was given is remembered to the millisecond in version_mark, and who finds the clock below it raises
-- version_offset, which is added to the clock from then on: never a floor, at which time would stand still and delete and
-- insert repeat a version. Both are sequences because those are all that is at once shared by sessions without waiting
-- for a commit, kept over crashes, sent to standbys before the rows that rely on it, and cheap to read: 0.1 µs, where a
-- row of a table costs 9. first_version() as a whole: 0.3 µs more than the bare clock.

CREATE SEQUENCE IF NOT EXISTS pgkv.version_mark MINVALUE 0 START 0;
CREATE SEQUENCE IF NOT EXISTS pgkv.version_offset MINVALUE 0 START 0;
-- What was never set is NULL to pg_sequence_last_value. Done again, this changes nothing.
DO $$
BEGIN
  IF pg_catalog.pg_sequence_last_value('pgkv.version_offset'::pg_catalog.regclass) IS NULL THEN
    PERFORM pg_catalog.setval('pgkv.version_offset', 0);
  END IF;
END $$;
-- Inlined, first_version() reads them with the rights of whoever inserts; they cannot be set with these.
GRANT SELECT ON SEQUENCE pgkv.version_mark, pgkv.version_offset TO PUBLIC;
COMMENT ON SEQUENCE pgkv.version_mark IS 'No version given so far is more than a millisecond (1024) above this.';
COMMENT ON SEQUENCE pgkv.version_offset IS 'What is added to the clock for versions: how far it has gone back, and more.';

CREATE OR REPLACE FUNCTION pgkv.clock() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE
  RETURN floor(date_part('epoch', clock_timestamp()) * 1024000)::bigint;

-- Moves the mark up to the clock. @returns a version for a key written now
CREATE OR REPLACE FUNCTION pgkv.move_version_mark() RETURNS bigint
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  clock bigint := pgkv.clock();
  mark bigint := COALESCE(pg_sequence_last_value('pgkv.version_mark'), 0);
  lead bigint := COALESCE(pg_sequence_last_value('pgkv.version_offset'), 0);
  behind bigint := mark - clock - lead;
BEGIN
  -- A question in a read-only transaction, or on a standby: nothing is written with the answer.
  IF current_setting('transaction_read_only')::boolean THEN
    RETURN mark + GREATEST(-behind, 1024);
  END IF;
  -- 5 s more than is missing: writes told to clients may have been lost with the server that knew the last mark.
  IF behind > 0 THEN
    lead := setval('pgkv.version_offset', mark - clock + 5 * 1024000);
  END IF;
  RETURN setval('pgkv.version_mark', clock + lead);
END $$;

-- The first line asks whether the clock is at most a millisecond above the mark and not below it, with one look at it;
-- should the clock go back just between the two looks, the mark is what is given.
CREATE OR REPLACE FUNCTION pgkv.first_version() RETURNS bigint LANGUAGE sql VOLATILE
  RETURN CASE WHEN abs(2 * (pgkv.clock() + pg_sequence_last_value('pgkv.version_offset'::regclass)
      - pg_sequence_last_value('pgkv.version_mark'::regclass)) - 1024) <= 1024
    THEN greatest(pgkv.clock() + pg_sequence_last_value('pgkv.version_offset'::regclass),
      pg_sequence_last_value('pgkv.version_mark'::regclass))
    ELSE pgkv.move_version_mark() END;
COMMENT ON FUNCTION pgkv.first_version() IS
  'Version of a key written now for the first time; higher than any version the key had before a delete or expiry.';

-- For rows that come from elsewhere with their versions: the versions given here from now on are above this one.
CREATE OR REPLACE FUNCTION pgkv.keep_versions_above(version bigint) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF $1 >= pgkv.first_version() THEN
    PERFORM setval('pgkv.version_mark', $1 + 1), pgkv.move_version_mark();
  END IF;
END $$;
COMMENT ON FUNCTION pgkv.keep_versions_above(bigint) IS
  'New keys get higher versions than this one from now on, whatever the clock says.';

---------------------------------------------------------------------------------------------------------------------
-- Triggers (D2, D3, D28). Their WHEN conditions keep them from firing on the statements that pgkv builds itself, on
-- connections that it has opened with pgkv.router = on.

-- The hash slots of this shard: all of them, until the trigger below has read the shard's state. Replaced instead of
-- looked up, as planners put a constant inline: 0.1 µs a row, where a look at shard_state costs 3.
DO $$
BEGIN
  IF pg_catalog.to_regprocedure('pgkv.owned_slots()') IS NULL THEN
    CREATE FUNCTION pgkv.owned_slots() RETURNS int4multirange LANGUAGE sql IMMUTABLE PARALLEL SAFE
      RETURN '{[0,16384)}'::int4multirange;
  END IF;
END $$;
COMMENT ON FUNCTION pgkv.owned_slots() IS 'The hash slots of this shard, as pgkv.shard_state has them; all before init.';

CREATE OR REPLACE FUNCTION pgkv.keep_slot() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  right_slot integer := pgkv.slot(NEW.tenant_id, NEW.key);
BEGIN
  IF NEW.slot OPERATOR(pg_catalog.<>) right_slot THEN
    RAISE EXCEPTION USING ERRCODE = '23514', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'slot',
      MESSAGE = pg_catalog.format('slot %s is wrong for key %L of tenant %L', NEW.slot, NEW.key, NEW.tenant_id),
      DETAIL = pg_catalog.format('The key belongs to slot %s.', right_slot),
      HINT = 'Leave the column slot out, or set it to NULL: it is filled in.';
  END IF;
  IF NOT right_slot OPERATOR(pg_catalog.<@) pgkv.owned_slots() THEN
    RAISE EXCEPTION USING ERRCODE = '23514', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'slot',
      MESSAGE = pg_catalog.format('slot %s of key %L of tenant %L belongs to another shard', right_slot, NEW.key,
        NEW.tenant_id),
      DETAIL = pg_catalog.format('This shard owns the slots %s.', pgkv.owned_slots()),
      HINT = 'Write the key through pgkv: it knows the shard.';
  END IF;
  NEW.slot := right_slot;
  RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION pgkv.keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.version := OLD.version OPERATOR(pg_catalog.+) 1;
  IF NEW.updated_at OPERATOR(pg_catalog.=) OLD.updated_at THEN
    NEW.updated_at := pg_catalog.statement_timestamp();
  END IF;
  RETURN NEW;
END $$;

---------------------------------------------------------------------------------------------------------------------
-- Checks used by the functions of tables.

CREATE OR REPLACE FUNCTION pgkv.check_lengths(VARIADIC lengths integer[]) RETURNS integer
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF array_position(lengths, NULL) IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'an array of the batch is null';
  END IF;
  IF lengths[1] <> ANY (lengths) THEN
    RAISE EXCEPTION USING ERRCODE = '22023',
      MESSAGE = format('the arrays of a batch must be of one length, not %s', array_to_string(lengths, ', '));
  END IF;
  RETURN lengths[1];
END $$;

CREATE OR REPLACE FUNCTION pgkv.check_batch(tenants text[], keys text[], VARIADIC others integer[] DEFAULT '{}')
  RETURNS integer LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  members integer := pgkv.check_lengths(VARIADIC array[cardinality(tenants), cardinality(keys)] || others);
  twice record;
BEGIN
  SELECT m.tenant, m.key INTO twice
  FROM (SELECT u.tenant COLLATE "C" AS tenant, u.key COLLATE "C" AS key FROM unnest(tenants, keys) AS u (tenant, key)) m
  WHERE m.tenant IS NOT NULL AND m.key IS NOT NULL
  GROUP BY m.tenant, m.key HAVING count(*) > 1 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION USING ERRCODE = '21000',
      MESSAGE = format('key %L of tenant %L occurs more than once in a batch', twice.key, twice.tenant),
      HINT = 'Each key may be written once in a call.';
  END IF;
  RETURN members;
END $$;

CREATE OR REPLACE FUNCTION pgkv.check_delta(delta numeric) RETURNS jsonb
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF delta IS NULL OR delta OPERATOR(pg_catalog.=) ANY ('{NaN,Infinity,-Infinity}'::pg_catalog.numeric[]) THEN
    RAISE EXCEPTION USING ERRCODE = '22023',
      MESSAGE = pg_catalog.format('cannot add %s: not a finite number', COALESCE(delta::pg_catalog.text, 'NULL'));
  END IF;
  RETURN pg_catalog.to_jsonb(delta);
END $$;

CREATE OR REPLACE FUNCTION pgkv.check_patch(patch jsonb) RETURNS jsonb
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF pg_catalog.jsonb_typeof(patch) OPERATOR(pg_catalog.=) 'object' THEN RETURN patch; END IF;
  RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'a patch must be a JSON object';
END $$;

-- Never returns; the caller casts its "result" to what its expression needs.
CREATE OR REPLACE FUNCTION pgkv.refuse_value(tenant text, key text, wanted text) RETURNS text
  LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '22023',
    MESSAGE = pg_catalog.format('the value of key %L of tenant %L is not a JSON %s', key, tenant, wanted);
END $$;

CREATE OR REPLACE FUNCTION pgkv.refuse_restless_key(tenant text, key text) RETURNS void
  LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = '40001',
    MESSAGE = pg_catalog.format('could not create key %L of tenant %L', key, tenant),
    DETAIL = 'Others kept creating and deleting it, or a trigger of the table suppresses the row.',
    HINT = 'Try again.';
END $$;

---------------------------------------------------------------------------------------------------------------------
-- The functions of a table, `<name>_<suffix>`: what create_table and refresh_table make.
--
-- In the bodies stand {table} for the table, {value} for the type of its values, {=} for OPERATOR(pg_catalog.=) and so
-- on for other operators, and what pgkv.expand lists; t is always a row of the table. Parameters go by number, as their
-- names are those of columns. Argument and result types are spelt as Postgres shows them: install_functions compares.
--
-- An expired key is absent (D9): it is deleted and then inserted, never updated, so that its next life has a version,
-- and defaults of columns that users added, of its own.
--
-- Writes of one key try UPDATE, then INSERT, then to delete what expired, until one of the first two succeeds; between
-- two of these statements other sessions may create, delete or let expire the key. UPDATE comes first because most
-- writes are to keys that are there: 0.07 ms instead of 0.12 ms with INSERT … ON CONFLICT DO UPDATE, which has to
-- compute the slot. In REPEATABLE READ what others did since the snapshot raises 40001.
--
-- Plural forms: one INSERT, UPDATE or DELETE for the whole batch, rows locked in the order of their keys, so that two
-- batches do not deadlock. INSERT … ON CONFLICT takes rows in the order of its SELECT, and locks those that it leaves
-- alone because they expired; they are deleted and inserted in a second round. UPDATE and DELETE follow a nested loop
-- over the sorted members, or an index scan: the SET clauses leave the planner no other plan, which also keeps a plan
-- made on an empty table good when the table has grown. RETURNING of an INSERT cannot see a member's place in the
-- batch: UNION ALL and GROUP BY bring them together again in linear time, whatever joins the session's settings allow.

-- Puts the texts of placeholders in; a later one may stand in the text of an earlier one.
CREATE OR REPLACE FUNCTION pgkv.expand(template text, value_type text) RETURNS text
  LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $expand$
DECLARE
  placeholder text[];
BEGIN
  FOREACH placeholder SLICE 1 IN ARRAY ARRAY[
    ['{number}', $$CASE WHEN pg_catalog.jsonb_typeof(t.value) {=} 'number' THEN t.value::pg_catalog.numeric
      ELSE pgkv.refuse_value(t.tenant_id, t.key, 'number')::pg_catalog.numeric END$$],
    ['{object}', $$CASE WHEN pg_catalog.jsonb_typeof(t.value) {=} 'object' THEN t.value
      ELSE pgkv.refuse_value(t.tenant_id, t.key, 'object')::pg_catalog.jsonb END$$],
    ['{reap_members}', $$DELETE FROM {table} t USING unnest($1, $2) WITH ORDINALITY AS m (tenant_id, key, ord)
    WHERE m.ord {<>} ALL (done) AND {is_member} AND {expired};$$],
    ['{refuse_undone}', $$PERFORM pgkv.refuse_restless_key(m.tenant_id, m.key)
  FROM unnest($1, $2) WITH ORDINALITY AS m (tenant_id, key, ord) WHERE m.ord {<>} ALL (done) LIMIT 1;$$],
    ['{sorted_members}', $$
    SELECT m.ord, m.tenant_id COLLATE pg_catalog."C" AS tenant_id, m.key COLLATE pg_catalog."C" AS key
    FROM unnest($1, $2) WITH ORDINALITY AS m (tenant_id, key, ord) ORDER BY 2, 3
  $$],
    ['{from_members}', $$FROM member m WHERE {is_member} AND {live} RETURNING m.ord$$],
    ['{applied}', $$SELECT a.ord, pg_catalog.bool_or(a.applied)
  FROM (SELECT m.ord, false AS applied FROM member m UNION ALL SELECT c.ord, true FROM changed c) a
  GROUP BY a.ord ORDER BY a.ord;$$],
    ['{key_order}',
      'SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off'],
    ['{is_key}', $$t.tenant_id {=} $1 COLLATE pg_catalog."C" AND t.key {=} $2 COLLATE pg_catalog."C"$$],
    ['{is_cas_key}', $$t.tenant_id {=} $3 COLLATE pg_catalog."C" AND t.key {=} $4 COLLATE pg_catalog."C"$$],
    ['{is_member}',
      $$t.tenant_id {=} m.tenant_id COLLATE pg_catalog."C" AND t.key {=} m.key COLLATE pg_catalog."C"$$],
    ['{live}', '(t.ttl IS NULL OR t.ttl {>} {now})'],
    ['{expired}', 't.ttl {<=} {now}'],
    ['{now}', 'pg_catalog.statement_timestamp()'],
    ['{value}', value_type]
  ] LOOP
    template := replace(template, placeholder[1], placeholder[2]);
  END LOOP;
  RETURN regexp_replace(template, '\{([-+=<>|]+)\}', 'OPERATOR(pg_catalog.\1)', 'g');
END $expand$;

CREATE OR REPLACE FUNCTION pgkv.table_functions(value_type text)
  RETURNS TABLE (suffix text, arguments text, result text, attributes text, body text)
  LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $functions$
WITH templates (suffix, json_only, arguments, result, attributes, body) AS (VALUES
(
  'slot', false, 'tenant text, key text', 'integer', 'sql IMMUTABLE PARALLEL SAFE', $$
SELECT pgkv.slot($1, $2)
$$), (
  'get', false, 'tenant text, key text',
  'TABLE(value {value}, version bigint, ttl timestamp with time zone, updated_at timestamp with time zone)',
  'sql STABLE PARALLEL SAFE ROWS 1', $$
SELECT t.value, t.version, t.ttl, t.updated_at FROM {table} t WHERE {is_key} AND {live}
$$), (
  'put', false, 'tenant text, key text, value {value}, ttl interval DEFAULT NULL::interval', 'bigint',
  'plpgsql VOLATILE', $$
#variable_conflict use_column
DECLARE
  written bigint;
BEGIN
  FOR attempt IN 1 .. 100 LOOP
    UPDATE {table} t SET value = $3, ttl = {now} {+} $4, version = t.version {+} 1, updated_at = {now}
    WHERE {is_key} AND {live}
    RETURNING t.version INTO written;
    IF FOUND THEN RETURN written; END IF;
    INSERT INTO {table} AS t (tenant_id, key, value, ttl) VALUES ($1, $2, $3, {now} {+} $4)
    ON CONFLICT (tenant_id, key, slot) DO NOTHING
    RETURNING t.version INTO written;
    IF FOUND THEN RETURN written; END IF;
    DELETE FROM {table} t WHERE {is_key} AND {expired};
  END LOOP;
  PERFORM pgkv.refuse_restless_key($1, $2);
END
$$), (
  -- "value" goes in and out, so RETURNS TABLE cannot say it; the results come first to be in the order we want.
  'cas', false, 'OUT applied boolean, OUT version bigint, '
    'tenant text, key text, expected bigint, INOUT value {value}, ttl interval DEFAULT NULL::interval',
  'SETOF record', 'plpgsql VOLATILE ROWS 1', $$
#variable_conflict use_column
DECLARE
  new_value pg_catalog.{value} := value;
BEGIN
  IF $5 IS NOT NULL AND $5 {<>} 0 THEN
    UPDATE {table} t SET value = new_value, ttl = {now} {+} $7, version = t.version {+} 1, updated_at = {now}
    WHERE {is_cas_key} AND t.version {=} $5 AND {live}
    RETURNING true, t.version, t.value INTO applied, version, value;
    IF NOT FOUND THEN
      SELECT false, t.version, t.value INTO applied, version, value FROM {table} t WHERE {is_cas_key} AND {live};
    END IF;
    applied := applied IS TRUE;
    RETURN NEXT;
    RETURN;
  END IF;
  FOR attempt IN 1 .. 100 LOOP
    INSERT INTO {table} AS t (tenant_id, key, value, ttl) VALUES ($3, $4, new_value, {now} {+} $7)
    ON CONFLICT (tenant_id, key, slot) DO NOTHING
    RETURNING true, t.version, t.value INTO applied, version, value;
    IF NOT FOUND THEN
      SELECT false, t.version, t.value INTO applied, version, value FROM {table} t WHERE {is_cas_key} AND {live};
    END IF;
    IF FOUND THEN
      RETURN NEXT;
      RETURN;
    END IF;
    DELETE FROM {table} t WHERE {is_cas_key} AND {expired};
  END LOOP;
  PERFORM pgkv.refuse_restless_key($3, $4);
END
$$), (
  'delete', false, 'tenant text, key text', 'boolean', 'plpgsql VOLATILE', $$
#variable_conflict use_column
DECLARE
  was_live boolean;
BEGIN
  DELETE FROM {table} t WHERE {is_key} RETURNING {live} INTO was_live;
  RETURN was_live IS TRUE;
END
$$), (
  'delete', false, 'tenant text, key text, expected bigint', 'boolean', 'plpgsql VOLATILE', $$
#variable_conflict use_column
BEGIN
  DELETE FROM {table} t WHERE {is_key} AND t.version {=} $3 AND {live};
  RETURN FOUND;
END
$$), (
  'incr', true, 'tenant text, key text, delta numeric DEFAULT 1, ttl interval DEFAULT NULL::interval', 'numeric',
  'plpgsql VOLATILE', $$
#variable_conflict use_column
DECLARE
  addend pg_catalog.jsonb := pgkv.check_delta($3);
  written numeric;
BEGIN
  FOR attempt IN 1 .. 100 LOOP
    UPDATE {table} t SET value = pg_catalog.to_jsonb({number} {+} $3), version = t.version {+} 1, updated_at = {now}
    WHERE {is_key} AND {live}
    RETURNING t.value::pg_catalog.numeric INTO written;
    IF FOUND THEN RETURN written; END IF;
    INSERT INTO {table} AS t (tenant_id, key, value, ttl) VALUES ($1, $2, addend, {now} {+} $4)
    ON CONFLICT (tenant_id, key, slot) DO NOTHING
    RETURNING t.value::pg_catalog.numeric INTO written;
    IF FOUND THEN RETURN written; END IF;
    DELETE FROM {table} t WHERE {is_key} AND {expired};
  END LOOP;
  PERFORM pgkv.refuse_restless_key($1, $2);
END
$$), (
  'merge', true, 'tenant text, key text, patch jsonb, ttl interval DEFAULT NULL::interval',
  'TABLE(value jsonb, version bigint)', 'plpgsql VOLATILE ROWS 1', $$
#variable_conflict use_column
DECLARE
  addition pg_catalog.jsonb := pgkv.check_patch($3);
BEGIN
  FOR attempt IN 1 .. 100 LOOP
    UPDATE {table} t SET value = {object} {||} addition, version = t.version {+} 1, updated_at = {now}
    WHERE {is_key} AND {live}
    RETURNING t.value, t.version INTO value, version;
    IF NOT FOUND THEN
      INSERT INTO {table} AS t (tenant_id, key, value, ttl) VALUES ($1, $2, addition, {now} {+} $4)
      ON CONFLICT (tenant_id, key, slot) DO NOTHING
      RETURNING t.value, t.version INTO value, version;
    END IF;
    IF FOUND THEN
      RETURN NEXT;
      RETURN;
    END IF;
    DELETE FROM {table} t WHERE {is_key} AND {expired};
  END LOOP;
  PERFORM pgkv.refuse_restless_key($1, $2);
END
$$), (
  'expire', false, 'tenant text, key text, ttl interval', 'boolean', 'plpgsql VOLATILE', $$
#variable_conflict use_column
BEGIN
  UPDATE {table} t SET ttl = {now} {+} $3, version = t.version {+} 1, updated_at = {now} WHERE {is_key} AND {live};
  RETURN FOUND;
END
$$), (
  'expire_at', false, 'tenant text, key text, at timestamp with time zone', 'boolean', 'plpgsql VOLATILE', $$
#variable_conflict use_column
BEGIN
  UPDATE {table} t SET ttl = $3, version = t.version {+} 1, updated_at = {now} WHERE {is_key} AND {live};
  RETURN FOUND;
END
$$), (
  'persist', false, 'tenant text, key text', 'boolean', 'plpgsql VOLATILE', $$
#variable_conflict use_column
BEGIN
  UPDATE {table} t SET ttl = NULL, version = t.version {+} 1, updated_at = {now} WHERE {is_key} AND {live};
  RETURN FOUND;
END
$$), (
  'ttl', false, 'tenant text, key text', 'interval', 'plpgsql STABLE PARALLEL SAFE', $$
#variable_conflict use_column
BEGIN
  RETURN (SELECT t.ttl {-} {now} FROM {table} t WHERE {is_key} AND {live});
END
$$), (
  'touch', false, 'tenant text, key text, ttl interval DEFAULT NULL::interval', 'boolean', 'plpgsql VOLATILE', $$
#variable_conflict use_column
BEGIN
  UPDATE {table} t SET ttl = COALESCE({now} {+} $3, t.ttl), version = t.version {+} 1, updated_at = {now}
  WHERE {is_key} AND {live};
  RETURN FOUND;
END
$$), (
  'get_many', false, 'tenants text[], keys text[]',
  'TABLE(ord bigint, tenant_id text, key text, value {value}, version bigint, '
    'ttl timestamp with time zone, updated_at timestamp with time zone)',
  'sql STABLE PARALLEL SAFE ROWS 100', $$
SELECT m.ord, m.tenant_id, m.key, found.value, found.version, found.ttl, found.updated_at
FROM unnest($1, $2) WITH ORDINALITY AS m (tenant_id, key, ord) CROSS JOIN LATERAL (
  -- OFFSET 0 keeps the planner from turning one index lookup a key into a join.
  SELECT t.value, t.version, t.ttl, t.updated_at FROM {table} t WHERE {is_member} AND {live} OFFSET 0
) found
WHERE pgkv.check_lengths(pg_catalog.cardinality($1), pg_catalog.cardinality($2)) IS NOT NULL
ORDER BY m.ord
$$), (
  'put_many', false, 'tenants text[], keys text[], vals {value}[], ttls interval[] DEFAULT NULL::interval[]',
  'TABLE(ord bigint, version bigint)', 'plpgsql VOLATILE ROWS 100', $$
#variable_conflict use_column
DECLARE
  members integer := pgkv.check_batch($1, $2, pg_catalog.cardinality($3),
    CASE WHEN $4 IS NULL THEN pg_catalog.cardinality($1) ELSE pg_catalog.cardinality($4) END);
  done bigint[] := '{}';
  versions bigint[] := '{}';
BEGIN
  FOR attempt IN 1 .. 100 LOOP
    WITH member AS MATERIALIZED (
      SELECT m.ord, m.tenant_id COLLATE pg_catalog."C" AS tenant_id, m.key COLLATE pg_catalog."C" AS key, m.value, m.ttl
      FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS m (tenant_id, key, value, ttl, ord) WHERE m.ord {<>} ALL (done)
    ), written AS (
      INSERT INTO {table} AS t (tenant_id, key, value, ttl)
      SELECT m.tenant_id, m.key, m.value, {now} {+} m.ttl FROM member m ORDER BY m.tenant_id, m.key
      ON CONFLICT (tenant_id, key, slot) DO UPDATE
        SET value = excluded.value, ttl = excluded.ttl, version = t.version {+} 1, updated_at = {now}
        WHERE {live}
      RETURNING t.tenant_id, t.key, t.version
    )
    SELECT done {||} pg_catalog.array_agg(a.ord), versions {||} pg_catalog.array_agg(a.version) INTO done, versions
    FROM (
      SELECT pg_catalog.max(u.ord) AS ord, pg_catalog.max(u.version) AS version
      FROM (
        SELECT m.ord, m.tenant_id, m.key, NULL::bigint AS version FROM member m
        UNION ALL SELECT NULL, w.tenant_id, w.key, w.version FROM written w
      ) u GROUP BY u.tenant_id, u.key
    ) a WHERE a.ord IS NOT NULL AND a.version IS NOT NULL;
    EXIT WHEN pg_catalog.cardinality(done) {>=} members;
    {reap_members}
  END LOOP;
  {refuse_undone}
  RETURN QUERY SELECT a.ord, a.version FROM unnest(done, versions) AS a (ord, version) ORDER BY a.ord;
END
$$), (
  'cas_many', false,
  'tenants text[], keys text[], expected bigint[], vals {value}[], ttls interval[] DEFAULT NULL::interval[]',
  'TABLE(ord bigint, applied boolean, version bigint, value {value})', 'plpgsql VOLATILE ROWS 100 {key_order}', $$
#variable_conflict use_column
DECLARE
  members integer := pgkv.check_batch($1, $2, pg_catalog.cardinality($3), pg_catalog.cardinality($4),
    CASE WHEN $5 IS NULL THEN pg_catalog.cardinality($1) ELSE pg_catalog.cardinality($5) END);
  applications boolean[] := pg_catalog.array_fill(false, ARRAY[members]);
  unsettled bigint[];
BEGIN
  -- Members that must not exist lose to a row that is there; if it is gone when it is looked at, or expired, they are
  -- tried again. Inserts come before updates and deletes of what expired: with another batch that has keys of both
  -- kinds in the other order, a deadlock (40P01) remains possible.
  FOR attempt IN 1 .. 100 LOOP
    WITH member AS MATERIALIZED (
      SELECT m.ord, m.tenant_id COLLATE pg_catalog."C" AS tenant_id, m.key COLLATE pg_catalog."C" AS key,
        COALESCE(m.expected, 0) AS expected, m.value, {now} {+} m.ttl AS ttl, m.applied
      FROM unnest($1, $2, $3, $4, $5, applications) WITH ORDINALITY
        AS m (tenant_id, key, expected, value, ttl, applied, ord)
      ORDER BY 2, 3
    ), created AS (
      INSERT INTO {table} AS t (tenant_id, key, value, ttl)
      SELECT m.tenant_id, m.key, m.value, m.ttl FROM member m
      WHERE m.expected {=} 0 AND (unsettled IS NULL OR m.ord {=} ANY (unsettled))
      ORDER BY m.tenant_id, m.key
      ON CONFLICT (tenant_id, key, slot) DO NOTHING
      RETURNING t.tenant_id, t.key
    ), changed AS (
      UPDATE {table} t SET value = m.value, ttl = m.ttl, version = t.version {+} 1, updated_at = {now}
      FROM member m
      WHERE m.expected {<>} 0 AND unsettled IS NULL
        AND {is_member} AND t.version {=} m.expected AND {live}
      RETURNING t.tenant_id, t.key
    )
    SELECT pg_catalog.array_agg(a.applied ORDER BY a.ord),
      pg_catalog.array_agg(a.ord) FILTER (WHERE a.expected {=} 0 AND NOT a.applied) INTO applications, unsettled
    FROM (
      SELECT pg_catalog.max(u.ord) AS ord, pg_catalog.max(u.expected) AS expected,
        pg_catalog.bool_or(u.applied) AS applied
      FROM (
        SELECT m.ord, m.tenant_id, m.key, m.expected, m.applied FROM member m
        UNION ALL SELECT NULL, c.tenant_id, c.key, NULL, true FROM created c
        UNION ALL SELECT NULL, c.tenant_id, c.key, NULL, true FROM changed c
      ) u GROUP BY u.tenant_id, u.key
    ) a WHERE a.ord IS NOT NULL;
    EXIT WHEN unsettled IS NULL;
    SELECT pg_catalog.array_agg(u.ord) INTO unsettled FROM pg_catalog.unnest(unsettled) AS u (ord)
    WHERE NOT EXISTS (
      SELECT FROM (SELECT ($1)[u.ord] AS tenant_id, ($2)[u.ord] AS key) m, {table} t WHERE {is_member} AND {live});
    EXIT WHEN unsettled IS NULL;
    DELETE FROM {table} t USING ({sorted_members}) m WHERE m.ord {=} ANY (unsettled) AND {is_member} AND {expired};
  END LOOP;
  IF unsettled IS NOT NULL THEN PERFORM pgkv.refuse_restless_key(($1)[unsettled[1]], ($2)[unsettled[1]]); END IF;
  RETURN QUERY SELECT m.ord, m.applied, found.version, found.value
  FROM unnest($1, $2, applications) WITH ORDINALITY AS m (tenant_id, key, applied, ord) LEFT JOIN LATERAL (
    SELECT t.version, t.value FROM {table} t WHERE {is_member} AND (m.applied OR {live}) OFFSET 0
  ) found ON true
  ORDER BY m.ord;
END
$$), (
  'delete_many', false, 'tenants text[], keys text[]', 'TABLE(ord bigint, deleted boolean)',
  'plpgsql VOLATILE ROWS 100 {key_order}', $$
#variable_conflict use_column
BEGIN
  PERFORM pgkv.check_batch($1, $2);
  RETURN QUERY WITH member AS MATERIALIZED ({sorted_members}),
  gone AS (
    DELETE FROM {table} t USING member m WHERE {is_member}
    RETURNING m.ord, {live} AS was_live
  )
  SELECT a.ord, pg_catalog.bool_or(a.was_live)
  FROM (SELECT m.ord, false AS was_live FROM member m UNION ALL SELECT g.ord, g.was_live FROM gone g) a
  GROUP BY a.ord ORDER BY a.ord;
END
$$), (
  'incr_many', true, 'tenants text[], keys text[], deltas numeric[]', 'TABLE(ord bigint, value numeric)',
  'plpgsql VOLATILE ROWS 100', $$
#variable_conflict use_column
DECLARE
  members integer := pgkv.check_batch($1, $2, pg_catalog.cardinality($3));
  done bigint[] := '{}';
  sums numeric[] := '{}';
BEGIN
  FOR attempt IN 1 .. 100 LOOP
    WITH member AS MATERIALIZED (
      SELECT m.ord, m.tenant_id COLLATE pg_catalog."C" AS tenant_id, m.key COLLATE pg_catalog."C" AS key, m.delta
      FROM unnest($1, $2, $3) WITH ORDINALITY AS m (tenant_id, key, delta, ord) WHERE m.ord {<>} ALL (done)
    ), written AS (
      INSERT INTO {table} AS t (tenant_id, key, value)
      SELECT m.tenant_id, m.key, pgkv.check_delta(m.delta) FROM member m ORDER BY m.tenant_id, m.key
      ON CONFLICT (tenant_id, key, slot) DO UPDATE
        SET value = pg_catalog.to_jsonb({number} {+} excluded.value::pg_catalog.numeric),
          version = t.version {+} 1, updated_at = {now}
        WHERE {live}
      RETURNING t.tenant_id, t.key, t.value::pg_catalog.numeric AS value
    )
    SELECT done {||} pg_catalog.array_agg(a.ord), sums {||} pg_catalog.array_agg(a.value) INTO done, sums
    FROM (
      SELECT pg_catalog.max(u.ord) AS ord, pg_catalog.max(u.value) AS value
      FROM (
        SELECT m.ord, m.tenant_id, m.key, NULL::numeric AS value FROM member m
        UNION ALL SELECT NULL, w.tenant_id, w.key, w.value FROM written w
      ) u GROUP BY u.tenant_id, u.key
    ) a WHERE a.ord IS NOT NULL AND a.value IS NOT NULL;
    EXIT WHEN pg_catalog.cardinality(done) {>=} members;
    {reap_members}
  END LOOP;
  {refuse_undone}
  RETURN QUERY SELECT a.ord, a.value FROM unnest(done, sums) AS a (ord, value) ORDER BY a.ord;
END
$$), (
  'merge_many', true, 'tenants text[], keys text[], patches jsonb[]',
  'TABLE(ord bigint, value jsonb, version bigint)', 'plpgsql VOLATILE ROWS 100', $$
#variable_conflict use_column
DECLARE
  members integer := pgkv.check_batch($1, $2, pg_catalog.cardinality($3));
  done bigint[] := '{}';
  merged pg_catalog.jsonb[] := '{}';
  versions bigint[] := '{}';
BEGIN
  FOR attempt IN 1 .. 100 LOOP
    WITH member AS MATERIALIZED (
      SELECT m.ord, m.tenant_id COLLATE pg_catalog."C" AS tenant_id, m.key COLLATE pg_catalog."C" AS key, m.patch
      FROM unnest($1, $2, $3) WITH ORDINALITY AS m (tenant_id, key, patch, ord) WHERE m.ord {<>} ALL (done)
    ), written AS (
      INSERT INTO {table} AS t (tenant_id, key, value)
      SELECT m.tenant_id, m.key, pgkv.check_patch(m.patch) FROM member m ORDER BY m.tenant_id, m.key
      ON CONFLICT (tenant_id, key, slot) DO UPDATE
        SET value = {object} {||} excluded.value, version = t.version {+} 1, updated_at = {now}
        WHERE {live}
      RETURNING t.tenant_id, t.key, t.value, t.version
    )
    SELECT done {||} pg_catalog.array_agg(a.ord), merged {||} pg_catalog.array_agg(a.value),
      versions {||} pg_catalog.array_agg(a.version) INTO done, merged, versions
    FROM (
      SELECT pg_catalog.max(u.ord) AS ord, pg_catalog.max(u.version) AS version,
        (pg_catalog.array_agg(u.value) FILTER (WHERE u.version IS NOT NULL))[1] AS value
      FROM (
        SELECT m.ord, m.tenant_id, m.key, NULL::pg_catalog.jsonb AS value, NULL::bigint AS version FROM member m
        UNION ALL SELECT NULL, w.tenant_id, w.key, w.value, w.version FROM written w
      ) u GROUP BY u.tenant_id, u.key
    ) a WHERE a.ord IS NOT NULL AND a.version IS NOT NULL;
    EXIT WHEN pg_catalog.cardinality(done) {>=} members;
    {reap_members}
  END LOOP;
  {refuse_undone}
  RETURN QUERY SELECT a.ord, a.value, a.version FROM unnest(done, merged, versions) AS a (ord, value, version)
    ORDER BY a.ord;
END
$$), (
  'expire_many', false, 'tenants text[], keys text[], ttls interval[]', 'TABLE(ord bigint, applied boolean)',
  'plpgsql VOLATILE ROWS 100 {key_order}', $$
#variable_conflict use_column
BEGIN
  PERFORM pgkv.check_batch($1, $2, pg_catalog.cardinality($3));
  RETURN QUERY WITH member AS MATERIALIZED ({sorted_members}),
  changed AS (
    UPDATE {table} t SET ttl = {now} {+} ($3)[m.ord], version = t.version {+} 1, updated_at = {now}
    {from_members}
  )
  {applied}
END
$$), (
  'expire_at_many', false, 'tenants text[], keys text[], ats timestamp with time zone[]',
  'TABLE(ord bigint, applied boolean)', 'plpgsql VOLATILE ROWS 100 {key_order}', $$
#variable_conflict use_column
BEGIN
  PERFORM pgkv.check_batch($1, $2, pg_catalog.cardinality($3));
  RETURN QUERY WITH member AS MATERIALIZED ({sorted_members}),
  changed AS (
    UPDATE {table} t SET ttl = ($3)[m.ord], version = t.version {+} 1, updated_at = {now}
    {from_members}
  )
  {applied}
END
$$), (
  'persist_many', false, 'tenants text[], keys text[]', 'TABLE(ord bigint, applied boolean)',
  'plpgsql VOLATILE ROWS 100 {key_order}', $$
#variable_conflict use_column
BEGIN
  PERFORM pgkv.check_batch($1, $2);
  RETURN QUERY WITH member AS MATERIALIZED ({sorted_members}),
  changed AS (
    UPDATE {table} t SET ttl = NULL, version = t.version {+} 1, updated_at = {now}
    {from_members}
  )
  {applied}
END
$$), (
  'touch_many', false, 'tenants text[], keys text[]', 'TABLE(ord bigint, applied boolean)',
  'plpgsql VOLATILE ROWS 100 {key_order}', $$
#variable_conflict use_column
BEGIN
  PERFORM pgkv.check_batch($1, $2);
  RETURN QUERY WITH member AS MATERIALIZED ({sorted_members}),
  changed AS (
    UPDATE {table} t SET version = t.version {+} 1, updated_at = {now}
    {from_members}
  )
  {applied}
END
$$), (
  'ttl_many', false, 'tenants text[], keys text[]', 'TABLE(ord bigint, ttl interval)',
  'sql STABLE PARALLEL SAFE ROWS 100', $$
SELECT m.ord, (SELECT t.ttl {-} {now} FROM {table} t WHERE {is_member} AND {live})
FROM unnest($1, $2) WITH ORDINALITY AS m (tenant_id, key, ord)
WHERE pgkv.check_lengths(pg_catalog.cardinality($1), pg_catalog.cardinality($2)) IS NOT NULL
ORDER BY m.ord
$$))
SELECT t.suffix, pgkv.expand(t.arguments, value_type), pgkv.expand(t.result, value_type),
  pgkv.expand(t.attributes, value_type), pgkv.expand(t.body, value_type)
FROM templates t WHERE NOT t.json_only OR value_type = 'jsonb'
$functions$;

---------------------------------------------------------------------------------------------------------------------
-- Tables (D4).

-- The type of a table's values; raises 42809 if it is not one of ours.
CREATE OR REPLACE FUNCTION pgkv.value_type(relation regclass) RETURNS text
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  columns text[] := ARRAY(SELECT format('%s %s', attname, format_type(atttypid, NULL)) FROM pg_attribute
    WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped);
  wanted text[] := ARRAY['tenant_id text', 'key text', 'version bigint', 'ttl timestamp with time zone',
    'updated_at timestamp with time zone', 'slot integer'];
BEGIN
  IF columns @> wanted AND columns && ARRAY['value jsonb', 'value bytea']
    AND EXISTS (SELECT FROM pg_class WHERE oid = relation AND relkind = 'r') THEN
    RETURN CASE WHEN 'value jsonb' = ANY (columns) THEN 'jsonb' ELSE 'bytea' END;
  END IF;
  RAISE EXCEPTION USING ERRCODE = '42809', MESSAGE = format('%s is not a key-value table', relation),
    HINT = 'Key-value tables are made by pgkv.create_table.';
END $$;

-- The mark by which functions of a table are known again; a user's own function of the same name is never touched.
CREATE OR REPLACE FUNCTION pgkv.function_mark(table_schema text, table_name text) RETURNS text
  LANGUAGE sql STABLE PARALLEL SAFE
  RETURN format('pgkv: function of table %I.%I', table_schema, table_name);

-- Brings the functions of a table to this version: drops those of ours that are of another shape or no longer known,
-- replaces (which keeps privileges) or creates the rest.
CREATE OR REPLACE FUNCTION pgkv.install_functions(relation regclass) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value_type text := pgkv.value_type(relation);
  table_schema text;
  table_name text;
  home oid;
  mark text;
  stale text;
  wanted record;
BEGIN
  SELECT n.nspname, n.oid, c.relname INTO table_schema, home, table_name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
  mark := pgkv.function_mark(table_schema, table_name);
  FOR stale IN
    SELECT p.oid::regprocedure FROM pg_proc p
    WHERE p.pronamespace = home AND obj_description(p.oid, 'pg_proc') = mark
      AND NOT EXISTS (
        SELECT FROM pgkv.table_functions(value_type) f
        WHERE p.proname = table_name || '_' || f.suffix AND pg_get_function_arguments(p.oid) = f.arguments
          AND pg_get_function_result(p.oid) = f.result)
  LOOP
    EXECUTE 'DROP FUNCTION ' || stale;
  END LOOP;
  FOR wanted IN
    SELECT f.*, format('%I.%I', table_schema, table_name || '_' || f.suffix) AS name,
      regexp_replace(f.arguments, ' DEFAULT [^,]+', '', 'g') AS signature
    FROM pgkv.table_functions(value_type) f
  LOOP
    EXECUTE format('CREATE %s FUNCTION %s(%s) RETURNS %s LANGUAGE %s AS %L',
      CASE WHEN EXISTS (
        SELECT FROM pg_proc p
        WHERE p.pronamespace = home AND p.proname = table_name || '_' || wanted.suffix
          AND pg_get_function_identity_arguments(p.oid) = wanted.signature AND obj_description(p.oid, 'pg_proc') = mark
      ) THEN 'OR REPLACE' ELSE '' END,
      wanted.name, wanted.arguments, wanted.result, wanted.attributes,
      -- The name comes last: nothing in it is taken for a placeholder.
      replace(wanted.body, '{table}', format('%I.%I', table_schema, table_name)));
    EXECUTE format('COMMENT ON FUNCTION %s(%s) IS %L', wanted.name, wanted.signature, mark);
  END LOOP;
END $$;

-- One trigger for both duties of D2, so that SQL run directly on a shard computes the slot once.
CREATE OR REPLACE FUNCTION pgkv.install_triggers(relation regclass) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format($sql$
    CREATE OR REPLACE TRIGGER pgkv_slot BEFORE INSERT OR UPDATE OF tenant_id, key, slot ON %s FOR EACH ROW
    WHEN (NEW.slot IS NULL OR current_setting('pgkv.router', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION pgkv.keep_slot()$sql$, relation);
  EXECUTE format($sql$
    CREATE OR REPLACE TRIGGER pgkv_version BEFORE UPDATE ON %s FOR EACH ROW
    WHEN (NEW.version = OLD.version AND (OLD.ttl IS NULL OR OLD.ttl > statement_timestamp()))
    EXECUTE FUNCTION pgkv.keep_version()$sql$, relation);
END $$;

CREATE OR REPLACE FUNCTION pgkv.make_table(table_schema text, table_name text, value_type text) RETURNS regclass
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  relation text := format('%I.%I', table_schema, table_name);
  longest text;
BEGIN
  IF value_type IS NULL OR value_type NOT IN ('jsonb', 'bytea') THEN
    RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = format('values are of type jsonb or bytea, not %s', value_type);
  END IF;
  SELECT f.suffix INTO longest FROM pgkv.table_functions(value_type) f ORDER BY octet_length(f.suffix) DESC LIMIT 1;
  IF octet_length(table_name || '_' || longest) > 63 THEN
    RAISE EXCEPTION USING ERRCODE = '42622',
      MESSAGE = format('%I is too long for the name of a key-value table', table_name),
      DETAIL = format('The names of its functions, such as %I, may have 63 bytes.', table_name || '_' || longest),
      HINT = format('Choose a name of at most %s bytes.', 62 - octet_length(longest));
  END IF;
  EXECUTE format($sql$
    CREATE TABLE %s (
      tenant_id text COLLATE "C" NOT NULL,
      key text COLLATE "C" NOT NULL,
      version bigint NOT NULL DEFAULT pgkv.first_version(),
      value %s,
      ttl timestamp with time zone,
      updated_at timestamp with time zone NOT NULL DEFAULT statement_timestamp(),
      slot integer NOT NULL,
      PRIMARY KEY (tenant_id, key, slot)
    ) WITH (
      -- Room on the page for the next version of a row, and vacuum at 2 %% of dead rows instead of 20: keys churn.
      fillfactor = 90,
      autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
      autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 500,
      autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_cost_limit = 1000,
      toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_cost_limit = 1000
    )$sql$, relation, value_type);
  EXECUTE format('CREATE INDEX ON %s (ttl) WHERE ttl IS NOT NULL', relation);
  PERFORM pgkv.install_triggers(relation::regclass);
  PERFORM pgkv.install_functions(relation::regclass);
  RETURN relation::regclass;
END $$;

-- Runs under the caller's search_path: an unqualified name means the first schema of it.
CREATE OR REPLACE FUNCTION pgkv.create_table(name text, value_type text DEFAULT 'jsonb') RETURNS regclass
  LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  path pg_catalog.text[] := pg_catalog.parse_ident(name);
  parts integer := pg_catalog.cardinality(path);
BEGIN
  IF parts IS NULL OR parts OPERATOR(pg_catalog.>) 2 THEN
    RAISE EXCEPTION USING ERRCODE = '42602', MESSAGE = pg_catalog.format('%L is not the name of a table', name),
      HINT = 'Give a name, or schema.name; in double quotes as in SQL where it needs them.';
  END IF;
  IF parts OPERATOR(pg_catalog.=) 1 THEN
    IF pg_catalog.current_schema() IS NULL THEN
      RAISE EXCEPTION USING ERRCODE = '3F000', MESSAGE = 'no schema has been selected to create in';
    END IF;
    RETURN pgkv.make_table(pg_catalog.current_schema(), path[1], value_type);
  END IF;
  RETURN pgkv.make_table(path[1], path[2], value_type);
END $$;
COMMENT ON FUNCTION pgkv.create_table(text, text) IS
  'Makes a key-value table of values of type jsonb or bytea, with its index, triggers and functions.';

CREATE OR REPLACE FUNCTION pgkv.refresh_table(relation regclass) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pgkv.install_functions(relation);
  PERFORM pgkv.install_triggers(relation);
END $$;
COMMENT ON FUNCTION pgkv.refresh_table(regclass) IS
  'Renews the triggers and functions of a key-value table after pgkv was updated; run it as the owner of the table.';

CREATE OR REPLACE FUNCTION pgkv.drop_table(relation regclass) RETURNS void
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  value_type text := pgkv.value_type(relation);
  own text;
BEGIN
  FOR own IN
    SELECT p.oid::regprocedure FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_proc p ON p.pronamespace = n.oid
    WHERE c.oid = relation AND obj_description(p.oid, 'pg_proc') = pgkv.function_mark(n.nspname, c.relname)
  LOOP
    EXECUTE 'DROP FUNCTION ' || own;
  END LOOP;
  EXECUTE format('DROP TABLE %s', relation);
END $$;
COMMENT ON FUNCTION pgkv.drop_table(regclass) IS 'Drops a key-value table and its functions.';

CREATE OR REPLACE VIEW pgkv.tables AS
  SELECT n.nspname AS table_schema, c.relname AS table_name, pg_catalog.format_type(a.atttypid, NULL) AS value_type,
    c.oid::regclass AS relation
  FROM pg_catalog.pg_trigger g
    JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'value' AND NOT a.attisdropped
  WHERE g.tgname = 'pgkv_slot' AND g.tgfoid = 'pgkv.keep_slot()'::regprocedure;
COMMENT ON VIEW pgkv.tables IS 'The key-value tables of this database.';
GRANT SELECT ON pgkv.tables TO PUBLIC;

---------------------------------------------------------------------------------------------------------------------
-- What this server knows of its place in the cluster (D6): enough to rebuild a lost catalogue.

CREATE TABLE IF NOT EXISTS pgkv.shard_state (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  shard_name text NOT NULL,
  epoch bigint NOT NULL CHECK (epoch >= 0),
  slots int4multirange NOT NULL CHECK (slots <@ int4range(0, 16384)),
  updated_at timestamp with time zone NOT NULL DEFAULT statement_timestamp()
);
-- Since 0.2.0. Null: set up by an older pgkv, which gave clusters no name.
ALTER TABLE pgkv.shard_state ADD COLUMN IF NOT EXISTS cluster_id text;
COMMENT ON TABLE pgkv.shard_state IS
  'The shard this server belongs to and the hash slots it owns: one row, or none before init.';
GRANT SELECT ON pgkv.shard_state TO PUBLIC;

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

-- Whoever writes the state, a restored dump of the extension included.
CREATE OR REPLACE FUNCTION pgkv.keep_owned_slots() RETURNS trigger
  LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  owned int4multirange := COALESCE((SELECT s.slots FROM pgkv.shard_state s), '{[0,16384)}');
BEGIN
  IF owned IS DISTINCT FROM pgkv.owned_slots() THEN
    EXECUTE format('CREATE OR REPLACE FUNCTION pgkv.owned_slots() RETURNS int4multirange
      LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN %L::int4multirange', owned);
  END IF;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER keep_owned_slots AFTER INSERT OR UPDATE OR DELETE ON pgkv.shard_state
  FOR EACH STATEMENT EXECUTE FUNCTION pgkv.keep_owned_slots();
-- Once for what an older version left.
UPDATE pgkv.shard_state SET only_row = only_row;

-- The last sign of life of whoever leads the cluster (D3, D19): one row.
CREATE TABLE IF NOT EXISTS pgkv.heartbeat (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  at timestamp with time zone NOT NULL
);
COMMENT ON TABLE pgkv.heartbeat IS 'When pgkv last looked at this shard, by the clock of its server.';
GRANT SELECT ON pgkv.heartbeat TO PUBLIC;

-- Writes the heartbeat, and lets versions go on above those before where the clock has gone back meanwhile, whether or
-- not somebody writes. @returns how far the clock is behind the last heartbeat; NULL where it is not
CREATE OR REPLACE FUNCTION pgkv.beat() RETURNS interval
  LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  last timestamptz;
  now timestamptz;
BEGIN
  SELECT h.at INTO last FROM pgkv.heartbeat h FOR UPDATE;
  PERFORM pgkv.move_version_mark();
  now := to_timestamp(pgkv.clock() / 1024000.0);
  INSERT INTO pgkv.heartbeat AS h (at) VALUES (now) ON CONFLICT (only_row) DO UPDATE SET at = excluded.at;
  RETURN CASE WHEN now < last THEN last - now END;
END $$;
COMMENT ON FUNCTION pgkv.beat() IS 'Heartbeat of this shard; for pgkv''s own role alone, which init lets run it.';
-- Who runs it holds the row to the end of their transaction.
REVOKE ALL ON FUNCTION pgkv.beat() FROM PUBLIC;

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

-- What belongs to an extension is dumped without its contents unless the extension says otherwise.
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pgkv') THEN
    PERFORM pg_catalog.pg_extension_config_dump('pgkv.shard_state', '');
    PERFORM pg_catalog.pg_extension_config_dump('pgkv.version_mark', '');
    PERFORM pg_catalog.pg_extension_config_dump('pgkv.version_offset', '');
  END IF;
END $$;
