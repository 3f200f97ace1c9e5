// What a user is told where a statement on a key-value table is refused: the reason, and what to do instead (D10).
import type { KvRefused, Refusal } from './kv-plan.js';

export const refused = (detail: string, hint: string): KvRefused => ({ kind: 'refused', detail, hint });

export const ONE_STATEMENT_EACH = 'Send it as statements of their own, each on one key-value table.';

/** For whatever has no better answer. */
export const NOT_UNDERSTOOD: KvRefused = refused(
  'The statement is built in a way that is not understood where a key-value table is concerned.',
  'Write it in a plainer form: one table, no enclosing parentheses, keys as literals or parameters.',
);

export const SEVERAL_SHARDS_WRITE: Refusal = {
  detail: 'Rows on several shards would be written or locked.',
  hint: 'Name one key (tenant_id = … AND key = …) in each statement, or keep keys together on one shard with a {tag}.',
};

export const SEVERAL_SHARDS_CALL: Refusal = {
  detail: 'The functions of the statement are called for keys on several shards.',
  hint: 'Call them for one key in each statement, or keep keys together on one shard with a {tag}.',
};

export const SEVERAL_SHARDS_EXPLAIN: Refusal = {
  detail: 'EXPLAIN of a statement that concerns several shards is not supported.',
  hint: 'EXPLAIN (ROUTE) shows which shards it goes to; EXPLAIN of the statement for one key shows that key’s plan.',
};

export const SEVERAL_SHARDS_TEXT: Refusal = {
  detail: 'A query of several statements concerns keys on several shards.',
  hint: 'Send the statements one by one, or keep their keys together on one shard with a {tag}.',
};

const ONE_SHARD_ONLY = 'This kind of statement is not supported on a key-value table: it would reach one shard only.';
const ON_EACH = 'Run it on the server of each shard, the same on all.';
const SCHEMA_HINT = 'Tables of this kind are made with pgkv table create, on all shards at once.';

/** By type of node: statements that are never run on a key-value table. */
const BY_STATEMENT: ReadonlyMap<string, KvRefused> = new Map(
  (
    [
      [
        'MergeStmt',
        'MERGE on a key-value table is not supported.',
        'Use INSERT … ON CONFLICT (tenant_id, key) DO UPDATE.',
      ],
      ['CopyStmt', 'COPY of a key-value table is not supported.', 'Use INSERT with VALUES, or SELECT.'],
      [
        'TruncateStmt',
        'TRUNCATE of a key-value table is not supported.',
        'Delete its keys with DELETE … WHERE tenant_id = … AND key = ….',
      ],
      [
        'LockStmt',
        'LOCK of a key-value table is not supported: it would lock one shard only.',
        'Lock a key with SELECT … WHERE tenant_id = … AND key = … FOR UPDATE.',
      ],
      [
        'DeclareCursorStmt',
        'Cursors over key-value tables are not supported.',
        'Run the SELECT itself; a client can fetch its rows piecemeal with the protocol’s row limit.',
      ],
      [
        'PrepareStmt',
        'PREPARE of a statement on a key-value table is not supported.',
        'Use the prepared statements of your driver (the extended protocol).',
      ],
      [
        'ExecuteStmt',
        'EXECUTE with a key-value table in its arguments is not supported.',
        'Use the prepared statements of your driver (the extended protocol).',
      ],
      ['ViewStmt', 'Views over key-value tables are not supported.', 'Query the table itself.'],
      [
        'CreateTableAsStmt',
        'Tables made from key-value tables are not supported.',
        'Read the rows with SELECT and insert them into the other table.',
      ],
      [
        'DoStmt',
        'A DO block that names a key-value table would see the rows of one shard only.',
        'Send its statements from the client, each on one key.',
      ],
      [
        'CallStmt',
        'CALL with a function of a key-value table in its arguments is not supported.',
        'Call the function with SELECT.',
      ],
      [
        'CreateFunctionStmt',
        'A function that names a key-value table would see the rows of one shard only.',
        'Send its statements from the client, each on one key.',
      ],
      [
        'VacuumStmt',
        'VACUUM and ANALYZE of a key-value table are not supported.',
        'Autovacuum takes care of it; run it on a shard directly where you must.',
      ],
      [
        'DropStmt',
        ONE_SHARD_ONLY,
        'Use pgkv table drop for the table itself; drop what else there is on the server of each shard.',
      ],
      ...['GrantStmt', 'AlterTableStmt', 'IndexStmt', 'RenameStmt', 'CommentStmt'].map(
        (statement) => [statement, ONE_SHARD_ONLY, ON_EACH] as const,
      ),
    ] as const
  ).map(([statement, detail, hint]) => [statement, refused(detail, hint)]),
);

const ANY_OTHER = refused(ONE_SHARD_ONLY, SCHEMA_HINT);

/** pgkv.create_table and the like. */
export const SETUP_CALL = refused(
  'Functions of the extension that make, change or drop key-value tables would do so on one shard only.',
  'Use pgkv table create or pgkv table drop.',
);

export const refusalOfStatement = (nodeType: string): KvRefused => BY_STATEMENT.get(nodeType) ?? ANY_OTHER;
