// UPDATE and DELETE over several shards, atomically (D14): the same statements to plain Postgres and through pgkv leave the same
// rows and give the same answers; what fails on one shard is done on none; who may not take part is told why.
import t, { type Test } from 'tap';
import { encodeCancel } from '../support/frontend-message.js';
import { connectTo, valueFrom } from '../support/kv-extension.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { spreadServers, TENANTS } from '../support/spread-servers.js';
import type { ServerError, SqlClient } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const STATEMENTS = Number(process.env['PGKV_STATEMENTS'] ?? 60);

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  for (const shards of version === '15' ? [3] : [1, 3, 5])
    t.test(`Postgres ${version}, ${shards} shards`, skip, (t) => spread(t, version, shards));
}

async function spread(t: Test, version: '15' | 'embedded', shards: number): Promise<void> {
  const servers = await spreadServers(t, version, shards);
  const { admins, client, cluster, decisions, fill, live, plain, prepared, rows } = servers;
  const answer = async (of: SqlClient, sql: string): Promise<unknown> => {
    try {
      return await of.run(sql);
    } catch (error) {
      const { fields } = error as ServerError;
      return [fields['C'], fields['M'], fields['P']];
    }
  };

  t.test(`the same rows and answers as on one server (seed ${SEED})`, async (t) => {
    const random = new SeededRandom(SEED, shards);
    await fill();
    for (let n = 0; n < STATEMENTS; n++) {
      if (random.oneIn(25)) await fill();
      const sql = statement(random);
      t.strictSame(await answer(client, sql), await answer(plain, sql), sql);
      if (!t.strictSame(await rows(client), await rows(plain), sql)) return;
    }
    t.strictSame(await prepared(), []);
  });

  if (shards === 1) return;

  t.test('what fails on one shard is done on none', async (t) => {
    await fill();
    const before = await rows(client);
    await admins[1]!.query(`ALTER TABLE kv ADD CONSTRAINT small CHECK ((value ->> 'n')::int < 100) NOT VALID`);
    const sql = `UPDATE kv SET value = '{"n": 1000}'`;
    t.equal(await client.fails(sql), '23514');
    t.strictSame(await rows(client), before);
    await admins[1]!.query('ALTER TABLE kv DROP CONSTRAINT small');
    // One that comes with the commit.
    await admins[1]!.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
      CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON kv DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`);
    t.equal(await client.fails(sql), 'P0001');
    t.strictSame(await rows(client), before);
    await admins[1]!.query('DROP TRIGGER late ON kv; DROP FUNCTION refuse()');
    t.strictSame(await client.run(sql), ['UPDATE 36']);
    t.strictSame(await prepared(), []);
  });

  t.test('where one shard has written there is nothing to prepare', async (t) => {
    await fill();
    const before = await decisions();
    t.strictSame(await client.run(`UPDATE kv SET value = NULL WHERE value ->> 'n' = '3' AND tenant_id = 'acme'`), [
      'UPDATE 1',
    ]);
    t.equal(await decisions(), before);
    t.strictSame(await client.run('UPDATE kv SET value = NULL'), ['UPDATE 36']);
    t.equal(await decisions(), before + 1);
  });

  t.test('beside another statement, or where it returns the time it is refused as before', async (t) => {
    for (const sql of ['DELETE FROM kv RETURNING now()', 'DELETE FROM kv; DELETE FROM kv']) {
      t.equal(await client.fails(sql), '0A000', sql);
    }
    await client.run(`SET pgkv.cross_shard = 'refuse'`);
    t.equal((await client.failsWith('DELETE FROM kv')).fields['D'], 'PGKV-061');
    await client.run('RESET pgkv.cross_shard; SET default_transaction_isolation = serializable');
    t.match(await client.failsWith('DELETE FROM kv'), { fields: { D: 'PGKV-084', M: /serializable/ } });
    await client.run('RESET default_transaction_isolation; SET synchronous_commit = off');
    t.strictSame(await client.run('DELETE FROM kv'), ['DELETE 36']);
    await client.run('RESET synchronous_commit');
  });

  t.test(
    'pgkv.cross_shard = per_shard: each shard commits by itself, and what only some have done is told',
    async (t) => {
      await fill();
      const before = await decisions();
      await admins[1]!.query('REVOKE app FROM pgkv_recover');
      await client.run(`SET pgkv.cross_shard = 'per_shard'`);
      t.strictSame(await client.run(`UPDATE kv SET value = '{"n": 5}'`), ['UPDATE 36']);
      t.equal(await decisions(), before);
      // What fails before the commit is on no shard.
      await admins[1]!.query(`ALTER TABLE kv ADD CONSTRAINT small CHECK ((value ->> 'n')::int < 100) NOT VALID`);
      t.equal(await client.fails(`UPDATE kv SET value = '{"n": 1000}'`), '23514');
      t.equal(await client.value(`SELECT count(*) FROM kv WHERE value ->> 'n' = '5'`), '36');
      await admins[1]!.query('ALTER TABLE kv DROP CONSTRAINT small');
      await admins[1]!.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
      CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON kv DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`);
      const told = await client.failsWith(`UPDATE kv SET value = '{"n": 6}'`);
      t.match(told.fields, {
        C: '08007',
        M: /^committed on some shards only.*"s1"/,
        D: /Rolled back on "s2"; not known of none/,
      });
      const left = await client.value(`SELECT count(*) FROM kv WHERE value ->> 'n' = '5'`);
      t.equal(left, String(await valueFrom(admins[1]!, 'SELECT count(*) FROM kv')));
      await admins[1]!.query('DROP TRIGGER late ON kv; DROP FUNCTION refuse()');
      await admins[1]!.query('GRANT app TO pgkv_recover');
      await client.run('RESET pgkv.cross_shard');
    },
  );

  t.test('who could not be recovered is told so, by its GRANT', async (t) => {
    await fill();
    await admins[1]!.query('REVOKE app FROM pgkv_recover');
    const before = await rows(client);
    const refused = await client.failsWith('DELETE FROM kv');
    t.match(refused.fields, { C: '0A000', D: 'PGKV-084', M: /missing on this shard: GRANT app TO pgkv_recover/ });
    t.strictSame(await rows(client), before);
    await admins[1]!.query('GRANT app TO pgkv_recover');
    t.strictSame(await client.run('DELETE FROM kv'), ['DELETE 36']);
  });

  t.test('a cancel while it waits for a lock takes all of it back', async (t) => {
    await fill();
    const holder = await connectTo(t, cluster.servers[1]!);
    await holder.query('BEGIN; LOCK TABLE kv');
    const running = client.fails('DELETE FROM kv');
    const waits = `SELECT count(*)::int FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE%'`;
    while ((await valueFrom(admins[1]!, waits)) === 0);
    const data = client.wire.received.find((message) => message.type === 'BackendKeyData');
    if (data?.type !== 'BackendKeyData') throw new Error('no cancel key was sent');
    const request = await WireClient.open(live);
    request.sendBytes(encodeCancel(data.pid, data.key));
    await request.wait('closed');
    request.destroy();
    t.equal(await running, '57014');
    await holder.query('ROLLBACK');
    t.equal(await client.value('SELECT count(*) FROM kv'), '36');
  });
}

function statement(random: SeededRandom): string {
  const tenant = `'${random.pick(TENANTS).replaceAll("'", "''")}'`;
  const key = () => `'k${random.integer(14)}'`;
  const where = random.pick([
    '',
    `WHERE tenant_id = ${tenant}`,
    `WHERE tenant_id = ${tenant} AND key IN (${key()}, ${key()}, ${key()})`,
    `WHERE tenant_id = ${tenant} AND key >= ${key()}`,
    `WHERE (value ->> 'n')::int % ${random.between(2, 4)} = 0`,
    `WHERE value ->> 'n' = '${random.integer(14)}'`,
    `WHERE key LIKE 'k1%' OR value IS NULL`,
    'WHERE false',
    `WHERE no_such_column = 1`,
    'WHERE key = $1',
    `WHERE key = 'k1' AND 1 / (length(key) - 2) > 0`,
  ]);
  if (random.oneIn(5)) return `DELETE FROM kv ${where}`;
  const value = random.pick([
    `value = jsonb_set(value, '{n}', to_jsonb((value ->> 'n')::int + 1))`,
    `value = '{"n": ${random.integer(100)}}'`,
    `value = NULL`,
    `value = value || '{"m": "x"}'`,
    `value = '{"n": '`,
  ]);
  return `UPDATE kv SET ${value} ${where}`;
}
