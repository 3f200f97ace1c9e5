-- expect: List of roles
-- expect: List of databases
-- expect: pg_catalog
-- catalogue
\du
\dg
\l
\dnS pg_catalog
\dx
\dL
\dconfig work_mem
\df pg_catalog.now
