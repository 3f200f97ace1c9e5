// Runs a command line in this process, with what it prints as texts.
import { Readable, Writable } from 'node:stream';
import { runProgram } from '../../src/cli/program.js';

export interface CliRun {
  readonly exitCode: number;
  readonly output: string;
  readonly errors: string;
}

class Collected extends Writable {
  text = '';
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString('utf8');
    done();
  }
}

export async function runCli(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<CliRun> {
  const output = new Collected();
  const errors = new Collected();
  const terminal = { input: Readable.from([]), output, errors, env, onInterrupt: () => () => undefined };
  const exitCode = await runProgram(args, terminal);
  return { exitCode, output: output.text, errors: errors.text };
}
