// What a client was told of its statements' results, where the answers of its Describes come after the names stand for others,
// or for the same ones read anew: what the session knows of a name was told of the statement that it stands for.
import t from 'tap';
import { SettingsRegistry } from '../../../src/backend/connection/settings-group.js';
import { internParameters } from '../../../src/backend/replies/parameter-status.js';
import type { StatementSource } from '../../../src/backend/replies/statement-source.js';
import { systemRandom } from '../../../src/base/clock.js';
import { Session, type SessionPid } from '../../../src/session/session.js';
import { SeededRandom } from '../../support/seeded-random.js';
import { numberedSource } from '../backend/extended-server.js';

const RUNS = 1_000;
const STEPS = 60;
const NAMES = ['', 's1', 's2'];
const ACTS = ['prepare', 'prepare', 'drop', 'describe', 'describe', 'answer', 'answer', 'renew'] as const;

const newSession = (): Session =>
  new Session({
    pid: 1 as SessionPid,
    secretKey: systemRandom.bytes(4),
    user: 'app',
    database: 'app',
    settings: new SettingsRegistry().empty,
    told: internParameters(new Map()),
  });

/** Plays one run; what is wrong, or null. */
function play(seed: number): string | null {
  const random = new SeededRandom(seed);
  const session = newSession();
  const owed: { readonly name: string; readonly source: StatementSource }[] = [];
  /** Each statement's text, which stays with it when it is read anew. */
  const texts = new Map<StatementSource, number>();
  let counter = 0;
  const made = (text: number): StatementSource => {
    const source = numberedSource(++counter);
    texts.set(source, text);
    return source;
  };
  const standing = (name: string): StatementSource | undefined =>
    name === '' ? (session.unnamed.source ?? undefined) : session.statement(name);
  for (let step = 0; step < STEPS; step++) {
    const name = random.pick(NAMES);
    const source = standing(name);
    const act = random.pick(ACTS);
    const wasKnown = session.description(name) !== undefined;
    if (act === 'prepare' && name === '') {
      session.dropDescription('');
      session.unnamed.set(made(step));
    } else if (act === 'prepare' && source === undefined) session.setStatement(name, made(step));
    else if (act === 'drop' && name !== '') session.dropStatement(name);
    else if (act === 'describe' && source !== undefined) owed.push({ name, source });
    else if (act === 'renew' && source !== undefined) session.renewStatement(name, made(texts.get(source)!));
    else if (act === 'answer') {
      const answer = owed.shift();
      if (answer !== undefined && standing(answer.name) !== undefined) {
        const shape = String(texts.get(answer.source));
        session.setDescription(answer.name, { source: answer.source, shape, epoch: 1, stale: false });
      }
    }
    for (const one of NAMES) {
      const known = session.description(one);
      const stands = standing(one);
      if (known !== undefined && (stands === undefined || known.shape !== String(texts.get(stands))))
        return `step ${step}: ${one} was told ${known.shape}, and stands for ${stands && texts.get(stands)}`;
    }
    if (act === 'renew' && wasKnown && session.description(name) === undefined)
      return `step ${step}: what was told of ${name} is forgotten, as it was read anew`;
  }
  return null;
}

t.test('a description is of the statement that the name stands for', async (t) => {
  const wrong = Array.from({ length: RUNS }, (_, seed) => [seed, play(seed)] as const).filter(([, found]) => found);
  t.same(wrong.slice(0, 3), []);
});
