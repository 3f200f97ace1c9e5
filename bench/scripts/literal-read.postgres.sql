\set id {random}
SELECT value, version FROM kv WHERE tenant_id = 'direct' AND key = :id::text AND (ttl IS NULL OR ttl > statement_timestamp());
