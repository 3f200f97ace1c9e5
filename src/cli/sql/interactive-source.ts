// A person at a terminal as a source of lines: readline's editing, a history file, and Ctrl-C, which belongs to what
// runs, or else to what is typed. Lines typed ahead wait in a queue.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import type { Environment } from '../connection-target.js';
import { INTERRUPTED, type LineSource } from './line-source.js';

const HISTORY_LINES_MAX = 1000;

type Waiter = (line: Buffer | undefined | typeof INTERRUPTED) => void;

export class InteractiveSource implements LineSource {
  readonly name = undefined;
  readonly interactive = true;
  lineNumber = 0;
  readonly #readline: Interface;
  readonly #output: Writable;
  readonly #typedAhead: string[] = [];
  readonly #historyFile: string | undefined;
  #history: string[];
  #waiter: Waiter | undefined;
  /** Ctrl-C came between two lines: the next one is given up. */
  #interrupted = false;
  #ended = false;

  /**
   * @param historyFile undefined keeps no history
   * @param interruptRunning cancels what runs; answers false if nothing does
   */
  constructor(input: Readable, output: Writable, historyFile: string | undefined, interruptRunning: () => boolean) {
    this.#output = output;
    this.#historyFile = historyFile;
    this.#history = readHistory(historyFile);
    this.#readline = createInterface({
      input,
      output,
      terminal: true,
      history: this.#history,
      historySize: HISTORY_LINES_MAX,
      removeHistoryDuplicates: true,
    });
    this.#readline.on('line', (line) => this.#deliverLine(line));
    this.#readline.on('history', (history) => {
      this.#history = history;
    });
    this.#readline.on('SIGINT', () => {
      if (!this.#waiter && interruptRunning()) return;
      this.#clearTyped();
      if (this.#waiter) this.#deliver(INTERRUPTED);
      else this.#interrupted = true;
    });
    this.#readline.on('close', () => {
      this.#ended = true;
      if (this.#typedAhead.length === 0) this.#deliver(undefined);
    });
  }

  nextLine(prompt: string): Promise<Buffer | undefined | typeof INTERRUPTED> {
    if (this.#interrupted) {
      this.#interrupted = false;
      return Promise.resolve(INTERRUPTED);
    }
    const typed = this.#typedAhead.shift();
    if (typed !== undefined) {
      this.lineNumber++;
      return Promise.resolve(Buffer.from(typed));
    }
    if (this.#ended) return Promise.resolve(undefined);
    this.#readline.setPrompt(prompt);
    this.#readline.prompt();
    return new Promise((resolve) => {
      this.#waiter = resolve;
    });
  }

  /** Binary data cannot be typed. */
  async *rest(): AsyncGenerator<Buffer> {
    yield* [];
  }

  close(): void {
    this.#readline.close();
    if (this.#historyFile !== undefined) writeHistory(this.#historyFile, this.#history);
  }

  #deliverLine(line: string): void {
    if (!this.#waiter) {
      this.#typedAhead.push(line);
      return;
    }
    this.lineNumber++;
    this.#deliver(Buffer.from(line));
  }

  #deliver(line: Buffer | undefined | typeof INTERRUPTED): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.(line);
  }

  #clearTyped(): void {
    this.#typedAhead.length = 0;
    this.#readline.write(null, { ctrl: true, name: 'e' });
    this.#readline.write(null, { ctrl: true, name: 'u' });
    this.#output.write('^C\n');
  }
}

/** In XDG's folder for state. Undefined without a home. */
export function historyPath(env: Environment): string | undefined {
  const state = env['XDG_STATE_HOME'] || (env['HOME'] && join(env['HOME'], '.local', 'state'));
  return state ? join(state, 'pgkv', 'sql_history') : undefined;
}

/** Newest first, as readline wants it; the file has the oldest first. */
function readHistory(path: string | undefined): string[] {
  if (path === undefined) return [];
  try {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean).slice(-HISTORY_LINES_MAX).reverse();
  } catch {
    return []; // no history yet, or an unreadable one: the shell works without
  }
}

function writeHistory(path: string, history: readonly string[]): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    // Statements may hold passwords (CREATE ROLE): for the owner's eyes only.
    writeFileSync(
      path,
      history
        .map((line) => `${line}\n`)
        .reverse()
        .join(''),
      { mode: 0o600 },
    );
  } catch {
    return; // a read-only home costs the history, not the exit code
  }
}
