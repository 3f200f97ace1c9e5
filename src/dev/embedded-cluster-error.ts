// What keeps the embedded cluster from starting: always something the user can act on, so the message says what
// happened and `hint` what to do next. Not part of the wire's error catalogue: no client is connected yet.

export class EmbeddedClusterError extends Error {
  readonly hint: string | undefined;

  constructor(message: string, details: { hint?: string; cause?: unknown } = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'EmbeddedClusterError';
    this.hint = details.hint;
  }
}
