\set id {random}
SELECT value, version FROM kv WHERE tenant_id = :tenant AND key = :id::text;
