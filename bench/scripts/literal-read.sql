-- As point-read, the tenant written in the text.
\set id {random}
SELECT value, version FROM kv WHERE tenant_id = 'bench' AND key = :id::text;
