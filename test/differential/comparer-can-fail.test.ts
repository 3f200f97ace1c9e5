// The suite itself under test: equal servers are equal, and every kind of difference and leak is noticed.
import t from 'tap';
import { BackendMessageReader } from '../support/backend-message.js';
import { cstring, frame, int16, int32 } from '../support/frontend-message.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { startPostgres } from '../support/postgres-server.js';
import { directTarget, type Target } from '../support/target.js';
import { asRefusal, rowsInAnyOrder } from './answer-forms.js';
import { probeCleanliness } from './clean-probe.js';
import { compareTranscripts, type DeliberateDifference, type Difference, DifferenceJudge } from './compare.js';
import { KV_THEMES } from './kv-themes.js';
import { createRoles, direct, runMatrix } from './matrix.js';
import { startNaivePooler } from './naive-pooler.js';
import { play } from './play.js';
import { type Mode, modesOf, type Scenario, statementsOf } from './scenario.js';
import { sessionState } from './scenarios/session-state.js';
import { types } from './scenarios/types.js';
import { APP_ROLE, ServerSide } from './server-side.js';
import { THEMES } from './themes.js';
import { type Transcript, TranscriptWriter } from './transcript.js';

for (const [suite, themes] of [
  ['ordinary tables', THEMES],
  ['key-value tables', KV_THEMES],
] as const) {
  t.test(`the suite for ${suite} has more than 600 distinct statements and no scenario name twice`, async (t) => {
    const scenarios = themes.flatMap((theme) => theme.scenarios);
    t.ok(new Set(scenarios.flatMap(statementsOf)).size > 600);
    t.equal(new Set(scenarios.map(({ name }) => name)).size, scenarios.length);
  });
}

/** One message of every type that is compared byte for byte. */
const MESSAGES: readonly Buffer[] = [
  frame('R', int32(0)),
  frame('S', cstring('TimeZone'), cstring('UTC')),
  frame('v', int32(2), int32(1), cstring('_pq_.x')),
  frame('t', int16(2), int32(23), int32(25)),
  frame('T', int16(1), cstring('a'), int32(1259), int16(2), int32(23), int16(4), int32(-1), int16(0)),
  frame('D', int16(3), int32(1), Buffer.from('7'), int32(-1), int32(2), Buffer.from([0, 255])),
  frame('C', cstring('SELECT 1')),
  frame('E', Buffer.from('SERROR\0VERROR\0C42601\0Mtext\0P8\0Fscan.l\0L1\0Ryyerror\0\0')),
  frame('N', Buffer.from('SNOTICE\0C00000\0Mtext\0\0')),
  frame('G', Buffer.of(0), int16(1), int16(0)),
  frame('H', Buffer.of(1), int16(2), int16(1), int16(1)),
  frame('d', Buffer.from('1\tx\n')),
  frame('V', int32(4), int32(3)),
  frame('A', int32(0), cstring('channel'), cstring('payload')),
  ...['1', '2', '3', 'I', 'n', 's', 'c'].map((tag) => frame(tag)),
  frame('Z', Buffer.from('I')),
];

function linesOf(bytes: Buffer): string {
  const writer = new TranscriptWriter();
  writer.write('step', 'a', { messages: new BackendMessageReader().push(bytes), outcome: 'reached' });
  return JSON.stringify(writer.transcript);
}

t.test('a change of any byte of any message is noticed', async (t) => {
  const right = linesOf(Buffer.concat(MESSAGES));
  for (const [index, message] of MESSAGES.entries()) {
    for (let offset = 0; offset < message.length; offset++) {
      const isLength = offset > 0 && offset < 5; // would only join or split the messages behind it
      const isPid = message[0] === 0x41 && offset >= 5 && offset < 9; // replaced on purpose
      if (isLength || isPid) continue;
      const changed = Buffer.from(message);
      changed.writeUInt8((changed.readUInt8(offset) ^ 0x01) & 0xff, offset);
      const bytes = Buffer.concat(MESSAGES.map((original, i) => (i === index ? changed : original)));
      if (linesOf(bytes) === right) t.fail(`byte ${offset} of message ${index} (${message.toString('latin1', 0, 1)})`);
    }
  }
  t.pass('all bytes tried');
});

t.test('a missing, a surplus and a displaced message are noticed', async (t) => {
  const right = linesOf(Buffer.concat(MESSAGES));
  for (const [index, message] of MESSAGES.entries()) {
    const others = MESSAGES.filter((_, i) => i !== index);
    const twice = [...MESSAGES.slice(0, index), message, ...MESSAGES.slice(index)];
    const moved = index === 0 ? [...others, message] : [message, ...others];
    for (const wrong of [others, twice, moved]) t.ok(linesOf(Buffer.concat(wrong)) !== right);
  }
});

const about = { scenario: 's', run: 'r' };
const transcript = (...lines: string[]): Transcript => [{ step: 'simple: step 1 of a', lines }];

t.test('a listed difference is accepted only where and how it is listed, and must occur', async (t) => {
  const entry: DeliberateDifference = { scenario: 's', step: /step 1/, lines: /^[-+] pid \d$/, reason: 'because' };
  const [difference] = compareTranscripts(transcript('same', 'pid 1'), transcript('same', 'pid 2'), about);
  t.strictSame(difference?.lines, ['- pid 1', '+ pid 2']);
  const judge = new DifferenceJudge([entry], 18);
  const played = [{ name: 's', steps: [] }];
  t.strictSame(judge.stale(played).length, 1);
  judge.judge(difference as Difference);
  t.strictSame([judge.unexpected, judge.stale(played)], [[], []]);
  for (const other of [{ scenario: 'x' }, { step: 'step 2' }, { lines: ['- pid 1', '+ pid 2', '+ more'] }]) {
    judge.judge({ ...(difference as Difference), ...other });
  }
  t.equal(judge.unexpected.length, 3);
  t.strictSame(judge.stale([{ name: 'another', steps: [] }]), [], 'not played, so not stale');
});

t.test('rows in any order are still all the rows, and stay between what surrounds them', async (t) => {
  const answer = ['RowDescription "a"', 'DataRow "2"', 'DataRow "1"', 'CommandComplete SELECT 2', 'DataRow "0"'];
  const sorted = ['RowDescription "a"', 'DataRow "1"', 'DataRow "2"', 'CommandComplete SELECT 2', 'DataRow "0"'];
  t.strictSame(rowsInAnyOrder(answer), sorted);
  t.strictSame(rowsInAnyOrder(sorted), sorted);
});

t.test('only a refusal that says why and what instead counts as one', async (t) => {
  const error = (code: string, reason: string, hint: string): string[] => [
    'ParseComplete',
    `ErrorResponse S="ERROR" V="ERROR" C="${code}" M="${reason}" D="PGKV-999" H="${hint}"`,
    'ReadyForQuery E',
  ];
  const refusal = ['refused', 'ReadyForQuery E'];
  t.strictSame(asRefusal(error('0A000', 'a join of \\"kv\\"', 'split it'), 'join of "kv"'), refusal);
  t.strictSame(asRefusal(error('42601', '', ''), null), refusal, 'whatever Postgres says of what it is sent instead');
  for (const wrong of [error('42601', 'a join', 'split it'), error('0A000', 'a union', 'split it')]) {
    t.not(asRefusal(wrong, 'join')[0], 'refused');
  }
  t.not(asRefusal(error('0A000', 'a join', ''), 'join')[0], 'refused', 'without a HINT');
  const answered = ['DataRow "1"', 'CommandComplete SELECT 1', 'ReadyForQuery T'];
  t.strictSame(asRefusal(answered, 'join'), answered);
});

const DIRECT = [direct('direct', false)];

t.test('a server with another setting is noticed', async (t) => {
  const scenario = types.scenarios.find(({ name }) => name.includes('timestamptz')) as Scenario;
  const { differences, defects } = await runMatrix({
    version: 'embedded',
    themes: [{ ...types, scenarios: [scenario] }],
    contestants: DIRECT,
    targetServer: { parameters: { datestyle: 'German' } },
  });
  t.strictSame(defects, []);
  const steps = new Set(differences.map(({ step }) => step));
  t.ok(steps.has('simple: start of a'), 'by its ParameterStatus');
  t.ok(
    [...steps].some((step) => step.includes('::timestamptz')),
    'by its answers',
  );
  t.ok(steps.has('probe: settings'), 'by its settings');
});

t.test(
  'another version of Postgres is noticed',
  { skip: !findPostgres('15') && 'Postgres 15 not installed' },
  async (t) => {
    const { differences } = await runMatrix({
      version: 'embedded',
      themes: [types],
      contestants: DIRECT,
      targetServer: { version: '15' },
    });
    t.ok(differences.some(({ step }) => step === 'simple: start of a'));
    t.ok(
      differences.some(({ lines }) => lines.some((line) => line.startsWith('- ErrorResponse'))),
      'by file and line',
    );
  },
);

const TIMEOUT_MS_MIN = 2_000;

/** What these do is over when their client leaves, so that they leave nothing behind even through a bad pooler. */
const LEAVE_NOTHING = ['a local role', 'a session authorization'].map((what) => `left behind: ${what}`);

t.test('every kind of state left to the next client is noticed', async (t) => {
  const server = await startPostgres({ version: 'embedded' });
  t.teardown(() => server.stop());
  await createRoles(server);
  const serverSide = await ServerSide.create([server], 'naive', { patienceMs: 300 });
  const through = async (scenario: Scenario, target: Target, timeoutMs?: number): Promise<Transcript> => {
    await serverSide.makeFixture(sessionState);
    const limit = timeoutMs === undefined ? {} : { timeoutMs };
    const played = await play(scenario, modesOf(scenario)[0] as Mode, { target, serverSide, ...limit });
    const writer = new TranscriptWriter();
    await probeCleanliness(writer, target, timeoutMs);
    return [...played, ...writer.transcript];
  };
  for (const scenario of sessionState.scenarios.filter(({ name }) => name.startsWith('left behind'))) {
    const started = performance.now();
    const expected = await through(scenario, directTarget(server, APP_ROLE, 'naive'));
    // Some leaks leave the next client without an answer: one step may take many times what all take on Postgres.
    const timeoutMs = Math.max(TIMEOUT_MS_MIN, 20 * (performance.now() - started));
    // A pooler of its own for each: it never recovers from a leak.
    const pooler = await startNaivePooler(server, APP_ROLE, 'naive');
    const actual = await through(scenario, pooler, timeoutMs);
    await pooler.close();
    const differences = compareTranscripts(expected, actual, { scenario: scenario.name, run: 'naive pooler' });
    t.equal(differences.length > 0, !LEAVE_NOTHING.includes(scenario.name), scenario.name);
  }
  await serverSide.close();
});
