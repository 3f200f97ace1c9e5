// The client's block against a Postgres session that gets the same statements, pipelined at random: what pgkv says of the block
// is what that session would say, wherever BEGIN was held back, the block was moved, or its connection broke.
import t from 'tap';
import { noteSaid, type Prologue, type PrologueStatement } from '../../../src/session/prologue.js';
import { endTag, Transaction } from '../../../src/session/transaction.js';
import { loadParser } from '../../../src/sql/meaning/parse.js';
import type { Template } from '../../../src/sql/plan/template.js';
import { readTemplate } from '../../../src/sql/read-template.js';
import { lexShape } from '../../../src/sql/text/shape-lexer.js';
import { TransactionStatus } from '../../../src/wire/protocol.js';
import { SeededRandom } from '../../support/seeded-random.js';

await loadParser();

/** Here texts are enough to say a statement again. */
const SAID = { isQuery: true, bytes: Buffer.alloc(0) };
const RUNS = 4_000;
const STEPS = 40;

const TEXTS = [
  'BEGIN',
  'START TRANSACTION READ ONLY',
  'COMMIT',
  'ROLLBACK',
  'COMMIT AND CHAIN',
  'SAVEPOINT s',
  'ROLLBACK TO s',
  'SELECT 1',
  'SET LOCAL work_mem = 1000',
  'SET TRANSACTION DEFERRABLE',
  'SET CONSTRAINTS ALL DEFERRED',
  'INSERT INTO plain VALUES (1)',
  'SELECT 1/0',
] as const;
type Text = (typeof TEXTS)[number];

const TEMPLATES = new Map<Text, Template>(
  TEXTS.map((text) => [text, readTemplate(text, true, lexShape(text, true), 15).template]),
);

/** Those that may stand in front of a BEGIN in its batch. */
const BEFORE = [
  'SELECT 1',
  'SET LOCAL work_mem = 1000',
  'SET TRANSACTION DEFERRABLE',
  'SET CONSTRAINTS ALL DEFERRED',
] as const;

/** What a Postgres session makes of the statements. */
class PostgresSession {
  status: number = TransactionStatus.idle;
  #hasSavepoint = false;
  /** The transaction has taken a snapshot: for some of its options it is too late. */
  #hasRead = false;

  /** What pgkv says by itself, too. */
  run(text: Text | 'SELECT'): void {
    const { idle, open, failed } = TransactionStatus;
    const before = this.status;
    if (before === idle) this.#hasRead = false;
    if (before === open && /^(SELECT|INSERT)/.test(text)) this.#hasRead = true;
    if (text === 'COMMIT' || text === 'ROLLBACK') this.#goTo(idle);
    else if (text === 'COMMIT AND CHAIN') this.#goTo(before === idle ? idle : open);
    else if (text === 'ROLLBACK TO s' && before !== idle) this.status = this.#hasSavepoint ? open : failed;
    else if (before === failed) return;
    else if (text === 'BEGIN' || text === 'START TRANSACTION READ ONLY') this.status = open;
    else if (text === 'SAVEPOINT s') this.#hasSavepoint = before === open;
    else if (text === 'SELECT 1/0' && before === open) this.status = failed;
    else if (text === 'SET TRANSACTION DEFERRABLE' && before === open && this.#hasRead) this.status = failed;
  }

  #goTo(status: number): void {
    this.status = status;
    this.#hasSavepoint = this.#hasRead = false;
  }
}

const textOf = ({ text, said: { bytes } }: PrologueStatement): Text =>
  (text === '' ? bytes.toString('latin1', 5, bytes.length - 1) : text) as Text;

const isEnd = (text: Text): boolean => endTag(TEMPLATES.get(text)!) !== null;

/** Sends statements as a conversation does; its server answers when it is told to. */
class Client {
  readonly transaction = new Transaction<object>(() => SAID);
  /** What plain Postgres would have come to. */
  readonly plain = new PostgresSession();
  /** Its server's. */
  #server = new PostgresSession();
  #branch = {};
  readonly #owed: Text[] = [];
  /** What was said again in a block that was moved has failed there. */
  saidInVain = false;

  send(text: Text): void {
    const { transaction } = this;
    // As ShardPlacement.edgeIsOpen has it.
    const { state } = transaction;
    if (state.kind === 'ending' || (state.kind === 'open' && !state.isSure)) this.answerAll();
    const template = TEMPLATES.get(text)!;
    this.plain.run(text);
    const { phase } = transaction;
    if (phase === 'none' && this.#owed.length === 0 && template.beginsBy !== null)
      return transaction.hold(template, text, SAID);
    if (phase === 'held') {
      if (isEnd(text)) return transaction.endedHere();
      for (const said of transaction.opened(this.#branch)) {
        this.#server.run(textOf(said));
        if (this.#server.status !== TransactionStatus.open) this.saidInVain = true;
      }
    }
    if (phase === 'failed' && this.#isHere()) {
      if (isEnd(text)) transaction.endedHere();
      // Nothing else is let through; what begins anew there is not of this test.
      else this.plain.status = TransactionStatus.failed;
      return;
    }
    transaction.sent(template, text, this.#branch, []);
    this.#owed.push(text);
  }

  /** A BEGIN in one batch with what stands in front of it, which is of its block. */
  beginBehind(text: (typeof BEFORE)[number]): void {
    const { transaction } = this;
    if (transaction.phase !== 'none' || this.#owed.length > 0) return;
    const before: Prologue = [];
    noteSaid(before, TEMPLATES.get(text)!, text, () => SAID);
    transaction.sent(TEMPLATES.get('BEGIN')!, 'BEGIN', this.#branch, before);
    for (const said of ['BEGIN', text] as const) {
      this.plain.run(said);
      this.#server.run(said);
    }
    transaction.answered(this.#server.status, this.#branch);
  }

  /** A read of several shards, or what is answered without a server. */
  readBeside(): void {
    const { phase, movable } = this.transaction;
    if (this.#owed.length > 0 || !movable || (phase !== 'held' && phase !== 'open')) return;
    this.plain.run('SELECT 1');
    if (this.transaction.noteRead()) this.#server.run('SELECT');
  }

  answer(): void {
    const text = this.#owed.shift();
    if (text === undefined) return;
    this.#server.run(text);
    const { status } = this.#server;
    if (this.#owed.length === 0) this.transaction.answered(status, this.#branch);
    else if (status === TransactionStatus.failed) this.transaction.failedMeanwhile();
  }

  answerAll(): void {
    while (this.#owed.length > 0) this.answer();
  }

  /** A block in which nothing was said that cannot be said again goes to another server. */
  move(): void {
    if (this.#owed.length > 0 || this.transaction.phase !== 'open' || !this.transaction.movable) return;
    this.transaction.moved();
    this.#newConnection();
  }

  /** The connection breaks while nothing is owed. */
  lose(): void {
    if (this.#owed.length > 0 || this.transaction.phase === 'held' || !this.transaction.inBlock) return;
    this.transaction.lose(true);
    this.#newConnection();
    this.plain.status = TransactionStatus.failed;
  }

  #isHere(): boolean {
    const { state } = this.transaction;
    return state.kind === 'failed' && state.branch === null;
  }

  #newConnection(): void {
    this.#server = new PostgresSession();
    this.#branch = {};
  }
}

const ACTS = [
  'send',
  'send',
  'send',
  'send',
  'settle',
  'settle',
  'answer',
  'move',
  'lose',
  'read beside',
  'begin behind',
] as const;

/** Plays one run; what is wrong, or null. */
function play(seed: number): string | null {
  const random = new SeededRandom(seed);
  const client = new Client();
  const said: string[] = [];
  for (let step = 0; step < STEPS; step++) {
    const act = random.pick(ACTS);
    if (act === 'send') {
      const text = random.pick(TEXTS);
      said.push(text);
      client.send(text);
    } else if (act === 'answer') client.answer();
    else if (act === 'move') client.move();
    else if (act === 'read beside') {
      said.push('-- a read beside');
      client.readBeside();
    } else if (act === 'begin behind') {
      const text = random.pick(BEFORE);
      said.push(`-- ${text}; BEGIN, if there is no block`);
      client.beginBehind(text);
    } else if (act === 'lose') {
      said.push('-- lost, if it can be');
      client.lose();
    } else {
      client.answerAll();
      said.push('-- answered');
      if (client.saidInVain) return `${said.join('; ')}: what was said in it could not be said again`;
      if (client.transaction.status !== client.plain.status)
        return `${said.join('; ')}: ${client.transaction.phase}, and Postgres ${String.fromCharCode(client.plain.status)}`;
    }
  }
  return null;
}

t.test('the block is what it would be in Postgres', async (t) => {
  const wrong = Array.from({ length: RUNS }, (_, seed) => [seed, play(seed)] as const).filter(([, found]) => found);
  t.same(wrong.slice(0, 3), []);
});

t.test('transitions from where they must not be made are refused', async (t) => {
  const begin = TEMPLATES.get('BEGIN')!;
  const branch = {};
  const held = (): Transaction<object> => {
    const transaction = new Transaction<object>(() => SAID);
    transaction.hold(begin, 'BEGIN', SAID);
    return transaction;
  };
  const bound = (): Transaction<object> => {
    const transaction = held();
    transaction.opened(branch);
    transaction.sent(TEMPLATES.get('INSERT INTO plain VALUES (1)')!, '', branch, []);
    return transaction;
  };
  t.throws(() => held().hold(begin, 'BEGIN', SAID), 'a second BEGIN is not held');
  t.throws(() => new Transaction<object>(() => SAID).opened(branch), 'nothing is held');
  t.throws(() => bound().moved(), 'a bound block does not move');
  t.throws(() => bound().endedHere(), 'its server ends it');
  t.throws(() => bound().sent(begin, '', {}, []), 'another branch');
  t.throws(() => bound().lossTold(), 'nothing was lost');
  const behindWrite = new Transaction<object>(() => SAID);
  behindWrite.sent(begin, 'BEGIN', branch, null);
  t.notOk(behindWrite.movable, 'a BEGIN behind a write in its batch');
  const lost = bound();
  lost.lose(false);
  t.equal(lost.phase, 'lost');
  t.throws(() => lost.sent(begin, '', branch, []), 'its loss has not been told');
  lost.lossTold();
  t.equal(lost.phase, 'failed');
});

t.test('a block that has said too much to say it again stays where it is', async (t) => {
  const branch = {};
  let bytes = 1_000;
  const transaction = new Transaction<object>(() => ({ isQuery: true, bytes: Buffer.alloc(bytes) }));
  const say = (text: Text): void => transaction.sent(TEMPLATES.get(text)!, text, branch, []);
  const prologueBytes = (): number => {
    const { state } = transaction;
    const prologue = state.kind === 'open' ? state.prologue : null;
    return (prologue ?? []).reduce((sum, { said }) => sum + said.bytes.length, 0);
  };
  for (const size of [1_000, 10_000, 60_000, 1_000_000]) {
    bytes = 1_000;
    say('BEGIN');
    bytes = size;
    for (let said = 1; said <= 80 && transaction.movable; said++) {
      say('SET LOCAL work_mem = 1000');
      t.ok(prologueBytes() <= 65_536, `${said} of ${size} bytes`);
    }
    t.notOk(transaction.movable);
    transaction.answered(TransactionStatus.idle, branch);
  }
});
