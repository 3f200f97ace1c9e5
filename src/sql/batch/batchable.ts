// Which statements may run over many members' rows at once (D11 rule 1): those that use nothing but functions, operators
// and types of pg_catalog that depend on their arguments, the statement's time and settings that all members share. Read
// off the tokens of a statement that was parsed: a word in front of a bracket is a function, a type or a keyword, and has
// to be on a list. What users have put beside pg_catalog under the same names (lower(my_type)) cannot be seen in a text.
import { KV_COLUMNS, type KvTable } from '../../cluster/kv-table.js';
import type { KvPlan } from '../plan/kv-plan.js';
import { closingIndex, type TextToken, type TokenSpan } from '../text/text-tokens.js';

const words = (list: string): ReadonlySet<string> => new Set(list.trim().split(/\s+/));

/** Names in front of a bracket that are called, syntax among them (coalesce, trim …). */
export const MERGEABLE_FUNCTIONS = words(`
  abs age array_append array_cat array_length array_position array_prepend array_remove array_replace array_to_json
  array_to_string ascii btrim cardinality ceil ceiling char_length character_length chr coalesce concat concat_ws
  convert_from convert_to date_part date_trunc decode div encode exp extract floor format greatest hashtext initcap
  json_array_length json_build_array json_build_object json_extract_path json_extract_path_text json_object
  json_strip_nulls json_typeof jsonb_array_length jsonb_build_array jsonb_build_object jsonb_extract_path
  jsonb_extract_path_text jsonb_insert jsonb_object jsonb_path_exists jsonb_path_query_array jsonb_path_query_first
  jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_typeof least left length ln log lower lpad ltrim
  make_date make_interval make_timestamptz md5 mod now nullif num_nonnulls num_nulls octet_length overlay position power
  quote_ident quote_literal quote_nullable regexp_match regexp_replace regexp_split_to_array repeat replace reverse
  right round row row_to_json rpad rtrim scale sha224 sha256 sha384 sha512 sign split_part sqrt starts_with
  statement_timestamp string_to_array strpos substr substring to_char to_date to_hex to_json to_jsonb to_number
  to_timestamp transaction_timestamp translate trim trim_scale trunc upper`);
/** What may stand in front of a bracket without being called. */
const KEYWORDS =
  words(`all and any array as between by case cast conflict distinct else from having ilike in is like limit not offset on
  or order returning select set some then values when where`);
/** Types, by the words of their names; in casts, and in front of a literal. */
const TYPES = words(`bit bool boolean bpchar bytea char character date decimal double float float4 float8 inet int int2
  int4 int8 integer interval json jsonb jsonpath numeric real smallint bigint text time timestamp timestamptz timetz uuid
  varbit varchar`);
/** Later words of such names: character varying, double precision, timestamp with time zone. */
const TYPE_TAILS = words('varying precision zone');
/** What stands in front of a literal, or of a parameter, that is no type's name. */
const BEFORE_VALUES = words(`all and between by case distinct else escape first for from ilike in like limit next not
  offset or placing returning select symmetric then to when where zone`);
const OPERATORS = words(`+ - * / % ^ < > = <= >= <> != || -> ->> #> #>> @> <@ ? ?| ?& #- @? @@ ~ ~* !~ !~* ~~ ~~* !~~
  !~~* & | # << >> && @ => :: :=`);
/**
 * What makes a statement more than one row at a time or more than a query, and values of the session that are called
 * without brackets.
 */
const EXCLUDED = words(`union intersect except over window tablesample into current_user session_user user current_role
  current_catalog current_schema system_user`);

/** Of parameters, as the server has found them. Casts from text to these read what the client would have sent. */
const PARAMETER_TYPES = words(`text varchar bpchar int2 int4 int8 numeric float4 float8 bool json jsonb jsonpath bytea
  timestamptz timestamp date time timetz interval uuid inet cidr macaddr macaddr8 bit varbit oid
  _text _varchar _int2 _int4 _int8 _numeric _float4 _float8 _bool _jsonb _bytea _timestamptz _timestamp _date _uuid`);
const CATALOG = 'pg_catalog.';

/** @param name in SQL: pg_catalog.int8 */
export const isBatchableType = (name: string): boolean =>
  name.startsWith(CATALOG) && PARAMETER_TYPES.has(name.slice(CATALOG.length));

const OPERATIONS = words('get put cas delete incr merge expire expire_at persist ttl touch slot');
const RESULT_COLUMNS = words('applied');
const OPERATOR_CHARACTERS = /^[-~!@#^&|`?+*/%<>=:]+$/;

/**
 * @param spans of the statement; what is not in one of them is pgkv's own
 * @param selects how many SELECTs there may be: subqueries could read what other members write
 */
export function usesOnlyBatchable(
  tokens: readonly TextToken[],
  spans: readonly TokenSpan[],
  plan: KvPlan,
  selects: number,
): boolean {
  let found = 0;
  for (const { start, end } of spans) {
    for (let at = start; at < end; at++) {
      if (!isBatchableToken(tokens, at, end, plan)) return false;
      if (tokens[at]!.kind === 'word' && tokens[at]!.folded === 'select') found++;
    }
  }
  return found <= selects;
}

function isBatchableToken(tokens: readonly TextToken[], at: number, end: number, plan: KvPlan): boolean {
  const { kind, folded } = tokens[at]!;
  switch (kind) {
    case 'literal':
    case 'parameter':
      return true;
    case 'symbol':
      if (folded === '::') return isTypeAt(tokens, at + 1);
      return !OPERATOR_CHARACTERS.test(folded) || OPERATORS.has(folded);
    default: {
      if (kind === 'word' && EXCLUDED.has(folded)) return false;
      const next = at + 1 < end ? tokens[at + 1]! : null;
      if (next?.folded === '(' && next.kind === 'symbol') return isBatchableCall(tokens, at, plan);
      if (next?.kind === 'literal') return kind === 'word' && mayPrecedeLiteral(tokens, at);
      return tokens[at - 1]?.folded !== '.' || isKnownMember(tokens, at, plan);
    }
  }
}

/** A keyword, a type of pg_catalog, or UESCAPE behind a U&'…'. */
function mayPrecedeLiteral(tokens: readonly TextToken[], at: number): boolean {
  const { folded } = tokens[at]!;
  if (folded === 'uescape') return tokens[at - 1]?.kind === 'literal';
  return BEFORE_VALUES.has(folded) || isTypeWord(folded);
}

/** A function of pg_catalog that may be called. */
export const isListedFunction = (folded: string): boolean => MERGEABLE_FUNCTIONS.has(folded);
export const isTypeWord = (folded: string): boolean => TYPES.has(folded) || TYPE_TAILS.has(folded);

function isTypeAt(tokens: readonly TextToken[], at: number): boolean {
  const isQualified = tokens[at]?.folded === 'pg_catalog' && tokens[at + 1]?.folded === '.';
  const name = tokens[isQualified ? at + 2 : at];
  return name?.kind === 'word' && (TYPES.has(name.folded) || (isQualified && PARAMETER_TYPES.has(name.folded)));
}

/** A name in front of a bracket. */
function isBatchableCall(tokens: readonly TextToken[], at: number, plan: KvPlan): boolean {
  const { kind, folded } = tokens[at]!;
  const schema = tokens[at - 1]?.folded === '.' ? tokens[at - 2]! : null;
  if (plan.verb === 'function' && isOwnCall(nameOf(tokens[at]!), plan.table)) {
    return schema === null || nameOf(schema) === plan.table.schema;
  }
  if (kind !== 'word') return false;
  if (schema !== null) return schema.folded === 'pg_catalog' && MERGEABLE_FUNCTIONS.has(folded);
  if (folded === 'cast') return isCast(tokens, at + 1);
  return MERGEABLE_FUNCTIONS.has(folded) || KEYWORDS.has(folded) || isTypeWord(folded);
}

/** CAST (… AS type) */
function isCast(tokens: readonly TextToken[], open: number): boolean {
  let at = closingIndex(tokens, open) - 1;
  while (at > open && tokens[at]!.folded !== 'as') at--;
  return isTypeAt(tokens, at + 1);
}

const isOwnCall = (name: string, { name: table }: KvTable): boolean =>
  name.startsWith(`${table}_`) && OPERATIONS.has(name.slice(table.length + 1));

/** A name behind a point: what is no column would be a function of the row (kv.notes is notes(kv)). */
function isKnownMember(tokens: readonly TextToken[], at: number, { table }: KvPlan): boolean {
  const name = nameOf(tokens[at]!);
  if ((KV_COLUMNS as readonly string[]).includes(name) || RESULT_COLUMNS.has(name)) return true;
  const qualifier = nameOf(tokens[at - 2]!);
  return (qualifier === table.schema && name === table.name) || (qualifier === 'pg_catalog' && isTypeWord(name));
}

/** As the server reads it; U&"…" is nothing we know. */
export function nameOf({ kind, folded }: TextToken): string {
  return kind === 'quoted' && folded.startsWith('"') ? folded.slice(1, -1).replaceAll('""', '"') : folded;
}
