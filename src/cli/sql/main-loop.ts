// Reads a source to its end: lines become statements and backslash commands, which run one after the other.
import { type CommandContext, type CommandOutcome, runBackslashCommand } from './backslash-commands.js';
import { INTERRUPTED, type LineSource } from './line-source.js';
import type { Shell } from './shell.js';
import { ConnectionLost } from './sql-session.js';
import { StatementScanner } from './statement-scanner.js';

/** psql's exit codes: 3 = stopped by an error under ON_ERROR_STOP, or by Ctrl-C. A lost connection is an exception. */
export type SourceEnd = 0 | 3;

const BYTE_ORDER_MARK = '\uFEFF';

/** Runs all of `source` and closes it. @throws ConnectionLost */
export async function runSource(shell: Shell, source: LineSource): Promise<SourceEnd> {
  const outer = shell.source;
  shell.source = source;
  try {
    return await new MainLoop(shell, source).run();
  } finally {
    shell.source = outer;
    source.close();
  }
}

/** What backslash commands of `scanner`'s text work on. */
export function commandContext(shell: Shell, scanner: StatementScanner): CommandContext {
  return { shell, scanner, include: async (source) => (await runSource(shell, source)) === 0 };
}

class MainLoop {
  readonly #shell: Shell;
  readonly #source: LineSource;
  readonly #scanner = new StatementScanner();
  readonly #context: CommandContext;

  constructor(shell: Shell, source: LineSource) {
    this.#shell = shell;
    this.#source = source;
    this.#context = commandContext(shell, this.#scanner);
  }

  async run(): Promise<SourceEnd> {
    for (;;) {
      const line = await this.#source.nextLine(promptOf(this.#shell, this.#scanner));
      if (line === INTERRUPTED) {
        this.#scanner.resetAll();
        continue;
      }
      const end = line === undefined ? await this.#finish() : await this.#runLine(line.toString('utf8'));
      if (end !== undefined) return end;
    }
  }

  /** What is left without a semicolon runs at the end of a script; a person's is dropped. */
  async #finish(): Promise<SourceEnd> {
    const rest = this.#scanner.take();
    if (this.#source.interactive) {
      await this.#shell.print(['\\q']);
      return 0;
    }
    if (rest === undefined) return 0;
    const succeeded = await this.#shell.run(rest);
    return !succeeded && this.#shell.settings.onErrorStop ? 3 : 0;
  }

  async #runLine(line: string): Promise<SourceEnd | undefined> {
    const { interactive } = this.#source;
    if (interactive && this.#scanner.statement === '') {
      const word = line.trim().replace(/;$/, '').toLowerCase();
      if (word === 'quit' || word === 'exit') return 0;
      if (word === 'help') line = '\\?';
    }
    this.#scanner.addLine(this.#source.lineNumber === 1 && line.startsWith(BYTE_ORDER_MARK) ? line.slice(1) : line);
    for (;;) {
      this.#scanner.standardStrings = this.#shell.session.parameters.get('standard_conforming_strings') !== 'off';
      const found = this.#scanner.next();
      if (found.kind === 'more') return undefined;
      let outcome: CommandOutcome;
      try {
        outcome =
          found.kind === 'statement'
            ? await this.#runStatement(found.text)
            : await runBackslashCommand(this.#context, found.text);
      } catch (error) {
        if (!interactive || !(error instanceof ConnectionLost)) throw error;
        await this.#shell.reconnect();
        this.#scanner.resetAll();
        return undefined;
      }
      if (outcome === 'quit') return 0;
      if (interactive) continue;
      if (this.#shell.interrupted || (outcome === 'failed' && this.#shell.settings.onErrorStop)) return 3;
    }
  }

  async #runStatement(text: string): Promise<'ok' | 'failed'> {
    return (await this.#shell.run(text)) ? 'ok' : 'failed';
  }
}

/** psql's `%/%R%x%# `: database, what is open, transaction state, `#` for a superuser. */
function promptOf({ session }: Shell, scanner: StatementScanner): string {
  const transaction = session.transactionStatus === 'T' ? '*' : session.transactionStatus === 'E' ? '!' : '';
  const end = session.parameters.get('is_superuser') === 'on' ? '#' : '>';
  return `${session.target.database}${scanner.promptMark}${transaction}${end} `;
}
