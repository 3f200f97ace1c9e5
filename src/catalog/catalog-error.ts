// What goes wrong with a catalogue and a person has to mend: the message says which catalogue and what, the hint what to
// do next.

export interface CatalogErrorDetails {
  readonly hint?: string;
  readonly cause?: unknown;
}

export class CatalogError extends Error {
  readonly hint: string | undefined;

  constructor(message: string, details: CatalogErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'CatalogError';
    this.hint = details.hint;
  }
}
