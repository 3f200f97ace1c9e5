// The decisions of transactions over several shards (D14): who may write them, who waits for whom, and that none
// is written that a crash may take back.
import type pg from 'pg';
import type { Test } from 'tap';
import { blocked, errorOf, type KvServer, onEveryPostgres, rowsOf, valueFrom } from '../../support/kv-extension.js';

let number = 0;
/** A new one, of role `app` unless another is named. */
const newGid = (role = 'app'): string =>
  `pgkv:0123456789abcdef:0123456789ab:${(++number).toString(16).padStart(24, '0')}:${role}`;

const GRANTS = `GRANT EXECUTE ON FUNCTION pgkv.settle(text), pgkv.collect_decisions(text[]) TO pgkv_recover`;

onEveryPostgres(async (t, kv) => {
  const admin = await kv.connect(t);
  await admin.query(`CREATE ROLE app LOGIN; CREATE ROLE "Other: role" LOGIN; CREATE ROLE pgkv_recover LOGIN NOINHERIT`);
  await admin.query(GRANTS);
  // The servers of the tests have it off.
  for (const role of ['app', '"Other: role"', 'pgkv_recover']) {
    await admin.query(`ALTER ROLE ${role} SET synchronous_commit = on`);
  }
  const app = await kv.connect(t, { user: 'app' });
  const other = await kv.connect(t, { user: 'Other: role' });
  const recover = await kv.connect(t, { user: 'pgkv_recover' });
  const settle = (client: pg.Client, gid: string) => valueFrom(client, 'SELECT pgkv.settle($1)', [gid]);
  const decide = (client: pg.Client, gid: string) => client.query('SELECT pgkv.decide($1)', [gid]);

  t.test('a role decides on its own transactions only, whatever it has set its role to', async (t) => {
    const own = newGid();
    await decide(app, own);
    t.equal(await settle(recover, own), 'commit');
    const foreign = newGid();
    const refused = await errorOf(other, 'SELECT pgkv.decide($1)', [foreign]);
    t.match(refused, { code: '42501', message: /is not one of role "Other: role"/ });
    await admin.query('GRANT app TO "Other: role"');
    await other.query('SET ROLE app');
    t.equal((await errorOf(other, 'SELECT pgkv.decide($1)', [foreign])).code, '42501', 'nor as a member of it');
    await other.query('RESET ROLE');
    const odd = newGid('Other: role');
    await decide(other, odd);
    t.equal(await settle(recover, odd), 'commit', 'a name may hold anything');
    for (const gid of ['app', ':app', 'pgkv::::app', ` ${newGid()}`, newGid('')]) {
      t.equal((await errorOf(app, 'SELECT pgkv.decide($1)', [gid])).code, '42501', gid);
    }
    t.equal((await errorOf(app, 'SELECT pgkv.decide(NULL)')).code, '42501');
  });

  t.test('nobody else writes, reads or removes decisions', async (t) => {
    const gid = newGid();
    for (const sql of [
      `INSERT INTO pgkv.decisions VALUES ('${gid}', 'commit')`,
      'DELETE FROM pgkv.decisions',
      'SELECT * FROM pgkv.decisions',
      `SELECT pgkv.write_decision('${gid}', 'abort')`,
      `SELECT pgkv.settle('${gid}')`,
      `SELECT pgkv.collect_decisions('{}')`,
    ]) {
      t.equal((await errorOf(app, sql)).code, '42501', sql);
    }
    for (const sql of ['SELECT * FROM pgkv.decisions', `SELECT pgkv.write_decision('${gid}', 'commit')`]) {
      t.equal((await errorOf(recover, sql)).code, '42501', `pgkv_recover: ${sql}`);
    }
  });

  t.test('whoever decides first has decided', async (t) => {
    const gid = newGid();
    t.equal(await settle(recover, gid), 'abort', 'nobody has decided: it is aborted');
    t.equal(await settle(recover, gid), 'abort', 'and stays so');
    const late = await errorOf(app, 'SELECT pgkv.decide($1)', [gid]);
    t.match(late, { code: '40001', message: /aborted by recovery/ });
  });

  for (const [end, outcome] of [
    ['COMMIT', 'commit'],
    ['ROLLBACK', 'abort'],
  ] as const) {
    t.test(`recovery waits for the branch that decides: ${end}`, async (t) => {
      const gid = newGid();
      await app.query('BEGIN');
      await decide(app, gid);
      const asked = settle(recover, gid);
      await blocked(admin, recover);
      await app.query(end);
      t.equal(await asked, outcome);
      t.equal(await settle(recover, gid), outcome);
    });
  }

  t.test('the branch that decides waits for recovery', async (t) => {
    const gid = newGid();
    await recover.query('BEGIN');
    t.equal(await settle(recover, gid), 'abort');
    const asked = errorOf(app, 'SELECT pgkv.decide($1)', [gid]);
    await blocked(admin, app);
    await recover.query('COMMIT');
    t.equal((await asked).code, '40001');
  });

  t.test('recovery does not read an old snapshot', async (t) => {
    await recover.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    t.equal((await errorOf(recover, 'SELECT pgkv.settle($1)', [newGid()])).code, '55000');
    await recover.query('ROLLBACK');
  });

  t.test('what decides, and what is prepared, has to be on disk', async (t) => {
    for (const level of ['off', 'local', 'remote_write', 'on', 'remote_apply']) {
      for (const [client, sql] of [
        [app, 'SELECT pgkv.begin_branch()'],
        [app, 'SELECT pgkv.decide($1)'],
        [recover, 'SELECT pgkv.settle($1)'],
      ] as const) {
        await client.query(`SET synchronous_commit = ${level}`);
        const parameters = sql.includes('$1') ? [newGid()] : [];
        if (/on|apply/.test(level) && parameters.length > 0) await client.query(sql, parameters);
        else t.equal((await errorOf(client, sql, parameters)).code, parameters.length > 0 ? '55000' : '0A000', sql);
        await client.query('RESET synchronous_commit');
      }
    }
  });

  t.test('decisions are kept for a day, and as long as somebody holds the transaction', async (t) => {
    const [old, held, young] = [newGid(), newGid(), newGid()];
    for (const gid of [old, held, young]) await decide(app, gid);
    await admin.query(`UPDATE pgkv.decisions SET decided_at = now() - interval '25 hours' WHERE gid IN ($1, $2)`, [
      old,
      held,
    ]);
    t.equal(await valueFrom(recover, 'SELECT pgkv.collect_decisions($1)', [[held]]), '1');
    const left = await rowsOf(admin, 'SELECT gid FROM pgkv.decisions WHERE gid = ANY ($1) ORDER BY gid', [
      [old, held, young],
    ]);
    t.strictSame(left, [[held], [young]]);
  });

  t.test('a branch begins only where it could be prepared and recovered', async (t) => {
    await branches(t, kv, admin, app);
  });
});

async function branches(t: Test, kv: KvServer, admin: pg.Client, app: pg.Client): Promise<void> {
  const has16 = Number(await valueFrom(admin, 'SHOW server_version_num')) >= 160_000;
  const mayPrepare = (await valueFrom(admin, 'SHOW max_prepared_transactions')) !== '0';
  t.ok(mayPrepare, 'the servers of the tests allow prepared transactions');
  const grant = `GRANT app TO pgkv_recover${has16 ? ' WITH INHERIT FALSE, SET TRUE' : ''}`;
  const refused = await errorOf(app, 'SELECT pgkv.begin_branch()');
  t.match(refused, {
    code: '0A000',
    message: new RegExp(`role app over several shards.*missing on this shard: ${grant}`),
  });
  if (has16) {
    await admin.query('GRANT app TO pgkv_recover WITH SET FALSE');
    t.equal((await errorOf(app, 'SELECT pgkv.begin_branch()')).code, '0A000', 'a member that may not SET ROLE');
  }
  await admin.query(refused.message.replace(/^.*missing on this shard: /, ''));
  await app.query('SET synchronous_commit = off');
  t.equal((await errorOf(app, 'SELECT pgkv.begin_branch()')).code, '55000');
  await app.query('RESET synchronous_commit; BEGIN');
  await app.query('SELECT pgkv.begin_branch()');
  const gid = newGid();
  await app.query(`PREPARE TRANSACTION '${gid}'`);
  const recover = await kv.connect(t, { user: 'pgkv_recover' });
  t.equal((await errorOf(recover, `COMMIT PREPARED '${gid}'`)).code, '42501', 'not as itself');
  await recover.query('SET ROLE app');
  await recover.query(`COMMIT PREPARED '${gid}'`);

  const superuser = await errorOf(admin, 'SELECT pgkv.begin_branch()');
  t.match(superuser, { code: '0A000', message: /could not be recovered/ }, 'a superuser is not granted to it');
  await admin.query('ALTER ROLE pgkv_recover RENAME TO gone');
  t.match(await errorOf(app, 'SELECT pgkv.begin_branch()'), { code: '0A000', message: /no role pgkv_recover/ });
  await admin.query('ALTER ROLE gone RENAME TO pgkv_recover');
}
