// Built-in types by OID, which are the same on every server: what they are called in SQL. Types made by users have other
// OIDs on each shard, and names that depend on the search path; they are not here.
// https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat

export const TypeOid = {
  bool: 16,
  bytea: 17,
  char: 18,
  name: 19,
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  oid: 26,
  float4: 700,
  float8: 701,
  unknown: 705,
  money: 790,
  varchar: 1043,
  date: 1082,
  time: 1083,
  timestamp: 1114,
  timestamptz: 1184,
  numeric: 1700,
  uuid: 2950,
  pgLsn: 3220,
  xid8: 5069,
} as const;

/** Those that can stand in an array and be sent in binary; no arrays, which unnest() would take apart. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [TypeOid.bool, 'bool'],
  [TypeOid.bytea, 'bytea'],
  [TypeOid.char, '"char"'],
  [TypeOid.name, 'name'],
  [TypeOid.int8, 'int8'],
  [TypeOid.int2, 'int2'],
  [TypeOid.int4, 'int4'],
  [TypeOid.text, 'text'],
  [TypeOid.oid, 'oid'],
  [114, 'json'],
  [142, 'xml'],
  [600, 'point'],
  [650, 'cidr'],
  [TypeOid.float4, 'float4'],
  [TypeOid.float8, 'float8'],
  [774, 'macaddr8'],
  [TypeOid.money, 'money'],
  [829, 'macaddr'],
  [869, 'inet'],
  [1042, 'bpchar'],
  [TypeOid.varchar, 'varchar'],
  [TypeOid.date, 'date'],
  [TypeOid.time, 'time'],
  [TypeOid.timestamp, 'timestamp'],
  [TypeOid.timestamptz, 'timestamptz'],
  [1186, 'interval'],
  [1266, 'timetz'],
  [1560, 'bit'],
  [1562, 'varbit'],
  [TypeOid.numeric, 'numeric'],
  [TypeOid.uuid, 'uuid'],
  [TypeOid.pgLsn, 'pg_lsn'],
  [3614, 'tsvector'],
  [3615, 'tsquery'],
  [3802, 'jsonb'],
  [4072, 'jsonpath'],
  [TypeOid.xid8, 'xid8'],
]);

/** OIDs from here on are given by each database in its own order (FirstNormalObjectId). */
export const USER_OID_MIN = 16_384;

/** The name without its schema, which is pg_catalog; undefined for types that are not here. */
export const builtinTypeName = (oid: number): string | undefined => NAMES.get(oid);

/** What a message calls a type. */
export const typeInWords = (oid: number): string => NAMES.get(oid) ?? `with OID ${oid}`;
