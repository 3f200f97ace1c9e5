// What is read of a database's code (B19): each place where expressions stand, with each built-in function that leaves state, on
// every version; and that going on from an earlier answer finds what reading all anew finds, whatever DDL came in between.
import t from 'tap';
import { type Ask, type Known, readNews } from '../../src/backend/pool/routine-news.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { startPostgres } from '../support/postgres-server.js';
import { SqlClient } from '../support/sql-client.js';

const CALLS = {
  'a plain name': { call: `set_config('app.who', 'x', false)`, made: false },
  'a listed name': { call: `set_config('timezone', 'UTC', false)`, made: false },
  'a name that is put together': { call: `set_config('app.' || current_user, 'x', false)`, made: true },
  'an odd name': { call: `set_config('app."a b"', 'x', false)`, made: true },
  'a lock': { call: 'pg_advisory_lock(1)::text', made: false },
  'a lock that is tried': { call: 'pg_try_advisory_lock_shared(1, 2)::text', made: false },
  'a seed': { call: 'setseed(0.5)::text', made: true },
  'a text that is run': { call: `query_to_xml('select 1', true, true, '')::text`, made: true },
} as const;

/** SQL that puts an expression in a place, and takes it away again. */
const PLACES: Readonly<Record<string, { make(call: string): string; drop: string; reads: boolean }>> = {
  view: { make: (call) => `CREATE VIEW v AS SELECT ${call} AS x`, drop: 'DROP VIEW v', reads: true },
  'view on its condition': {
    make: (call) => `CREATE VIEW v AS SELECT a FROM base WHERE ${call} IS NOT NULL`,
    drop: 'DROP VIEW v',
    reads: true,
  },
  rule: {
    make: (call) => `CREATE RULE r AS ON INSERT TO base DO ALSO SELECT ${call}`,
    drop: 'DROP RULE r ON base',
    reads: true,
  },
  policy: {
    make: (call) => `CREATE POLICY p ON base USING (${call} IS NOT NULL)`,
    drop: 'DROP POLICY p ON base',
    reads: true,
  },
  default: {
    make: (call) => `ALTER TABLE base ALTER b SET DEFAULT ${call}`,
    drop: 'ALTER TABLE base ALTER b DROP DEFAULT',
    reads: false,
  },
  check: {
    make: (call) => `ALTER TABLE base ADD CONSTRAINT c CHECK (${call} IS NOT NULL)`,
    drop: 'ALTER TABLE base DROP CONSTRAINT c',
    reads: false,
  },
  'check of a domain': {
    make: (call) => `CREATE DOMAIN d AS text CONSTRAINT c CHECK (${call} IS NOT NULL)`,
    drop: 'DROP DOMAIN d',
    reads: true,
  },
  'default of a domain': {
    make: (call) => `CREATE DOMAIN d AS text DEFAULT ${call}`,
    drop: 'DROP DOMAIN d',
    reads: true,
  },
  'condition of a trigger': {
    make: (call) =>
      `CREATE TRIGGER g BEFORE INSERT ON base FOR EACH ROW WHEN (${call} IS NOT NULL) EXECUTE FUNCTION suppress_redundant_updates_trigger()`,
    drop: 'DROP TRIGGER g ON base',
    reads: false,
  },
};

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  t.test(`Postgres ${version}`, skip, async (t) => {
    const server = await startPostgres({ version });
    t.teardown(() => server.stop());
    const client = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
    t.teardown(() => client.end());
    let readInFull = 0;
    const ask: Ask = async (sql) => {
      if (sql.startsWith('WITH RECURSIVE')) readInFull++;
      return await client.rows(sql);
    };
    const facts = ({ routines }: Known) => ({
      ...routines,
      customNames: [...routines.customNames].sort(),
      mentionsMaker: String(routines.mentionsMaker),
      mentionsLeaving: String(routines.mentionsLeaving),
    });
    const goOn = async (known: Known | null): Promise<Known> => {
      const next = await readNews(ask, known);
      if (typeof next === 'string') throw new Error(next);
      return next;
    };
    await client.run('CREATE TABLE base (a int, b text)');
    let known = await goOn(null);
    const clean = facts(known);
    t.match(clean, { writesLeaveState: false, readsLeaveState: false, makesUpUnseen: false, customNames: [] });

    for (const [place, { make, drop, reads }] of Object.entries(PLACES)) {
      for (const [what, { call, made }] of Object.entries(CALLS)) {
        await client.run(make(call));
        known = await goOn(known);
        t.match(
          facts(known),
          {
            writesLeaveState: true,
            readsLeaveState: reads,
            makesUpUnseen: made,
            customNames: what === 'a plain name' ? ['app.who'] : [],
          },
          `${place}: ${what}`,
        );
        await client.run(drop);
        known = await goOn(known);
        t.strictSame(facts(known), clean, `${place}: ${what} is gone`);
      }
      await client.run(make('1'));
      const before = readInFull;
      known = await goOn(known);
      t.strictSame(
        [facts(known), readInFull],
        [clean, before],
        `${place}: what is harmless is no reason to read all anew`,
      );
      await client.run(drop);
    }

    const routines: Readonly<Record<string, string>> = {
      source: `CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN set_config('app.f', 'x', false); END $$`,
      'parsed body': `CREATE FUNCTION f() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT set_config('app.f', 'x', false); END`,
      'default of an argument': `CREATE FUNCTION f(a text DEFAULT set_config('app.f', 'x', false)) RETURNS text LANGUAGE sql AS 'SELECT a'`,
      'setting of its own': `CREATE FUNCTION f() RETURNS text LANGUAGE sql SET app.f = 'x' AS $$ SELECT 'a' $$`,
    };
    for (const [what, make] of Object.entries(routines)) {
      await client.run(make);
      known = await goOn(known);
      t.strictSame(facts(known), { ...clean, customNames: ['app.f'], mentionsLeaving: '/f/i' }, what);
      await client.run('CREATE VIEW uses AS SELECT f() AS x');
      known = await goOn(known);
      t.match(facts(known), { readsLeaveState: true, makesUpUnseen: false }, `${what}: a view uses it`);
      await client.run('CREATE FUNCTION g() RETURNS text LANGUAGE sql AS $$ SELECT f() $$', 'DROP VIEW uses');
      known = await goOn(known);
      await client.run(`CREATE TABLE of_g (a text DEFAULT g())`);
      known = await goOn(known);
      t.match(
        facts(known),
        { readsLeaveState: false, writesLeaveState: true },
        `${what}: a default calls who calls it`,
      );
      await client.run('DROP TABLE of_g', 'DROP FUNCTION g', 'DROP FUNCTION f');
      known = await goOn(known);
      t.strictSame(facts(known), clean, `${what}: gone`);
    }

    await client.run('CREATE SEQUENCE s');
    known = await goOn(known);
    t.equal(known.routines.hasSequences, true, 'a sequence is news that needs no reading of all');

    // A transaction that began long before commits late: its rows are older than the last answer's newest, and news.
    const late = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
    await late.run('BEGIN', `CREATE VIEW late AS SELECT set_config('app.late', 'x', false) AS x`);
    await client.run('CREATE TABLE between (a int)');
    known = await goOn(known);
    await client.run('CREATE TABLE between2 (a int)');
    known = await goOn(known);
    t.equal(known.routines.readsLeaveState, false);
    await late.run('COMMIT');
    known = await goOn(known);
    t.match(known.routines, { readsLeaveState: true, customNames: ['app.late'] });
    await late.end();
  });
}
