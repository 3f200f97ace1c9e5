\set id {random}
SELECT version FROM kv WHERE tenant_id = :tenant AND key = :id::text AND (ttl IS NULL OR ttl > statement_timestamp()) \gset
SELECT applied, version FROM kv_cas(:tenant, :id::text, :version, :doc);
