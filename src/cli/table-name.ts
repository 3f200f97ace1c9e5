// Names of tables on the command line, read as SQL reads them (and pgkv.create_table does): a name or schema.name, folded
// to lower case outside double quotes. Whatever else it is, it is refused: a table whose name has a dot is rarely meant.
import { InvalidArgumentError } from 'commander';
import type { KvTable } from '../cluster/kv-table.js';
import { CommandFailure } from './command-failure.js';
import { DEFAULT_SCHEMA } from './options.js';

export interface TableName {
  /** Null: none is named. */
  readonly schema: string | null;
  readonly name: string;
}

/** An identifier at the place where the last one ended: quoted, or plain. */
const IDENTIFIER = /"((?:[^"\0]|"")+)"|([A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)/y;

/** @throws InvalidArgumentError */
export function tableName(text: string): TableName {
  const parts = identifiers(text);
  const [first, second] = parts;
  if (first === undefined || parts.length > 2) {
    throw new InvalidArgumentError(
      'It must be a name or schema.name, as in SQL: lower case, or in double quotes (\'app."My Table"\').',
    );
  }
  return second === undefined ? { schema: null, name: first } : { schema: first, name: second };
}

/** @throws InvalidArgumentError */
export function schemaName(text: string): string {
  const parts = identifiers(text);
  if (parts.length !== 1) {
    throw new InvalidArgumentError('It must be a name as in SQL: lower case, or in double quotes.');
  }
  return parts[0]!;
}

/** Both may name the schema, if they name the same one. @throws CommandFailure */
export function qualified({ schema, name }: TableName, flag: string | undefined): Pick<KvTable, 'schema' | 'name'> {
  if (schema !== null && flag !== undefined && schema !== flag) {
    throw new CommandFailure(1, `the table named is in schema ${schema}, --schema says ${flag}`);
  }
  return { schema: schema ?? flag ?? DEFAULT_SCHEMA, name };
}

/** As a text that tableName reads back. */
export const quotedName = ({ schema, name }: Pick<KvTable, 'schema' | 'name'>): string =>
  (schema === DEFAULT_SCHEMA ? [name] : [schema, name])
    .map((part) => (/^[a-z_][a-z0-9_]*$/.test(part) ? part : `"${part.replaceAll('"', '""')}"`))
    .join('.');

/** Those between dots; none where the text is anything else. */
function identifiers(text: string): string[] {
  const found: string[] = [];
  for (let place = 0; ; place++) {
    IDENTIFIER.lastIndex = place;
    const match = IDENTIFIER.exec(text);
    if (match === null) return [];
    found.push(match[1]?.replaceAll('""', '"') ?? match[2]!.replace(/[A-Z]/g, (letter) => letter.toLowerCase()));
    place = IDENTIFIER.lastIndex;
    if (place === text.length) return found;
    if (text[place] !== '.') return [];
  }
}
