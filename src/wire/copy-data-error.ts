// What is wrong with the data of a COPY … FROM STDIN as a whole, in Postgres's words (22P04).
export class CopyDataError extends Error {
  /** Of the data, from 1. */
  readonly line: number;
  readonly hint: string | null;

  constructor(message: string, line: number, hint: string | null = null) {
    super(message);
    this.line = line;
    this.hint = hint;
  }
}
