// `pgkv import` on the command line.
import { type Command, Option } from 'commander';
import { type ImportOptions, wholeNumber } from './options.js';
import { qualified, type TableName, tableName } from './table-name.js';
import type { Terminal } from './terminal.js';

interface ImportFlags extends Omit<ImportOptions, 'table' | 'into' | 'onConflict' | 'onUnfit' | 'dryRun' | 'json'> {
  readonly table: TableName;
  readonly into: TableName;
  readonly conflicts: 'stop' | 'keep';
  readonly unfit: 'stop' | 'skip';
  readonly dryRun?: true;
  readonly json?: true;
}

const CHUNK_ROWS_MAX = 100_000;
const EXAMPLE = `
Example:
  pgkv import --from postgres://app@db:5432/shop --table sessions --tenant "'web'" --key sid --value sess --ttl expire \\
    --to postgres://app@pgkv:7432/kv --into kv
Columns are SQL expressions over those of the source. Exit codes: 0 all rows are there; 1 stopped, the same command goes on;
2 no connection; 3 done, but rows were left out or differ.
`;

export function addImport(program: Command, terminal: Terminal, finish: (exitCode: number) => void): void {
  program
    .command('import')
    .description('load the rows of a table of any Postgres into a key-value table')
    .requiredOption('--from <url>', 'the source: postgres://user@host:port/database (password: PGKV_SOURCE_PASSWORD)')
    .requiredOption('--table <name>', 'its table, as in SQL: name or schema.name', tableName)
    .requiredOption('--tenant <sql>', `tenant_id of each row, as "'web'" or a column`)
    .requiredOption('--key <sql>', 'key of each row')
    .requiredOption('--value <sql>', 'value of each row: JSON for tables of jsonb, bytea for those of bytea')
    .option('--ttl <sql>', 'when each row expires; NULL: never')
    .option('--where <sql>', 'only rows for which it is true')
    .option('--to <url>', 'pgkv (default: as with "pgkv sql")')
    .option('--into <name>', 'key-value table, name or schema.name', tableName, { schema: null, name: 'kv' })
    .option('--state <file>', 'says how far it has come (default: pgkv-import-SCHEMA.TABLE.json)')
    .option('--chunk-rows <n>', 'rows in each transaction', wholeNumber(1, CHUNK_ROWS_MAX), 10_000)
    .addOption(conflictsOption())
    .addOption(
      new Option('--unfit <what>', 'at a row that the table does not take').choices(['stop', 'skip']).default('stop'),
    )
    .option('--dry-run', 'read, check and compare everything, and write nothing')
    .option('--json', 'print the outcome as JSON')
    .addHelpText('after', EXAMPLE)
    .action(async ({ conflicts, unfit, into, dryRun, json, ...flags }: ImportFlags) => {
      const { runImport } = await import('./import.js');
      const options: ImportOptions = {
        ...flags,
        into: qualified(into, undefined),
        onConflict: conflicts,
        onUnfit: unfit,
        dryRun: dryRun ?? false,
        json: json ?? false,
      };
      finish(await runImport(options, terminal));
    });
}

const conflictsOption = (): Option =>
  new Option('--conflicts <what>', 'at a key that is there with another value or ttl; it is never overwritten')
    .choices(['stop', 'keep'])
    .default('stop');
