// How a command ends when the user, not the program, has to do something: one message, perhaps a hint, an exit code.

import { messageOf } from '../base/errors.js';

/** 1: wrong input; 2: no connection (as psql). */
export type FailureExitCode = 1 | 2;

export class CommandFailure extends Error {
  readonly exitCode: FailureExitCode;
  readonly hint: string | undefined;

  constructor(exitCode: FailureExitCode, message: string, hint?: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'CommandFailure';
    this.exitCode = exitCode;
    this.hint = hint;
  }
}

/** A file that cannot be read. Node's message of a failed system call ends with the path, which is said already. */
export function unreadable(exitCode: FailureExitCode, path: string, error: unknown): CommandFailure {
  const { syscall } = error as NodeJS.ErrnoException;
  const reason = syscall === undefined ? messageOf(error) : messageOf(error).replace(/, \w+(?: '.*')?$/s, '');
  return new CommandFailure(exitCode, `cannot read ${path}: ${reason}`, undefined, error);
}
