// D2, D3: the triggers that keep slot and version right under SQL run directly on a shard, and keep out of the way of
// pgkv's own statements.
import { errorOf, onEveryPostgres, rowsOf, valueFrom } from '../../support/kv-extension.js';

onEveryPostgres(async (t, kv) => {
  const client = await kv.connect(t);
  const router = await kv.connect(t, { options: '-c pgkv.router=on' });
  await client.query(`SELECT pgkv.create_table('kv')`);
  t.beforeEach(async () => {
    await client.query(`DELETE FROM kv`);
    await client.query(`INSERT INTO kv (tenant_id, key, value, updated_at) VALUES ('t', 'k', '1', '2020-01-01Z')`);
  });

  t.test('an INSERT without a slot gets the right one', async (t) => {
    await client.query(`INSERT INTO kv (tenant_id, key, slot) VALUES ('t', 'a', DEFAULT), ('t', 'b{x}', NULL)`);
    await client.query(`INSERT INTO kv (tenant_id, key, slot) VALUES ('t', 'c', pgkv.slot('t', 'c'))`);
    await router.query(`INSERT INTO kv (tenant_id, key) VALUES ('t', 'd')`);
    t.equal(await valueFrom(client, 'SELECT count(*)::int FROM kv WHERE slot = pgkv.slot(tenant_id, key)'), 5);
  });

  t.test('a wrong slot is refused, with the right one named', async (t) => {
    const right = await valueFrom(client, `SELECT pgkv.slot('t', 'a')`);
    for (const write of [
      `INSERT INTO kv (tenant_id, key, slot) VALUES ('t', 'a', 0)`,
      `INSERT INTO kv (tenant_id, key, slot) VALUES ('t', 'a', 0) ON CONFLICT DO NOTHING`,
      `INSERT INTO kv (tenant_id, key, slot) VALUES ('t', 'a', 99999)`,
      `UPDATE kv SET key = 'a'`,
      `UPDATE kv SET key = 'a', slot = 0`,
    ]) {
      const error = await errorOf(client, write);
      t.match([error.code, error.detail, error.table, error.column], ['23514', `slot ${right}.`, 'kv', 'slot'], write);
    }
    t.equal((await errorOf(client, `UPDATE kv SET slot = slot + 1`)).code, '23514');
    t.equal((await errorOf(client, `UPDATE kv SET tenant_id = 'u'`)).code, '23514');
    t.equal((await errorOf(client, `INSERT INTO kv (tenant_id, key, slot) VALUES (NULL, 'a', 1)`)).code, '23502');
    t.equal((await errorOf(client, `INSERT INTO kv (tenant_id, key) VALUES ('t', NULL)`)).code, '23502');
  });

  t.test('slots of other shards are refused wherever rows come from, but for statements built by pgkv', async (t) => {
    const all = Array.from({ length: 40 }, (_, index) => `k${index}`);
    const slotOf = new Map(
      (await rowsOf(client, `SELECT k, pgkv.slot('t', k) FROM unnest($1::text[]) k`, [all])) as [string, number][],
    );
    const owned = [...slotOf.values()].filter((_, index) => index % 3 !== 0);
    const ranges = (slots: readonly number[]) => `{${slots.map((slot) => `[${slot},${slot}]`).join(',')}}`;
    t.teardown(() => client.query(`DELETE FROM pgkv.shard_state`));
    let epoch = 0;
    const writes = [
      (key: string) => `INSERT INTO kv (tenant_id, key) VALUES ('t', '${key}')`,
      (key: string) => `INSERT INTO kv (tenant_id, key, slot) VALUES ('t', '${key}', ${slotOf.get(key)})`,
      (key: string) => `INSERT INTO kv (tenant_id, key) VALUES ('t', '${key}') ON CONFLICT DO NOTHING`,
      (key: string) => `UPDATE kv SET key = '${key}', slot = NULL`,
      (key: string) => `DO $$ BEGIN INSERT INTO kv (tenant_id, key) VALUES ('t', '${key}'); END $$`,
      (key: string) => `SELECT kv_put('t', '${key}', '1')`,
      (key: string) => `SELECT * FROM kv_put_many('{t}', '{${key}}', '{1}')`,
      (key: string) => `SELECT * FROM kv_cas('t', '${key}', 0, '1')`,
    ];
    const isWritten = async (sql: string, by = client): Promise<boolean> => {
      await by.query('BEGIN');
      try {
        await by.query(sql);
        return true;
      } catch (error) {
        const { code, message } = error as { code: string; message: string };
        if (code === '23514' && / belongs to another shard$/.test(message)) return false;
        throw error;
      } finally {
        await by.query('ROLLBACK');
      }
    };
    // The same session, with its plans, through changes of what the shard owns.
    for (const slots of [owned, [], owned.slice(5), [...slotOf.values()]]) {
      await client.query(`SELECT pgkv.set_shard_state('s', $1, $2)`, [++epoch, ranges(slots)]);
      for (const [key, slot] of slotOf) {
        const write = writes[slot % writes.length]!(key);
        t.equal(await isWritten(write), slots.includes(slot), write);
        t.ok(await isWritten(writes[1]!(key), router), 'pgkv built it');
      }
    }
    await client.query(`DELETE FROM pgkv.shard_state`);
    for (const [key] of slotOf) t.ok(await isWritten(writes[0]!(key)), 'a server of no cluster takes all');
  });

  t.test('a row can move to another key if its slot moves along, and saves of ORMs pass', async (t) => {
    await client.query(`UPDATE kv SET key = 'a', slot = NULL`);
    t.ok(await valueFrom(client, `SELECT slot = pgkv.slot('t', 'a') FROM kv`));
    await client.query(`UPDATE kv SET tenant_id = tenant_id, key = key, slot = slot, value = '2'`);
    t.equal(await valueFrom(client, `SELECT value FROM kv`), 2);
  });

  t.test('nothing is checked or computed for the router', async (t) => {
    await router.query(`INSERT INTO kv (tenant_id, key, slot) VALUES ('t', 'a', 5)`);
    await router.query(`UPDATE kv SET slot = 6 WHERE key = 'a'`);
    t.equal(await valueFrom(client, `SELECT slot FROM kv WHERE key = 'a'`), 6);
    await router.query(`SET pgkv.router = off`);
    t.equal((await errorOf(router, `UPDATE kv SET slot = 7 WHERE key = 'a'`)).code, '23514');
    await router.query(`RESET pgkv.router`);
    await client.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''fired''; END'`);
    for (const trigger of ['pgkv_slot', 'pgkv_version']) {
      const definition = `SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = $1 AND tgrelid = 'kv'::regclass`;
      const made = (await valueFrom(client, definition, [trigger])) as string;
      t.match(made, /WHEN \(/);
      await client.query(
        made.replace('CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER').replace(/pgkv\.keep_\w+/, 'refuse'),
      );
    }
    await router.query(`INSERT INTO kv (tenant_id, key, slot) VALUES ('t', 'b', 5)
      ON CONFLICT (tenant_id, key, slot) DO UPDATE SET value = '2', version = kv.version + 1`);
    await router.query(`UPDATE kv SET value = '3', version = version + 1, updated_at = statement_timestamp()`);
    await router.query(`UPDATE kv SET value = '3', version = version + 1, slot = slot`);
    t.equal((await errorOf(router, `UPDATE kv SET value = '3'`)).message, 'fired');
    await client.query(`SELECT pgkv.refresh_table('kv')`);
    await router.query(`UPDATE kv SET value = '4'`);
  });

  t.test('an UPDATE raises version and updated_at, once', async (t) => {
    const state = async () =>
      (await rowsOf(client, `SELECT version, updated_at > now() - interval '1 min' FROM kv`))[0]!;
    const [version, recent] = await state();
    t.equal(recent, false);
    const risen = (by: bigint) => String(BigInt(version as string) + by);
    await client.query(`UPDATE kv SET value = '2'`);
    t.strictSame(await state(), [risen(1n), true]);
    await client.query(`UPDATE kv SET value = '3', version = version`);
    t.strictSame(await state(), [risen(2n), true]);
    await client.query(`INSERT INTO kv (tenant_id, key, value) VALUES ('t', 'k', '4')
      ON CONFLICT (tenant_id, key, slot) DO UPDATE SET value = excluded.value`);
    t.strictSame(await state(), [risen(3n), true]);
    await client.query(`UPDATE kv SET value = '5', updated_at = '2021-01-01Z'`);
    t.strictSame(await state(), [risen(4n), false], 'an updated_at that the statement sets is left alone');
    await client.query(`SELECT kv_put('t', 'k', '6')`);
    t.strictSame(await state(), [risen(5n), true]);
  });

  t.test('a version that the statement sets is left alone', async (t) => {
    const version = (await valueFrom(client, 'SELECT version FROM kv')) as string;
    const next = String(BigInt(version) + 1n);
    const save = `UPDATE kv SET value = '2', version = version + 1 WHERE key = 'k' AND version = $1`;
    t.equal((await client.query(save, [version])).rowCount, 1);
    t.equal(await valueFrom(client, 'SELECT version FROM kv'), next);
    t.equal((await client.query(save, [version])).rowCount, 0, 'the stale one finds nothing');
    await client.query('UPDATE kv SET version = 7');
    t.equal(await valueFrom(client, 'SELECT version FROM kv'), '7');
  });

  t.test('an expired row is not raised: it is no write to the key', async (t) => {
    await client.query(`UPDATE kv SET ttl = '2020-01-01Z', version = 7`);
    await client.query(`UPDATE kv SET value = '2'`);
    t.equal(await valueFrom(client, 'SELECT version FROM kv'), '7');
  });

  t.test('a version default of 1 counts 1, 2, 3', async (t) => {
    await client.query(`SELECT pgkv.create_table('counted'); ALTER TABLE counted ALTER version SET DEFAULT 1`);
    t.equal(await valueFrom(client, `SELECT counted_put('t', 'k', '1')`), '1');
    t.equal(await valueFrom(client, `SELECT counted_put('t', 'k', '1')`), '2');
    await client.query(`UPDATE counted SET value = '2'`);
    t.equal(await valueFrom(client, 'SELECT version FROM counted'), '3');
  });
});
