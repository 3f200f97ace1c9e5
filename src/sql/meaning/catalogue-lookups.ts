// What looks something up in the database's catalogue without naming it as a table: functions of pg_catalog that take names or OIDs
// of what is in it, casts to regclass and its kin, types and collations that are not Postgres's own. The home shard alone has the
// client's other tables, sequences and functions: on another one the answer would be NULL, false or an error.
// Invariant: what is not known to be alike on all servers counts as a look-up.
import type { CollateClause, FuncCall, Node, TypeName } from 'libpg-query';
import { namePath } from './name-path.js';

const words = (list: string): ReadonlySet<string> => new Set(list.trim().split(/\s+/));

/** Of large objects, too, which are home's; and of what the session holds there. */
const FUNCTIONS = words(`
  amvalidate col_description currtid2 current_schema current_schemas format_type lo_get obj_description oidvectortypes
  pg_available_extension_versions pg_available_extensions pg_basetype pg_collation_actual_version pg_collation_for
  pg_column_is_updatable pg_database_collation_actual_version pg_database_size pg_describe_object pg_extension_update_paths
  pg_filenode_relation pg_has_role pg_identify_object pg_identify_object_as_address pg_index_column_has_property
  pg_index_has_property pg_indexam_has_property pg_indexes_size pg_is_other_temp_schema pg_listening_channels
  pg_my_temp_schema pg_partition_ancestors pg_partition_root pg_partition_tree pg_relation_filenode
  pg_relation_filepath pg_relation_is_publishable pg_relation_is_updatable pg_relation_size pg_sequence_last_value
  pg_sequence_parameters pg_table_size pg_tablespace_databases pg_tablespace_location pg_tablespace_size
  pg_total_relation_size regclass row_security_active shobj_description`);
const FUNCTION_KINDS = /^(?:to_reg\w+|has_\w+_privilege|pg_\w+_is_visible|pg_get_\w+|pg_stat_get_\w+)$/;
/** Of those kinds, but of nothing in the database. */
const NO_LOOKUPS = words(`
  pg_get_aios pg_get_backend_memory_contexts pg_get_keywords pg_get_loaded_modules pg_get_shmem_allocations
  pg_get_shmem_allocations_numa pg_get_wait_events pg_get_wal_replay_pause_state pg_get_wal_resource_managers
  pg_get_wal_summarizer_state`);

/** @param path the name as written, folded, its schema in front if there was one */
export function looksUpCatalogue(path: readonly string[]): boolean {
  const name = path.at(-1) ?? '';
  if (path.length > 2 || (path.length === 2 && path[0] !== 'pg_catalog')) return false;
  return FUNCTIONS.has(name) || (FUNCTION_KINDS.test(name) && !NO_LOOKUPS.has(name));
}

/** Postgres's own types, as they may be written without their schema; those of SQL's own spelling are read as pg_catalog's. */
const BUILTIN_TYPES = words(`
  bool bytea char name int8 int2 int2vector int4 text oid tid xid xid8 cid oidvector json jsonb jsonpath xml float4 float8
  unknown money macaddr macaddr8 inet cidr bpchar varchar date time timestamp timestamptz interval timetz bit varbit
  numeric uuid pg_lsn pg_snapshot txid_snapshot tsvector tsquery gtsvector point lseg path box polygon line circle record void
  int4range int8range numrange tsrange tstzrange daterange int4multirange int8multirange nummultirange tsmultirange
  tstzmultirange datemultirange refcursor regconfig regdictionary`);
const BUILTIN_COLLATIONS = words('C POSIX default ucs_basic unicode pg_c_utf8 pg_unicode_fast');

const isOwnOf = (path: readonly string[], builtin: ReadonlySet<string>): boolean =>
  path.length === 2 ? path[0] === 'pg_catalog' : path.length === 1 && builtin.has(path[0]!);

/** Types whose texts are names of what is in the database, which a cast looks up. */
const OF_NAMES = /^reg(?:class|collation|namespace|oper|operator|proc|procedure|role|type)$/;

const isOfNames = (path: readonly string[]): boolean =>
  OF_NAMES.test(path.at(-1) ?? '') && (path.length === 1 || path[0] === 'pg_catalog');

/** A type that is looked up, or by which names are. */
export function typeIsLookedUp({ names }: TypeName): boolean {
  const path = namePath(names ?? []);
  return isOfNames(path) || !isOwnOf(path, BUILTIN_TYPES);
}

export const collationIsLookedUp = ({ collname }: CollateClause): boolean =>
  !isOwnOf(namePath(collname ?? []), BUILTIN_COLLATIONS);

/**
 * What one shard would answer otherwise than another, in words, where the node at hand is a look-up: whatever the name, as a
 * literal's value has no say in a template. Types and collations are left out: who uses a type beside a key has to have it on every
 * shard.
 */
export function lookupOf({ FuncCall: call, SQLValueFunction: value, typeName, arg }: LookupNode): string | null {
  if (call !== undefined) {
    const path = namePath(call.funcname ?? []);
    if (looksUpCatalogue(path)) return `the function ${path.join('.')}`;
  }
  if (value?.op === 'SVFOP_CURRENT_SCHEMA') return 'the function current_schema';
  if (typeName === undefined) return null;
  const path = namePath(typeName.names ?? []);
  return isOfNames(path) && !isOfOwnRow(arg) ? `a cast to ${path.at(-1)!}` : null;
}

/** A call with its label; or a cast, or whatever else makes a value of a type: JSON_VALUE … RETURNING, XMLSERIALIZE. */
export interface LookupNode {
  readonly FuncCall?: FuncCall;
  readonly SQLValueFunction?: { readonly op?: string };
  readonly typeName?: TypeName;
  /** What is cast. */
  readonly arg?: Node;
}

/** `tableoid::regclass`, and a type that a function has given. */
function isOfOwnRow(arg: Node | undefined): boolean {
  if (arg === undefined) return false;
  if ('ColumnRef' in arg) return namePath(arg.ColumnRef.fields ?? []).at(-1) === 'tableoid';
  return 'FuncCall' in arg && namePath(arg.FuncCall.funcname ?? []).at(-1) === 'pg_typeof';
}
