// The process's streams and environment as values, so that tests can run commands without a process.
import type { Readable, Writable } from 'node:stream';
import type { Environment } from './connection-target.js';

export interface Terminal {
  readonly input: Readable & { isTTY?: boolean };
  readonly output: Writable & { isTTY?: boolean };
  readonly errors: Writable & { isTTY?: boolean };
  readonly env: Environment;
  /** Calls `listener` at Ctrl-C until the returned function is called. */
  onInterrupt(listener: () => void): () => void;
}

export const processTerminal: Terminal = {
  input: process.stdin,
  output: process.stdout,
  errors: process.stderr,
  env: process.env,
  onInterrupt(listener) {
    process.on('SIGINT', listener);
    return () => process.off('SIGINT', listener);
  },
};
