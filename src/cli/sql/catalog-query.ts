// What the \d commands ask catalogues with. psql's name patterns (`\d app.kv*`) as SQL conditions: unquoted letters fold to lower case, `*` and `?` match
// anything, a dot parts schema and name, and inside double quotes everything stands for itself.

import { quoteLiteral } from '../../sql/text/quote-literal.js';

/** Runs one catalogue query. @throws DatabaseError @throws ConnectionLost */
export type CatalogQuery = (sql: string) => Promise<readonly (readonly (string | null)[])[]>;

/** SQL that begins with AND, or nothing where the pattern matches all. */
export function patternConditions(pattern: string, name: string, schema?: string, visible?: string): string {
  const parts = patternParts(pattern);
  const [schemaPattern, namePattern] = schema && parts.length > 1 ? parts.slice(-2) : [undefined, parts.at(-1)];
  let sql = '';
  if (namePattern !== undefined && namePattern !== '.*') sql += ` AND ${matches(name, namePattern)}`;
  if (schemaPattern !== undefined && schemaPattern !== '.*') sql += ` AND ${matches(schema!, schemaPattern)}`;
  // A name without a schema means what a statement would find by it.
  if (schemaPattern === undefined && visible !== undefined) sql += ` AND ${visible}`;
  return sql;
}

function matches(expression: string, regex: string): string {
  return `${expression} OPERATOR(pg_catalog.~) ${quoteLiteral(`^(${regex})$`)} COLLATE pg_catalog.default`;
}

/** The dotted parts, each as a regular expression. */
function patternParts(pattern: string): string[] {
  if (pattern === '') return [];
  const parts = [''];
  let quoted = false;
  for (const character of pattern) {
    const last = parts.length - 1;
    if (character === '"') quoted = !quoted;
    else if (!quoted && character === '.') parts.push('');
    else if (!quoted && character === '*') parts[last] += '.*';
    else if (!quoted && character === '?') parts[last] += '.';
    else if (character === '$' || (quoted && /[|*+?()[\]{}.^\\]/.test(character))) parts[last] += `\\${character}`;
    else parts[last] += quoted ? character : character.toLowerCase();
  }
  return parts;
}
