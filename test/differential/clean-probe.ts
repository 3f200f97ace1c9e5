// After each scenario a new client looks around: nothing of the client before it may show.
import type { FrontendMessage } from '../support/frontend-message.js';
import type { Target } from '../support/target.js';
import { WireClient } from '../support/wire-client.js';
import type { TranscriptWriter } from './transcript.js';

/** Custom settings that scenarios and the intruder set. An unset one is NULL; one that was set and reset is ''. */
export const CUSTOM_SETTINGS = ['app.tenant', 'app.user', 'app.trace', 'app.local'];

const PROBE_TIMEOUT_MS = 30_000;

/** Settings that say which server this is. */
const SERVER_SETTINGS = [
  'port',
  'data_directory',
  'config_file',
  'hba_file',
  'ident_file',
  'external_pid_file',
  'unix_socket_directories',
  'primary_conninfo',
];

/** Those of plpgsql appear once a server connection has loaded it, which is nothing a client leaves behind. */
const SETTINGS = `
  select name || '=' || setting from pg_settings
  where name not in (${SERVER_SETTINGS.map((name) => `'${name}'`).join(', ')}) and name not like 'plpgsql.%'
  order by name collate "C"`;

const SESSION_STATE = `
  select current_user, session_user, current_schemas(false),
    (select count(*) from pg_class where relnamespace = pg_my_temp_schema()) as temp_tables,
    (select count(*) from pg_proc where pronamespace = pg_my_temp_schema()) as temp_functions,
    (select count(*) from pg_prepared_statements where from_sql) as prepared_statements,
    (select array_agg(name) from pg_prepared_statements where from_sql) as sql_prepared_statements,
    (select array_agg(name) from pg_cursors where not name like '<unnamed%') as cursors,
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as advisory_locks,
    (select array_agg(channel) from pg_listening_channels() as channel) as channels,
    ${CUSTOM_SETTINGS.map((name) => `current_setting('${name}', true) as "${name}"`).join(', ')}`;

const PROBES: readonly (readonly [string, readonly FrontendMessage[]])[] = [
  ['settings', [{ query: SETTINGS }]],
  ['session state', [{ query: SESSION_STATE }]],
  ['sequence cache', [{ query: 'select lastval()' }]],
  ['statement s1', [{ describe: 'statement', name: 's1' }, 'sync']],
  ['unnamed statement', [{ bind: [] }, 'sync']],
  ['portal p1', [{ execute: 'p1' }, 'sync']],
];

export async function probeCleanliness(
  writer: TranscriptWriter,
  target: Target,
  timeoutMs = PROBE_TIMEOUT_MS,
): Promise<void> {
  const session = 'probe';
  const client = await WireClient.open(target, timeoutMs);
  try {
    writer.write('probe: start', session, await client.startUp(target));
    for (const [name, messages] of PROBES) {
      const exchange = await client.exchange(messages);
      writer.write(`probe: ${name}`, session, exchange);
      if (exchange.outcome !== 'reached') return; // the rest would only wait as long again
    }
    writer.write('probe: end', session, await client.end());
  } finally {
    client.destroy();
  }
}
