// The functions of a table, singular and plural, on keys that are there, absent and expired; on both value types.
import type pg from 'pg';
import { errorOf, onEveryPostgres, rowsOf, valueFrom } from '../../support/kv-extension.js';
import { stretched } from '../../support/machine-speed.js';

const FAR_PAST = "now() - interval '1 day'";

onEveryPostgres(async (t, kv) => {
  const client = await kv.connect(t);
  await client.query(`SELECT pgkv.create_table('kv'), pgkv.create_table('blobs', 'bytea')`);

  const value = (sql: string, parameters?: readonly unknown[]) => valueFrom(client, sql, parameters);
  const rows = (sql: string, parameters?: readonly unknown[]) => rowsOf(client, sql, parameters);
  const version = async (sql: string) => BigInt((await value(sql)) as string);
  const current = async (tenant: string, key: string) =>
    (await rows('SELECT value, version FROM kv_get($1, $2)', [tenant, key]))[0];
  /** A row that expired a day ago, as it lies there until something removes it. */
  const lay = (tenant: string, key: string, content = '1') =>
    client.query(`INSERT INTO kv (tenant_id, key, value, ttl) VALUES ($1, $2, $3, ${FAR_PAST})`, [
      tenant,
      key,
      content,
    ]);
  const count = (tenant: string) => value('SELECT count(*)::int FROM kv WHERE tenant_id = $1', [tenant]);

  t.test('put creates, overwrites and gives versions that rise by one', async (t) => {
    const first = await version(`SELECT kv_put('put', 'a', '{"n": 1}')`);
    t.equal(await version(`SELECT kv_put('put', 'a', '{"n": 2}', '1 hour')`), first + 1n);
    t.strictSame(await current('put', 'a'), [{ n: 2 }, String(first + 1n)]);
    t.ok(await value(`SELECT ttl BETWEEN now() + '59 min' AND now() + '61 min' FROM kv_get('put', 'a')`));
    t.equal(await version(`SELECT kv_put('put', 'a', NULL)`), first + 2n);
    t.strictSame(await rows(`SELECT value, ttl FROM kv_get('put', 'a')`), [[null, null]], 'without ttl: never expires');
    t.ok(
      await value(
        `SELECT slot = pgkv.slot(tenant_id, key) AND kv_slot('put', 'a') = slot FROM kv WHERE tenant_id = 'put'`,
      ),
    );
    t.ok(await value(`SELECT updated_at BETWEEN now() - interval '1 min' AND now() FROM kv_get('put', 'a')`));
  });

  t.test('a first version is the time in milliseconds times 1024', async (t) => {
    const made = await version(`SELECT kv_put('time', 'a', '1')`);
    t.ok(Math.abs(Number(made / 1024n) - Date.now()) < 60_000);
    t.ok(made < 2n ** 53n);
  });

  t.test('empty, odd and long keys are keys like others', async (t) => {
    const odd = ['', ' ', 'é😀', `it's "q" \\ $$ {x}`, 'line\nbreak', 'x'.repeat(1024)];
    for (const tenant of ['', 'ten {a} ant']) {
      for (const [index, key] of odd.entries()) await rows('SELECT kv_put($1, $2, $3)', [tenant, key, index]);
      const read = await rows('SELECT value, key FROM kv_get_many($1, $2)', [odd.map(() => tenant), odd]);
      t.strictSame(
        read,
        odd.map((key, index) => [index, key]),
      );
    }
  });

  t.test('an expired key is absent to every function, and is born again with a higher version', async (t) => {
    const expired = ['get', 'put', 'cas', 'del', 'incr', 'merge', 'expire', 'at', 'persist', 'ttl', 'touch', 'casn'];
    for (const key of expired) await lay('exp', key);
    const old = await version(`SELECT max(version) FROM kv WHERE tenant_id = 'exp'`);
    t.strictSame(await rows(`SELECT * FROM kv_get('exp', 'get')`), []);
    t.equal(await value(`SELECT kv_ttl('exp', 'ttl')`), null);
    t.equal(await value(`SELECT kv_expire('exp', 'expire', '1 h')`), false);
    t.equal(await value(`SELECT kv_expire_at('exp', 'at', now() + '1 h')`), false);
    t.equal(await value(`SELECT kv_persist('exp', 'persist')`), false);
    t.equal(await value(`SELECT kv_touch('exp', 'touch', '1 h')`), false);
    t.equal(await value(`SELECT kv_delete('exp', 'del')`), false);
    t.equal(
      await value(`SELECT count(*)::int FROM kv WHERE tenant_id = 'exp' AND key = 'del'`),
      0,
      'removed on the way',
    );
    t.strictSame(
      await rows(
        `SELECT c.* FROM kv k, kv_cas('exp', 'casn', k.version, '9') c WHERE k.tenant_id = 'exp' AND k.key = 'casn'`,
      ),
      [[false, null, null]],
      'its old version is worth nothing',
    );
    t.ok((await version(`SELECT kv_put('exp', 'put', '2')`)) > old);
    t.strictSame((await rows(`SELECT applied, value FROM kv_cas('exp', 'cas', 0, '2')`))[0], [true, 2]);
    t.equal(await value(`SELECT kv_incr('exp', 'incr', 5)`), '5', 'from zero, not from the old value');
    t.strictSame(await value(`SELECT value FROM kv_merge('exp', 'merge', '{"b": 1}')`), { b: 1 });
    for (const key of ['cas', 'incr', 'merge', 'put']) {
      t.ok((await version(`SELECT version FROM kv_get('exp', '${key}')`)) > old, key);
      t.equal(await value(`SELECT kv_ttl('exp', '${key}')`), null, 'and lives without the old ttl');
    }
  });

  t.test('a reborn key has nothing of its former life, in columns of users neither', async (t) => {
    await client.query(`SELECT pgkv.create_table('wide'); ALTER TABLE wide ADD note text DEFAULT 'fresh'`);
    for (const write of [
      `wide_put('t', 'k', '1')`,
      `wide_cas('t', 'k', 0, '1')`,
      `wide_incr('t', 'k')`,
      `wide_merge('t', 'k', '{}')`,
      `wide_put_many('{t}', '{k}', '{1}')`,
      `wide_cas_many('{t}', '{k}', '{0}', '{1}')`,
      `wide_incr_many('{t}', '{k}', '{1}')`,
      `wide_merge_many('{t}', '{k}', '{"{}"}')`,
    ]) {
      await client.query(`DELETE FROM wide`);
      await client.query(`INSERT INTO wide (tenant_id, key, ttl, note) VALUES ('t', 'k', ${FAR_PAST}, 'old')`);
      await client.query(`SELECT ${write}`);
      t.strictSame(await rows('SELECT note, ttl FROM wide'), [['fresh', null]], write);
    }
  });

  t.test('no version of a key repeats or falls, however fast it is deleted and made again', async (t) => {
    await client.query(`CREATE TEMP TABLE seen (n serial, v bigint)`);
    await client.query(`DO $$ BEGIN FOR i IN 1 .. 300 LOOP
      INSERT INTO seen (v) SELECT kv_put('fast', 'k', '1');
      INSERT INTO seen (v) SELECT kv_put('fast', 'k', '2');
      IF i % 3 = 0 THEN PERFORM kv_expire('fast', 'k', '-1 s');
      ELSE PERFORM kv_delete('fast', 'k'); END IF;
    END LOOP; END $$`);
    t.equal(
      await value('SELECT count(*)::int FROM (SELECT v > lag(v) OVER (ORDER BY n) AS rose FROM seen) s WHERE rose'),
      599,
    );
  });

  t.test('cas applies only on the expected version and always tells the current one', async (t) => {
    const cas = async (key: string, expected: string | null, content: string, ttl: string | null = null) =>
      (await rows(`SELECT * FROM kv_cas('cas', $1, $2, $3, $4)`, [key, expected, content, ttl]))[0]!;
    t.strictSame(await cas('a', '7', '1'), [false, null, null], 'absent, though a version was expected');
    const [applied, first, written] = await cas('a', '0', '1', '1 hour');
    t.strictSame([applied, written], [true, 1]);
    t.ok(await value(`SELECT kv_ttl('cas', 'a') > '59 min'`));
    t.strictSame(await cas('a', '0', '2'), [false, first, 1], 'it exists');
    t.strictSame(await cas('a', null, '2'), [false, first, 1], 'null says the same');
    t.strictSame(await cas('a', '1', '2'), [false, first, 1], 'another version');
    const second = String(BigInt(first as string) + 1n);
    t.strictSame(await cas('a', first as string, '2'), [true, second, 2]);
    t.equal(await value(`SELECT kv_ttl('cas', 'a')`), null, 'without ttl: never expires');
    t.strictSame(await cas('a', first as string, '3'), [false, second, 2], 'the same one only once');
    t.strictSame(
      await rows(`SELECT * FROM kv_cas(tenant => 'cas', key => 'named', expected => 0, value => 'null', ttl => '1 h')`),
      await rows(`SELECT true, version, value FROM kv_get('cas', 'named')`),
    );
    t.strictSame(await cas('null', null, null as unknown as string).then((row) => row[2]), null, 'NULL is a value');
  });

  t.test('delete says whether there was something, with and without a version', async (t) => {
    const made = await version(`SELECT kv_put('del', 'a', '1')`);
    t.equal(await value(`SELECT kv_delete('del', 'a', 1)`), false);
    t.equal(await value(`SELECT kv_delete('del', 'a', NULL)`), false);
    t.equal(await value(`SELECT kv_delete('del', 'a', $1)`, [String(made)]), true);
    t.equal(await value(`SELECT kv_delete('del', 'a', $1)`, [String(made)]), false);
    await rows(`SELECT kv_put('del', 'a', '1')`);
    t.equal(await value(`SELECT kv_delete('del', 'a')`), true);
    t.equal(await value(`SELECT kv_delete('del', 'a')`), false);
  });

  t.test('incr counts from zero, exactly, and sets a ttl only when it creates', async (t) => {
    t.equal(await value(`SELECT kv_incr('incr', 'a')`), '1');
    t.equal(await value(`SELECT kv_incr('incr', 'a', 0.1, '1 h')`), '1.1');
    t.equal(await value(`SELECT kv_ttl('incr', 'a')`), null);
    t.equal(await value(`SELECT kv_incr('incr', 'a', -3)`), '-1.9');
    t.equal(await value(`SELECT kv_incr('incr', 'b', 5, '1 h')`), '5');
    t.ok(await value(`SELECT kv_ttl('incr', 'b') > '59 min'`));
    t.equal(
      await value(`SELECT kv_incr('incr', 'big', 123456789012345678901234567890)`),
      '123456789012345678901234567890',
    );
    t.equal(await value(`SELECT kv_incr('incr', 'big', 0.000000001)`), '123456789012345678901234567890.000000001');
    await rows(`SELECT kv_put('incr', 'word', '"x"'), kv_put('incr', 'none', NULL), kv_put('incr', 'null', 'null')`);
    for (const key of ['word', 'none', 'null']) {
      const error = await errorOf(client, `SELECT kv_incr('incr', '${key}')`);
      t.equal(error.code, '22023');
      t.match(error.message, `key '${key}' of tenant 'incr' is not a JSON number`);
    }
    for (const delta of ["'NaN'", "'Infinity'", 'NULL']) {
      t.equal((await errorOf(client, `SELECT kv_incr('incr', 'a', ${delta})`)).code, '22023', delta);
    }
  });

  t.test('merge adds the members of an object to another', async (t) => {
    t.strictSame(await value(`SELECT value FROM kv_merge('merge', 'a', '{"x": 1}', '1 h')`), { x: 1 });
    t.ok(await value(`SELECT kv_ttl('merge', 'a') > '59 min'`));
    const [[merged, after]] = (await rows(
      `SELECT * FROM kv_merge('merge', 'a', '{"x": 2, "y": {"z": 1}}', '9 h')`,
    )) as [unknown[]];
    t.strictSame([merged, after], await current('merge', 'a'));
    t.strictSame(merged, { x: 2, y: { z: 1 } });
    t.ok(await value(`SELECT kv_ttl('merge', 'a') < '2 h'`), 'a ttl is set only when the key is created');
    await rows(`SELECT kv_put('merge', 'list', '[1]')`);
    t.match(
      (await errorOf(client, `SELECT kv_merge('merge', 'list', '{}')`)).message,
      "key 'list' of tenant 'merge' is not a JSON object",
    );
    for (const patch of [`'[1]'`, `'1'`, 'NULL']) {
      t.equal((await errorOf(client, `SELECT kv_merge('merge', 'b', ${patch})`)).code, '22023', patch);
    }
    t.equal(await count('merge'), 2, 'nothing was created by those');
  });

  t.test('expire, expire_at, persist and touch change the ttl of what is there, and its version', async (t) => {
    const made = await version(`SELECT kv_put('ttl', 'a', '1')`);
    t.equal(await value(`SELECT kv_ttl('ttl', 'a')`), null);
    t.equal(await value(`SELECT kv_expire('ttl', 'a', '1 h')`), true);
    t.ok(await value(`SELECT kv_ttl('ttl', 'a') BETWEEN '59 min' AND '1 h'`));
    t.equal(await value(`SELECT kv_expire_at('ttl', 'a', '2100-01-01Z')`), true);
    t.equal(await value(`SELECT ttl = '2100-01-01Z' FROM kv_get('ttl', 'a')`), true);
    t.equal(await value(`SELECT kv_touch('ttl', 'a')`), true);
    t.equal(await value(`SELECT ttl = '2100-01-01Z' FROM kv_get('ttl', 'a')`), true, 'touch alone leaves the ttl');
    t.equal(await value(`SELECT kv_touch('ttl', 'a', '2 h')`), true);
    t.ok(await value(`SELECT kv_ttl('ttl', 'a') BETWEEN '119 min' AND '2 h'`));
    t.equal(await value(`SELECT kv_persist('ttl', 'a')`), true);
    t.equal(await value(`SELECT kv_ttl('ttl', 'a')`), null);
    t.equal(await version(`SELECT version FROM kv_get('ttl', 'a')`), made + 5n);
    t.equal(await value(`SELECT kv_expire('ttl', 'a', '1 h')`), true);
    t.equal(await value(`SELECT kv_expire('ttl', 'a', NULL)`), true);
    t.equal(await value(`SELECT kv_ttl('ttl', 'a')`), null, 'a null ttl is never');
    t.equal(await value(`SELECT kv_expire('ttl', 'a', '0 s')`), true);
    t.equal(await value(`SELECT kv_touch('ttl', 'a')`), false, 'a key is gone at its ttl, not after it');
    for (const call of [
      `kv_expire('ttl', 'no', '1 h')`,
      `kv_expire_at('ttl', 'no', now())`,
      `kv_persist('ttl', 'no')`,
      `kv_touch('ttl', 'no')`,
    ]) {
      t.equal(await value(`SELECT ${call}`), false, call);
    }
    t.equal(await count('ttl'), 1);
  });

  t.test('plural forms do for each member what the singular does', async (t) => {
    const tenants = ['m', 'm', 'm', 'm'];
    const keys = ['z', 'é', 'A', 'gone'];
    const all = (sql: string, ...more: readonly unknown[]) => rows(sql, [tenants, keys, ...more]);
    await lay('m', 'gone');
    const put = await all(
      `SELECT * FROM kv_put_many($1, $2, $3::jsonb[], $4::interval[])`,
      [1, 2, 3, 4],
      [null, '1 h', null, null],
    );
    t.strictSame(ords(put), [1, 2, 3, 4]);
    t.strictSame(
      await all('SELECT ord, tenant_id, key, value, version FROM kv_get_many($1, $2)'),
      put.map(([ord, v], index) => [ord, 'm', keys[index], index + 1, v]),
    );
    t.strictSame(
      (await all(`SELECT ord, ttl > '59 min' FROM kv_ttl_many($1, $2)`)).map(([, ttl]) => ttl),
      [null, true, null, null],
    );
    const again = await all('SELECT * FROM kv_put_many($1, $2, $3::jsonb[])', [5, 6, 7, 8]);
    t.strictSame(
      again,
      put.map(([ord, v]) => [ord, String(BigInt(v as string) + 1n)]),
    );
    t.strictSame(
      (await all('SELECT ord, ttl FROM kv_ttl_many($1, $2)')).map(([, ttl]) => ttl),
      [null, null, null, null],
    );

    t.strictSame(await applied(all('SELECT * FROM kv_expire_many($1, $2, $3)', ['1 h', '-1 s', null, '1 h'])), [
      true,
      true,
      true,
      true,
    ]);
    t.strictSame(await applied(all('SELECT * FROM kv_touch_many($1, $2)')), [true, false, true, true]);
    t.strictSame(await applied(all('SELECT * FROM kv_persist_many($1, $2)')), [true, false, true, true]);
    t.strictSame(
      await applied(
        all('SELECT * FROM kv_expire_at_many($1, $2, $3)', ['2100-01-01Z', '2100-01-01Z', null, '2000-01-01Z']),
      ),
      [true, false, true, true],
    );
    t.strictSame(
      (await all('SELECT ord, ttl IS NOT NULL FROM kv_ttl_many($1, $2)')).map(([, some]) => some),
      [true, false, false, false],
    );
    t.strictSame(
      await all('SELECT ord, key, value FROM kv_get_many($1, $2)'),
      [
        ['1', 'z', 5],
        ['3', 'A', 7],
      ],
      'only those found, by ord',
    );
    t.strictSame(
      (
        await all(
          'SELECT g.version::bigint - p.v FROM kv_get_many($1, $2) g, unnest($3::bigint[]) WITH ORDINALITY p(v, n) WHERE g.ord = p.n',
          put.map(([, v]) => v),
        )
      ).flat(),
      ['5', '5'],
      'each write rose the version by one',
    );
    t.strictSame(await applied(all('SELECT * FROM kv_delete_many($1, $2)')), [true, false, true, false]);
    t.equal(await count('m'), 0, 'expired ones are removed on the way');
  });

  t.test('cas_many decides each member by itself', async (t) => {
    await lay('casm', 'dead');
    await lay('casm', 'dead7');
    await rows(
      `SELECT kv_put('casm', 'here', '"old"'), kv_put('casm', 'right', '"old"'), kv_put('casm', 'stale', '"old"')`,
    );
    const right = await value(`SELECT version FROM kv_get('casm', 'right')`);
    const here = await value(`SELECT version FROM kv_get('casm', 'here')`);
    const keys = ['new', 'here', 'right', 'dead', 'dead7', 'absent', 'also new', 'stale'];
    const expected = [0, 0, right, null, 7, 7, null, 7];
    const got = await rows(
      'SELECT ord, applied, version, value FROM kv_cas_many($1, $2, $3, $4::jsonb[], $5::interval[])',
      [
        keys.map(() => 'casm'),
        keys,
        expected,
        keys.map((key) => JSON.stringify(key)),
        keys.map((_, index) => (index === 0 ? '1 h' : null)),
      ],
    );
    t.strictSame(ords(got), [1, 2, 3, 4, 5, 6, 7, 8]);
    t.strictSame(
      got.map(([, did, , now]) => [did, now]),
      [
        [true, 'new'],
        [false, 'old'],
        [true, 'right'],
        [true, 'dead'],
        [false, null],
        [false, null],
        [true, 'also new'],
        [false, 'old'],
      ],
    );
    t.equal(got[1]![2], here);
    t.equal(got[2]![2], String(BigInt(right as string) + 1n));
    t.strictSame([got[4]![2], got[5]![2]], [null, null]);
    for (const index of [0, 1, 2, 3, 6, 7])
      t.strictSame((await current('casm', keys[index]!))![1], got[index]![2], keys[index]!);
    t.ok(await value(`SELECT kv_ttl('casm', 'new') > '59 min'`));
  });

  t.test('incr_many and merge_many count and merge each member', async (t) => {
    await lay('im', 'dead', '100');
    await rows(`SELECT kv_put('im', 'five', '5')`);
    t.strictSame(await rows(`SELECT * FROM kv_incr_many('{im,im,im}', '{five,dead,new}', '{1,2,3}')`), [
      ['1', '6'],
      ['2', '2'],
      ['3', '3'],
    ]);
    const error = await errorOf(client, `SELECT * FROM kv_incr_many('{im,im}', '{five,new}', '{1,NaN}')`);
    t.equal(error.code, '22023');
    await lay('mm', 'dead', '{"old": 1}');
    await rows(`SELECT kv_put('mm', 'has', '{"a": 1}')`);
    const merged = await rows(`SELECT * FROM kv_merge_many('{mm,mm,mm}', '{has,dead,new}', $1)`, [
      [{ b: 1 }, { b: 2 }, { b: 3 }],
    ]);
    t.strictSame(
      merged.map(([ord, content]) => [ord, content]),
      [
        ['1', { a: 1, b: 1 }],
        ['2', { b: 2 }],
        ['3', { b: 3 }],
      ],
    );
    for (const [index, key] of ['has', 'dead', 'new'].entries())
      t.strictSame(await current('mm', key), merged[index]!.slice(1));
    await rows(`SELECT kv_put('im', 'word', '"x"')`);
    const wrong = await errorOf(client, `SELECT * FROM kv_incr_many('{im,im}', '{five,word}', '{1,1}')`);
    t.match([wrong.code, wrong.message], ['22023', "key 'word' of tenant 'im'"]);
    t.strictSame((await current('im', 'five'))?.[0], 6, 'a batch is applied as a whole or not at all');
  });

  t.test('a batch with a key twice, or with arrays of different lengths, is refused', async (t) => {
    const writes = [
      (k: string) => `kv_put_many('{d,d}', ${k}, '{1,2}')`,
      (k: string) => `kv_cas_many('{d,d}', ${k}, '{0,0}', '{1,2}')`,
      (k: string) => `kv_delete_many('{d,d}', ${k})`,
      (k: string) => `kv_incr_many('{d,d}', ${k}, '{1,1}')`,
      (k: string) => `kv_merge_many('{d,d}', ${k}, '{"{}","{}"}')`,
      (k: string) => `kv_expire_many('{d,d}', ${k}, '{1 h,1 h}')`,
      (k: string) => `kv_expire_at_many('{d,d}', ${k}, '{2100-01-01,2100-01-01}')`,
      (k: string) => `kv_persist_many('{d,d}', ${k})`,
      (k: string) => `kv_touch_many('{d,d}', ${k})`,
    ];
    for (const write of writes) {
      const twice = await errorOf(client, `SELECT * FROM ${write(`'{a,a}'`)}`);
      t.match([twice.code, twice.message], ['21000', "key 'a' of tenant 'd' occurs more than once"], write('twice'));
      t.equal((await errorOf(client, `SELECT * FROM ${write(`'{a}'`)}`)).code, '22023', write('short'));
      t.equal((await errorOf(client, `SELECT * FROM ${write('NULL')}`)).code, '22004', write('null'));
    }
    for (const read of ['kv_get_many', 'kv_ttl_many']) {
      t.equal((await errorOf(client, `SELECT * FROM ${read}('{d,d}', '{a}')`)).code, '22023');
      t.equal((await rows(`SELECT * FROM ${read}('{put,put}', '{a,a}')`)).length, 2, 'reading a key twice is fine');
    }
    t.equal((await errorOf(client, `SELECT * FROM kv_put_many('{d}', '{a}', '{1}', '{1 h,2 h}')`)).code, '22023');
    t.equal((await errorOf(client, `SELECT * FROM kv_put_many('{d}', '{NULL}', '{1}')`)).code, '23502');
    t.strictSame(await rows(`SELECT * FROM kv_delete_many('{d,d}', '{NULL,NULL}')`), [
      ['1', false],
      ['2', false],
    ]);
    t.equal(await count('d'), 0);
  });

  t.test('an empty batch is answered with no rows', async (t) => {
    for (const call of [
      `kv_get_many('{}', '{}')`,
      `kv_put_many('{}', '{}', '{}')`,
      `kv_cas_many('{}', '{}', '{}', '{}')`,
      `kv_delete_many('{}', '{}')`,
      `kv_incr_many('{}', '{}', '{}')`,
      `kv_merge_many('{}', '{}', '{}')`,
      `kv_expire_many('{}', '{}', '{}')`,
      `kv_expire_at_many('{}', '{}', '{}')`,
      `kv_persist_many('{}', '{}')`,
      `kv_touch_many('{}', '{}')`,
      `kv_ttl_many('{}', '{}')`,
    ]) {
      t.strictSame(await rows(`SELECT * FROM ${call}`), [], call);
    }
  });

  t.test('a thousand members in one call', async (t) => {
    const keys = Array.from({ length: 1000 }, (_, index) => `key ${(index * 7919) % 1000}`);
    const tenants = keys.map(() => 'many');
    const values = keys.map((key) => JSON.stringify(key));
    const slow = performance.now();
    t.equal((await rows('SELECT * FROM kv_put_many($1, $2, $3::jsonb[])', [tenants, keys, values])).length, 1000);
    const cas = await rows(
      'SELECT ord, value FROM kv_cas_many($1, $2, ARRAY(SELECT version FROM kv_get_many($1, $2)), $3::jsonb[])',
      [tenants, keys, values],
    );
    t.strictSame(
      cas,
      keys.map((key, index) => [String(index + 1), key]),
    );
    t.ok(await value('SELECT bool_and(applied) FROM kv_touch_many($1, $2)', [tenants, keys]));
    t.ok(await value('SELECT bool_and(deleted) FROM kv_delete_many($1, $2)', [tenants, keys]));
    const elapsed = performance.now() - slow;
    t.ok(elapsed < (await stretched(5_000)), 'in time linear in their number');
  });

  t.test('bytea tables have all but incr and merge', async (t) => {
    const bytes = Buffer.from([0, 255, 10, 92]);
    const made = (await value(`SELECT blobs_put('t', 'a', $1)`, [bytes])) as string;
    t.strictSame(await rows(`SELECT value, version FROM blobs_get('t', 'a')`), [[bytes, made]]);
    t.strictSame(await rows(`SELECT applied, value FROM blobs_cas('t', 'a', $1, $2)`, [made, bytes.subarray(1)]), [
      [true, bytes.subarray(1)],
    ]);
    t.strictSame(await rows(`SELECT ord, value FROM blobs_get_many('{t,t}', '{no,a}')`), [['2', bytes.subarray(1)]]);
    await rows(`SELECT blobs_put_many('{t,t}', '{a,b}', $1)`, [[bytes, bytes]]);
    t.strictSame(
      await rows(`SELECT ord, applied, value FROM blobs_cas_many('{t,t}', '{c,a}', '{0,0}', $1)`, [
        [bytes.subarray(2), bytes],
      ]),
      [
        ['1', true, bytes.subarray(2)],
        ['2', false, bytes],
      ],
    );
    t.equal(
      await value(
        `SELECT blobs_expire('t', 'a', '1 h') AND blobs_persist('t', 'a') AND blobs_touch('t', 'a') AND blobs_delete('t', 'a')`,
      ),
      true,
    );
    for (const call of [`blobs_incr('t', 'a')`, `blobs_merge('t', 'a', '{}')`])
      t.equal((await errorOf(client, `SELECT ${call}`)).code, '42883');
  });

  t.test('arguments may be of any collation', async (t) => {
    await client.query(`CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`);
    await client.query(`CREATE TEMP TABLE arguments (tenant text COLLATE folding, key text COLLATE "und-x-icu")`);
    await client.query(`INSERT INTO arguments VALUES ('coll', 'a'), ('coll', 'A')`);
    await rows(`SELECT kv_put(tenant, key, '1') FROM arguments`);
    t.equal((await rows(`SELECT g.* FROM arguments, kv_get(tenant, key) g`)).length, 2);
    t.equal((await rows(`SELECT g.* FROM arguments, kv_cas(tenant, key, 0, '2') g`)).length, 2);
    t.equal(await count('coll'), 2, 'keys are bytes');
    const calls = [
      `kv_get('coll' COLLATE folding, 'a' COLLATE folding)`,
      `kv_cas('coll' COLLATE folding, 'a' COLLATE folding, 0, '1')`,
      `kv_incr('coll' COLLATE folding, 'a' COLLATE folding)`,
      ...[
        'get_many(%)',
        `put_many(%, '{1,2}')`,
        `incr_many(%, '{1,2}')`,
        `cas_many(%, '{0,0}', '{1,2}')`,
        'touch_many(%)',
        'ttl_many(%)',
        'delete_many(%)',
      ].map(
        (call) => `kv_${call.replace('%', `'{coll,coll}'::text[] COLLATE folding, '{a,A}'::text[] COLLATE folding`)}`,
      ),
    ];
    for (const call of calls)
      t.equal((await rows(`SELECT * FROM ${call}`)).length, call.includes('many') ? 2 : 1, call);
  });

  t.test('nothing on the search_path is run in place of what was meant', async (t) => {
    const attacked = await kv.connect(t);
    await layTraps(attacked);
    const v = async (call: string) => (await rowsOf(attacked, `SELECT * FROM public.kv_${call}`))[0];
    t.match(await v(`slot('p', 'a{b}c')`), [await value(`SELECT pgkv.slot('p', 'b')`)]);
    t.equal((await v(`put('p', 'a', '1')`))?.length, 1);
    t.match(await v(`cas('p', 'a', 0, '1')`), [false]);
    t.match(await v(`cas('p', 'new', 0, '1')`), [true]);
    t.match(await v(`incr('p', 'a')`), ['2']);
    t.match(await v(`merge('p', 'm', '{"a": 1}')`), [{ a: 1 }]);
    t.match(await v(`merge('p', 'm', '{"b": 1}')`), [{ a: 1, b: 1 }]);
    for (const call of [
      `expire('p', 'a', '1 h')`,
      `expire_at('p', 'a', '2100-01-01')`,
      `touch('p', 'a', '1 h')`,
      `persist('p', 'a')`,
    ])
      t.strictSame(await v(call), [true], call);
    t.strictSame(await v(`ttl('p', 'a')`), [null]);
    t.match(await v(`get('p', 'a')`), [2]);
    t.match(await v(`put_many('{p}', '{a}', '{3}', '{1 h}')`), ['1']);
    t.match(await v(`get_many('{p}', '{a}')`), ['1', 'p', 'a', 3]);
    t.match(await v(`incr_many('{p}', '{a}', '{1}')`), ['1', '4']);
    t.match(await v(`merge_many('{p}', '{m}', '{"{}"}')`), ['1', { a: 1, b: 1 }]);
    t.match(await v(`cas_many('{p}', '{a}', '{0}', '{1}')`), ['1', false]);
    for (const call of [
      `expire_many('{p}', '{a}', '{1 h}')`,
      `expire_at_many('{p}', '{a}', '{2100-01-01}')`,
      `touch_many('{p}', '{a}')`,
      `persist_many('{p}', '{a}')`,
    ])
      t.strictSame(await v(call), ['1', true], call);
    t.match(await v(`ttl_many('{p}', '{a}')`), ['1', null]);
    t.strictSame(await v(`delete_many('{p}', '{a}')`), ['1', true]);
    t.strictSame(await v(`delete('p', 'new')`), [true]);
    t.strictSame(await v(`delete('p', 'm', 1)`), [false]);
    // Triggers too, in SQL of the user's own.
    await attacked.query(`INSERT INTO public.kv (tenant_id, key, value) VALUES ('p', 'sql', '1')`);
    await attacked.query(`UPDATE public.kv SET value = '2'`);
    await attacked.query(`SELECT pgkv.create_table('public.attacked'), pgkv.refresh_table('public.kv')`);
    await attacked.query(`SELECT pgkv.drop_table('public.attacked')`);
    t.equal((await errorOf(attacked, `SELECT 1 + 1`)).message, 'trap', 'the traps do work');
  });
});

/**
 * Puts in front of pg_catalog a function, operator and type of each name that ours use; they raise, or are of no use.
 */
async function layTraps(client: pg.Client): Promise<void> {
  await client.query(`CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC`);
  await client.query(`DO $make$ DECLARE o record; BEGIN
    FOR o IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, p.prorettype::regtype AS result
      FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.proname IN (
        'statement_timestamp', 'to_jsonb', 'jsonb_typeof', 'cardinality', 'convert_to', 'position', 'substring', 'length',
        'get_byte', 'array_fill', 'current_schema', 'parse_ident', 'replace', 'clock_timestamp', 'date_part')
    LOOP
      EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', o.proname, o.arguments, o.result,
        'BEGIN RAISE EXCEPTION ''trap''; END');
    END LOOP;
    FOR o IN SELECT p.oid, oprname AS name, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result
      FROM pg_operator p WHERE oprnamespace = 'pg_catalog'::regnamespace
        AND oprname IN ('=', '<>', '<', '<=', '>', '>=', '+', '-', '*', '||', '&', '|', '#', '<<', '>>')
        AND oprleft IN ('int4'::regtype, 'int8'::regtype, 'text'::regtype, 'bytea'::regtype, 'jsonb'::regtype,
          'numeric'::regtype, 'bool'::regtype, 'timestamptz'::regtype, 'anycompatiblearray'::regtype)
    LOOP
      EXECUTE format('CREATE FUNCTION evil.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', 'trap' || o.oid, o.l, o.r,
        o.result, 'BEGIN RAISE EXCEPTION ''trap''; END');
      EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.%I)', o.name, o.l, o.r,
        'trap' || o.oid);
    END LOOP;
  END $make$`);
  await client.query(
    `CREATE TYPE evil.text AS ENUM (); CREATE TYPE evil.jsonb AS ENUM (); CREATE TYPE evil.bytea AS ENUM ()`,
  );
  await client.query(`SET search_path = evil, pg_catalog, public`);
}

const ords = (rows: readonly unknown[][]): number[] => rows.map(([ord]) => Number(ord));

async function applied(rows: Promise<unknown[][]>): Promise<unknown[]> {
  return (await rows).map(([, did]) => did);
}
