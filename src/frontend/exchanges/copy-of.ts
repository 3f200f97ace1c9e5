// What SHOW pgkv.copies says of a client's copy.
import type { KvTable } from '../../cluster/kv-table.js';
import type { Session } from '../../session/session.js';
import type { CopyBegun, CopyState } from '../../telemetry/running-copies.js';

export const copyOf = (
  { pid, user, database }: Session,
  { schema, name }: Pick<KvTable, 'schema' | 'name'>,
  direction: CopyState['direction'],
): CopyBegun => ({ pid, user, database, table: `${schema}.${name}`, direction });
