// A session that has run DDL keeps its connection for a moment, in which nobody may be kept waiting and nothing may be left behind:
// seeded turns of sessions that share one connection, each of which runs DDL, leaves, or asks what it sees.
import t from 'tap';
import { liveRouter } from '../support/live-router.js';
import { startPostgres } from '../support/postgres-server.js';
import { SeededRandom } from '../support/seeded-random.js';
import type { SqlClient } from '../support/sql-client.js';

const server = await startPostgres({ version: 'embedded' });
t.teardown(() => server.stop());

const SERVER_PID = 'SELECT pg_backend_pid() + 0';
const TEMPORARY = "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'";

t.test(
  'a client that leaves right behind its DDL gives its connection back, unless temporary tables are on it',
  async (t) => {
    const live = await liveRouter(t, [server], { pool: { sizeMax: 1 } });
    for (let n = 0; n < 20; n++) {
      const author = await live.connect();
      const pid = await author.value(SERVER_PID);
      const makesTemporary = n % 3 === 2;
      await author.run(makesTemporary ? `CREATE TEMP TABLE own${n} (a int)` : `CREATE TABLE left${n} (a int)`);
      await author.end();
      const next = await live.connect();
      t.equal((await next.value(SERVER_PID)) === pid, !makesTemporary, `round ${n}`);
      t.equal(await next.value(TEMPORARY), '0');
      await next.end();
    }
    await live.quiet();
  },
);

t.test('sessions take turns on one connection, whatever DDL they run', async (t) => {
  const live = await liveRouter(t, [server], { pool: { sizeMax: 1, waitTimeoutMs: 30_000 } });
  for (let seed = 1; seed <= 12; seed++) {
    const random = new SeededRandom(seed);
    const sessions = await Promise.all([1, 2, 3].map(() => live.connect()));
    const make = `made${seed}`;
    let version = 0;
    await sessions[0]!.run(`CREATE TABLE ${make} (a int)`);
    const turn = async (session: SqlClient): Promise<void> => {
      switch (random.integer(5)) {
        case 0:
          version++;
          await session.run(`CREATE OR REPLACE VIEW of_${make} AS SELECT ${version} AS version`);
          break;
        case 1:
          await session.run(`ALTER TABLE ${make} ADD COLUMN b${random.integer(1e9)} int`);
          break;
        case 2:
          await session.run('BEGIN', `CREATE INDEX ON ${make} (a)`, random.oneIn(2) ? 'COMMIT' : 'ROLLBACK');
          break;
        case 3:
          if (version > 0) t.equal(await session.value(`SELECT version FROM of_${make}`), String(version));
          break;
        default:
          t.equal(await session.value(TEMPORARY), '0');
      }
    };
    for (let n = 0; n < 40; n++) await turn(random.pick(sessions));
    // All at once: two of them wait for the connection that one lingers on.
    await Promise.all(
      sessions.map(async (session, index) => {
        for (let n = 0; n < 10; n++) await session.run(`CREATE TABLE ${make}_${index}_${n} (a int)`);
      }),
    );
    await Promise.all(sessions.map((session) => session.end()));
  }
  await live.quiet();
});
