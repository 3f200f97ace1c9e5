// Where pgkv deliberately answers other than Postgres with a table of the same definition, each with its reason. What
// pgkv refuses is not here: a scenario's step says so itself (`refused` in scenario.ts).
import type { DeliberateDifference } from './compare.js';

export const KV_DELIBERATE_DIFFERENCES: readonly DeliberateDifference[] = [
  {
    scenario: 'kv: every assignment',
    step: /set updated_at = /,
    lines: /^[-+] DataRow "k03" ("200[01]"|hex:0{13}7d[01])/,
    reason:
      'D3: through pgkv an UPDATE that sets updated_at keeps what it sets; the trigger cannot tell the same time set again from none set.',
  },
  {
    scenario: /^kv: (wrong reads of ranges|an error skips everything up to the Sync, on whatever shard)$/,
    step: /select|parse/,
    lines: /^- RowDescription /,
    reason: 'D15: a read over several shards that fails before its first row is not described first.',
  },
  {
    scenario: /^kv: (another role|named statements)$/,
    step: /count|: bind, describe portal, execute/,
    lines: /^\+ BindComplete$|^[-+] ErrorResponse .* C="08P01" M="bind message has 3 result formats/,
    reason: 'D15: a portal over several shards opens at its Execute: errors of opening it come there.',
  },
  {
    scenario: 'kv: statements before the first key',
    step: /select updated_at/,
    lines: /^\+ ParameterStatus DateStyle=/,
    reason: 'D13: a setting that was local to a block which moved is told once more, with the value it has.',
  },
  {
    scenario: 'kv: portals with row limits',
    step: /bind, bind/,
    lines: /^[-+] ErrorResponse S="ERROR" V="ERROR" C="42P03" M="cursor/,
    reason: 'Errors of pgkv itself name no source file of Postgres: no server knows of portals over several shards.',
  },
];
