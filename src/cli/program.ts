// The command line: commands, options, help, exit codes. What a command does is loaded when it is called, so that
// `pgkv sql` starts without the router's code.
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { messageOf } from '../base/errors.js';
import { CommandFailure } from './command-failure.js';
import {
  type ConnectionOptions,
  type DevOptions,
  listenPort,
  SHARDS_MAX,
  type SqlAction,
  type SqlOptions,
  type StatusOptions,
  serverPort,
  wholeNumber,
} from './options.js';
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
    .helpCommand(false)
    .showHelpAfterError('(add --help for the options)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.output.write(text),
      writeErr: (text) => terminal.errors.write(text),
      outputError: (text, write) => write(text.replace(/^error:/, 'pgkv: error:')),
    });
  addDev(program, finish);
  addStart(program, finish);
  addCheckConfig(program, terminal, finish);
  addSql(program, terminal, finish);
  addStatus(program, terminal, finish);
  return program;
}

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
    .addOption(new Option('--value <type>', 'type of the value column').choices(['jsonb', 'bytea']).default('jsonb'))
    .addHelpText('after', example('pgkv dev --shards 4 --ephemeral'))
    .action(async (options: Omit<DevOptions, 'ephemeral'> & { ephemeral?: true }) => {
      const { runDev } = await import('./dev.js');
      finish(await runDev({ ...options, ephemeral: options.ephemeral ?? false }));
    });
}

function addStart(program: Command, finish: Finish): void {
  program
    .command('start')
    .description('start a router in front of existing servers')
    .requiredOption('--config <file>', 'configuration (TOML); see config/pgkv.toml')
    .addHelpText('after', example('pgkv start --config /etc/pgkv/pgkv.toml'))
    .action(async ({ config }: { config: string }) => {
      const { runStart } = await import('./start.js');
      finish(await runStart({ configFile: config }));
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
    );
}

interface SqlFlags extends ConnectionOptions {
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
    .option('--data-dir <dir>', 'find the router of "pgkv dev" by its data folder (.pgkv where it exists)')
    .option('--json', 'print the status as JSON');
  addConnectionOptions(command)
    .addHelpText('after', example('pgkv status --port 7432 --json'))
    .action(async ({ json, ...options }: Omit<StatusOptions, 'json'> & { json?: true }) => {
      const { runStatus } = await import('./status.js');
      finish(await runStatus({ ...options, json: json ?? false }, terminal));
    });
}
