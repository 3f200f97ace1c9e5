-- pgkv: what a server needs so that pgkv can check its clients' passwords (design D17).
--
-- pgkv keeps no passwords. It reads a role's SCRAM verifier through the function below and checks the client against
-- it; a verifier alone is not enough to log in as that role. Run this once per shard, on its primary, as a superuser,
-- in the database that [auth.service] database names:
--
--     psql -X -v ON_ERROR_STOP=1 -d postgres -f auth.sql
--
-- and give the role a password, where pg_hba.conf asks it for one:
--
--     psql -X -d postgres -c '\password pgkv_service'
--
-- Running it again changes nothing. To use another role name, replace pgkv_service below and in [auth.service] user.
-- To undo it: DROP FUNCTION pgkv.role_verifier(text), then DROP OWNED BY pgkv_service, then DROP ROLE pgkv_service.

BEGIN;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgkv_service') THEN
    CREATE ROLE pgkv_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
  END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS pgkv;
GRANT USAGE ON SCHEMA pgkv TO pgkv_service;

-- Runs with the rights of its owner, a superuser, since only superusers read pg_authid. search_path is fixed and
-- pg_temp stands last, so that no caller can put an object of its own in the place of a catalogue's.
-- Roles that may not log in are included: with the right password Postgres itself then refuses them, in its own words.
CREATE OR REPLACE FUNCTION pgkv.role_verifier(role_name text)
  RETURNS TABLE (rolname name, rolpassword text, rolvaliduntil timestamptz)
  LANGUAGE sql STABLE STRICT SECURITY DEFINER PARALLEL UNSAFE
  SET search_path = pg_catalog, pg_temp
AS $$
  SELECT authid.rolname, authid.rolpassword, authid.rolvaliduntil
    FROM pg_catalog.pg_authid AS authid
   WHERE authid.rolname OPERATOR(pg_catalog.=) role_name::name
$$;

COMMENT ON FUNCTION pgkv.role_verifier(text) IS 'SCRAM verifier and expiry of one role, for pgkv''s login check';

-- New functions are executable by everyone; this one must not be. Both in one transaction, so that there is no gap.
REVOKE ALL ON FUNCTION pgkv.role_verifier(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgkv.role_verifier(text) TO pgkv_service;

COMMIT;
