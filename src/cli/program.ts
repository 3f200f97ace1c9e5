// The command line: commands, options, help, exit codes. What a command does is loaded when it is called, so that
// `pgkv sql` starts without the router's code.
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { messageOf } from '../base/errors.js';
import type { ValueType } from '../cluster/kv-table.js';
import { CommandFailure } from './command-failure.js';
import { addImport } from './import-command.js';
import {
  type ClusterOptions,
  DEFAULT_SCHEMA,
  type DevOptions,
  type InitOptions,
  listenPort,
  type RouterOptions,
  SHARDS_MAX,
  type SqlAction,
  type SqlOptions,
  type StatusOptions,
  serverPort,
  wholeNumber,
} from './options.js';
import { EndSignals } from './process-life.js';
import { qualified, schemaName, type TableName, tableName } from './table-name.js';
import { processTerminal, type Terminal } from './terminal.js';
import { packageVersion } from './version.js';

/**
 * Runs the command line `argv` (without node and script). Errors are shown, not thrown.
 * @returns the exit code
 */
export async function runProgram(argv: readonly string[], terminal: Terminal = processTerminal): Promise<number> {
  let exitCode = 0;
  const program = buildProgram(terminal, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode; // commander has shown it
    terminal.errors.write(failureText(error));
    return error instanceof CommandFailure ? error.exitCode : 1;
  }
}

/** Message and hint; the hint stands on its own line, as libpq's do. */
function failureText(error: unknown): string {
  const hint = error instanceof Error && 'hint' in error && typeof error.hint === 'string' ? error.hint : undefined;
  return `pgkv: error: ${messageOf(error)}\n${hint === undefined ? '' : `\t${hint}\n`}`;
}

type Finish = (exitCode: number) => void;

function buildProgram(terminal: Terminal, finish: Finish): Command {
  const program = new Command('pgkv')
    .description('PostgreSQL wire-compatible router: ordinary Postgres servers as one key-value store')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpCommand('help [command]', 'show help')
    .showHelpAfterError('(add --help for the options)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.output.write(text),
      writeErr: (text) => terminal.errors.write(text),
      outputError: (text, write) => write(shownError(text)),
    });
  addDev(program, finish);
  addStart(program, finish);
  addCheckConfig(program, terminal, finish);
  addSql(program, terminal, finish);
  addStatus(program, terminal, finish);
  addInit(program, terminal, finish);
  addTable(program, terminal, finish);
  addDoctor(program, terminal, finish);
  addImport(program, terminal, finish);
  return program;
}

const shownError = (text: string): string => text.replace(/^error:/, 'pgkv: error:');

/** A command's example, below its options. */
function example(...lines: string[]): string {
  return `\nExample:\n${lines.map((line) => `  ${line}`).join('\n')}`;
}

function addDev(program: Command, finish: Finish): void {
  program
    .command('dev')
    .description('start a router with its own Postgres servers, for development')
    .option('--shards <n>', 'number of Postgres servers', wholeNumber(1, SHARDS_MAX), 2)
    .option('--port <port>', 'port for SQL; 0 takes a free one', listenPort, 7432)
    .option('--http-port <port>', 'port for HTTP; 0 takes a free one', listenPort, 7433)
    .option('--data-dir <dir>', 'where the servers keep their data', '.pgkv')
    .option('--ephemeral', 'remove the data at the end')
    .addOption(valueOption('type of the values of table kv (jsonb where it is made now)'))
    .addHelpText('after', example('pgkv dev --shards 4 --ephemeral'))
    .action(async (options: Omit<DevOptions, 'ephemeral'> & { ephemeral?: true }) => {
      const signals = new EndSignals();
      try {
        const { runDev } = await import('./dev.js');
        finish(await runDev({ ...options, ephemeral: options.ephemeral ?? false }, signals));
      } finally {
        signals.release();
      }
    });
}

function valueOption(description: string): Option {
  return new Option('--value <type>', description).choices(['jsonb', 'bytea']);
}

function addStart(program: Command, finish: Finish): void {
  program
    .command('start')
    .description('start a router in front of existing servers')
    .requiredOption('--config <file>', 'configuration (TOML); see config/pgkv.toml')
    .addHelpText('after', example('pgkv start --config /etc/pgkv/pgkv.toml'))
    .action(async ({ config }: { config: string }) => {
      const signals = new EndSignals();
      try {
        const { runStart } = await import('./start.js');
        finish(await runStart({ configFile: config }, signals));
      } finally {
        signals.release();
      }
    });
}

function addCheckConfig(program: Command, terminal: Terminal, finish: Finish): void {
  program
    .command('check-config')
    .description('check a configuration file and say what it means')
    .addArgument(new Argument('[file]', 'configuration (TOML)'))
    .option('--config <file>', 'the same as the argument')
    .option('--json', 'print {"ok":…,"problems":[…]}')
    .addHelpText('after', example('pgkv check-config config/pgkv.toml'))
    .action(async (file: string | undefined, options: { config?: string; json?: true }) => {
      const configFile = file ?? options.config;
      if (configFile === undefined) throw new CommandFailure(1, 'name the file to check', 'pgkv check-config FILE');
      const { runCheckConfig } = await import('./check-config.js');
      finish(await runCheckConfig({ configFile, json: options.json ?? false }, terminal));
    });
}

function addConnectionOptions(command: Command): Command {
  return command
    .option('--data-dir <dir>', 'find the router of "pgkv dev" by its data folder (.pgkv where it exists)')
    .option('--host <host>', 'server host or socket folder (PGHOST, else 127.0.0.1)')
    .option('--port <port>', 'server port (PGPORT, else 7432)', serverPort)
    .option('--user <name>', 'user (PGUSER, else pgkv)')
    .option('--dbname <name>', 'database (PGDATABASE, else kv)')
    .addOption(
      new Option('--url <url>', 'all of these at once: postgres://user@host:port/database?sslmode=require').conflicts([
        'host',
        'port',
        'user',
        'dbname',
      ]),
    )
    .configureOutput({ outputError: (text, write) => write(namingLongOption(shownError(text))) });
}

/** What psql's users write out of habit. */
const LONG_OPTIONS = new Map([
  ['U', '--user'],
  ['d', '--dbname'],
  ['p', '--port'],
]);

function namingLongOption(text: string): string {
  const long = LONG_OPTIONS.get(/unknown option '-(?<letter>[A-Za-z])/.exec(text)?.groups?.['letter'] ?? '');
  return long === undefined ? text : `${text.trimEnd()} (write ${long})\n`;
}

interface SqlFlags extends RouterOptions {
  readonly json?: true;
  readonly csv?: true;
  readonly expanded?: boolean;
  readonly verbose?: boolean;
  /** `-v ON_ERROR_STOP` */
  readonly set?: boolean;
}

function addSql(program: Command, terminal: Terminal, finish: Finish): void {
  const actions: SqlAction[] = [];
  const command = program
    .command('sql')
    .description('SQL shell: runs statements from -c, -f, a pipe, or typed')
    // Both collect into one list, since they run in the order they were given.
    .option('-c, --command <sql>', 'run SQL or one backslash command (repeatable)', (sql: string) => {
      actions.push({ kind: 'command', sql });
    })
    .option('-f, --file <file>', 'run a file, - is standard input (repeatable)', (path: string) => {
      actions.push({ kind: 'file', path });
    })
    .option('-x, --expanded', 'one line per value')
    .addOption(new Option('--json', 'one JSON document per statement').conflicts('csv'))
    .option('--csv', 'comma-separated values')
    .option('--verbose', 'errors with all fields, SQLSTATE and location')
    .option('-v, --set <NAME=VALUE>', 'ON_ERROR_STOP=1 stops at the first error with exit code 3', parseVariable);
  addConnectionOptions(command)
    .addHelpText(
      'after',
      example(`pgkv sql -c "SELECT key, value FROM kv WHERE tenant_id = 'shop' AND key = 'cart:1'"`),
    )
    .action(async ({ json, csv, expanded = false, verbose = false, set = false, ...connection }: SqlFlags) => {
      const { runSql } = await import('./sql.js');
      const format = json ? 'json' : csv ? 'csv' : 'aligned';
      const options: SqlOptions = { ...connection, actions, format, expanded, verbose, onErrorStop: set };
      finish(await runSql(options, terminal));
    });
}

/** The one variable that scripts set on psql's command line. */
function parseVariable(text: string): boolean {
  const value = /^ON_ERROR_STOP(?:=(?<value>on|off|true|false|yes|no|1|0|))?$/i.exec(text)?.groups;
  if (!value) throw new InvalidArgumentError('Write ON_ERROR_STOP=1 or ON_ERROR_STOP=0.');
  return !['off', 'false', 'no', '0'].includes((value['value'] ?? '').toLowerCase());
}

function addStatus(program: Command, terminal: Terminal, finish: Finish): void {
  const command = program
    .command('status')
    .description('show shards, servers and slots of a running router')
    .option('--json', 'print the status as JSON');
  addConnectionOptions(command)
    .addHelpText('after', example('pgkv status --port 7432 --json'))
    .action(async ({ json, ...options }: Omit<StatusOptions, 'json'> & { json?: true }) => {
      const { runStatus } = await import('./status.js');
      finish(await runStatus({ ...options, json: json ?? false }, terminal));
    });
}

/** Which cluster, and who connects to its servers. */
function addClusterOptions(command: Command, { withDataDir }: { readonly withDataDir: boolean }): Command {
  command.addOption(new Option('--config <file>', 'configuration (TOML) with the shards and the catalogue'));
  if (withDataDir) {
    command.addOption(new Option('--data-dir <dir>', 'data folder of a running "pgkv dev"').conflicts('config'));
  }
  return command.option('--user <name>', 'role on the servers, its password in PGPASSWORD (default: the service role)');
}

interface ClusterFlags {
  readonly config?: string;
  readonly dataDir?: string;
  readonly user?: string;
  readonly json?: true;
}

function clusterOptions({ config, dataDir, user }: ClusterFlags): ClusterOptions {
  return {
    ...(config !== undefined && { configFile: config }),
    ...(dataDir !== undefined && { dataDir }),
    ...(user !== undefined && { user }),
  };
}

interface InitFlags extends ClusterFlags {
  readonly dbname?: string;
  /** False by --no-table, true where neither is given. */
  readonly table?: TableName | boolean;
  readonly value?: ValueType;
  readonly dryRun?: true;
}

function addInit(program: Command, terminal: Terminal, finish: Finish): void {
  const command = program
    .command('init')
    .description('make existing servers a cluster: extension, first table, catalogue')
    .option('--dbname <name>', 'database of the key-value tables, the same on every server (kv)')
    .option('--table <name>', 'name of the first table, as in SQL: name or schema.name (kv)', tableName)
    .option('--no-table', 'make no table')
    .addOption(valueOption('type of its values (jsonb)'))
    .option('--dry-run', 'do everything, then undo it')
    .option('--json', 'print what was done as JSON');
  addClusterOptions(command, { withDataDir: false })
    .addHelpText('after', example('pgkv init --config /etc/pgkv/pgkv.toml --user postgres'))
    .action(async ({ dbname, table, value, dryRun, json, ...flags }: InitFlags) => {
      const { runInit } = await import('./init.js');
      const options: InitOptions = {
        ...clusterOptions(flags),
        ...(dbname !== undefined && { database: dbname }),
        ...(table === false && { table: null }),
        ...(typeof table === 'object' && { table: qualified(table, undefined) }),
        ...(value !== undefined && { valueType: value }),
        dryRun: dryRun ?? false,
        json: json ?? false,
      };
      finish(await runInit(options, terminal));
    });
}

interface TableFlags extends ClusterFlags {
  readonly schema?: string;
  readonly value?: ValueType;
  readonly yes?: true;
}

function addTable(program: Command, terminal: Terminal, finish: Finish): void {
  const table = program.command('table').description('create, list and drop key-value tables').helpCommand(false);
  const command = (name: string, description: string, namesTable: boolean) => {
    const made = table.command(name).description(description);
    if (namesTable) {
      made.argument('<name>', 'as in SQL: name or schema.name, in double quotes where SQL needs them', tableName);
      made.option('--schema <name>', `schema of the table, where the name has none (${DEFAULT_SCHEMA})`, schemaName);
    }
    return addClusterOptions(made, { withDataDir: true }).option('--json', 'print the outcome as JSON');
  };
  command('create', 'make a key-value table on all shards', true)
    .addOption(valueOption('type of its values (jsonb)'))
    .addHelpText('after', example('pgkv table create blobs --value bytea --config /etc/pgkv/pgkv.toml --user postgres'))
    .action(async (name: TableName, { schema, value = 'jsonb', json, ...flags }: TableFlags) => {
      const wanted = { ...qualified(name, schema), valueType: value };
      const { runTableCreate } = await import('./table.js');
      finish(await runTableCreate({ ...clusterOptions(flags), table: wanted, json: json ?? false }, terminal));
    });
  command('drop', 'drop a key-value table with all its keys on all shards', true)
    .option('--yes', 'yes, drop it')
    .action(async (name: TableName, { schema, yes, json, ...flags }: TableFlags) => {
      const named = qualified(name, schema);
      const { runTableDrop } = await import('./table.js');
      const options = { ...clusterOptions(flags), ...named, yes: yes ?? false, json: json ?? false };
      finish(await runTableDrop(options, terminal));
    });
  command('list', 'show the key-value tables', false).action(async ({ json, ...flags }: ClusterFlags) => {
    const { runTableList } = await import('./table.js');
    finish(await runTableList({ ...clusterOptions(flags), json: json ?? false }, terminal));
  });
}

function addDoctor(program: Command, terminal: Terminal, finish: Finish): void {
  const command = program
    .command('doctor')
    .description('check servers, extension, tables, clocks and limits of a cluster')
    .option('--dbname <name>', 'database of the key-value tables (default: that of the catalogue)')
    .option('--json', 'print {"ok":…,"findings":[…]}');
  addClusterOptions(command, { withDataDir: true })
    .addHelpText('after', example('pgkv doctor --config /etc/pgkv/pgkv.toml'))
    .action(async ({ dbname, json, ...flags }: ClusterFlags & { readonly dbname?: string }) => {
      const { runDoctor } = await import('./doctor.js');
      const database = dbname === undefined ? {} : { database: dbname };
      finish(await runDoctor({ ...clusterOptions(flags), ...database, json: json ?? false }, terminal));
    });
}
