// From what zod reports to what a person can act on: which key, on which line, what was expected, what stands there,
// and for an unknown key the known one that was probably meant. Passwords are never repeated in a message.
import type { z } from 'zod';
import { settingsJsonSchema } from './settings.js';
import type { KeyPath } from './toml-lines.js';

export interface Problem {
  readonly file: string;
  /** 1-based. */
  readonly line: number;
  /** Dotted path as in the file, elements of arrays counted from 0: `shards[1].nodes[0].port`; '' for the file. */
  readonly key: string;
  readonly message: string;
}

/** A problem before its line is known. */
export interface Fault {
  readonly path: KeyPath;
  readonly message: string;
}

/** `pgkv.toml:12: pool.size_max: expected …`, as compilers print it. */
export function formatProblem(problem: Problem): string {
  const key = problem.key === '' ? '' : `${problem.key}: `;
  return `${problem.file}:${problem.line}: ${key}${problem.message}`;
}

export interface SchemaFault extends Fault {
  /** A required key is not there. */
  readonly isMissing: boolean;
}

export function keyText(path: KeyPath): string {
  let text = '';
  for (const part of path) text += typeof part === 'number' ? `[${part}]` : text === '' ? part : `.${part}`;
  return text;
}

/** The faults zod found in `document`; unknown keys are reported one by one. */
export function schemaFaults(error: z.ZodError, document: unknown): SchemaFault[] {
  const root = settingsJsonSchema() as SchemaNode;
  return error.issues.flatMap((issue): SchemaFault[] => {
    const path = issue.path as KeyPath;
    if (issue.code === 'unrecognized_keys') {
      const known = Object.keys(schemaAt(root, path)?.properties ?? {});
      return issue.keys.map((key) => ({
        path: [...path, key],
        message: unknownKey(key, path, known, root),
        isMissing: false,
      }));
    }
    const value = valueAt(document, path);
    // A rule of ours within a text: in our words.
    if (issue.code === 'custom') {
      return [{ path, message: `${describeValue(value)} ${issue.message}`, isMissing: false }];
    }
    const message = unexpectedValue(path, schemaAt(root, path), value);
    return [{ path, message, isMissing: value === undefined }];
  });
}

/** The part of JSON Schema that ours uses. */
interface SchemaNode {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly items?: SchemaNode | false;
  readonly prefixItems?: readonly SchemaNode[];
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
}

function schemaAt(root: SchemaNode, path: KeyPath): SchemaNode | undefined {
  let node: SchemaNode | undefined = root;
  for (const part of path) {
    if (typeof part === 'number') node = node?.prefixItems?.[part] ?? (node?.items || undefined);
    else node = node?.properties?.[part];
  }
  return node;
}

function valueAt(document: unknown, path: KeyPath): unknown {
  let value = document;
  for (const part of path) value = (value as Record<string | number, unknown> | undefined)?.[part];
  return value;
}

function unexpectedValue(path: KeyPath, schema: SchemaNode | undefined, value: unknown): string {
  const expected = describeExpected(schema);
  if (value === undefined) return `is missing: expected ${expected}`;
  const isSecret = path.some((part) => typeof part === 'string' && part.includes('password'));
  return isSecret ? `expected ${expected}` : `expected ${expected}, found ${describeValue(value)}`;
}

function describeExpected(schema: SchemaNode | undefined): string {
  if (schema?.enum !== undefined) return `one of ${schema.enum.map((word) => JSON.stringify(word)).join(', ')}`;
  switch (schema?.type) {
    case 'integer':
      return `a whole number from ${schema.minimum} to ${schema.maximum}`;
    case 'boolean':
      return 'true or false';
    case 'string':
      if (schema.maxLength !== undefined) return `a text of ${schema.minLength ?? 0} to ${schema.maxLength} characters`;
      return (schema.minLength ?? 0) > 0 ? 'a text that is not empty' : 'a text';
    case 'array': {
      if (schema.prefixItems !== undefined) return 'a pair [first, last]';
      const least = schema.minItems === undefined ? '' : ` of at least ${schema.minItems}`;
      return `a list${least}${schema.maxItems === undefined ? '' : ` of at most ${schema.maxItems}`}`;
    }
    case 'object':
      return 'a table';
    default:
      return 'another value';
  }
}

function describeValue(value: unknown): string {
  if (typeof value === 'string')
    return `the text ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)}`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (value instanceof Date) return 'a date';
  return typeof value === 'object' ? 'a table' : String(value);
}

function unknownKey(key: string, parent: KeyPath, known: readonly string[], root: SchemaNode): string {
  const isSection = parent.length === 0;
  if (key === 'password') return 'is not read from this file: use password_env or password_file';
  const meant = nearest(key, known);
  if (meant !== undefined) return `unknown ${isSection ? 'section or key' : 'key'}: did you mean "${meant}"?`;
  const elsewhere = Object.entries(root.properties ?? {}).find(
    ([, section]) => section.properties?.[key] !== undefined,
  );
  if (elsewhere !== undefined) return `unknown key here: "${key}" belongs to [${elsewhere[0]}]`;
  return `unknown ${isSection ? 'section or key' : 'key'}: known here are ${known.join(', ')}`;
}

/** The closest of `known` by edits, if close enough to be a slip; a lost or added unit (`_ms`) counts as one edit. */
function nearest(key: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(key.length / 3)) + 1;
  for (const candidate of known) {
    const isPart = key.length >= 3 && (candidate.startsWith(`${key}_`) || key.startsWith(`${candidate}_`));
    const distance = isPart ? 1 : editDistance(key.toLowerCase().replaceAll('-', '_'), candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein distance, two rows at a time. */
function editDistance(left: string, right: string): number {
  let previous = Array.from({ length: right.length + 1 }, (_, column) => column);
  for (let row = 1; row <= left.length; row++) {
    const current = [row];
    for (let column = 1; column <= right.length; column++) {
      const substituted = previous[column - 1]! + (left[row - 1] === right[column - 1] ? 0 : 1);
      current.push(Math.min(substituted, previous[column]! + 1, current[column - 1]! + 1));
    }
    previous = current;
  }
  return previous[right.length]!;
}
