// How a command ends when the user, not the program, has to do something: one message, perhaps a hint, an exit code.

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
