-- The catalogue queries behind psql's \d family; each is a batch of catalogue joins that must see one server's OIDs.
-- expect: "public.compat_psql_item"
-- expect: compat_psql_item_name_idx
-- expect: TABLE "compat_psql_note" CONSTRAINT "compat_psql_note_item_fkey" FOREIGN KEY (item) REFERENCES compat_psql_item(id)
-- expect: Publication
-- catalogue
\d
\d compat_psql_item
\d+ compat_psql_item
\d+ compat_psql_note
\d compat_psql_item_name_idx
\d compat_psql_view
\d+ compat_psql_view
\d compat_psql_sequence
\dt
\dt compat_psql_*
\di compat_psql_*
\ds compat_psql_*
\dv compat_psql_*
\dn
\dT+ compat_psql_mood
\dp compat_psql_item
\df compat_psql_*
\df+ compat_psql_twice
\sf compat_psql_twice
\sv compat_psql_view
\do = text
\dC int8
\dO C
\dew
\dRp
\echo Publication
\d no_such_relation
