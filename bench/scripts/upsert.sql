\set id {random}
INSERT INTO kv (tenant_id, key, value) VALUES (:tenant, :id::text, :doc) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value;
