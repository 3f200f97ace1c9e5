// Which statements may run over many members' rows at once (D11 rule 1): those whose functions are known to depend on
// nothing but their arguments, the statement's time and settings that all members share. Read off the tokens: a word in
// front of a bracket is a function, a type or a keyword, and has to be on the list.
import type { Clauses } from './clauses.js';
import type { KvPlan } from './kv-plan.js';
import type { TextToken } from './text-tokens.js';

const FUNCTIONS = `abs age array_append array_cat array_length array_position array_prepend array_remove array_replace
  array_to_json array_to_string ascii btrim cardinality ceil ceiling char_length character_length chr coalesce concat
  concat_ws convert_from convert_to date_part date_trunc decode div encode exp extract floor format greatest hashtext
  initcap json_array_length json_build_array json_build_object json_extract_path json_extract_path_text json_object
  json_strip_nulls json_typeof jsonb_array_length jsonb_build_array jsonb_build_object jsonb_extract_path
  jsonb_extract_path_text jsonb_insert jsonb_object jsonb_path_exists jsonb_path_query_array jsonb_path_query_first
  jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_typeof least left length ln log lower lpad ltrim
  make_date make_interval make_timestamptz md5 mod now nullif num_nonnulls num_nulls octet_length overlay position power
  quote_ident quote_literal quote_nullable regexp_match regexp_replace regexp_split_to_array repeat replace reverse right
  round row row_to_json rpad rtrim scale sha224 sha256 sha384 sha512 sign split_part sqrt starts_with
  statement_timestamp string_to_array strpos substr substring to_char to_date to_hex to_json to_jsonb to_number
  to_timestamp transaction_timestamp translate trim trim_scale trunc upper`;
const KEYWORDS = `all and any array as between by case cast conflict else filter from ilike in is like limit not offset
  on or order returning select set some then using values when where`;
const TYPES = `bit char character decimal float interval numeric text time timestamp timestamptz varchar varying
  precision zone`;
const LISTED: ReadonlySet<string> = new Set(`${FUNCTIONS} ${KEYWORDS} ${TYPES}`.split(/\s+/));
/** What makes a statement more than one row at a time, or more than a query. */
const EXCLUDED: ReadonlySet<string> = new Set([
  'union',
  'intersect',
  'except',
  'over',
  'window',
  'tablesample',
  'into',
]);

export function callsOnlyMergeable(tokens: readonly TextToken[], clauses: Clauses, plan: KvPlan): boolean {
  const { statement, verb } = clauses;
  // The reaping in front of an INSERT is pgkv's own, and left out of what is made of it.
  const first = verb === 'insert' ? clauses.verbAt : statement.start;
  const skipped = verb === 'insert' ? insertHead(clauses) : null;
  let selects = 0;
  for (let at = first; at < statement.end; at++) {
    if (skipped !== null && at >= skipped.start && at < skipped.end) continue;
    const { kind, folded } = tokens[at]!;
    if (kind === 'word' && EXCLUDED.has(folded) && !(verb === 'insert' && folded === 'into')) return false;
    if (kind === 'word' && folded === 'select') selects++;
    const next = tokens[at + 1];
    if (next === undefined || at + 1 >= statement.end || next.folded !== '(' || kind === 'symbol' || kind === 'literal')
      continue;
    if (kind === 'quoted' || (!LISTED.has(folded) && !isOwnCall(folded, plan))) return false;
    if (LISTED.has(folded) && isQualified(tokens, at)) return false;
  }
  // Subqueries could read what other members write.
  return selects <= (verb === 'select' ? 1 : 0);
}

/** The table with its columns, and the wrapped first value: brackets behind names that are no calls. */
function insertHead(clauses: Clauses): { start: number; end: number } {
  return { start: clauses.verbAt, end: clauses.source?.start ?? clauses.statement.end };
}

function isOwnCall(name: string, { verb, table }: KvPlan): boolean {
  return verb === 'function' && name.startsWith(`${table.name}_`) && !name.endsWith('_many');
}

/** Of another schema than pg_catalog. */
function isQualified(tokens: readonly TextToken[], at: number): boolean {
  return tokens[at - 1]?.folded === '.' && tokens[at - 2]?.folded !== 'pg_catalog';
}
