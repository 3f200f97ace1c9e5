// Where pgkv deliberately answers other than Postgres, each with its reason. Anything not listed here is a defect, and
// so is an entry whose difference no longer occurs. Entries match a step and all its differing lines.
import type { DeliberateDifference } from './compare.js';

export const DELIBERATE_DIFFERENCES: readonly DeliberateDifference[] = [
  {
    scenario: 'sequences and identity',
    step: /currval|lastval/,
    lines: /^\+ ErrorResponse .* C="55000"|^- (DataRow|CommandComplete SELECT 1)/,
    occasional: true,
    reason: 'Another session drew on that connection meanwhile: 55000, never a value that is not this session’s (R4).',
  },
  {
    scenario: /deadlock|notifications|NOTIFY|session functions that stay the same/,
    step: /./,
    lines: /pid of [ab]|unknown pid/,
    reason: 'The process ids servers write are those of shared server connections, not the one of the greeting (R1).',
  },
  {
    scenario: /^(start-up|fatal): /,
    step: /: (open|raw)/,
    lines: /^[-+] ErrorResponse S="FATAL"/,
    reason:
      'Errors of pgkv itself name no source file, line and routine of Postgres; where Postgres closes without a word, pgkv says why.',
  },
  {
    scenario: 'Sync and Flush with bodies',
    step: /raw/,
    lines: /C="08P01" M="invalid message format"/,
    reason: 'The same words, without the source file of Postgres: no server is asked for a Sync that follows nothing.',
  },
  {
    scenario: 'start-up: parameters that are settings',
    step: /reset all/,
    lines: /application_name|ReadyForQuery|RowDescription|DataRow "(mine)?" "German, DMY" "pg_catalog"/,
    reason: 'application_name travels as a setting (R1): RESET ALL empties it until the next statement.',
  },
  {
    scenario: /^start-up: protocol 3\.(1|2|9999)/,
    step: /start of a/,
    lines: /./,
    majors: [15],
    reason: 'pgkv itself speaks protocol 3.2 to clients, whatever the server behind it speaks.',
  },
  {
    scenario: 'start-up: a long application name',
    step: /start of a/,
    lines: /^- NoticeResponse S="NOTICE" .*will be truncated/,
    reason: 'Notices of the login of a server connection are not for one client: many use the connection.',
  },
  {
    scenario: /^(a statement whose table changes shape|DDL by one under the prepared statements of the other)$/,
    step: /bind|describe/,
    lines: /cached plan must not change result type|BindComplete|RowDescription|DataRow|CommandComplete/,
    reason: 'A stale plan is renewed and the statement repeated instead of failing (D15).',
  },
  {
    scenario: 'SQL PREPARE and protocol statements share one name space',
    step: /./,
    lines: /C="(42P05|26000)"|ParseComplete|RowDescription|DataRow|CommandComplete/,
    reason: 'Protocol-level statements are kept under names of pgkv: SQL PREPARE cannot collide with them.',
  },
  {
    scenario: 'statements of transactions that fail or are rolled back stay',
    step: /bind/,
    lines: /C="25P02" .*R="exec_(bind|parse)_message"/,
    occasional: true,
    reason: 'Where the connection does not have the statement yet, its Parse is what the failed transaction refuses.',
  },
  {
    scenario: 'many named statements',
    step: /query/,
    lines: /DataRow "(150|0)"/,
    reason: 'pg_prepared_statements shows the names pgkv gives to protocol-level statements (R2).',
  },
];
