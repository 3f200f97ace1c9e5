// How many statements a server connection keeps: bounded in number and in bytes, the least recently used go, and so do those
// that nobody can name any more.
import { Duplex } from 'node:stream';
import t from 'tap';
import { SettingsRegistry } from '../../../src/backend/connection/settings-group.js';
import { internParameters } from '../../../src/backend/replies/parameter-status.js';
import { PREPARED_BYTES_MAX, PreparedStatements } from '../../../src/backend/replies/prepared-statements.js';
import { ReplyQueue } from '../../../src/backend/replies/reply-queue.js';
import { ownSource, type StatementSource } from '../../../src/backend/replies/statement-source.js';
import { systemRandom } from '../../../src/base/clock.js';
import { Session, type SessionPid } from '../../../src/session/session.js';
import { NEUTRAL_TEMPLATE } from '../../../src/sql/plan/template.js';
import { Output } from '../../../src/wire/output.js';
import { SeededRandom } from '../../support/seeded-random.js';

function connection(statementsMax: number): { statements: PreparedStatements; onServer: () => Set<string> } {
  const written: Buffer[] = [];
  const stream = new Duplex({
    read: () => undefined,
    write(chunk: Buffer, _encoding, done) {
      written.push(chunk);
      done();
    },
  });
  const output = new Output(stream);
  const statements = new PreparedStatements(new ReplyQueue(), output, statementsMax);
  const names = new Set<string>();
  /** What a server has that has read all of it. */
  const onServer = (): Set<string> => {
    output.flush();
    const bytes = Buffer.concat(written.splice(0));
    for (let at = 0; at < bytes.length; at += 1 + bytes.readInt32BE(at + 1)) {
      const isParse = bytes[at] === 0x50;
      const start = at + (isParse ? 5 : 6);
      const name = bytes.toString('latin1', start, bytes.indexOf(0, start));
      if (isParse) names.add(name);
      else names.delete(name);
    }
    return names;
  };
  return { statements, onServer };
}

const source = (text: string): StatementSource => ownSource(Buffer.from(`${text}\0\0\0`), text, NEUTRAL_TEMPLATE, []);

const session = (): Session =>
  new Session({
    pid: 1 as SessionPid,
    secretKey: systemRandom.bytes(4),
    user: 'app',
    database: 'app',
    settings: new SettingsRegistry().empty,
    told: internParameters(new Map()),
  });

const kept = (statements: PreparedStatements): string[] => [...statements.bySource.keys()].map(({ text }) => text);

t.test('the least recently used is closed where there are too many', async (t) => {
  const { statements, onServer } = connection(4);
  const all = Array.from({ length: 6 }, (_, n) => source(`SELECT ${n}`));
  for (const one of all.slice(0, 4)) statements.prepare(one, '');
  statements.prepare(all[0]!, '');
  for (const one of all.slice(4)) statements.prepare(one, '');
  t.same(kept(statements), ['SELECT 3', 'SELECT 0', 'SELECT 4', 'SELECT 5']);
  t.equal(onServer().size, 4);
});

t.test('… or too long ones', async (t) => {
  const { statements, onServer } = connection(1000);
  const long = 'x'.repeat(PREPARED_BYTES_MAX / 20);
  for (let n = 0; n < 100; n++) {
    statements.prepare(source(`SELECT ${n}, '${long}'`), '');
    if (statements.bytes > PREPARED_BYTES_MAX) return t.fail(`${statements.bytes} bytes after ${n}`);
  }
  t.ok(statements.bySource.size > 5 && statements.bySource.size < 20, `${statements.bySource.size} are kept`);
  t.equal(onServer().size, statements.bySource.size);
  const huge = source(`SELECT '${'x'.repeat(2 * PREPARED_BYTES_MAX)}'`);
  statements.prepare(huge, '');
  t.same([...statements.bySource.keys()], [huge], 'the one at hand stays, alone');
});

t.test('what one session named is closed behind it; what another one has prepared too stays', async (t) => {
  const { statements, onServer } = connection(1000);
  const [first, second] = [session(), session()];
  const own = Array.from({ length: 50 }, (_, n) => source(`SELECT ${n}`));
  const shared = source('SELECT shared');
  for (const [index, one] of [...own, shared].entries()) {
    first.setStatement(`s${index}`, one);
    statements.parse(one, '', false);
  }
  second.setStatement('mine', shared);
  t.notOk(statements.closeForsaken(), 'all of them are somebody’s');
  first.dropAllStatements();
  second.dropAllStatements();
  statements.parse(source('SELECT new'), '', true);
  t.ok(statements.bySource.size < 50, 'a few of them go with each Parse');
  t.ok(statements.closeForsaken());
  t.same(kept(statements), ['SELECT shared', 'SELECT new']);
  t.equal(onServer().size, 2);
  t.notOk(statements.closeForsaken());
});

t.test('whatever sessions do, their bytes and names are those of what they have', async (t) => {
  for (let seed = 1; seed <= 30; seed++) {
    const random = new SeededRandom(seed);
    const sources = Array.from({ length: 8 }, (_, n) => source(`SELECT ${'x'.repeat(random.integer(50))}${n}`));
    const sessions = [session(), session(), session()];
    let taken: ReadonlyMap<string, StatementSource> = new Map();
    for (let step = 0; step < 300; step++) {
      const one = random.pick(sessions);
      const name = `s${random.integer(6)}`;
      const what = random.integer(12);
      if (what < 4 && one.statement(name) === undefined) one.setStatement(name, random.pick(sources));
      else if (what < 6) one.dropStatement(name);
      else if (what < 8) {
        const shape = 'x'.repeat(random.integer(99));
        one.setDescription(name, { source: random.pick(sources), shape, epoch: 1, stale: false });
      } else if (what === 8) one.dropDescription(name);
      else if (what === 9) one.renewStatement(name, random.pick(sources));
      else if (what === 10) {
        taken = one.takeAllStatements();
        if (random.chance(0.5)) one.putBackStatements(taken);
      } else if (random.chance(0.2)) one.dropAllStatements();
      for (const known of sources) {
        const names = sessions.flatMap((each) =>
          Array.from({ length: 6 }, (_, n) => each.statement(`s${n}`)).filter((held) => held === known),
        );
        if (names.length !== known.namesNow) return t.fail(`seed ${seed}: ${known.namesNow} for ${names.length} names`);
        if (known.namesEver < known.namesNow) return t.fail(`seed ${seed}: fewer ever than now`);
      }
    }
    for (const one of sessions) one.dropAllStatements();
    if (sessions.some(({ statementBytes }) => statementBytes !== 0)) return t.fail(`seed ${seed}: bytes of nothing`);
  }
  t.pass();
});
