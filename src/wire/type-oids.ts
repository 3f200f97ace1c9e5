// Built-in types by OID, which are the same on every server: the one table of them, with what they are called in SQL. Types
// made by users have other OIDs on each shard, and names that depend on the search path; they are not here.
// https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat

export const TypeOid = {
  /** In a Parse message: the server infers the type. */
  unspecified: 0,
  bool: 16,
  bytea: 17,
  char: 18,
  name: 19,
  int8: 20,
  int2: 21,
  int4: 23,
  text: 25,
  oid: 26,
  json: 114,
  xml: 142,
  point: 600,
  cidr: 650,
  float4: 700,
  float8: 701,
  unknown: 705,
  macaddr8: 774,
  money: 790,
  macaddr: 829,
  inet: 869,
  byteaArray: 1001,
  int4Array: 1007,
  textArray: 1009,
  varcharArray: 1015,
  int8Array: 1016,
  bpchar: 1042,
  varchar: 1043,
  date: 1082,
  time: 1083,
  timestamp: 1114,
  timestamptz: 1184,
  timestamptzArray: 1185,
  interval: 1186,
  intervalArray: 1187,
  timetz: 1266,
  bit: 1560,
  varbit: 1562,
  numeric: 1700,
  uuid: 2950,
  pgLsn: 3220,
  tsvector: 3614,
  tsquery: 3615,
  jsonb: 3802,
  jsonbArray: 3807,
  jsonpath: 4072,
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
  [TypeOid.json, 'json'],
  [TypeOid.xml, 'xml'],
  [TypeOid.point, 'point'],
  [TypeOid.cidr, 'cidr'],
  [TypeOid.float4, 'float4'],
  [TypeOid.float8, 'float8'],
  [TypeOid.macaddr8, 'macaddr8'],
  [TypeOid.money, 'money'],
  [TypeOid.macaddr, 'macaddr'],
  [TypeOid.inet, 'inet'],
  [TypeOid.bpchar, 'bpchar'],
  [TypeOid.varchar, 'varchar'],
  [TypeOid.date, 'date'],
  [TypeOid.time, 'time'],
  [TypeOid.timestamp, 'timestamp'],
  [TypeOid.timestamptz, 'timestamptz'],
  [TypeOid.interval, 'interval'],
  [TypeOid.timetz, 'timetz'],
  [TypeOid.bit, 'bit'],
  [TypeOid.varbit, 'varbit'],
  [TypeOid.numeric, 'numeric'],
  [TypeOid.uuid, 'uuid'],
  [TypeOid.pgLsn, 'pg_lsn'],
  [TypeOid.tsvector, 'tsvector'],
  [TypeOid.tsquery, 'tsquery'],
  [TypeOid.jsonb, 'jsonb'],
  [TypeOid.jsonpath, 'jsonpath'],
  [TypeOid.xid8, 'xid8'],
]);

/** OIDs from here on are given by each database in its own order (FirstNormalObjectId). */
export const USER_OID_MIN = 16_384;

/** The name without its schema, which is pg_catalog; undefined for types that are not here. */
export const builtinTypeName = (oid: number): string | undefined => NAMES.get(oid);

/** What a message calls a type. */
export const typeInWords = (oid: number): string => NAMES.get(oid) ?? `with OID ${oid}`;
