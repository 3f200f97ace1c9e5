// D3: whatever the clock of a server does, the next life of a key begins with a higher version than any it had.
import t, { type Test } from 'tap';
import { connectTo, rowsOf, valueFrom } from '../../support/kv-extension.js';
import { findPostgres, PLAYED_VERSIONS } from '../../support/postgres-binaries.js';
import { FAKETIME, type SteppedServer, steppedServer } from '../../support/stepped-clock.js';

const KEYS = 6;
const STEPS = 60;
const MS = 1024n;

/** mulberry32. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** How far the clock goes: mostly small steps, sometimes hours, forwards as often as back. */
function nextOffset(draw: (below: number) => number, ms: number): number {
  const size = [3, 20, 500, 5000, 3_600_000][draw(5)]!;
  return ms + (draw(2) === 0 ? -1 : 1) * (2 + draw(size));
}

async function lives(t: Test, stepped: SteppedServer, seed: number): Promise<void> {
  const draw = numbers(seed);
  const sessions = [await connectTo(t, stepped.server), await connectTo(t, stepped.server)];
  await sessions[0]!.query(`SELECT pgkv.create_table('kv')`);
  const highest = new Map<string, bigint>();
  let births = 0;
  let offset = 0;
  for (let step = 0; step < STEPS; step++) {
    offset = nextOffset(draw, offset);
    await stepped.step(offset);
    for (let turn = 0; turn < 10; turn++) {
      const session = sessions[draw(2)]!;
      const key = `k${draw(KEYS)}`;
      const before = await valueFrom(session, `SELECT max(version) FROM kv WHERE key = $1`, [key]);
      const write = [
        `SELECT kv_put('t', '${key}', '1')`,
        `INSERT INTO kv (tenant_id, key, value) VALUES ('t', '${key}', '1') ON CONFLICT DO NOTHING`,
        `SELECT * FROM kv_incr_many('{t}', '{${key}}', '{1}')`,
        `SELECT kv_delete('t', '${key}')`,
        `DELETE FROM kv WHERE key = '${key}'`,
        `UPDATE kv SET ttl = '1990-01-01Z', version = version + 1 WHERE key = '${key}'`,
        `SELECT * FROM kv_cas('t', '${key}', 0, '1')`,
      ][draw(7)]!;
      await session.query(write);
      const [row] = await rowsOf(session, `SELECT version FROM kv WHERE key = $1`, [key]);
      if (row === undefined) continue;
      const version = BigInt(row[0] as string);
      const was = highest.get(key);
      const isSame = before !== null && version === BigInt(before as string);
      if (was !== undefined && !isSame && version <= was) {
        return void t.fail(`step ${step}, clock ${offset} ms off: ${write}: ${version} after ${was}`);
      }
      if (before === null) births++;
      highest.set(key, version);
    }
  }
  t.ok(births > STEPS / 2, `${births} lives`);
}

function onEveryClock(run: (t: Test, stepped: SteppedServer) => Promise<void>): void {
  for (const version of PLAYED_VERSIONS) {
    for (const by of ['faketime', 'function'] as const) {
      const isMissing = findPostgres(version) === undefined || (by === 'faketime' && FAKETIME === undefined);
      t.test(`Postgres ${version}, ${by}`, isMissing ? { skip: 'not installed here' } : {}, async (t) => {
        await run(t, await steppedServer(t, version, by));
      });
    }
  }
}

onEveryClock(async (t, stepped) => {
  t.test('a key that is deleted or expires comes back above what it was, through steps of the clock', (t) =>
    lives(t, stepped, 1),
  );

  t.test('versions follow the clock: neither do they stand still when it has gone back, nor run ahead', async (t) => {
    const client = await connectTo(t, stepped.server);
    const next = async () => BigInt((await valueFrom(client, 'SELECT pgkv.first_version()')) as string);
    await stepped.step(0);
    await next();
    await stepped.step(-86_400_000);
    let last = await next();
    for (let look = 0; look < 5; look++) {
      await client.query('SELECT pg_sleep(0.02)');
      const version = await next();
      t.ok(version - last >= 20n * MS, `${version - last}: no less than the time between`);
      last = version;
    }
    const lead = await valueFrom(client, `SELECT pg_sequence_last_value('pgkv.version_offset')`);
    await stepped.step(-86_400_000 + 1000);
    await next();
    t.equal(
      await valueFrom(client, `SELECT pg_sequence_last_value('pgkv.version_offset')`),
      lead,
      'forwards: as it is',
    );
  });

  t.test('a heartbeat finds the step before anybody writes, and says how far', async (t) => {
    const client = await connectTo(t, stepped.server);
    await stepped.step(0);
    await client.query('SELECT pgkv.beat()');
    t.equal(await valueFrom(client, 'SELECT pgkv.beat()'), null);
    const before = BigInt((await valueFrom(client, 'SELECT pgkv.first_version()')) as string);
    await stepped.step(-3_600_000);
    const behind = (await valueFrom(client, `SELECT extract(epoch FROM pgkv.beat())::float8`)) as number;
    t.ok(behind > 3590 && behind <= 3600, `${behind} s`);
    t.equal(await valueFrom(client, 'SELECT pgkv.beat()'), null, 'told once');
    t.ok(BigInt((await valueFrom(client, 'SELECT pgkv.first_version()')) as string) > before);
  });

  t.test('questions that write nothing are answered, above the mark too', async (t) => {
    const client = await connectTo(t, stepped.server);
    await stepped.step(0);
    const before = BigInt((await valueFrom(client, 'SELECT pgkv.first_version()')) as string);
    await stepped.step(-7_200_000);
    await client.query('BEGIN READ ONLY');
    t.ok(BigInt((await valueFrom(client, 'SELECT pgkv.first_version()')) as string) > before);
    await client.query('COMMIT');
  });

  t.test('whoever may only insert gets versions, and can change nothing about them', async (t) => {
    const admin = await connectTo(t, stepped.server);
    await admin.query(`CREATE ROLE writer LOGIN; GRANT INSERT, SELECT ON kv TO writer; DELETE FROM kv`);
    const writer = await connectTo(t, stepped.server, { user: 'writer' });
    await stepped.step(-10_000_000);
    await writer.query(`INSERT INTO kv (tenant_id, key) VALUES ('t', 'w')`);
    for (const sql of [
      `SELECT setval('pgkv.version_mark', 1)`,
      `SELECT nextval('pgkv.version_offset')`,
      `SELECT pgkv.keep_versions_above(1::bigint << 52)`,
      `SELECT pgkv.beat()`,
      `UPDATE pgkv.heartbeat SET at = now()`,
    ]) {
      await t.rejects(writer.query(sql), { code: '42501' }, sql);
    }
  });
});
