// Secrets come from the environment or from a file, never from the settings file itself, and travel wrapped, so that
// logging or printing the settings cannot show them.

import { inspect } from 'node:util';

export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The secret itself: call it where it is used and keep no copy. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }

  [inspect.custom](): string {
    return '[secret]';
  }
}

export interface SecretSources {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** UTF-8 text of a file; throws as `fs.readFileSync` does. */
  readonly readFile: (path: string) => string;
}

export type SecretResult =
  | { readonly kind: 'found'; readonly secret: Secret }
  | { readonly kind: 'none' }
  /** `key` is the option at fault; the message never contains a value, which may be the password itself. */
  | { readonly kind: 'fault'; readonly key: 'password_env' | 'password_file'; readonly message: string };

/** Resolves `password_env` / `password_file`; at most one of them may be given. */
export function resolveSecret(
  given: { readonly password_env: string | null; readonly password_file: string | null },
  sources: SecretSources,
): SecretResult {
  const { password_env: variable, password_file: path } = given;
  if (variable !== null && path !== null) {
    return { kind: 'fault', key: 'password_file', message: 'give password_env or password_file, not both' };
  }
  if (variable !== null) {
    const text = sources.environment[variable];
    if (text !== undefined && text !== '') return { kind: 'found', secret: new Secret(text) };
    const state = text === undefined ? 'not set' : 'empty';
    // Somebody may have written the password itself here: only what looks like a variable is repeated.
    const named = /^[A-Z][A-Z0-9_]*$/.test(variable) ? variable : 'it names';
    return { kind: 'fault', key: 'password_env', message: `the environment variable ${named} is ${state}` };
  }
  if (path !== null) {
    let text: string;
    try {
      text = sources.readFile(path).replace(/\r?\n$/, '');
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? 'unknown error';
      return { kind: 'fault', key: 'password_file', message: `cannot read the file (${code})` };
    }
    if (text !== '') return { kind: 'found', secret: new Secret(text) };
    return { kind: 'fault', key: 'password_file', message: 'the file is empty' };
  }
  return { kind: 'none' };
}
