\set id {random}
SELECT version FROM kv WHERE tenant_id = :tenant AND key = :id::text \gset
SELECT applied, version FROM kv_cas(:tenant, :id::text, :version, :doc);
