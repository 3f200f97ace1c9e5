-- pgkv: what a server needs so that pgkv can check its clients' passwords (design D17).
--
-- pgkv keeps no passwords. It reads a role's SCRAM verifier through the functions below and checks the client against
-- it; a verifier alone is not enough to log in as that role. Run this once per shard, on its primary, as a superuser,
-- in the database that [auth.service] database names:
--
--     psql -X -v ON_ERROR_STOP=1 -d postgres -f auth.sql
--
-- and give the role a password, where pg_hba.conf asks it for one:
--
--     psql -X -d postgres -c '\password pgkv_service'
--
-- and another one to pgkv_recover (below), if statements are to write on several shards at once.
--
-- Running it again changes nothing, or brings what an older pgkv left up to date. To use another role name, replace
-- pgkv_service below and in [auth.service] user. To undo it: DROP FUNCTION pgkv.role_verifier(text),
-- pgkv.role_login(text), then DROP OWNED BY pgkv_service, then DROP ROLE pgkv_service.
--
-- What these functions say decides who gets in, so nothing that is there already is trusted: the schema has to belong to
-- a superuser and be closed to everybody else, functions are made anew instead of replaced (which would keep their
-- owner and grants), and no name is looked up in the search_path of the session.

BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
DECLARE
  culprit text;
BEGIN
  IF NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) THEN
    RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'auth.sql has to be run as a superuser';
  END IF;
  SELECT r.rolname INTO culprit FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
  WHERE n.nspname = 'pgkv' AND NOT r.rolsuper;
  IF FOUND THEN
    RAISE EXCEPTION USING ERRCODE = '42501',
      MESSAGE = format('schema pgkv belongs to the role %I, which could replace what checks passwords', culprit),
      HINT = 'Run auth.sql in another database, which [auth.service] database then names, or: ALTER SCHEMA pgkv OWNER TO a superuser.';
  END IF;
  SELECT coalesce(r.rolname, 'PUBLIC') INTO culprit FROM pg_catalog.pg_namespace n,
    LATERAL pg_catalog.aclexplode(n.nspacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
  WHERE n.nspname = 'pgkv' AND a.privilege_type = 'CREATE' AND r.rolsuper IS NOT TRUE;
  IF FOUND THEN
    RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = format('%s may create functions in schema pgkv', culprit),
      HINT = format('REVOKE CREATE ON SCHEMA pgkv FROM %s; see what is in it; run auth.sql again.', culprit);
  END IF;
  -- Others of these names could be called in the place of ours.
  SELECT p.oid::regprocedure::text INTO culprit FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname = 'pgkv' AND p.proname IN ('role_verifier', 'role_login')
    AND p.proargtypes <> ARRAY['text'::regtype]::oidvector;
  IF FOUND THEN
    RAISE EXCEPTION USING ERRCODE = '42723', MESSAGE = format('there is another function of this name: %s', culprit),
      HINT = format('Find out who made it. DROP FUNCTION %s; run auth.sql again.', culprit);
  END IF;
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgkv_service') THEN
    CREATE ROLE pgkv_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
  END IF;
  SELECT r.rolname INTO culprit FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member
  WHERE m.roleid = 'pgkv_service'::regrole AND NOT r.rolsuper;
  IF FOUND THEN
    RAISE WARNING USING MESSAGE = format('%I is a member of pgkv_service and can read verifiers of all roles', culprit),
      HINT = format('REVOKE pgkv_service FROM %I, unless that is wanted.', culprit);
  END IF;
END
$$;

-- Transactions over several shards (D14): pgkv_recover finishes those that were left prepared by a router that died, and for
-- that has to act as the role whose they are. It is made a member of every role that may log in, but for superusers and
-- pgkv_service, without inheriting anything, and is used for nothing else: a powerful role. Without a password it does not
-- get in, and nothing is written over several shards. To have none of it, leave this block out, or: DROP ROLE pgkv_recover.
-- Roles made later need their GRANT: run this again, or pgkv init as a superuser; pgkv doctor names those that lack it.
DO $$
DECLARE
  options text := CASE WHEN current_setting('server_version_num')::int >= 160000 THEN ' WITH INHERIT FALSE, SET TRUE' ELSE '' END;
  other record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgkv_recover') THEN
    CREATE ROLE pgkv_recover LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
  END IF;
  FOR other IN
    SELECT r.rolname, pg_has_role(r.oid, 'pgkv_recover', 'MEMBER') AS is_member FROM pg_catalog.pg_roles r
    WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname NOT IN ('pgkv_recover', 'pgkv_service')
  LOOP
    IF other.is_member THEN
      RAISE WARNING USING MESSAGE = format('%I is a member of pgkv_recover and can act as all roles that may log in', other.rolname),
        HINT = format('REVOKE pgkv_recover FROM %I.', other.rolname);
    ELSE
      EXECUTE format('GRANT %I TO pgkv_recover%s', other.rolname, options);
    END IF;
  END LOOP;
END
$$;

CREATE SCHEMA IF NOT EXISTS pgkv;
GRANT USAGE ON SCHEMA pgkv TO pgkv_service;

DROP FUNCTION IF EXISTS pgkv.role_verifier(text), pgkv.role_login(text);

-- Both run with the rights of their owner, a superuser, since only superusers read pg_authid. search_path is fixed and
-- pg_temp stands last, so that no caller can put an object of its own in the place of a catalogue's.
-- Roles that may not log in are included: with the right password Postgres itself then refuses them, in its own words.
--
-- The oid differs from server to server, and between a role and one that was made anew under its name. `databases` are
-- those it may connect to. The first three columns are those of role_verifier.
CREATE FUNCTION pgkv.role_login(role_name text)
  RETURNS TABLE (rolname name, rolpassword text, rolvaliduntil timestamptz, role_oid oid, rolcanlogin boolean,
    rolsuper boolean, rolconnlimit integer, databases text[])
  LANGUAGE sql STABLE STRICT SECURITY DEFINER PARALLEL UNSAFE ROWS 1
  SET search_path = pg_catalog, pg_temp
AS $$
  SELECT authid.rolname, authid.rolpassword, authid.rolvaliduntil, authid.oid, authid.rolcanlogin, authid.rolsuper,
    authid.rolconnlimit, ARRAY(
      SELECT database.datname::text FROM pg_catalog.pg_database AS database
       WHERE database.datallowconn AND pg_catalog.has_database_privilege(authid.oid, database.oid, 'CONNECT')
       ORDER BY 1)
    FROM pg_catalog.pg_authid AS authid
   WHERE authid.rolname OPERATOR(pg_catalog.=) role_name::name
$$;
COMMENT ON FUNCTION pgkv.role_login(text) IS 'SCRAM verifier of one role, and what else decides whether it may log in';

-- For pgkv up to 0.1, and for queries of the settings that were written for it.
CREATE FUNCTION pgkv.role_verifier(role_name text)
  RETURNS TABLE (rolname name, rolpassword text, rolvaliduntil timestamptz)
  LANGUAGE sql STABLE STRICT SECURITY DEFINER PARALLEL UNSAFE
  SET search_path = pg_catalog, pg_temp
AS $$
  SELECT authid.rolname, authid.rolpassword, authid.rolvaliduntil
    FROM pg_catalog.pg_authid AS authid
   WHERE authid.rolname OPERATOR(pg_catalog.=) role_name::name
$$;
COMMENT ON FUNCTION pgkv.role_verifier(text) IS 'SCRAM verifier and expiry of one role: what role_login says, in part';

-- New functions are executable by everyone; these must not be. All in one transaction, so that there is no gap.
REVOKE ALL ON FUNCTION pgkv.role_verifier(text), pgkv.role_login(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgkv.role_verifier(text), pgkv.role_login(text) TO pgkv_service;

COMMIT;
