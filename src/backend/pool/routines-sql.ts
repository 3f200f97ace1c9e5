// The questions by which a database's code is known: one reads all of it (ROUTINES_SQL), the other whether anything that
// matters has come or gone since (NEWS_SQL), looking only at catalogue rows written since then.
// Neither waits for a lock of anybody: expressions of views, policies, defaults … are searched as the node trees that the
// catalogues hold, for the OIDs of built-in functions. Only to show them as text would tables be locked.
// All names are qualified: the first also runs on clients' own connections, under their search_path.
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { CUSTOM_NAMES_SQL, LEAVING_WORDS_SQL, MADE_UP_NAMES_SQL } from './made-up-settings.js';

/** Statements of code, and calls, that leave something in the session which a probe can see. */
const LEAVES_STATE = [
  LEAVING_WORDS_SQL,
  // SET and RESET where a statement begins, which may be behind a comment.
  String.raw`(?:^|;|\ybegin|\yatomic|\ythen|\yelse|\yloop|>>|\*/|--[^\n]*\n)\s*(?:re)?set(?:\s|/|-|")`,
].join('|');
/** Of one database; far above what programs use. Beyond, any name may be meant. */
export const NAMES_MAX = 200;
/** Objects that leave state, of one database. Beyond, all is read again whenever anything has changed. */
export const MARKS_MAX = 1_000;

/** Built-in functions that leave state which a probe can see; those that do so under a name nobody knows, or as no probe sees. */
const LEAVING_FUNCTIONS = [
  'set_config',
  'pg_advisory_lock',
  'pg_advisory_lock_shared',
  'pg_try_advisory_lock',
  'pg_try_advisory_lock_shared',
];
const MAKING_FUNCTIONS = [
  'query_to_xml',
  'query_to_xmlschema',
  'query_to_xml_and_xmlschema',
  'ts_stat',
  'ts_rewrite',
  'setseed',
];
/** Fields of node trees that hold a function's OID. */
const CALLS = ':(?:funcid|opfuncid|aggfnoid|winfnoid)';
/** Behind the OID of set_config: its first argument is a text constant. */
const CONSTANT_ARGUMENT = String.raw` [^({]*:args \(\{CONST :consttype 25 [^][{}]*:constvalue [0-9]+ \[[-0-9 ]+\]\}`;

const oidsOf = (names: readonly string[]): string =>
  `(SELECT pg_catalog.string_agg(oid::pg_catalog.text, '|') FROM pg_catalog.pg_proc WHERE oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid AND proname OPERATOR(pg_catalog.=) ANY (ARRAY[${names.map(quoteLiteral).join(',')}]::pg_catalog.name[]))`;
/** Patterns for texts in lower case, and for node trees; each stands in the text once. */
const PATTERNS = [
  `patterns AS (SELECT ${quoteLiteral(LEAVES_STATE)} AS leaves, ${quoteLiteral(MADE_UP_NAMES_SQL)} AS made, ${quoteLiteral(CUSTOM_NAMES_SQL)} AS names,`,
  `pg_catalog.concat('${CALLS} (?:', ${oidsOf([...LEAVING_FUNCTIONS, ...MAKING_FUNCTIONS])}, ') |:relid ', 'pg_catalog.pg_settings'::pg_catalog.regclass::pg_catalog.oid, ' ') AS tree_leaves,`,
  `pg_catalog.concat('${CALLS} (?:', ${oidsOf(MAKING_FUNCTIONS)}, ') |:(?:op)?funcid ', ${oidsOf(['set_config'])}, ${quoteLiteral(String.raw`\y(?!${CONSTANT_ARGUMENT})`)}) AS tree_made,`,
  `pg_catalog.concat(':funcid ', ${oidsOf(['set_config'])}, ${quoteLiteral(String.raw` [^({]*:args \(\{[^{}]*`)}) AS tree_calls),`,
].join(' ');
const USERS_OWN = 'oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid';
type Pattern = 'leaves' | 'made' | 'names' | 'tree_leaves' | 'tree_made';
const matches = (text: string, pattern: Pattern): string =>
  `${text} OPERATOR(pg_catalog.~) (SELECT ${pattern} FROM patterns)`;
const classes = (...names: readonly string[]): string =>
  `ARRAY[${names.map((name) => `'pg_catalog.${name}'`).join(',')}]::pg_catalog.regclass[]`;
const PROC = `'pg_catalog.pg_proc'::pg_catalog.regclass`;
const OWN_SCHEMA = `ARRAY(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'pgkv')`;

/**
 * Routines that users made; of those in C the symbol stands for the source, of those that the server has parsed the tree. Those
 * of the extension are known: they make up SQL where they make tables, and leave nothing in the session.
 * @param also a condition on pg_proc p
 */
const sources = (also = ''): string =>
  [
    'sources AS MATERIALIZED (SELECT p.oid, pg_catalog.lower(p.proname::pg_catalog.text) AS name, p.proconfig AS config,',
    'pg_catalog.lower(p.prosrc) AS source,',
    "CASE WHEN p.prosqlbody IS NOT NULL OR p.proargdefaults IS NOT NULL THEN pg_catalog.concat(p.prosqlbody, ' ', p.proargdefaults) END AS tree,",
    `l.lanname OPERATOR(pg_catalog.<>) ALL (ARRAY['sql','plpgsql','internal','c']::pg_catalog.name[]) AS unreadable,`,
    // table.routine and value.routine look like columns.
    'p.pronargs OPERATOR(pg_catalog.>) 0 AND p.pronargs OPERATOR(pg_catalog.-) p.pronargdefaults OPERATOR(pg_catalog.<=) 1',
    `AND (SELECT typtype::pg_catalog.text OPERATOR(pg_catalog.=) ANY (ARRAY['c','p']) FROM pg_catalog.pg_type a WHERE a.oid OPERATOR(pg_catalog.=) p.proargtypes[0]) AS column_like`,
    'FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang',
    `WHERE p.${USERS_OWN} ${also}`,
    `AND p.pronamespace OPERATOR(pg_catalog.<>) ALL (${OWN_SCHEMA})),`,
  ].join(' ');

/**
 * What calls functions without being one: pg_depend has no rows for built-in functions in it. `reads`: a read runs it.
 * @param also a condition on the catalogue's rows
 */
const expressions = (also = ''): string =>
  [
    'expressions AS MATERIALIZED (',
    `SELECT 'v' AS class, oid, true AS reads, pg_catalog.concat(ev_qual, ' ', ev_action) AS tree FROM pg_catalog.pg_rewrite WHERE ${USERS_OWN} ${also}`,
    `UNION ALL SELECT 'y', oid, true, pg_catalog.concat(polqual, ' ', polwithcheck) FROM pg_catalog.pg_policy WHERE true ${also}`,
    `UNION ALL SELECT 'a', oid, false, adbin::pg_catalog.text FROM pg_catalog.pg_attrdef WHERE true ${also}`,
    `UNION ALL SELECT 'c', oid, contypid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid, conbin::pg_catalog.text FROM pg_catalog.pg_constraint WHERE contype OPERATOR(pg_catalog.=) 'c' AND ${USERS_OWN} ${also}`,
    `UNION ALL SELECT 't', oid, false, tgqual::pg_catalog.text FROM pg_catalog.pg_trigger WHERE tgqual IS NOT NULL ${also}`,
    `UNION ALL SELECT 'd', oid, true, typdefaultbin::pg_catalog.text FROM pg_catalog.pg_type WHERE typdefaultbin IS NOT NULL AND ${USERS_OWN} ${also}`,
    '),',
  ].join(' ');

const MADE = [matches('source', 'made'), matches('tree', 'tree_made'), 'unreadable'].join(' OR ');
/** COALESCE: most have no tree. */
const IS_LEAVING = `COALESCE(${[
  matches('source', 'leaves'),
  matches('tree', 'tree_leaves'),
  MADE,
  "config IS NOT NULL AND pg_catalog.array_to_string(config, ',') OPERATOR(pg_catalog.~) '(^|,)[^=,]*[.]'",
].join(' OR ')}, false)`;

/** Routines that may leave state, and those that mention one, or aggregate by one, that does; `made`: under a name made up. */
const LEAVING = [
  `leaving AS (SELECT oid, name, column_like, COALESCE(${MADE}, false) AS made FROM sources WHERE ${IS_LEAVING}`,
  'UNION SELECT s.oid, s.name, s.column_like, l.made FROM sources s JOIN leaving l ON pg_catalog.strpos(s.source, l.name) OPERATOR(pg_catalog.>) 0',
  `OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid OPERATOR(pg_catalog.=) ${PROC} AND d.objid OPERATOR(pg_catalog.=) s.oid AND d.refclassid OPERATOR(pg_catalog.=) ${PROC} AND d.refobjid OPERATOR(pg_catalog.=) l.oid)),`,
].join(' ');

/** What runs them without a statement's naming them, which therefore depends on them. */
const USES = [
  'uses AS (SELECT d.classid, d.objid, l.made FROM leaving l JOIN pg_catalog.pg_depend d ON d.refobjid OPERATOR(pg_catalog.=) l.oid',
  `WHERE d.refclassid OPERATOR(pg_catalog.=) ${PROC} AND d.classid OPERATOR(pg_catalog.<>) ${PROC}),`,
  `acting AS MATERIALIZED (SELECT class, oid, reads, ${matches('tree', 'tree_made')} AS made, tree FROM expressions WHERE ${matches('tree', 'tree_leaves')}),`,
  'hidden AS (SELECT false AS reads, made FROM uses',
  `UNION SELECT true, made FROM uses WHERE classid OPERATOR(pg_catalog.=) ANY (${classes('pg_rewrite', 'pg_policy', 'pg_operator', 'pg_cast', 'pg_type', 'pg_amproc')})`,
  `UNION SELECT true, u.made FROM uses u JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) u.objid WHERE u.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.contypid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid`,
  // A name that is a built-in one's, too, is not seen in a text.
  'UNION SELECT true, l.made FROM leaving l WHERE l.column_like OR EXISTS (SELECT FROM pg_catalog.pg_proc b WHERE b.proname OPERATOR(pg_catalog.=) l.name::pg_catalog.name',
  'AND b.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid)',
  'UNION SELECT reads, made FROM acting)',
].join(' ');

const NAMES = [
  `SELECT m[1] AS n FROM sources, LATERAL pg_catalog.regexp_matches(source, (SELECT names FROM patterns), 'g') m`,
  // Settings of a function's own leave a trace: '' where there was none.
  `UNION SELECT pg_catalog.lower(pg_catalog.split_part(c, '=', 1)) FROM sources, LATERAL pg_catalog.unnest(config) c WHERE pg_catalog.split_part(c, '=', 1) OPERATOR(pg_catalog.~) '[.]'`,
].join(' ');

/** Calls of set_config in trees, whose first argument is read here. */
const CALLS_IN_TREES = [
  `SELECT m[1] AS call FROM (SELECT tree FROM acting UNION ALL SELECT tree FROM sources WHERE ${matches('tree', 'tree_leaves')}) q,`,
  `LATERAL pg_catalog.regexp_matches(tree, (SELECT tree_calls FROM patterns), 'g') m LIMIT ${NAMES_MAX + 1}`,
].join(' ');

/** Sequences of users, of whatever schema. Nobody draws from those of the extension. */
const HAS_SEQUENCES = [
  'EXISTS (SELECT FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.seqrelid',
  "JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace WHERE n.nspname OPERATOR(pg_catalog.<>) 'pgkv')",
].join(' ');

/** Whether text of no other collation sorts by its bytes. */
const BYTE_ORDER = [
  `SELECT 'b', '' FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()`,
  `AND (datlocprovider::pg_catalog.text OPERATOR(pg_catalog.=) 'b' OR datlocprovider::pg_catalog.text OPERATOR(pg_catalog.=) 'c'`,
  `AND datcollate OPERATOR(pg_catalog.=) ANY (ARRAY['C', 'POSIX']))`,
].join(' ');

/** Whatever was written by a transaction that this snapshot shows, and later ones may be the first to show, is not older. */
const SNAPSHOT = 'pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())';

/**
 * Rows: 'n' with the name of a custom setting, 'x' with a call of set_config in a node tree, 'l' with the name of a routine that
 * leaves anything, 'd' of one that makes names up, 's' for sequences, 'b' for byte order, 't' where writes leave state unseen, 'r' where reads do, with 'm' where
 * it may be under a name that is made up; 'k' with class and OID of what matters, 'i' with the snapshot.
 */
export const ROUTINES_SQL = [
  `WITH RECURSIVE ${PATTERNS} ${sources()} ${expressions()} ${LEAVING} ${USES}`,
  `SELECT 'n', n FROM (${NAMES} LIMIT ${NAMES_MAX + 1}) q`,
  `UNION ALL SELECT 'x', call FROM (${CALLS_IN_TREES}) q`,
  `UNION ALL SELECT 'd', name FROM (SELECT DISTINCT name FROM leaving WHERE made LIMIT ${NAMES_MAX + 1}) q`,
  `UNION ALL SELECT 'l', name FROM (SELECT DISTINCT name FROM leaving LIMIT ${NAMES_MAX + 1}) q`,
  `UNION ALL SELECT DISTINCT CASE WHEN reads THEN 'r' ELSE 't' END, CASE WHEN made THEN 'm' ELSE '' END FROM hidden`,
  `UNION ALL SELECT 's', '' WHERE ${HAS_SEQUENCES}`,
  `UNION ALL ${BYTE_ORDER}`,
  `UNION ALL SELECT 'k', mark FROM (SELECT pg_catalog.concat('p', oid) AS mark FROM leaving`,
  `UNION SELECT pg_catalog.concat('p', oid) FROM sources WHERE ${matches('source', 'names')}`,
  `UNION SELECT pg_catalog.concat(class, oid) FROM acting LIMIT ${MARKS_MAX + 1}) q`,
  `UNION ALL SELECT 'i', ${SNAPSHOT}::pg_catalog.text`,
].join(' ');

const SINCE = 'AND pg_catalog.age(xmin) OPERATOR(pg_catalog.<=) pg_catalog.age(($1)::pg_catalog.xid)';
const counted = (catalogue: string, parameter: number): string =>
  `(SELECT pg_catalog.count(*) FROM pg_catalog.${catalogue} WHERE oid OPERATOR(pg_catalog.=) ANY ($${parameter}))`;

/** Why all has to be read again: code that leaves state, names settings or mentions what does has been written since. */
const NEWS = [
  `EXISTS (SELECT FROM sources WHERE ${IS_LEAVING} OR ${matches('source', 'names')}`,
  'OR EXISTS (SELECT FROM marked WHERE marked.name OPERATOR(pg_catalog.=) sources.name OR pg_catalog.strpos(sources.source, marked.name) OPERATOR(pg_catalog.>) 0))',
  `OR EXISTS (SELECT FROM expressions WHERE ${matches('tree', 'tree_leaves')})`,
].join(' ');

/** What changes when something that matters is dropped, or used by another object. */
const DIGEST = [
  `pg_catalog.concat_ws(':', ${counted('pg_proc', 2)}, ${counted('pg_rewrite', 3)}, ${counted('pg_policy', 4)}, ${counted('pg_attrdef', 5)}, ${counted('pg_constraint', 6)}, ${counted('pg_trigger', 7)}, ${counted('pg_type', 8)},`,
  '(SELECT pg_catalog.sum(pg_catalog.hashint8extended(d.objid::pg_catalog.int8, d.classid::pg_catalog.int8)) FROM pg_catalog.pg_depend d',
  `WHERE d.refclassid OPERATOR(pg_catalog.=) ${PROC} AND d.refobjid OPERATOR(pg_catalog.=) ANY ($2)), (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'pgkv'))`,
].join(' ');

/** Classes of marks, in the order of NEWS_SQL's parameters. */
export const MARK_CLASSES = ['p', 'v', 'y', 'a', 'c', 't', 'd'] as const;

/**
 * Of the snapshot and the marks of an earlier answer, one row: whether all has to be read again, the digest, the snapshot by now,
 * whether there are sequences.
 */
export const NEWS_SQL = [
  `PREPARE pgkv_news (pg_catalog.xid8, ${MARK_CLASSES.map(() => 'pg_catalog.oid[]').join(', ')}) AS`,
  `WITH ${PATTERNS} ${sources(SINCE.replace('xmin', 'p.xmin'))} ${expressions(SINCE)}`,
  'marked AS (SELECT pg_catalog.lower(proname::pg_catalog.text) AS name FROM pg_catalog.pg_proc WHERE oid OPERATOR(pg_catalog.=) ANY ($2))',
  `SELECT ${NEWS}, ${DIGEST}, ${SNAPSHOT}, ${HAS_SEQUENCES}`,
].join(' ');
