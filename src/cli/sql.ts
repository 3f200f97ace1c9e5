// `pgkv sql`: runs -c and -f in order, or else reads standard input: a person's at a terminal, a script from a pipe.
// Exit codes as psql: 0 ok, 1 an error of ours or of -c's SQL, 2 no connection, 3 a script stopped by an error.

import { CommandFailure } from './command-failure.js';
import type { SqlAction, SqlOptions } from './options.js';
import { passwordPrompt } from './password-prompt.js';
import { routerTarget } from './run-file.js';
import { runBackslashCommand } from './sql/backslash-commands.js';
import { historyPath, InteractiveSource } from './sql/interactive-source.js';
import { StreamSource } from './sql/line-source.js';
import { commandContext, runSource } from './sql/main-loop.js';
import { Shell } from './sql/shell.js';
import { ConnectionLost, SqlSession } from './sql/sql-session.js';
import { StatementScanner } from './sql/statement-scanner.js';
import type { Terminal } from './terminal.js';
import { packageVersion } from './version.js';

/** @returns the exit code. @throws CommandFailure */
export async function runSql(options: SqlOptions, terminal: Terminal): Promise<number> {
  const target = routerTarget(options, terminal.env);
  const askPassword = passwordPrompt(terminal.input, terminal.errors);
  const shell = await Shell.start({
    open: () => SqlSession.open(target, askPassword),
    source: new StreamSource(terminal.input),
    settings: {
      format: options.format,
      expanded: options.expanded,
      timing: false,
      verbosity: options.verbose ? 'verbose' : 'default',
      onErrorStop: options.onErrorStop,
    },
    output: terminal.output,
    errors: terminal.errors,
  });
  const interactive = options.actions.length === 0 && terminal.input.isTTY === true && terminal.output.isTTY === true;
  try {
    if (interactive) return await runInteractive(shell, terminal);
    return await runUnattended(shell, options.actions, terminal);
  } catch (error) {
    if (!(error instanceof ConnectionLost)) throw error;
    shell.complain('connection to server was lost');
    return 2;
  } finally {
    await shell.session.close();
    terminal.input.destroy();
  }
}

async function runInteractive(shell: Shell, terminal: Terminal): Promise<number> {
  const serverVersion = shell.session.parameters.get('server_version') ?? 'of unknown version';
  await shell.print([`pgkv sql ${packageVersion()} (server ${serverVersion})`, 'Type \\? for help, \\q to quit.', '']);
  const interrupt = () => shell.interrupt();
  return runSource(shell, new InteractiveSource(terminal.input, terminal.output, historyPath(terminal.env), interrupt));
}

async function runUnattended(shell: Shell, actions: readonly SqlAction[], terminal: Terminal): Promise<number> {
  const release = terminal.onInterrupt(() => {
    // The second Ctrl-C, or one while only input is awaited, ends the program.
    if (shell.interrupted || !shell.interrupt()) process.exit(130);
    shell.interrupted = true;
  });
  try {
    if (actions.length === 0) return await runSource(shell, shell.source);
    let exitCode = 0;
    for (const action of actions) {
      exitCode = await runAction(shell, action, terminal);
      if (shell.interrupted || (exitCode !== 0 && shell.settings.onErrorStop)) break;
    }
    return exitCode;
  } finally {
    release();
  }
}

async function runAction(shell: Shell, action: SqlAction, terminal: Terminal): Promise<number> {
  if (action.kind === 'file') {
    if (action.path === '-') return runSource(shell, new StreamSource(terminal.input, '<stdin>'));
    const source = await StreamSource.openFile(action.path);
    if (typeof source !== 'string') return runSource(shell, source);
    throw new CommandFailure(1, source);
  }
  const command = /^\s*\\(.*)$/s.exec(action.sql);
  if (!command) return (await shell.run(action.sql)) ? 0 : 1;
  const context = commandContext(shell, new StatementScanner());
  return (await runBackslashCommand(context, command[1]!)) === 'failed' ? 1 : 0;
}
