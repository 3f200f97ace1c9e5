// What calling a function may do to the session, by its name: the judgement on pg_catalog's functions. A function is
// known if its name is one of pg_catalog's (on the oldest server in use) and it is called without a schema or with that
// one; every other call is Effect.unknown. A user's function may still share a name with one of pg_catalog's and be
// chosen for its argument types: that cannot be seen in a text.
//
// How the lists came about: every function of pg_catalog that Postgres 15 or 18 calls volatile was looked at, and of the
// stable ones those that run SQL, assign transaction ids or load libraries. The test in test/integration/sql fails when
// a server has a volatile function that stands neither here nor in its own list of harmless ones.

import { Effect, type EffectBits } from '../plan/template.js';
import { FUNCTIONS_SINCE_15, FUNCTIONS_SINCE_18 } from './catalog-functions.js';

const names = (list: string): readonly string[] => list.trim().split(/\s+/);

/** What the functions leave behind in the session. */
const LASTING: readonly (readonly [EffectBits, string])[] = [
  [Effect.settings, 'set_config'],
  // Session-level locks, seen in pg_locks. The _xact_ ones end with the transaction.
  [
    Effect.state,
    `pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
    pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all`,
  ],
  [Effect.readsSequenceState, 'currval lastval'],
  // The random generator's state; a base backup under way; replication slots, which may be temporary: those live as
  // long as the session; a replication origin; a loaded library; what only pg_upgrade and initdb may call.
  [
    Effect.sticky,
    `setseed pg_backup_start pg_backup_stop
    pg_create_logical_replication_slot pg_create_physical_replication_slot
    pg_copy_logical_replication_slot pg_copy_physical_replication_slot
    pg_replication_origin_session_setup pg_replication_origin_session_reset
    pg_replication_origin_xact_setup pg_replication_origin_xact_reset
    fmgr_c_validator
    binary_upgrade_add_sub_rel_state binary_upgrade_create_empty_extension
    binary_upgrade_logical_slot_has_caught_up binary_upgrade_replorigin_advance binary_upgrade_set_missing_value
    binary_upgrade_set_next_array_pg_type_oid binary_upgrade_set_next_heap_pg_class_oid
    binary_upgrade_set_next_heap_relfilenode binary_upgrade_set_next_index_pg_class_oid
    binary_upgrade_set_next_index_relfilenode binary_upgrade_set_next_multirange_array_pg_type_oid
    binary_upgrade_set_next_multirange_pg_type_oid binary_upgrade_set_next_pg_authid_oid
    binary_upgrade_set_next_pg_enum_oid binary_upgrade_set_next_pg_tablespace_oid binary_upgrade_set_next_pg_type_oid
    binary_upgrade_set_next_toast_pg_class_oid binary_upgrade_set_next_toast_relfilenode
    binary_upgrade_set_record_init_privs pg_stop_making_pinned_objects`,
  ],
  // They run SQL, or check functions, that stand in a string, a cursor or a catalogue.
  [
    Effect.unknown,
    `query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema
    ts_stat ts_rewrite plpgsql_validator fmgr_sql_validator`,
  ],
  [Effect.schema, 'pg_import_system_collations pg_extension_config_dump'],
];

const EFFECTS: ReadonlyMap<string, EffectBits> = new Map(
  LASTING.flatMap(([effect, list]) => names(list).map((name) => [name, effect] as const)),
);

/**
 * Leave nothing in the session, but change something elsewhere: rows, sequences, large objects, statistics, the log,
 * other sessions, the server. (A sequence's last value in the session matters only to currval and lastval.) Large-object
 * descriptors, _xact_ locks and exported snapshots end with the transaction.
 */
const CHANGING: ReadonlySet<string> = new Set(
  names(`
    nextval setval pg_notify pg_nextoid
    pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
    lo_close lo_creat lo_create lo_export lo_from_bytea lo_import lo_lseek lo_lseek64 lo_open lo_put lo_tell lo_tell64
    lo_truncate lo_truncate64 lo_unlink loread lowrite
    txid_current pg_current_xact_id pg_export_snapshot
    pg_cancel_backend pg_terminate_backend pg_log_backend_memory_contexts
    pg_reload_conf pg_rotate_logfile pg_promote pg_switch_wal pg_create_restore_point pg_log_standby_snapshot
    pg_wal_replay_pause pg_wal_replay_resume
    pg_drop_replication_slot pg_replication_slot_advance pg_sync_replication_slots pg_logical_emit_message
    pg_logical_slot_get_binary_changes pg_logical_slot_get_changes
    pg_logical_slot_peek_binary_changes pg_logical_slot_peek_changes
    pg_replication_origin_advance pg_replication_origin_create pg_replication_origin_drop
    pg_stat_clear_snapshot pg_stat_force_next_flush pg_stat_reset pg_stat_reset_backend_stats
    pg_stat_reset_replication_slot pg_stat_reset_shared pg_stat_reset_single_function_counters
    pg_stat_reset_single_table_counters pg_stat_reset_slru pg_stat_reset_subscription_stats
    pg_clear_attribute_stats pg_clear_relation_stats pg_restore_attribute_stats pg_restore_relation_stats
    brin_desummarize_range brin_summarize_new_values brin_summarize_range gin_clean_pending_list`),
);

/** @param path the name as written, folded, its schema in front if there was one */
export function functionEffects(path: readonly string[], oldestServerMajor: number): EffectBits {
  const name = catalogName(path);
  if (name === null || !isCatalogFunction(name, oldestServerMajor)) return Effect.unknown;
  return EFFECTS.get(name) ?? Effect.none;
}

/** Whether the call changes something outside the session's state, so that it is no mere read. */
export const functionChanges = (path: readonly string[]): boolean => {
  const name = catalogName(path);
  return name === null || CHANGING.has(name);
};

/** They read whole tables of the server they run on. */
const READS_TABLES = /_to_xml(?:schema|_and_xmlschema)?$/;

/** Whether the call reads tables of the server it runs on without naming them as tables. */
export const readsWholeTables = (path: readonly string[]): boolean => READS_TABLES.test(catalogName(path) ?? '');

/**
 * The allow-list of what may stand beside a key: functions of pg_catalog that change nothing, leave nothing behind and read
 * no tables; of them those that look something up in the catalogue are taken away by catalogue-lookups.ts. Names that only the newest Postgres has are on it: on an
 * older one they are at most a user's stand-in for them.
 */
export function isHarmless(path: readonly string[]): boolean {
  const name = catalogName(path);
  if (name === null || !isCatalogFunction(name, NEWEST_MAJOR) || CHANGING.has(name)) return false;
  return (EFFECTS.get(name) ?? Effect.none) === Effect.none && !READS_TABLES.test(name);
}

export const isSetConfig = (path: readonly string[]): boolean => catalogName(path) === 'set_config';

/** Gives up what the session holds, where it holds any. */
export const isAdvisoryUnlock = (path: readonly string[]): boolean =>
  catalogName(path)?.startsWith('pg_advisory_unlock') === true;

/** The names judged above, for the test that compares them with a server's. */
export const judgedFunctions = (): ReadonlySet<string> => new Set([...EFFECTS.keys(), ...CHANGING]);

/** Of the lists of names. */
const NEWEST_MAJOR = 18;

const catalogName = (path: readonly string[]): string | null => {
  if (path.length === 1) return path[0]!;
  return path.length === 2 && path[0] === 'pg_catalog' ? path[1]! : null;
};

const isCatalogFunction = (name: string, oldestServerMajor: number): boolean =>
  FUNCTIONS_SINCE_15.has(name) || (oldestServerMajor >= 18 && FUNCTIONS_SINCE_18.has(name));
