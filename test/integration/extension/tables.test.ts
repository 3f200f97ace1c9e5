// D4, D6: making, renewing and dropping key-value tables, who may use them, and the shard's state row.
import { errorOf, onEveryPostgres, rowsOf, valueFrom } from '../../support/kv-extension.js';

onEveryPostgres(async (t, kv) => {
  const client = await kv.connect(t);
  const value = (sql: string, parameters?: readonly unknown[]) => valueFrom(client, sql, parameters);
  const functionsLike = (pattern: string) =>
    rowsOf(client, 'SELECT proname FROM pg_proc WHERE proname LIKE $1 ORDER BY 1', [pattern]);

  t.test('a table has the columns, key, index and settings of D4', async (t) => {
    t.equal(await value(`SELECT pgkv.create_table('kv')::text`), 'kv');
    t.strictSame(
      await rowsOf(
        client,
        `SELECT attname, format_type(atttypid, NULL), attnotnull, pg_get_expr(adbin, adrelid), collname
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
          LEFT JOIN pg_collation c ON c.oid = attcollation
        WHERE attrelid = 'kv'::regclass AND attnum > 0 ORDER BY attnum`,
      ),
      [
        ['tenant_id', 'text', true, null, 'C'],
        ['key', 'text', true, null, 'C'],
        ['version', 'bigint', true, 'pgkv.first_version()', null],
        ['value', 'jsonb', false, null, null],
        ['ttl', 'timestamp with time zone', false, null, null],
        ['updated_at', 'timestamp with time zone', true, 'statement_timestamp()', null],
        ['slot', 'integer', true, null, null],
      ],
    );
    const indexes = await rowsOf(client, `SELECT indexdef FROM pg_indexes WHERE tablename = 'kv' ORDER BY indexname`);
    t.match(indexes, [[/UNIQUE .*\(tenant_id, key, slot\)$/], [/\(ttl\) WHERE \(ttl IS NOT NULL\)$/]]);
    t.match(await value(`SELECT reloptions::text FROM pg_class WHERE relname = 'kv'`), /fillfactor=90/);
    const triggers = `SELECT tgname FROM pg_trigger WHERE tgrelid = 'kv'::regclass ORDER BY 1`;
    t.strictSame(await rowsOf(client, triggers), [['pgkv_slot'], ['pgkv_version']]);
    t.equal((await errorOf(client, `SELECT pgkv.create_table('kv')`)).code, '42P07', 'a table that is there stays');
  });

  t.test('names are read as in SQL', async (t) => {
    await client.query(`CREATE SCHEMA "Other one"`);
    for (const [name, prefix] of [
      ['"My Table"', '"My Table'],
      ['Folded', '"folded'],
      ['"Other one".kv', '"Other one"."kv'],
      ['"quo""te $$ {=} {table} $1 \\ \'"', '"quo""te $$ {=} {table} $1 \\ \''],
      ['"été"', '"été'],
    ] as const) {
      await client.query('SELECT pgkv.create_table($1)', [name]);
      t.ok(await value(`SELECT ${prefix}_put"('t', 'k', '1') > 0`), name);
      t.strictSame(await rowsOf(client, `SELECT key, value FROM ${prefix}_get_many"('{t}', '{k}')`), [['k', 1]]);
      await client.query('SELECT pgkv.refresh_table($1), pgkv.refresh_table($1)', [name]);
      t.equal(await value(`SELECT ${prefix}_incr"('t', 'k')`), '2');
      await client.query('SELECT pgkv.drop_table($1)', [name]);
      t.equal((await errorOf(client, `SELECT ${prefix}_put"('t', 'k', '1') > 0`)).code, '42883');
    }
    await client.query(`CREATE SCHEMA first; SET search_path = first, public`);
    await client.query(`SELECT pgkv.create_table('here')`);
    t.equal(await value(`SELECT first.here_incr('t', 'k')`), '1', 'an unqualified one goes to the current schema');
    await client.query('SET search_path = nowhere');
    t.equal((await errorOf(client, `SELECT pgkv.create_table('here')`)).code, '3F000');
    await client.query('RESET search_path');
  });

  t.test('what cannot become a table is refused with the reason', async (t) => {
    const error = async (name: string | null, type = 'jsonb') =>
      (await errorOf(client, 'SELECT pgkv.create_table($1, $2)', [name, type])).code;
    t.equal(await error('a b'), '22023');
    t.equal(await error(''), '22023');
    t.equal(await error('a.b.c'), '42602');
    t.equal(await error(null), '42602');
    t.equal(await error('nowhere.kv'), '3F000');
    t.equal(await error('x', 'text'), '22023');
    t.equal(await error('x', null as unknown as string), '22023');
    const longest = 'x'.repeat(48);
    await client.query('SELECT pgkv.create_table($1)', [longest]);
    t.equal(await value(`SELECT count(*)::int FROM ${longest}_expire_at_many('{t}', '{k}', '{2100-01-01}')`), 1);
    const long = await errorOf(client, 'SELECT pgkv.create_table($1)', [`${longest}x`]);
    t.match([long.code, long.hint], ['42622', 'at most 48 bytes']);
    t.equal(await error(`"${'é'.repeat(25)}"`), '42622', 'bytes, not characters');
    await client.query('CREATE TABLE plain (key text, value jsonb)');
    for (const call of ['refresh_table', 'drop_table']) {
      t.equal((await errorOf(client, `SELECT pgkv.${call}('plain')`)).code, '42809');
      t.equal((await errorOf(client, `SELECT pgkv.${call}('nothing')`)).code, '42P01');
    }
  });

  t.test('refresh renews what an older version made, and keeps privileges and what is not ours', async (t) => {
    await client.query(`SELECT pgkv.create_table('r'); CREATE ROLE someone`);
    await client.query(`REVOKE EXECUTE ON FUNCTION r_incr FROM PUBLIC; GRANT EXECUTE ON FUNCTION r_incr TO someone`);
    const mark = `COMMENT ON FUNCTION % IS 'pgkv: function of table public.r'`;
    // As if an older version had had another body, another result, another argument, and one function more.
    await client.query(`CREATE OR REPLACE FUNCTION r_touch(tenant text, key text, ttl interval DEFAULT NULL) RETURNS boolean
      LANGUAGE sql AS 'SELECT NULL::boolean'`);
    await client.query(
      `DROP FUNCTION r_ttl; CREATE FUNCTION r_ttl(tenant text, key text) RETURNS int LANGUAGE sql AS 'SELECT 1'`,
    );
    await client.query(mark.replace('%', 'r_ttl'));
    await client.query(
      `DROP FUNCTION r_persist; CREATE FUNCTION r_persist(t text, k text, x int) RETURNS int LANGUAGE sql AS 'SELECT 1'`,
    );
    await client.query(mark.replace('%', 'r_persist'));
    await client.query(`CREATE FUNCTION r_former() RETURNS int LANGUAGE sql AS 'SELECT 1'`);
    await client.query(mark.replace('%', 'r_former'));
    await client.query(`CREATE FUNCTION r_users_own() RETURNS int LANGUAGE sql AS 'SELECT 1'`);
    await client.query(`DROP TRIGGER pgkv_slot ON r`);
    await client.query(`SELECT pgkv.refresh_table('r')`);
    t.strictSame(
      await rowsOf(client, `SELECT r_put('t', 'k', '1') > 0, r_touch('t', 'k'), r_ttl('t', 'k'), r_persist('t', 'k')`),
      [[true, true, null, true]],
    );
    t.strictSame(await functionsLike('r\\_former'), []);
    t.strictSame(await functionsLike('r\\_users\\_own'), [['r_users_own']]);
    t.equal(
      await value(`SELECT has_function_privilege('someone', 'r_incr(text,text,numeric,interval)', 'EXECUTE')`),
      true,
    );
    t.equal(
      await value(`SELECT has_function_privilege('public', 'r_incr(text,text,numeric,interval)', 'EXECUTE')`),
      false,
    );
    await client.query(`SELECT pgkv.drop_table('r')`);
    t.strictSame(await functionsLike('r\\_%'), [['r_users_own']]);
  });

  t.test('a function of the same name that is not ours is not replaced', async (t) => {
    await client.query(`CREATE FUNCTION mine_get(tenant text, key text) RETURNS int LANGUAGE sql AS 'SELECT 1'`);
    t.equal((await errorOf(client, `SELECT pgkv.create_table('mine')`)).code, '42723');
    t.equal(await value(`SELECT mine_get('t', 'k')`), 1);
    t.equal(await value(`SELECT to_regclass('mine')`), null);
  });

  t.test('a table dropped by DROP TABLE can be made again, with another type of value', async (t) => {
    await client.query(`SELECT pgkv.create_table('again')`);
    await client.query(`DROP TABLE again`);
    await client.query(`SELECT pgkv.create_table('again', 'bytea')`);
    await client.query(`SELECT again_put('t', 'k', '\\x00')`);
    t.strictSame(await functionsLike('again\\_incr%'), []);
  });

  t.test('the tables of a database can be listed', async (t) => {
    const listed = `SELECT value_type, relation::text FROM pgkv.tables WHERE table_schema = 'public' AND table_name = 'again'`;
    t.strictSame(await rowsOf(client, listed), [['bytea', 'again']]);
    t.equal(await value(`SELECT count(*)::int FROM pgkv.tables WHERE table_name = 'plain'`), 0);
  });

  t.test('tables belong to who makes them, and their functions give no rights beyond the table', async (t) => {
    await client.query(
      `CREATE ROLE maker LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE stranger LOGIN; CREATE SCHEMA own AUTHORIZATION maker`,
    );
    const maker = await kv.connect(t, { user: 'maker' });
    const reader = await kv.connect(t, { user: 'reader' });
    const stranger = await kv.connect(t, { user: 'stranger' });
    await maker.query(`SELECT pgkv.create_table('own.kv'); SELECT own.kv_put('t', 'k', '1')`);
    await maker.query(`GRANT USAGE ON SCHEMA own TO reader, stranger; GRANT SELECT ON own.kv TO reader`);
    t.strictSame(await rowsOf(reader, `SELECT value FROM own.kv_get('t', 'k')`), [[1]]);
    t.equal((await errorOf(reader, `SELECT own.kv_put('t', 'k', '2')`)).code, '42501');
    t.equal((await errorOf(stranger, `SELECT * FROM own.kv_get('t', 'k')`)).code, '42501');
    t.equal((await errorOf(stranger, `SELECT pgkv.create_table('own.mine')`)).code, '42501');
    t.equal((await errorOf(stranger, `SELECT pgkv.drop_table('own.kv')`)).code, '42501');
    t.equal(
      (await errorOf(stranger, `CREATE FUNCTION pgkv.trap() RETURNS int LANGUAGE sql AS 'SELECT 1'`)).code,
      '42501',
    );
    t.equal((await errorOf(maker, `SELECT pgkv.set_shard_state('x', 1, '{}')`)).code, '42501');
    await maker.query(`SELECT pgkv.drop_table('own.kv')`);
    await client.query(`SELECT pgkv.set_shard_state('s', 0, '{}')`);
    t.strictSame(await rowsOf(stranger, 'SELECT shard_name FROM pgkv.shard_state'), [['s']], 'all may read it');
  });

  t.test('the state of the shard is one row that an older epoch never overwrites', async (t) => {
    const state = async () =>
      (await rowsOf(client, 'SELECT shard_name, epoch, slots::text FROM pgkv.shard_state')).flat();
    await client.query(`SELECT pgkv.set_shard_state('shard-1', 1, '{[0,8191],[10000,10000]}')`);
    t.strictSame(await state(), ['shard-1', '1', '{[0,8192),[10000,10001)}']);
    await client.query(
      `SELECT pgkv.set_shard_state('shard-1', 3, '{[0,16383]}'), pgkv.set_shard_state('shard-1', 3, '{[0,16383]}')`,
    );
    const old = await errorOf(client, `SELECT pgkv.set_shard_state('shard-1', 2, '{}')`);
    t.equal(old.code, '55000');
    t.strictSame(await state(), ['shard-1', '3', '{[0,16384)}']);
    t.equal((await errorOf(client, `SELECT pgkv.set_shard_state('s', 4, '{[0,16384]}')`)).code, '23514');
    t.equal((await errorOf(client, `SELECT pgkv.set_shard_state('s', -1, '{}')`)).code, '23514');
    t.equal((await errorOf(client, `SELECT pgkv.set_shard_state('s', 4, 'all')`)).code, '22P02');
  });
});
