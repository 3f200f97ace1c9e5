// Which types keep a key's bytes as they are: text and varchar without a length. Any other type may cut or strip them, so
// that the slot would be another row's.
import type { TypeName } from 'libpg-query';
import { namePath } from '../meaning/name-path.js';

/**
 * Null where it is another type than text or varchar, has a length, or is no array of `dimensions`. Values of the two keep
 * their bytes and compare alike.
 */
export function textType(type: TypeName | undefined, dimensions: 0 | 1): 'text' | 'varchar' | null {
  if (type === undefined || type.setof === true || type.pct_type === true || type.typmods !== undefined) return null;
  if ((type.arrayBounds?.length ?? 0) !== dimensions) return null;
  const path = namePath(type.names ?? []);
  if (path.length === 2 && path[0] !== 'pg_catalog') return null;
  const name = path.length > 2 ? undefined : path.at(-1);
  return name === 'text' || name === 'varchar' ? name : null;
}
