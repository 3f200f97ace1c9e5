// When a statement that is prepared on a server is no longer what the client's own Parse would make of its text (D15, R2).
import type { ErrorFields } from '../../wire/error-fields.js';

/**
 * Whether a Bind has failed for that: with "cached plan must not change result type"; because a table is gone; or because
 * a function has deallocated the statement (26000).
 * @param shapeIsTold the client parses or describes; else it would misread rows of another shape
 */
export function isStalePlan(fields: ErrorFields, shapeIsTold: boolean): boolean {
  const code = fields['C'] ?? '';
  if (code === '0A000') return shapeIsTold && fields['R'] === 'RevalidateCachedQuery';
  return code.startsWith('42') || code === '26000';
}
