\set id {random}
\set slot :id % 16384
INSERT INTO kv (tenant_id, key, value, slot) VALUES ('direct', :id::text, :doc, :slot) ON CONFLICT (tenant_id, key, slot) DO UPDATE SET value = excluded.value, version = kv.version + 1, updated_at = statement_timestamp();
