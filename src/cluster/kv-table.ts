// A key-value table as the router knows it: its name, where it is, and the columns every such table has (D4).

export type ValueType = 'jsonb' | 'bytea';

export interface KvTable {
  /** Schema in which the table and its functions `<name>_get` … are, the same on every shard. */
  readonly schema: string;
  readonly name: string;
  readonly valueType: ValueType;
}

/** In the order of the table's definition. */
export const KV_COLUMNS = ['tenant_id', 'key', 'version', 'value', 'ttl', 'updated_at', 'slot'] as const;
export type KvColumn = (typeof KV_COLUMNS)[number];
