// The shell's own commands: the part of psql's that people type most. The texts are psql's.
import pg from 'pg';
import type { CatalogQuery } from './catalog-query.js';
import { listDatabases, listRelations, listRoles } from './describe-lists.js';
import { describeRelations } from './describe-relation.js';
import { type LineSource, StreamSource } from './line-source.js';
import type { Result } from './result-format.js';
import type { Shell } from './shell.js';
import type { StatementScanner } from './statement-scanner.js';

export type CommandOutcome = 'ok' | 'failed' | 'quit';

const HELP = `\
General
  \\q                     quit
  \\conninfo              display information about current connection
  \\timing [on|off]       toggle timing of commands
  \\x [on|off]            toggle expanded output
  \\set [NAME [VALUE]]    ON_ERROR_STOP on|off, VERBOSITY default|verbose

Query buffer
  \\g                     execute query (same as a semicolon)
  \\gx                    execute query with expanded output
  \\r                     reset (clear) the query buffer
  \\i FILE                execute commands from file

Informational (PATTERN as in psql: * and ? match, schema.name)
  \\d                     list tables, views, and sequences
  \\d PATTERN             describe table, view, sequence, or index
  \\dt [PATTERN]          list tables
  \\du [PATTERN]          list roles
  \\l [PATTERN]           list databases

A statement ends with a semicolon and may span lines. COPY ... FROM STDIN reads lines up to \\.
Ctrl-C cancels what runs, or clears what is typed. Ctrl-D quits.`;

/** What a command works on. */
export interface CommandContext {
  readonly shell: Shell;
  readonly scanner: StatementScanner;
  /** Runs a file's text; false if it was stopped by an error. */
  readonly include: (source: LineSource) => Promise<boolean>;
}

/**
 * Runs one command; `text` is the line from behind the backslash.
 * @throws ConnectionLost
 */
export async function runBackslashCommand(context: CommandContext, text: string): Promise<CommandOutcome> {
  const { shell, scanner } = context;
  const name = /^[^\s\\]*/.exec(text)![0];
  const argument = text.slice(name.length).trim();
  switch (name) {
    case 'q':
      return 'quit';
    case '?':
      await shell.print(HELP.split('\n'));
      return 'ok';
    case 'g':
    case 'gx':
      return runBuffer(shell, scanner, name === 'gx');
    case 'r':
      scanner.reset();
      await shell.print(['Query buffer reset (cleared).']);
      return 'ok';
    case 'i':
      return runFile(context, argument);
    case 'x':
      return toggle(shell, 'expanded', argument, '\\x', 'Expanded display');
    case 'timing':
      return toggle(shell, 'timing', argument, '\\timing', 'Timing');
    case 'set':
      return set(shell, argument);
    case 'conninfo':
      await shell.print(connectionInfo(shell));
      return 'ok';
  }
  const describe = DESCRIBE.get(name.replace(/\+$/, ''));
  if (describe) return runDescribe(shell, describe, argument.replace(/;+$/, ''));
  shell.complain(`invalid command \\${name}`);
  if (shell.source.interactive) shell.errors.write('Try \\? for help.\n');
  return 'failed';
}

/** Queries catalogues and gives results to show, or the message that nothing was found. */
type Describe = (query: CatalogQuery, pattern: string, serverVersion: number) => Promise<readonly Result[] | string>;

const LIST_TABLES: Describe = (query, pattern) => listRelations(query, pattern, 'tables');

/** `+` behind a name is accepted and adds nothing. */
const DESCRIBE = new Map<string, Describe>([
  ['d', (query, pattern) => (pattern ? describeRelations(query, pattern) : listRelations(query, pattern))],
  ['dt', LIST_TABLES],
  ['du', listRoles],
  ['dg', listRoles],
  ['l', listDatabases],
]);

async function runDescribe(shell: Shell, describe: Describe, pattern: string): Promise<CommandOutcome> {
  const { session } = shell;
  const version = Number.parseInt(session.parameters.get('server_version') ?? '0', 10);
  try {
    const found = await describe((sql) => session.rows(sql), pattern, version);
    if (typeof found === 'string') {
      shell.complain(found);
      // As in psql: a relation that is not there is an error, an empty list is not.
      return describe === LIST_TABLES || pattern === '' ? 'ok' : 'failed';
    }
    for (const result of found) await shell.printResult(result);
    return 'ok';
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error;
    shell.showServerMessage(error, undefined);
    return 'failed';
  }
}

async function runBuffer(shell: Shell, scanner: StatementScanner, expanded: boolean): Promise<CommandOutcome> {
  const statement = scanner.take();
  if (statement === undefined) return 'ok';
  const before = shell.settings.expanded;
  if (expanded) shell.settings.expanded = true;
  try {
    return (await shell.run(statement)) ? 'ok' : 'failed';
  } finally {
    shell.settings.expanded = before;
  }
}

async function runFile({ shell, include }: CommandContext, argument: string): Promise<CommandOutcome> {
  const path = /^'(.*)'$/.exec(argument)?.[1]?.replaceAll("''", "'") ?? argument;
  if (path === '') {
    shell.complain('\\i: missing required argument');
    return 'failed';
  }
  const source = await StreamSource.openFile(path);
  if (typeof source === 'string') {
    shell.complain(source);
    return 'failed';
  }
  return (await include(source)) ? 'ok' : 'failed';
}

function booleanOf(text: string): boolean | undefined {
  const word = text.toLowerCase();
  if (['on', 'true', 'yes', '1'].includes(word)) return true;
  if (['off', 'false', 'no', '0'].includes(word)) return false;
  return undefined;
}

async function toggle(
  shell: Shell,
  setting: 'expanded' | 'timing',
  argument: string,
  command: string,
  label: string,
): Promise<CommandOutcome> {
  const value = argument === '' ? !shell.settings[setting] : booleanOf(argument);
  if (value === undefined) {
    shell.complain(`unrecognized value "${argument}" for "${command}": Boolean expected`);
    return 'failed';
  }
  shell.settings[setting] = value;
  await shell.print([`${label} is ${value ? 'on' : 'off'}.`]);
  return 'ok';
}

async function set(shell: Shell, argument: string): Promise<CommandOutcome> {
  const { settings } = shell;
  if (argument === '') {
    await shell.print([
      `ON_ERROR_STOP = '${settings.onErrorStop ? 'on' : 'off'}'`,
      `VERBOSITY = '${settings.verbosity}'`,
    ]);
    return 'ok';
  }
  const [name = '', value = ''] = argument.split(/\s+/);
  const problem = setVariable(shell, name, value);
  if (problem === undefined) return 'ok';
  shell.complain(problem);
  return 'failed';
}

/** Sets a variable as `\set` and `-v` do; answers what is wrong, if anything is. */
export function setVariable({ settings }: Pick<Shell, 'settings'>, name: string, value: string): string | undefined {
  if (name === 'ON_ERROR_STOP') {
    const on = value === '' ? true : booleanOf(value);
    if (on === undefined) return `unrecognized value "${value}" for "${name}": Boolean expected`;
    settings.onErrorStop = on;
    return undefined;
  }
  if (name === 'VERBOSITY') {
    if (value !== 'default' && value !== 'verbose') {
      return `unrecognized value "${value}" for "${name}": available values are: default, verbose`;
    }
    settings.verbosity = value;
    return undefined;
  }
  return `unknown variable "${name}": available are ON_ERROR_STOP and VERBOSITY`;
}

function connectionInfo({ session }: Shell): string[] {
  const { host, port, user, database } = session.target;
  const place = host.startsWith('/') ? `via socket in "${host}" at port` : `on host "${host}" at port`;
  const lines = [`You are connected to database "${database}" as user "${user}" ${place} "${port}".`];
  const { tls } = session;
  if (tls) lines.push(`SSL connection (protocol: ${tls.protocol}, cipher: ${tls.cipher})`);
  return lines;
}
