\set id {random}
SELECT version FROM kv WHERE tenant_id = :tenant AND key = :id::text \gset
UPDATE kv SET value = :doc WHERE tenant_id = :tenant AND key = :id::text AND version = :version;
