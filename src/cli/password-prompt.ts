// Asks for a password at the terminal without showing it.
import { createInterface } from 'node:readline';
import { type Readable, Writable } from 'node:stream';
import { CommandFailure } from './command-failure.js';
import type { AskPassword } from './connect.js';

/** Asks on a terminal; where there is none, nobody is asked. */
export function passwordPrompt(input: Readable & { isTTY?: boolean }, errors: Writable): AskPassword {
  if (!input.isTTY) return async () => undefined;
  return (user) => readSecret(`Password for user ${user}: `, input, errors);
}

function readSecret(prompt: string, input: Readable, errors: Writable): Promise<string> {
  errors.write(prompt);
  // readline edits the line; what it would echo goes nowhere.
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  const readline = createInterface({ input, output: silent, terminal: true, historySize: 0 });
  return new Promise((resolve, reject) => {
    readline.once('line', (line) => {
      resolve(line);
      readline.close();
    });
    readline.once('SIGINT', () => readline.close());
    // Also by Ctrl-D. After `line` the promise is settled, and the rejection changes nothing.
    readline.once('close', () => {
      errors.write('\n');
      reject(new CommandFailure(2, 'no password was given'));
    });
  });
}
