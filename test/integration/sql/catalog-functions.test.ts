// The bundled knowledge of pg_catalog's functions against real servers: the names, and that no function a server calls
// volatile went unjudged.
import pg from 'pg';
import t from 'tap';
import { FUNCTIONS_SINCE_15, FUNCTIONS_SINCE_18 } from '../../../src/sql/meaning/catalog-functions.js';
import { judgedFunctions } from '../../../src/sql/meaning/function-effects.js';
import { findPostgres, PLAYED_VERSIONS } from '../../support/postgres-binaries.js';
import { startPostgres } from '../../support/postgres-server.js';

const CALLABLE = `
  SELECT proname AS name, bool_or(provolatile = 'v') AS volatile FROM pg_catalog.pg_proc
  WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind <> 'p' AND NOT EXISTS (
    SELECT FROM unnest(array_prepend(prorettype, proargtypes::oid[])) type WHERE type = ANY ('{
      internal, cstring, trigger, event_trigger, language_handler, fdw_handler, index_am_handler, tsm_handler,
      table_am_handler}'::regtype[]::oid[]))
  GROUP BY proname`;

/** Volatile because they answer differently, wait, or read what changes; they leave nothing behind and change nothing. */
const HARMLESS = new Set(
  `random random_normal array_sample array_shuffle gen_random_uuid uuidv4 uuidv7 clock_timestamp timeofday
  pg_sleep pg_sleep_for pg_sleep_until current_query currtid2 lo_get amvalidate
  pg_blocking_pids pg_safe_snapshot_blocking_pids pg_isolation_test_session_is_blocked pg_lock_status
  pg_available_wal_summaries pg_wal_summary_contents pg_get_wal_summarizer_state
  pg_collation_actual_version pg_database_collation_actual_version
  pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system
  pg_current_logfile pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn
  pg_database_size pg_indexes_size pg_relation_size pg_table_size pg_tablespace_size pg_total_relation_size
  pg_get_aios pg_get_backend_memory_contexts pg_get_loaded_modules pg_get_multixact_members pg_get_sequence_data
  pg_get_shmem_allocations pg_get_shmem_allocations_numa pg_get_wait_events pg_get_wal_replay_pause_state
  pg_get_wal_resource_managers pg_hba_file_rules pg_ident_file_mappings pg_show_all_file_settings
  pg_is_in_recovery pg_is_wal_replay_paused pg_jit_available pg_last_committed_xact pg_last_wal_receive_lsn
  pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_notification_queue_usage pg_prepared_xact
  pg_ls_archive_statusdir pg_ls_dir pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir
  pg_ls_summariesdir pg_ls_tmpdir pg_ls_waldir pg_read_binary_file pg_read_file pg_stat_file
  pg_partition_ancestors pg_partition_tree pg_sequence_last_value
  pg_replication_origin_progress pg_replication_origin_session_is_setup pg_replication_origin_session_progress
  pg_show_replication_origin_status pg_stat_have_stats pg_stat_get_backend_io pg_stat_get_backend_wal
  pg_stat_get_io pg_stat_get_recovery_prefetch pg_stat_get_xact_blocks_fetched pg_stat_get_xact_blocks_hit
  pg_stat_get_xact_function_calls pg_stat_get_xact_function_self_time pg_stat_get_xact_function_total_time
  pg_stat_get_xact_numscans pg_stat_get_xact_tuples_deleted pg_stat_get_xact_tuples_fetched
  pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_tuples_inserted pg_stat_get_xact_tuples_newpage_updated
  pg_stat_get_xact_tuples_returned pg_stat_get_xact_tuples_updated
  pg_xact_commit_timestamp pg_xact_commit_timestamp_origin pg_xact_status txid_status`.split(/\s+/),
);

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  t.test(`the functions of Postgres ${version} are the bundled ones`, skip, async (t) => {
    const server = await startPostgres({ version });
    t.teardown(() => server.stop());
    const client = new pg.Client({
      host: server.host,
      port: server.port,
      user: server.superuser,
      database: 'postgres',
    });
    await client.connect();
    t.teardown(() => client.end());
    const { rows } = await client.query<{ name: string; volatile: boolean }>(CALLABLE);
    const names = new Set(rows.map((row) => row.name));

    t.same(
      [...FUNCTIONS_SINCE_15].filter((name) => !names.has(name)),
      [],
      'none is missing on the server',
    );
    const newer = [...FUNCTIONS_SINCE_18].filter((name) => names.has(name));
    if (version === '15') t.same(newer, [], 'it has none of the newer ones');
    else {
      t.equal(newer.length, FUNCTIONS_SINCE_18.size, 'it has all newer ones');
      const unlisted = [...names].filter((name) => !FUNCTIONS_SINCE_15.has(name) && !FUNCTIONS_SINCE_18.has(name));
      t.same(unlisted, [], 'all it has are listed');
    }

    const judged = judgedFunctions();
    const unjudged = rows.filter(
      ({ name, volatile }) =>
        volatile &&
        (FUNCTIONS_SINCE_15.has(name) || FUNCTIONS_SINCE_18.has(name)) &&
        !judged.has(name) &&
        !HARMLESS.has(name),
    );
    t.same(unjudged, [], 'every volatile one was judged');
    t.same(
      [...judged].filter((name) => HARMLESS.has(name)),
      [],
      'and once only',
    );
    if (version !== '15') {
      const misspelt = [...judged, ...HARMLESS].filter((name) => !names.has(name));
      t.same(misspelt, [], 'no name is misspelt');
    }
  });
}
