-- As upsert, the tenant written in the text.
\set id {random}
INSERT INTO kv (tenant_id, key, value) VALUES ('bench', :id::text, :doc) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value;
