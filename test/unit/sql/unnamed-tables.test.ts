// Statements that act on one shard only without naming a key-value table, and calls beside a key that act beyond its row: each is
// refused, told of, or proven right; generated over the places where they may stand.
import fc from 'fast-check';
import t from 'tap';
import { isRefusal } from '../../../src/base/refusals.js';
import { NO_TABLES, type TableScope } from '../../../src/cluster/table-scope.js';
import { MERGEABLE_FUNCTIONS } from '../../../src/sql/batch/batchable.js';
import { isHarmless } from '../../../src/sql/meaning/function-effects.js';
import type { Template } from '../../../src/sql/plan/template.js';
import { readTemplate } from '../../../src/sql/read-template.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';
import { scope as names } from './kv-planning.js';

/** Tables public.kv, public."Odd ""name""" and other.blobs; search_path is public. */
const SCOPE: TableScope = {
  ...names,
  key: 'test',
  asciiNames: true,
  mentions: (text) => /\b(kv|blobs|odd "name")\b/i.test(text),
};
const PGKV_SEARCHED: TableScope = { ...SCOPE, searchesPgkv: true };

const read = (text: string, scope = SCOPE) => readTemplate(text, true, lexShape(text, true), 15, scope);
const templateOf = (text: string, scope = SCOPE): Template => read(text, scope).template;

/** The rule's code, `notice`, or `passes`. */
function fate(text: string, scope = SCOPE): string {
  const { kind, kv, notice } = templateOf(text, scope);
  if (kind === 'unparsed') return 'unparsed';
  if (kv !== null && isRefusal(kv)) return kv.code;
  return notice === null ? (kv === null ? 'passes' : 'planned') : 'notice';
}

const REFUSED: Readonly<Record<string, readonly string[]>> = {
  'PGKV-030': ["PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'", "ROLLBACK PREPARED 'x'"],
  'PGKV-020': [
    'GRANT SELECT ON ALL TABLES IN SCHEMA public TO r',
    'REVOKE ALL ON ALL TABLES IN SCHEMA mine, other FROM r',
    'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA other TO r',
    'GRANT EXECUTE ON ALL ROUTINES IN SCHEMA public TO r',
    'GRANT USAGE ON SCHEMA other TO r',
    'REVOKE CREATE ON SCHEMA public FROM public',
  ],
  'PGKV-021': [
    'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r',
    'ALTER DEFAULT PRIVILEGES FOR ROLE x IN SCHEMA other REVOKE ALL ON TABLES FROM r',
    'ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM public',
  ],
  'PGKV-022': [
    'ALTER SCHEMA other RENAME TO mine',
    'ALTER SCHEMA public OWNER TO r',
    'DROP SCHEMA mine, other CASCADE',
    'DROP SCHEMA pgkv',
  ],
  'PGKV-023': [
    'DROP EXTENSION IF EXISTS pgkv CASCADE',
    'ALTER EXTENSION pgkv UPDATE',
    'ALTER EXTENSION pgkv SET SCHEMA mine',
    'ALTER EXTENSION pgkv DROP TABLE t',
    'DROP EXTENSION plpgsql CASCADE',
    'DROP LANGUAGE plpgsql CASCADE',
  ],
  'PGKV-024': ['DROP OWNED BY r', 'REASSIGN OWNED BY r TO s'],
  'PGKV-025': [
    'CREATE PUBLICATION p FOR ALL TABLES',
    'CREATE PUBLICATION p FOR TABLES IN SCHEMA public',
    'CREATE PUBLICATION p FOR TABLE t, TABLES IN SCHEMA CURRENT_SCHEMA',
    'ALTER PUBLICATION p ADD TABLES IN SCHEMA other',
  ],
  'PGKV-026': ['ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b'],
  'PGKV-027': [
    'REINDEX INDEX kv_pkey',
    'REINDEX INDEX CONCURRENTLY other.blobs_ttl_idx',
    'DROP INDEX t_idx, kv_ttl_idx1',
    'ALTER INDEX public.kv_pkey RENAME TO x',
    'ALTER INDEX kv_tenant_id_key_slot_idx SET (fillfactor = 50)',
    "COMMENT ON INDEX kv_pkey IS 'x'",
  ],
  'PGKV-028': [
    "SELECT pg_total_relation_size('kv')",
    "SELECT pg_size_pretty(pg_catalog.pg_table_size('public.kv'::regclass))",
    "SELECT pg_relation_size(relation => 'kv_pkey', fork => 'main')",
    "SELECT pg_indexes_size(to_regclass('other.blobs'))",
    `SELECT pg_relation_size('"Odd ""name"""')`,
    "SELECT 1 FROM t WHERE pg_relation_size('KV'::regclass::oid) > 5",
    "SELECT pg_stat_get_live_tuples('kv'::regclass)",
    "SELECT pg_stat_reset_single_table_counters('kv'::regclass)",
    "SELECT pg_restore_relation_stats('schemaname', 'public', 'relname', 'kv')",
    "SELECT public.pg_prewarm('kv')",
    "SELECT * FROM pgstattuple('kv')",
    "PREPARE x AS SELECT pg_relation_size('kv')",
    "EXPLAIN ANALYZE SELECT pg_relation_size('kv')",
    "COPY (SELECT pg_relation_size('kv')) TO STDOUT",
  ],
  'PGKV-029': [
    "SELECT query_to_xml('select * from kv', true, true, '')",
    "SELECT query_to_xml('select other.blobs_get(1, 2)', true, true, '')",
    "SELECT query_to_xml('select * from ' || 'k' || 'v', true, true, '')",
    "SELECT query_to_xml_and_xmlschema($1, true, true, '')",
    "SELECT table_to_xml('kv', true, true, '')",
    "SELECT table_to_xml(tbl => 'kv'::regclass, nulls => true, tableforest => true, targetns => '')",
    "SELECT table_to_xml(c.oid, true, true, '') FROM pg_class c",
    "SELECT schema_to_xml('public', true, true, '')",
    "SELECT database_to_xml(true, true, '')",
    "SELECT cursor_to_xml('c', 10, true, true, '')",
    "SELECT * FROM ts_stat('select value from kv')",
    "SELECT ts_rewrite('a'::tsquery, 'select a, b from kv')",
  ],
  'PGKV-017': [
    "SELECT pgkv.create_table('x')",
    "SELECT pgkv.set_shard_state('s1', 1, '0-1')",
    "SELECT pgkv.install_triggers('kv')",
  ],
};

const NOTICED: readonly string[] = [
  "CREATE ROLE r LOGIN PASSWORD 'x'",
  'CREATE USER r',
  'ALTER ROLE r NOLOGIN',
  "ALTER ROLE r SET work_mem = '1MB'",
  'ALTER ROLE r RENAME TO s',
  'ALTER GROUP g ADD USER r',
  'DROP ROLE r',
  'GRANT g TO r',
  'REVOKE g FROM r',
  'REVOKE CONNECT ON DATABASE d FROM r',
  'GRANT SET ON PARAMETER work_mem TO r',
  "ALTER DATABASE d SET work_mem = '1MB'",
  'ALTER DATABASE d WITH CONNECTION LIMIT 5',
  "ALTER SYSTEM SET work_mem = '1MB'",
  "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
  'VACUUM',
  'VACUUM (FULL)',
  'ANALYZE',
  'CLUSTER',
  'REINDEX DATABASE d',
  'REINDEX SCHEMA public',
  'SELECT pg_total_relation_size($1)',
];

const PASSED: readonly string[] = [
  'GRANT SELECT ON ALL TABLES IN SCHEMA mine TO r',
  'GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO r',
  'GRANT SELECT ON t TO r',
  'GRANT USAGE ON SCHEMA mine TO r',
  'ALTER DEFAULT PRIVILEGES IN SCHEMA mine GRANT SELECT ON TABLES TO r',
  'ALTER DEFAULT PRIVILEGES GRANT SELECT ON SEQUENCES TO r',
  'ALTER SCHEMA mine RENAME TO ours',
  'CREATE SCHEMA IF NOT EXISTS public',
  'DROP SCHEMA mine CASCADE',
  'DROP EXTENSION pgcrypto',
  'CREATE EXTENSION IF NOT EXISTS pgcrypto',
  'CREATE PUBLICATION p FOR TABLE t',
  'REINDEX INDEX t_pkey',
  'REINDEX INDEX kv_notes_pkey',
  'DROP INDEX kv_notes_title_idx',
  'REINDEX SCHEMA mine',
  'VACUUM t',
  'CLUSTER t',
  "SELECT pg_total_relation_size('t')",
  "SELECT pg_total_relation_size('kv_notes'), pg_relation_size('mine.kv')",
  'SELECT relname, pg_total_relation_size(c.oid) FROM pg_class c',
  "SELECT query_to_xml('select * from t', true, true, '')",
  "SELECT table_to_xml('t', true, true, ''), schema_to_xml('mine', true, true, '')",
  "SELECT ts_rewrite('a'::tsquery, 'b'::tsquery, 'c'::tsquery)",
  'BEGIN',
  'COMMIT',
  "SELECT create_table('x')",
];

t.test('what would act on one shard only is refused, told of, or passed on as proven right', async (t) => {
  for (const [code, texts] of Object.entries(REFUSED)) for (const text of texts) t.equal(fate(text), code, text);
  for (const text of NOTICED) t.equal(fate(text), 'notice', text);
  for (const text of PASSED) t.equal(fate(text), 'passes', text);
  t.equal(fate("SELECT create_table('x')", PGKV_SEARCHED), 'PGKV-017', 'a search_path may hold the extension');
});

/** Every kind of statement of the manual that can name a table or one of its functions. */
const NAMING: readonly string[] = [
  'LOCK TABLE t, kv',
  'TRUNCATE t, public.kv',
  'VACUUM (ANALYZE) kv',
  'ANALYZE kv (key)',
  'CLUSTER kv USING kv_pkey',
  'REINDEX TABLE kv',
  "COMMENT ON TABLE kv IS 'x'",
  "COMMENT ON COLUMN public.kv.key IS 'x'",
  "COMMENT ON TRIGGER x ON kv IS 'x'",
  "COMMENT ON CONSTRAINT x ON kv IS 'x'",
  "COMMENT ON FUNCTION kv_get(text, text) IS 'x'",
  "SECURITY LABEL ON TABLE kv IS 'x'",
  "SECURITY LABEL ON FUNCTION kv_get(text, text) IS 'x'",
  'CREATE TRIGGER x AFTER INSERT ON kv EXECUTE FUNCTION f()',
  "CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION kv_put('a', 'b')",
  'ALTER TRIGGER x ON kv RENAME TO y',
  'DROP TRIGGER x ON public.kv',
  'CREATE POLICY p ON kv USING (true)',
  'CREATE POLICY p ON t USING (EXISTS (SELECT FROM kv))',
  'ALTER POLICY p ON kv USING (true)',
  'DROP POLICY p ON kv',
  'CREATE RULE r AS ON INSERT TO kv DO NOTHING',
  'CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO kv VALUES (1)',
  'DROP RULE r ON kv',
  'CREATE INDEX ON kv (value)',
  'CREATE STATISTICS s ON key, value FROM kv',
  'CREATE VIEW v AS SELECT * FROM kv',
  'CREATE RECURSIVE VIEW v (a) AS SELECT key FROM kv',
  'CREATE MATERIALIZED VIEW v AS SELECT * FROM kv',
  'CREATE PUBLICATION p FOR TABLE t, kv',
  'ALTER PUBLICATION p ADD TABLE kv',
  'ALTER TABLE kv ADD COLUMN a int',
  'ALTER TABLE kv OWNER TO r',
  'ALTER TABLE kv SET SCHEMA mine',
  'ALTER TABLE kv RENAME key TO k',
  'ALTER TABLE kv CLUSTER ON kv_pkey',
  'ALTER TABLE t ATTACH PARTITION kv DEFAULT',
  'ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES kv (key)',
  'ALTER TABLE t INHERIT kv',
  "ALTER TABLE t ALTER a SET DEFAULT kv_get('a', 'b')",
  'CREATE TABLE kv (a int)',
  'CREATE TEMP TABLE kv (a int)',
  'CREATE TABLE t (LIKE kv INCLUDING ALL)',
  'CREATE TABLE t () INHERITS (kv)',
  'CREATE TABLE t PARTITION OF kv DEFAULT',
  'CREATE TABLE t (a text REFERENCES kv)',
  "CREATE TABLE t (a text DEFAULT kv_get('a', 'b'))",
  'CREATE TABLE t AS TABLE kv',
  'CREATE TABLE kv AS SELECT 1',
  'SELECT * INTO kv FROM t',
  'CREATE FOREIGN TABLE kv (a int) SERVER s',
  'IMPORT FOREIGN SCHEMA x LIMIT TO (kv) FROM SERVER s INTO public',
  'DROP TABLE kv',
  'DROP FUNCTION kv_get(text, text)',
  'DROP ROUTINE kv_put',
  'ALTER FUNCTION kv_get(text, text) OWNER TO r',
  'ALTER FUNCTION kv_get(text, text) RENAME TO f',
  'ALTER FUNCTION kv_get(text, text) VOLATILE',
  'ALTER FUNCTION kv_get(text, text) SET SCHEMA mine',
  'GRANT SELECT ON t, kv TO r',
  'GRANT EXECUTE ON FUNCTION kv_get(text, text) TO r',
  'REVOKE ALL (key) ON kv FROM r',
  'ALTER EXTENSION x ADD TABLE kv',
  'CREATE SCHEMA mine CREATE VIEW v AS SELECT * FROM kv',
  "DO 'BEGIN DELETE FROM kv; END'",
  'CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 FROM kv; END',
  "CREATE PROCEDURE p() LANGUAGE sql AS 'DELETE FROM kv'",
  "CALL p(kv_get('a', 'b'))",
  'DECLARE c CURSOR FOR SELECT * FROM kv',
  'PREPARE x AS DELETE FROM kv',
  "EXECUTE x(kv_get('a', 'b'))",
  'MERGE INTO kv USING t ON true WHEN MATCHED THEN DELETE',
  'MERGE INTO t USING kv ON true WHEN MATCHED THEN DELETE',
  'COPY kv FROM STDIN',
  'COPY (SELECT * FROM kv) TO STDOUT',
  'EXPLAIN DECLARE c CURSOR FOR SELECT * FROM kv',
  'EXPLAIN ANALYZE CREATE TABLE t AS SELECT * FROM kv',
  'CREATE AGGREGATE a (text) (SFUNC = kv_get, STYPE = text)',
  'CREATE OPERATOR @@@ (FUNCTION = kv_get, LEFTARG = text, RIGHTARG = text)',
  'CREATE CAST (text AS t) WITH FUNCTION kv_get(text, text)',
  'ALTER TABLE t ENABLE TRIGGER x, ADD CHECK (kv_get(a, b) IS NULL)',
  'CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION kv_get()',
  'ALTER STATISTICS s SET STATISTICS 1',
];

t.test('no statement that names a key-value table, or a function of one, runs on one shard', async (t) => {
  for (const text of NAMING.slice(0, -1)) t.match(fate(text), /^PGKV-0\d\d$/, text);
  t.equal(fate(NAMING.at(-1)!), 'passes', 'but one that does not');
});

t.test('in databases without key-value tables everything is passed on as it is', async (t) => {
  for (const text of [...Object.values(REFUSED).flat(), ...NOTICED, ...PASSED]) {
    const { kv, notice } = templateOf(text, NO_TABLES);
    t.same([kv, notice], [null, null], text);
  }
});

t.test('among other statements each is what it is alone', async (t) => {
  const refused = Object.entries(REFUSED).flatMap(([code, texts]) => texts.map((text) => ({ code, text })));
  const others = fc.array(
    fc.constantFrom('SELECT 1', "SET a.b = 'c'", 'BEGIN', 'INSERT INTO t VALUES (1)', ...PASSED),
    {
      maxLength: 4,
    },
  );
  fc.assert(
    fc.property(fc.constantFrom(...refused), others, fc.nat(4), ({ code, text }, beside, place) => {
      const all = [...beside.slice(0, place), text, ...beside.slice(place)].join('; ');
      t.equal(fate(all), code, all);
      t.notOk(templateOf(all).neutral);
    }),
    { numRuns: 150 },
  );
  t.match(templateOf('CREATE ROLE a; VACUUM; DROP ROLE b').notice, /^roles are [^;]+; tables are vacuumed [^;]+$/);
});

t.test('where a literal decides, the template is good for that text only', async (t) => {
  for (const text of ["SELECT pg_relation_size('t')", "SELECT query_to_xml('select 1', true, true, '')"]) {
    t.notOk(read(text).holdsForShape, text);
    t.ok(read(text, NO_TABLES).holdsForShape, `without key-value tables: ${text}`);
  }
});

t.test('texts that are not read are refused where their words mean one of these, outside of literals', async (t) => {
  const large = `, ${'a,'.repeat(80_000)} b`;
  const { kv } = templateOf(`SELECT 1${large}; PREPARE TRANSACTION 'x'`);
  t.equal(kv !== null && isRefusal(kv) && kv.code, 'PGKV-078');
  t.equal(templateOf(`SELECT 'prepare transaction'${large}`).kv, null);
});

const ACTING: readonly string[] = [
  "pg_notify('c', 'x')",
  'pg_advisory_lock(1)',
  'pg_try_advisory_xact_lock(1, 2)',
  'pg_advisory_unlock(1)',
  'pg_advisory_unlock_all()',
  "nextval('s')",
  "currval('s')",
  'lastval()',
  "setval('s', 1)",
  "set_config('a.b', 'c', true)",
  'lo_create(0)',
  "lo_import('/x')",
  'txid_current()',
  "dblink_exec('x', 'y')",
  'my_function(key)',
  'app.my_function()',
  'app.lower(key)',
  "pg_catalog.pg_notify('c', 'x')",
  'pg_terminate_backend(1)',
  'setseed(0.5)',
  "table_to_xml('t', true, true, '')",
  '1 OPERATOR(app.+) 2',
];
const HARMLESS: readonly string[] = [
  'now()',
  'lower(key)',
  'gen_random_uuid()',
  'random()',
  'uuidv7()',
  'pg_catalog.lower(key)',
  "jsonb_build_object('a', 1)",
  'pg_typeof(key)',
  'current_user',
  "pgkv.slot('a', 'b')",
  "kv_slot('a', 'b')",
  'pgkv.first_version()',
  "coalesce('a', 'b')",
  '1 OPERATOR(pg_catalog.+) 2',
];

/** Places of an expression in statements on one key. */
const PLACES: readonly ((expression: string) => string)[] = [
  (e) => `SELECT ${e} FROM kv WHERE tenant_id = 'a' AND key = 'b'`,
  (e) => `SELECT value FROM kv WHERE tenant_id = 'a' AND key = 'b' AND (${e}) IS NOT NULL`,
  (e) => `SELECT value FROM kv WHERE tenant_id = 'a' AND key = 'b' ORDER BY (${e}), key`,
  (e) => `SELECT count(*) FILTER (WHERE (${e}) IS NULL) FROM kv WHERE tenant_id = 'a' AND key = 'b'`,
  (e) => `UPDATE kv SET value = to_jsonb(${e}) WHERE tenant_id = 'a' AND key = 'b'`,
  (e) => `UPDATE kv SET value = '1' WHERE tenant_id = 'a' AND key = 'b' RETURNING ${e}`,
  (e) => `DELETE FROM kv WHERE tenant_id = 'a' AND key IN ('b') AND (${e}) IS NULL`,
  (e) => `INSERT INTO kv (tenant_id, key, value) VALUES ('a', 'b', to_jsonb(CASE WHEN true THEN ${e} END))`,
  (e) =>
    `INSERT INTO kv (tenant_id, key) VALUES ('a', 'b') ON CONFLICT (tenant_id, key) DO UPDATE SET value = to_jsonb(${e})`,
  (e) => `INSERT INTO kv (tenant_id, key) VALUES ('a', 'b') RETURNING (ARRAY[${e}])[1]`,
  (e) => `SELECT kv_get('a', 'b'), ${e}`,
  (e) => `SELECT * FROM kv_put('a', 'b', to_jsonb(${e}))`,
  (e) => `EXPLAIN SELECT ${e} FROM kv WHERE tenant_id = 'a' AND key = 'b'`,
];

t.test('beside a key only functions without effects of their own can stand, wherever they stand', async (t) => {
  // With `key` as an argument a call without a table would be another error.
  const withoutColumns = (expression: string): string => expression.replace('(key)', "('k')");
  for (const place of PLACES) {
    for (const expression of ACTING) {
      const text = place(withoutColumns(expression));
      t.match(fate(text), /^PGKV-0(60|29)$/, text);
    }
    for (const expression of HARMLESS) t.equal(fate(place(withoutColumns(expression))), 'planned', place(expression));
  }
});

t.test('a SELECT beside statements on keys, in one text, must not act either', async (t) => {
  const keyed = "DELETE FROM kv WHERE tenant_id = 'a' AND key = 'b'";
  for (const expression of ACTING) {
    const text = `SELECT ${expression.replace('key', "'k'")}; ${keyed}`;
    t.match(fate(text), /^PGKV-0(32|29)$|^planned$/, text);
    // A setting is carried to wherever the session goes.
    t.equal(fate(text) === 'planned', expression.startsWith('set_config'), text);
  }
  for (const expression of HARMLESS) {
    const text = `${keyed}; SELECT ${expression.replace('key', "'k'")}`;
    t.equal(fate(text), 'planned', text);
  }
});

t.test('what the merged lane lets in is on the list of what may stand beside a key, or is syntax', async (t) => {
  const syntax = new Set('coalesce exp extract greatest least nullif overlay position row trim substring'.split(' '));
  for (const name of MERGEABLE_FUNCTIONS) t.ok(isHarmless([name]) || syntax.has(name), name);
  t.notOk(isHarmless(['nextval']));
  t.notOk(isHarmless(['app', 'lower']));
});
