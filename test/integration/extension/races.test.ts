// Two and more real sessions at one key: no lost update, no duplicate-key error, no deadlock between batches.
import type pg from 'pg';
import { blocked, errorOf, onEveryPostgres, rowsOf, valueFrom } from '../../support/kv-extension.js';

onEveryPostgres(async (t, kv) => {
  const [observer, first, second] = [await kv.connect(t), await kv.connect(t), await kv.connect(t)];
  await observer.query(`SELECT pgkv.create_table('kv')`);
  const version = async (key: string) =>
    BigInt((await valueFrom(observer, `SELECT version FROM kv WHERE key = $1`, [key])) as string);
  const lay = (key: string) =>
    observer.query(`INSERT INTO kv (tenant_id, key, value, ttl) VALUES ('t', $1, '{"old": 1}', '2020-01-01Z')`, [key]);
  t.beforeEach(async () => {
    await observer.query('DELETE FROM kv');
  });

  /** One session is inside a transaction that wrote; the other's write waits for it; what the other is answered. */
  async function behind(holding: string, waiting: string, end: 'COMMIT' | 'ROLLBACK' = 'COMMIT'): Promise<unknown[][]> {
    await first.query('BEGIN');
    await first.query(`SELECT * FROM ${holding}`);
    const answer = rowsOf(second, `SELECT * FROM ${waiting}`);
    await blocked(observer, second);
    await first.query(end);
    return answer;
  }

  const FORMS = [
    {
      form: 'singular',
      put: (v: string) => `kv_put('t', 'k', '${v}')`,
      incr: `kv_incr('t', 'k')`,
      merge: (v: string) => `kv_merge('t', 'k', '${v}')`,
    },
    {
      form: 'plural',
      put: (v: string) => `kv_put_many('{t}', '{k}', '{${v}}')`,
      incr: `kv_incr_many('{t}', '{k}', '{1}')`,
      merge: (v: string) => `kv_merge_many('{t}', '{k}', ARRAY['${v}'::jsonb])`,
    },
  ];
  for (const { form, put, incr, merge } of FORMS) {
    for (const state of ['absent', 'expired', 'there'] as const) {
      t.test(`two ${form} writers of a key that is ${state}: the second follows the first`, async (t) => {
        const prepare = async () => {
          await observer.query('DELETE FROM kv');
          if (state === 'expired') await lay('k');
          if (state === 'there') await observer.query(`SELECT kv_put('t', 'k', '{"there": 1}')`);
        };
        await prepare();
        await behind(put('1'), put('2'));
        t.strictSame(await rowsOf(observer, 'SELECT value FROM kv'), [[2]]);
        const last = await version('k');
        await behind(put('3'), put('4'));
        t.equal(await version('k'), last + 2n);

        await prepare();
        await behind(merge('{"a": 1}'), merge('{"b": 2}'));
        t.strictSame(await rowsOf(observer, 'SELECT value FROM kv'), [
          [{ ...(state === 'there' && { there: 1 }), a: 1, b: 2 }],
        ]);

        await prepare();
        if (state === 'there') await observer.query(`SELECT kv_put('t', 'k', '0')`);
        await behind(incr, incr);
        t.strictSame(await rowsOf(observer, 'SELECT value FROM kv'), [[2]]);

        await prepare();
        await behind(put('1'), put('2'), 'ROLLBACK');
        t.strictSame(await rowsOf(observer, 'SELECT value FROM kv'), [[2]], 'behind one that is rolled back as well');
      });
    }
  }

  for (const [form, cas] of [
    ['singular', (expected: string, v: string) => `kv_cas('t', 'k', ${expected}, '${v}')`],
    [
      'plural',
      (expected: string, v: string) =>
        `(SELECT applied, version, value FROM kv_cas_many('{t}', '{k}', ARRAY[${expected}]::bigint[], '{${v}}')) c`,
    ],
  ] as const) {
    t.test(`of two ${form} cas one wins, and the other learns what is there`, async (t) => {
      for (const state of ['absent', 'expired']) {
        await observer.query('DELETE FROM kv');
        if (state === 'expired') await lay('k');
        t.strictSame(await behind(cas('0', '1'), cas('0', '2')), [[false, String(await version('k')), 1]], state);
      }
      const now = String(await version('k'));
      t.strictSame(await behind(cas(now, '2'), cas(now, '3')), [[false, String(BigInt(now) + 1n), 2]]);
      const then = String(await version('k'));
      t.match(await behind(cas(then, '3'), cas(then, '4'), 'ROLLBACK'), [[true, String(BigInt(then) + 1n), 4]]);
      t.match(
        await behind(`kv_delete('t', 'k')`, cas('0', '5')),
        [[true, String, 5]],
        'a key deleted meanwhile is absent',
      );
      const last = String(await version('k'));
      t.strictSame(await behind(`kv_delete('t', 'k')`, cas(last, '6')), [[false, null, null]]);
      await lay('k');
      t.match(await behind(`kv_put('t', 'k', '7')`, cas('0', '8')), [[false, String(await version('k')), 7]]);
    });
  }

  t.test('writes to a key that a transaction deletes or lets expire find it gone', async (t) => {
    const gone = async (waiting: string) => {
      await observer.query(`SELECT kv_put('t', 'k', '1')`);
      const afterDelete = await behind(`kv_delete('t', 'k')`, waiting);
      await observer.query(`SELECT kv_put('t', 'k', '1')`);
      return [...afterDelete, ...(await behind(`kv_expire('t', 'k', '-1 day')`, waiting))];
    };
    t.strictSame(await gone(`kv_touch('t', 'k')`), [[false], [false]]);
    t.strictSame(await gone(`kv_expire('t', 'k', '1 h')`), [[false], [false]]);
    t.strictSame(await gone(`kv_delete('t', 'k')`), [[false], [false]]);
    t.strictSame(await gone(`kv_touch_many('{t}', '{k}')`), [
      ['1', false],
      ['1', false],
    ]);
    t.strictSame(await gone(`kv_delete_many('{t}', '{k}')`), [
      ['1', false],
      ['1', false],
    ]);
    t.strictSame(await gone(`kv_incr('t', 'k')`), [['1'], ['1']], 'counted from nothing');
  });

  t.test('a version given to two deletes lets one through', async (t) => {
    const now = await valueFrom(observer, `SELECT kv_put('t', 'k', '1')`);
    t.strictSame(await behind(`kv_put('t', 'k', '2')`, `kv_delete('t', 'k', ${now})`), [[false]]);
  });

  t.test('many sessions count, compare and swap without losing any', async (t) => {
    const sessions = await Promise.all(Array.from({ length: 6 }, () => kv.connect(t)));
    const each = (run: (session: pg.Client, index: number) => Promise<void>) => Promise.all(sessions.map(run));
    await each(async (session) => {
      for (let n = 0; n < 25; n++) {
        await session.query(`SELECT kv_incr('t', 'sum')`);
        await session.query(`SELECT * FROM kv_incr_many('{t,t}', '{sums,sum}', '{1,1}')`);
      }
    });
    t.strictSame(await rowsOf(observer, `SELECT key, value FROM kv ORDER BY key`), [
      ['sum', 300],
      ['sums', 150],
    ]);

    await each(async (session, index) => {
      for (let n = 0; n < 15; n++) {
        const many = (n + index) % 2 === 0;
        const call = many
          ? `kv_cas_many('{t}', '{swap}', ARRAY[$1]::bigint[], ARRAY[$2]::jsonb[])`
          : `kv_cas('t', 'swap', $1::bigint, $2::jsonb)`;
        let [applied, version, value]: unknown[] = [false, '0', 0];
        while (applied === false) {
          const swap = `SELECT applied, version, value FROM ${call}`;
          [applied, version, value] = (await rowsOf(session, swap, [version, Number(value) + 1]))[0]!;
        }
      }
    });
    t.equal(await valueFrom(observer, `SELECT value FROM kv_get('t', 'swap')`), 90);
  });

  t.test('a key that keeps being deleted and made is written by all without an error', async (t) => {
    const sessions = await Promise.all(Array.from({ length: 4 }, () => kv.connect(t)));
    const calls = [
      `kv_put('t', 'hot', '1', '-1 s')`,
      `kv_put_many('{t,t}', '{hot,a}', '{2,2}', '{-1 s,-1 s}')`,
      `kv_delete('t', 'hot')`,
      `kv_cas('t', 'hot', 0, '3', '-1 s')`,
      `kv_cas_many('{t,t}', '{hot,b}', '{0,0}', '{4,4}', '{-1 s,-1 s}')`,
      `kv_merge('t', 'hot', '{"a": 1}', '-1 s')`,
      `kv_delete_many('{t,t}', '{hot,a}')`,
      `kv_put('t', 'a', '1', '-1 s')`,
    ];
    await Promise.all(
      sessions.map(async (session, index) => {
        for (let n = 0; n < 120; n++)
          await session.query(`SELECT * FROM ${calls[(n * (index + 3) + index) % calls.length]}`);
      }),
    );
    t.ok((await valueFrom(observer, `SELECT count(*) FROM kv`)) !== null);
  });

  t.test('a batch locks its rows in the order of their keys, in whatever order they are given', async (t) => {
    const batch = `'{t,t,t}', '{z,m,a}'`;
    const cases: readonly (readonly ['there' | 'expired', string])[] = [
      ['there', `kv_put_many(${batch}, '{1,1,1}')`],
      ['expired', `kv_put_many(${batch}, '{1,1,1}')`],
      ['there', `kv_incr_many(${batch}, '{1,1,1}')`],
      ['there', `kv_merge_many(${batch}, '{"{}","{}","{}"}')`],
      ['there', `kv_cas_many(${batch}, '{7,7,7}', '{1,1,1}')`],
      ['expired', `kv_cas_many(${batch}, '{0,0,0}', '{1,1,1}')`],
      ['there', `kv_touch_many(${batch})`],
      ['there', `kv_persist_many(${batch})`],
      ['there', `kv_expire_many(${batch}, '{1 h,1 h,1 h}')`],
      ['there', `kv_expire_at_many(${batch}, '{2100-01-01,2100-01-01,2100-01-01}')`],
      ['there', `kv_delete_many(${batch})`],
    ];
    for (const [state, call] of cases) {
      await observer.query('DELETE FROM kv');
      const content = call.includes('merge') ? '{}' : '0';
      for (const key of ['z', 'a', 'm']) {
        const ttl = state === 'expired' ? '2020-01-01Z' : null;
        const row = `INSERT INTO kv (tenant_id, key, version, value, ttl) VALUES ('t', $1, 7, $2, $3)`;
        await observer.query(row, [key, content, ttl]);
      }
      await first.query(`BEGIN; SELECT FROM kv WHERE key = 'm' FOR UPDATE`);
      const answer = second.query(`SELECT * FROM ${call}`);
      await blocked(observer, second);
      t.strictSame(await rowsOf(observer, 'SELECT key FROM kv FOR UPDATE SKIP LOCKED'), [['z']], `${call} ${state}`);
      await first.query('COMMIT');
      t.equal((await answer).rowCount, 3);
    }
  });

  t.test('batches in opposite orders do not deadlock', async (t) => {
    const keys = Array.from({ length: 40 }, (_, index) => `key ${index}`);
    const tenants = keys.map(() => 't');
    const ones = keys.map(() => 1);
    const calls: readonly (readonly [string, (readonly unknown[])?])[] = [
      ['kv_put_many($1, $2, $3::jsonb[])', ones],
      ['kv_incr_many($1, $2, $3)', ones],
      ['kv_touch_many($1, $2)'],
      ['kv_expire_many($1, $2, $3)', keys.map(() => '-1 s')],
      ['kv_put_many($1, $2, $3::jsonb[])', ones],
      ['kv_persist_many($1, $2)'],
      ['kv_expire_many($1, $2, $3)', keys.map(() => '-1 s')],
      [`kv_cas_many($1, $2, array_fill(0::bigint, '{40}'), array_fill('1'::jsonb, '{40}'))`],
      ['kv_delete_many($1, $2)'],
    ];
    const run = async (session: pg.Client, order: readonly string[], shift: number) => {
      for (let n = 0; n < 60; n++) {
        const [call, third] = calls[(n * shift) % calls.length]!;
        await session.query(`SELECT * FROM ${call}`, [tenants, order, ...(third ? [third] : [])]);
      }
    };
    await Promise.all([run(first, keys, 1), run(second, [...keys].reverse(), 3)]);
    t.equal(
      await valueFrom(observer, `SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()`),
      0,
    );
  });

  t.test('in REPEATABLE READ a write over what others did since is 40001', async (t) => {
    for (const call of [
      `kv_put('t', 'k', '2')`,
      `kv_incr('t', 'k')`,
      `kv_cas('t', 'k', 0, '2')`,
      `kv_put_many('{t}', '{k}', '{2}')`,
      `kv_cas_many('{t}', '{k}', '{0}', '{2}')`,
      `kv_incr_many('{t}', '{k}', '{1}')`,
    ]) {
      for (const state of ['absent', 'there', 'expired']) {
        if (state === 'there' && call.includes('cas')) continue; // what the snapshot shows decides: no write
        await observer.query('DELETE FROM kv');
        if (state === 'there') await observer.query(`SELECT kv_put('t', 'k', '0')`);
        if (state === 'expired') await lay('k');
        await second.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
        await second.query('SELECT 1 FROM kv');
        await observer.query(`SELECT kv_put('t', 'k', '1')`);
        t.equal((await errorOf(second, `SELECT * FROM ${call}`)).code, '40001', `${call} on a key that was ${state}`);
        await second.query('ROLLBACK');
        await observer.query('DELETE FROM kv');
        if (state === 'expired') await lay('k');
        await second.query('BEGIN ISOLATION LEVEL SERIALIZABLE');
        await second.query(`SELECT * FROM ${call}`);
        await second.query('COMMIT');
        t.equal(await valueFrom(observer, 'SELECT count(*)::int FROM kv'), 1, `${call} alone`);
      }
    }
  });

  t.test('a trigger that suppresses rows ends in an error or an answer, not in an endless loop', async (t) => {
    await observer.query(`SELECT pgkv.create_table('mute')`);
    await observer.query(`CREATE FUNCTION mute() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`);
    await observer.query(`CREATE TRIGGER mute BEFORE INSERT ON mute FOR EACH ROW WHEN (NEW.key <> 'heard')
      EXECUTE FUNCTION mute()`);
    for (const call of [
      `mute_put('t', 'k', '1')`,
      `mute_cas('t', 'k', 0, '1')`,
      `mute_incr('t', 'k')`,
      `mute_merge('t', 'k', '{}')`,
      // One member that can be written, before or behind one that cannot: none is.
      ...['{heard,k}', '{k,heard}', '{k,l}'].flatMap((keys) => [
        `mute_put_many('{t,t}', '${keys}', '{1,2}')`,
        `mute_cas_many('{t,t}', '${keys}', '{0,0}', '{1,2}')`,
        `mute_incr_many('{t,t}', '${keys}', '{1,2}')`,
        `mute_merge_many('{t,t}', '${keys}', '{"{}","{}"}')`,
      ]),
    ]) {
      const error = await errorOf(observer, `SELECT * FROM ${call}`);
      t.match(error, { code: '40001', message: /^could not create key '[kl]' of tenant 't'$/ }, call);
      t.equal(await valueFrom(observer, 'SELECT count(*)::int FROM mute'), 0, call);
    }
  });
});
