\set id {random}
SELECT version FROM kv WHERE tenant_id = :tenant AND key = :id::text AND (ttl IS NULL OR ttl > statement_timestamp()) \gset
UPDATE kv SET value = :doc, version = version + 1, updated_at = statement_timestamp() WHERE tenant_id = :tenant AND key = :id::text AND version = :version AND (ttl IS NULL OR ttl > statement_timestamp());
