// Every rule by which pgkv refuses a statement, as data: code, reason and what to do instead (D10). Codes are stable and
// never used twice; docs/REFUSALS.md lists them, and test/house/refusals.test.ts holds the two equal. `{word}` in a text
// is filled in where it is refused (refusals.ts).

export interface RefusalRule {
  /** PGKV- and three digits: the DETAIL of the error. */
  readonly code: string;
  /** The message of the error, as Postgres writes messages: no capital, no full stop. */
  readonly reason: string;
  /** HINT: what to do instead. A sentence. */
  readonly hint: string;
  /** A setting forbids it: 54000 in place of 0A000. */
  readonly isLimit?: true;
}

const rule = (code: string, reason: string, hint: string): RefusalRule => ({ code, reason, hint });

const DRIVER_STATEMENTS = 'Use the prepared statements of your driver (the extended protocol).';
const FROM_THE_CLIENT = 'Send its statements from the client, each on one key.';
const ON_EACH_SERVER = 'Run it on the server of each shard, the same on all.';
const ONE_ROW = 'Use INSERT INTO … (tenant_id, key, …) VALUES (…).';
const KEEP_TOGETHER = 'or keep keys together on one shard with a {{tag}}';

export const REFUSAL_RULES = {
  // Kinds of statements that are not run on a key-value table.
  merge: rule(
    'PGKV-001',
    'MERGE on a key-value table is not supported',
    'Use INSERT … ON CONFLICT (tenant_id, key) DO UPDATE.',
  ),
  copy: rule(
    'PGKV-002',
    'COPY of a key-value table is supported by simple query, FROM STDIN and TO STDOUT only, of the table or of a SELECT',
    'Copy from and to the client (in psql, \\copy).',
  ),
  copy_options: rule(
    'PGKV-018',
    'COPY from several shards does not know an option that is given, or its value',
    'Use FORMAT, DELIMITER, NULL, HEADER, QUOTE, ESCAPE and FORCE_QUOTE, each once and as Postgres takes them.',
  ),
  copy_encoding: rule(
    'PGKV-019',
    'COPY from several shards in client_encoding {encoding}, in which a byte below 128 may be part of a character',
    'Use client_encoding UTF8.',
  ),
  copy_in_option: rule(
    'PGKV-088',
    'COPY into a key-value table does not take {option}',
    'Use FORMAT, DELIMITER, NULL, HEADER, QUOTE, ESCAPE, FORCE_NOT_NULL and FORCE_NULL, as Postgres takes them.',
  ),
  copy_in_block: rule(
    'PGKV-089',
    'COPY into a key-value table cannot stand behind what was executed in an open batch (messages of the extended protocol without a Sync)',
    'Send a Sync before it.',
  ),
  truncate: rule(
    'PGKV-003',
    'TRUNCATE of a key-value table is not supported',
    'Delete its keys with DELETE … WHERE tenant_id = … AND key = ….',
  ),
  lock: rule(
    'PGKV-004',
    'LOCK of a key-value table is not supported: it would lock one shard only',
    'Lock a key with SELECT … WHERE tenant_id = … AND key = … FOR UPDATE.',
  ),
  cursor: rule(
    'PGKV-005',
    'cursors over key-value tables are not supported',
    'Run the SELECT itself; a client can fetch its rows piecemeal with the row limit of the protocol.',
  ),
  prepare: rule('PGKV-006', 'PREPARE of a statement on a key-value table is not supported', DRIVER_STATEMENTS),
  execute_argument: rule(
    'PGKV-007',
    'EXECUTE with a key-value table in its arguments is not supported',
    DRIVER_STATEMENTS,
  ),
  view: rule('PGKV-008', 'views over key-value tables are not supported', 'Query the table itself.'),
  table_from_rows: rule(
    'PGKV-009',
    'tables made from key-value tables are not supported',
    'Read the rows with SELECT and insert them into the other table.',
  ),
  do_block: rule(
    'PGKV-010',
    'a DO block that names a key-value table would see the rows of one shard only',
    FROM_THE_CLIENT,
  ),
  call: rule(
    'PGKV-011',
    'CALL with a function of a key-value table in its arguments is not supported',
    'Call the function with SELECT.',
  ),
  function_body: rule(
    'PGKV-012',
    'a function that names a key-value table would see the rows of one shard only',
    FROM_THE_CLIENT,
  ),
  vacuum: rule(
    'PGKV-013',
    'VACUUM and ANALYZE of a key-value table are not supported',
    'Autovacuum takes care of it; run it on the server of a shard where you must.',
  ),
  drop: rule(
    'PGKV-014',
    'DROP that names a key-value table is not supported: it would reach one shard only',
    'Use pgkv table drop for the table itself; drop what else there is on the server of each shard.',
  ),
  schema_change: rule(
    'PGKV-015',
    'this kind of statement is not supported on a key-value table: it would reach one shard only',
    ON_EACH_SERVER,
  ),
  other_statement: rule(
    'PGKV-016',
    'this kind of statement is not supported where it names a key-value table: it would reach one shard only',
    'Tables of this kind are made with pgkv table create, on all shards at once; do the rest on the server of each shard.',
  ),
  setup_call: rule(
    'PGKV-017',
    'functions of the extension that make, change or drop key-value tables would do so on one shard only',
    'Use pgkv table create or pgkv table drop.',
  ),

  // Statements that name no key-value table and would still change one shard's part only.
  schema_privileges: rule(
    'PGKV-020',
    'privileges on a schema with key-value tables, or on all that is in it, would change on one shard only',
    ON_EACH_SERVER,
  ),
  default_privileges: rule(
    'PGKV-021',
    'default privileges would change on one shard only, so that key-value tables made later would differ',
    ON_EACH_SERVER,
  ),
  schema_with_tables: rule(
    'PGKV-022',
    'a schema with key-value tables would be changed or dropped on one shard only',
    ON_EACH_SERVER,
  ),
  extension: rule(
    'PGKV-023',
    'the extension {name}, which key-value tables need, would be changed or dropped on one shard only',
    ON_EACH_SERVER,
  ),
  owned_objects: rule(
    'PGKV-024',
    'DROP OWNED and REASSIGN OWNED would reach key-value tables on one shard only',
    ON_EACH_SERVER,
  ),
  publication: rule(
    'PGKV-025',
    'a publication of all tables, or of a schema with key-value tables, would publish the rows of one shard only',
    'Name the tables, without key-value tables; publish those on the server of each shard.',
  ),
  tablespace_move: rule(
    'PGKV-026',
    'moving all that is in a tablespace would move key-value tables on one shard only',
    ON_EACH_SERVER,
  ),
  index_of_table: rule(
    'PGKV-027',
    'an index called {name} belongs to a key-value table, and would be changed on one shard only',
    ON_EACH_SERVER,
  ),
  function_of_relation: rule(
    'PGKV-028',
    '{name}() of a key-value table would tell of, or change, one shard only',
    'Ask each shard on its own server and add up.',
  ),
  function_of_query: rule(
    'PGKV-029',
    '{name}() runs a query that may read a key-value table, and would see the rows of one shard only',
    'Send the query itself, or give its text or the name of its table as a literal without any key-value table in it.',
  ),
  two_phase: rule(
    'PGKV-030',
    '{statement} is not supported in a database with key-value tables: the prepared transaction would be on one shard, and be looked for on another',
    'End the transaction with COMMIT or ROLLBACK.',
  ),

  // The form of statements on key-value tables.
  not_understood: rule(
    'PGKV-031',
    'the statement is built in a way that is not understood where a key-value table is concerned',
    'Write it in a plainer form: one table, no enclosing parentheses, keys as literals or parameters.',
  ),
  mixed_statements: rule(
    'PGKV-032',
    'a query of several statements, of which some are on key-value tables, may hold nothing else than those, transaction control, SET, SHOW and SELECTs that neither name a table nor act beyond themselves',
    'Send the other statements on their own.',
  ),
  keyless_statements: rule(
    'PGKV-033',
    'in a query of several statements, each one on a key-value table has to name its keys',
    'Name tenant_id and key in each, or send the statements one by one.',
  ),
  explain_route_beside: rule(
    'PGKV-034',
    'EXPLAIN (ROUTE) has to stand alone',
    'Send it as a statement of its own, on one key-value table.',
  ),
  other_table: rule(
    'PGKV-035',
    'a statement on a key-value table can name that table only, and only once',
    'Send subqueries and statements on other tables on their own, and pass on their results.',
  ),
  call_beside_table: rule(
    'PGKV-036',
    'a function of a key-value table cannot be called in a statement that names a table',
    'Call it in a SELECT of its own.',
  ),
  call_place: rule(
    'PGKV-037',
    'functions of key-value tables are called in the select list or in FROM of a plain SELECT only',
    'Write SELECT kv_…(…), or SELECT … FROM kv_…(…).',
  ),
  call_key_computed: rule(
    'PGKV-038',
    'the first two arguments of a key-value table’s function, which say which keys, have to be known before it is run',
    'Give them as literals or parameters of type text (text[] for the plural forms); a parameter that is used elsewhere, too, needs the cast in each place.',
  ),
  default_values: rule('PGKV-039', 'INSERT … DEFAULT VALUES gives no key', ONE_ROW),
  overriding: rule(
    'PGKV-040',
    'OVERRIDING on a key-value table is not supported',
    'Leave it out: no column is an identity.',
  ),
  insert_select: rule(
    'PGKV-041',
    'INSERT … SELECT into a key-value table is supported from unnest() with names for its columns, from VALUES, and from no table, only',
    `Give arrays as parameters: INSERT INTO … (tenant_id, key, …) SELECT … FROM unnest($1::text[], …) AS u (…).`,
  ),
  values_form: rule(
    'PGKV-042',
    'VALUES with WITH, ORDER BY, LIMIT or the like is not supported in an INSERT into a key-value table',
    ONE_ROW,
  ),
  conflict_target: rule(
    'PGKV-043',
    'rows of a key-value table can conflict on their key only',
    'Write ON CONFLICT (tenant_id, key), or ON CONFLICT DO NOTHING.',
  ),
  key_missing: rule(
    'PGKV-044',
    'an INSERT into a key-value table has to give tenant_id and key',
    'Name both columns and give their values as literals or parameters.',
  ),
  key_computed: rule(
    'PGKV-045',
    'the tenant_id and key of a new row have to be known before the statement is run',
    'Give them as literals or parameters of type text; a parameter that is used elsewhere, too, needs ::text in each place.',
  ),
  slot_computed: rule(
    'PGKV-046',
    'the slot of a new row is what its key hashes to',
    'Leave the column out, or give NULL, DEFAULT, a literal or a parameter that is used for nothing else.',
  ),
  set_operation: rule(
    'PGKV-047',
    'UNION, INTERSECT and EXCEPT over key-value tables are not supported',
    'Send the SELECTs one by one and put their rows together in the client.',
  ),
  select_into: rule(
    'PGKV-048',
    'SELECT INTO from a key-value table is not supported',
    'Read the rows with SELECT and insert them.',
  ),
  table_sample: rule(
    'PGKV-049',
    'TABLESAMPLE of a key-value table is not supported',
    'Use WHERE random() < … instead.',
  ),
  with_clause: rule('PGKV-050', 'WITH beside a key-value table is not supported', 'Write the statement without WITH.'),
  join: rule(
    'PGKV-051',
    'a key-value table cannot be joined with anything',
    'Read its rows with a SELECT of their own and join in the client.',
  ),
  table_command: rule(
    'PGKV-052',
    'TABLE, or a query partly in parentheses, is not supported on a key-value table',
    'Write SELECT … FROM without parentheses around it.',
  ),
  subquery: rule(
    'PGKV-053',
    'a key-value table cannot stand in a subquery',
    'Send the inner query as a statement of its own and pass on its result.',
  ),
  only: rule(
    'PGKV-054',
    'ONLY before a key-value table is not supported',
    'Leave ONLY out: the table has no children.',
  ),
  column_aliases: rule(
    'PGKV-055',
    'new names for the columns of a key-value table are not supported in FROM',
    'Name them in the select list (tenant_id AS …).',
  ),
  update_from: rule(
    'PGKV-056',
    'UPDATE … FROM on a key-value table is not supported',
    'Give the values as parameters or literals.',
  ),
  delete_using: rule(
    'PGKV-057',
    'DELETE … USING on a key-value table is not supported',
    'Name the keys with key IN (…).',
  ),
  current_of: rule('PGKV-058', 'WHERE CURRENT OF on a key-value table is not supported', 'Name the key in the WHERE.'),
  fixed_column: rule(
    'PGKV-059',
    'the column {column} of a row cannot be changed',
    'Insert a row with the new key and delete the old one.',
  ),
  function_effect: rule(
    'PGKV-060',
    '{what} cannot be used in a statement on a key-value table: it may act beyond the row, and would do so on the shard of the key',
    'Send it in a statement of its own and pass on its result; of functions, only those of Postgres itself that change nothing can stand beside a key.',
  ),
  catalogue_lookup: rule(
    'PGKV-079',
    '{what} cannot be used in a statement on a key-value table: it would look for a name in the catalogue of the key’s shard',
    'Send it in a statement of its own and pass on its result: what the name stands for is on the home shard.',
  ),

  // What several shards cannot do together.
  several_shards_write: rule(
    'PGKV-061',
    'rows on several shards would be written or locked',
    `Name one key (tenant_id = … AND key = …) in each statement, ${KEEP_TOGETHER}.`,
  ),
  several_shards_unable: rule(
    'PGKV-084',
    'the statement writes on several shards, which cannot be done atomically: {why}',
    'See docs/OPERATION.md on transactions over several shards, or name one key in each statement.',
  ),
  several_shards_batch: rule(
    'PGKV-085',
    'a batch (the messages up to a Sync) that writes on several shards has a statement that names no keys, or reads several shards',
    'Send that one in a batch of its own.',
  ),
  several_shards_call: rule(
    'PGKV-062',
    'the functions of the statement are called for keys on several shards',
    `Call one plural function, alone in FROM or in the select list, with each array as a parameter that stands nowhere else, a literal or ARRAY[…]; or one key in each statement, ${KEEP_TOGETHER}.`,
  ),
  several_shards_explain: rule(
    'PGKV-063',
    'EXPLAIN of a statement that concerns several shards is not supported',
    'EXPLAIN (ROUTE) shows which shards it goes to; EXPLAIN of the statement for one key shows that key’s plan.',
  ),
  several_shards_text: rule(
    'PGKV-064',
    'a query of several statements concerns keys on several shards',
    `Send the statements one by one, ${KEEP_TOGETHER}.`,
  ),
  several_shards_form: rule('PGKV-065', '{what} cannot be answered from several shards', '{instead}'),
  shards_differ: rule(
    'PGKV-066',
    'shards "{one}" and "{other}" describe the result differently',
    'Bring the table to the same definition on every shard.',
  ),
  partial_type: rule(
    'PGKV-067',
    '{what} cannot be combined over several shards',
    'Cast it to text, or name one tenant_id and key.',
  ),
  sort_type: rule(
    'PGKV-068',
    'rows of several shards cannot be merged by a sort key of type {type}',
    'Sort by a number, a date, a uuid, bytea, or text COLLATE "C"; or name one tenant_id and key.',
  ),
  sort_collation: rule(
    'PGKV-069',
    'rows of several shards cannot be merged by text under a collation that is not byte order',
    'Write COLLATE "C" behind the sort key.',
  ),

  // Values and texts that cannot be read.
  key_unreadable: rule('PGKV-070', 'the key cannot be read: {why}', 'Give tenant_id and key as text, in UTF8.'),
  array_too_long: {
    ...rule(
      'PGKV-092',
      '{why}, the most that are looked at for keys on several shards',
      'Send them in several statements.',
    ),
    isLimit: true,
  },
  slot_unreadable: rule('PGKV-071', 'the slot cannot be read: {why}', 'Leave slot out.'),
  slot_wrong: rule(
    'PGKV-072',
    'the statement states slot {stated} for a key whose slot is {slot}',
    'Leave slot out, or give NULL: pgkv fills it in.',
  ),
  count_unreadable: rule('PGKV-073', '{clause} cannot be read: {why}', 'Give an integer.'),
  unparsed: rule(
    'PGKV-074',
    'the statement cannot be read by pgkv, and may concern a key-value table',
    'Write it in another way.',
  ),
  unread: rule(
    'PGKV-075',
    'the statement is too large or too deeply nested to be read, and may concern a key-value table',
    'Split it, or send its values as parameters.',
  ),
  too_many_tokens: {
    ...rule(
      'PGKV-078',
      'the statement has more than {max} tokens (limits.statement_tokens)',
      'Send long lists of keys as one array, key = ANY ($1); or split the statement, as an INSERT into some of a thousand rows.',
    ),
    isLimit: true,
  },
  encoding: rule(
    'PGKV-076',
    'the text holds characters that pgkv cannot read exactly in its client_encoding, and names of key-value tables do, too',
    'Use client_encoding UTF8.',
  ),
  sort_encoding: rule(
    'PGKV-077',
    'rows of several shards cannot be merged by text whose UTF-8 pgkv does not know in client_encoding {encoding}',
    'Use client_encoding UTF8, or sort by another column.',
  ),

  // Where a statement stands.
  leaves_shard: rule(
    'PGKV-080',
    'a transaction cannot leave its shard: {why}',
    'End the transaction first, or keep the keys together by a common {{tag}} in them.',
  ),
  portal_left: rule(
    'PGKV-081',
    '{name} is on a shard that the batch has left for a statement behind its Bind',
    'Execute a portal before the next one is bound, or keep the keys together by a common {{tag}} in them.',
  ),
  function_call: rule(
    'PGKV-082',
    'a function of a user cannot be called by the FunctionCall message in a database with key-value tables',
    'Call it by SELECT.',
  ),
  replication: rule(
    'PGKV-083',
    'pgkv does not pass on replication connections',
    'Connect to the server of the shard itself.',
  ),
  routerSetting: rule(
    'PGKV-090',
    'the setting pgkv.router is set by pgkv alone: under it the slots of rows are not checked',
    'Leave it out: slots are filled in.',
  ),
  several_shards_arrays: rule(
    'PGKV-091',
    'INSERT … SELECT FROM unnest() for keys on several shards, in a form in which its arrays are not cut',
    'Give each array as a parameter that stands nowhere else, a literal, or ARRAY[…]; leave now() out of RETURNING.',
  ),
} as const satisfies Record<string, RefusalRule>;
