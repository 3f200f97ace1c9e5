// The one place where TOML's snake_case becomes the program's camelCase, for values and for types alike.
// Only keys of plain tables change; texts, numbers and arrays stay what they are.

type CamelCase<Key extends string> = Key extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Key;

/** `T` with all keys in camelCase, deeply, and read-only. */
export type CamelKeys<T> = T extends readonly unknown[]
  ? { readonly [Index in keyof T]: CamelKeys<T[Index]> }
  : T extends object
    ? { readonly [Key in keyof T as CamelCase<Key & string>]: CamelKeys<T[Key]> }
    : T;

const camelCase = (key: string): string => key.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
export const snakeCase = (key: string): string => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

export function camelKeys<T>(value: T): CamelKeys<T> {
  return renameKeys(value, camelCase) as CamelKeys<T>;
}

/** The inverse of `camelKeys`; the result is checked by the schema, so that its type is left open. */
export function snakeKeys(value: unknown): unknown {
  return renameKeys(value, snakeCase);
}

function renameKeys(value: unknown, rename: (key: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [rename(key), renameKeys(item, rename)]));
}
