// What opens a further branch of a block brings a server to where the block's own is, whatever was said, failed and was pipelined in it;
// where pgkv cannot know that, there is nothing to open one with. And the states of a block with several branches.
import t from 'tap';
import { Transaction } from '../../../src/session/transaction.js';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import type { Template } from '../../../src/sql/plan/template.js';
import { readTemplate } from '../../../src/sql/read-template.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';
import { TransactionStatus } from '../../../src/wire/protocol.js';
import { SeededRandom } from '../../support/seeded-random.js';

await loadParser();

const SAID = { isQuery: true, bytes: Buffer.alloc(1) };
const RUNS = 3_000;
const STEPS = 40;
const WRITE = 'INSERT INTO plain VALUES (1)';
const TEXTS: readonly string[] = [
  WRITE,
  'SELECT 1/0',
  'SAVEPOINT a',
  'savepoint "a"',
  'SAVEPOINT b;',
  'RELEASE a',
  'RELEASE SAVEPOINT b',
  'ROLLBACK TO a',
  'ROLLBACK TRANSACTION TO SAVEPOINT b',
  'ROLLBACK TO c',
  'SET app.x = 1',
  'SET LOCAL app.x = 2',
  'SET app.y = 3',
  'SET work_mem = bad',
  'COMMIT AND CHAIN',
  'ROLLBACK AND CHAIN',
];

/** What is not told by its text alone. */
const ODD = [
  'SAVEPOINT /* c */ c',
  'SAVEPOINT a; SAVEPOINT b',
  'SET app.y = 4; SET LOCAL app.x = 5',
  'SET app.x = 6; SET work_mem = bad',
];

const templates = new Map<string, Template>();
function templateOf(text: string): Template {
  const known = templates.get(text) ?? readTemplate(text, true, lexShape(text, true), 15).template;
  templates.set(text, known);
  return known;
}

const BEGINS: readonly string[] = ['BEGIN', 'start transaction;', 'BEGIN READ ONLY', 'begin work deferrable'];
/** In the model one is like another. */
const hasOptions = (text: string): boolean => /only|deferrable/i.test(text);

/** As far as statements of the above go. */
class Server {
  hasOptions: boolean;
  settings: Record<string, string> = {};
  savepoints: { readonly name: string; readonly settings: Record<string, string> }[] = [];
  status: number = TransactionStatus.open;
  #outside: Record<string, string> = {};

  /** @param begin opens its block */
  constructor(begin: string) {
    this.hasOptions = hasOptions(begin);
  }

  run(text: string): void {
    for (const one of text.split(';').map((part) => part.trim().replaceAll(/\/\*.*?\*\/ |"/g, ''))) {
      if (one !== '') this.#one(one);
    }
  }

  #one(text: string): void {
    const { open, failed } = TransactionStatus;
    const [verb = '', ...words] = text.toLowerCase().split(' ');
    const name = words.at(-1)!;
    const at = this.savepoints.findLastIndex((one) => one.name === name);
    if (text.endsWith('AND CHAIN')) return this.#chain(verb === 'commit' && this.status === open);
    if (verb === 'rollback') {
      if (at < 0) this.status = failed;
      else {
        this.settings = { ...this.savepoints[at]!.settings };
        this.savepoints = this.savepoints.slice(0, at + 1);
        this.status = open;
      }
    } else if (this.status === failed) return;
    else if (text === 'SELECT 1/0' || name === 'bad' || (verb === 'release' && at < 0)) this.status = failed;
    else if (verb === 'savepoint') this.savepoints.push({ name, settings: { ...this.settings } });
    else if (verb === 'release') this.savepoints = this.savepoints.slice(0, at);
    else if (verb === 'set') this.settings[words.at(-3)!] = name;
  }

  #chain(commits: boolean): void {
    // Which of them are local is not of this test: COMMIT keeps all, and the session's settings carry them.
    this.settings = commits ? this.settings : { ...this.#outside };
    this.#outside = { ...this.settings };
    // An error takes a transaction's options back at once, and a subtransaction's error only what was set in that.
    if (this.status === TransactionStatus.failed && this.savepoints.length === 0) this.hasOptions = false;
    this.savepoints = [];
    this.status = TransactionStatus.open;
  }

  /** As a new connection of the session begins a block. */
  static behind(other: Server, begin: string): Server {
    const server = new Server(begin);
    server.settings = { ...other.#outside };
    return server;
  }
}

/** Plays one run. @returns what is wrong, and how often there was something to open a branch with */
function play(seed: number): { readonly wrong: string | null; readonly known: number; readonly asked: number } {
  const random = new SeededRandom(seed);
  const transaction = new Transaction<object>(() => SAID);
  const branch = {};
  const begin = random.pick(BEGINS);
  const server = new Server(begin);
  const owed: string[] = [];
  const said: string[] = [begin];
  let [known, asked] = [0, 0];
  transaction.hold(templateOf(begin), begin, SAID);
  transaction.opened(branch);
  const send = (text: string): void => {
    said.push(text);
    transaction.sent(templateOf(text), text, branch, []);
    owed.push(text);
  };
  const answerAll = (): void => {
    while (owed.length > 0) {
      server.run(owed.shift()!);
      if (server.status === TransactionStatus.failed) transaction.failedMeanwhile();
    }
    transaction.answered(server.status, branch);
    said.push('-- answered');
  };
  for (let step = 0; step < STEPS; step++) {
    send(random.pick(random.oneIn(40) ? ODD : TEXTS));
    if (random.oneIn(4)) continue;
    answerAll();
    if (transaction.status !== server.status) return { wrong: `${said.join('; ')}: status`, known, asked };
    if (transaction.phase !== 'open' || transaction.movable) continue;
    asked++;
    const { script } = transaction;
    if (script === null) continue;
    known++;
    const fresh = Server.behind(server, script[0]!.text);
    for (const { text } of script.slice(1)) fresh.run(text);
    const [here, there] = [server, fresh].map(({ savepoints, settings, status, hasOptions }) =>
      JSON.stringify([savepoints.map((one) => [one.name, sorted(one.settings)]), sorted(settings), status, hasOptions]),
    );
    if (here !== there) return { wrong: `${said.join('; ')}: ${here} and ${there}`, known, asked };
  }
  return { wrong: null, known, asked };
}

const sorted = (settings: Record<string, string>): unknown => Object.entries(settings).sort();

t.test('what opens a further branch brings it to where the block is', async (t) => {
  const runs = Array.from({ length: RUNS }, (_, seed) => play(seed));
  t.same(runs.flatMap(({ wrong }) => wrong ?? []).slice(0, 3), []);
  const [known, asked] = [runs.reduce((sum, one) => sum + one.known, 0), runs.reduce((sum, one) => sum + one.asked, 0)];
  t.comment(`known ${known} of ${asked} times`);
  t.ok(known > asked / 10, 'it is known where nothing has failed in a pipeline');
});

t.test('any number of savepoints, one after the other, takes no room', async (t) => {
  const [transaction, branch] = [new Transaction<object>(() => SAID), {}];
  transaction.hold(templateOf('BEGIN'), 'BEGIN', SAID);
  transaction.opened(branch);
  for (let n = 0; n < 1_000; n++) {
    for (const text of [WRITE, 'SAVEPOINT a', WRITE, 'ROLLBACK TO a', 'RELEASE a']) {
      transaction.sent(templateOf(text), text, branch, []);
      transaction.answered(TransactionStatus.open, branch);
    }
  }
  t.equal(transaction.script?.length, 1, 'its BEGIN is left');
});

t.test('the branches of a block', async (t) => {
  const [one, two, three] = [{}, {}, {}];
  const open = (): Transaction<object> => {
    const transaction = new Transaction<object>(() => SAID);
    transaction.hold(templateOf('BEGIN'), 'BEGIN', SAID);
    transaction.opened(one);
    transaction.sent(templateOf(WRITE), WRITE, one, []);
    transaction.answered(TransactionStatus.open, one);
    return transaction;
  };
  const spread = (): Transaction<object> => {
    const transaction = open();
    transaction.spread(two);
    transaction.spread(three);
    return transaction;
  };
  t.same(spread().branches, [three, two, one]);
  const turned = spread();
  turned.turned(one);
  t.equal(turned.branches[0], one);
  t.throws(() => turned.sent(templateOf(WRITE), WRITE, two, []), 'another branch than the one at hand');
  t.throws(() => turned.turned({}), 'a branch that it has not');
  t.throws(() => spread().spread(two), 'a branch twice');
  t.throws(() => spread().sent(templateOf('COMMIT'), 'COMMIT', three, []), 'the end of one branch alone');
  t.throws(() => open().endedTogether(), 'one branch');
  const failed = spread();
  failed.answered(TransactionStatus.failed, three);
  t.equal(failed.branches.length, 3, 'a block that has failed keeps its branches');
  failed.sent(templateOf('ROLLBACK TO a'), 'ROLLBACK TO a', three, []);
  failed.answered(TransactionStatus.open, three);
  t.ok(failed.isReadCommitted && failed.isSpread, 'and goes on with them from a savepoint');
  failed.gathered();
  t.same(failed.branches, [three]);
  for (const [lost, orphans] of [[three, [two, one]] as const, [one, [three, two]] as const]) {
    const transaction = spread();
    if (lost === three) transaction.lose(true);
    else transaction.loseFurther(lost);
    t.equal(transaction.status, lost === three ? TransactionStatus.failed : TransactionStatus.open);
    t.same(transaction.takeOrphans(), orphans, 'the others are to be rolled back');
    t.same(transaction.takeOrphans(), [], 'once');
    t.ok(transaction.isLeft);
  }
});
