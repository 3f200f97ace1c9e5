// The oracle of the loss tests on conversations that are known to be true, or false: each rule is broken here once.
import t from 'tap';
import type { BackendMessage } from '../../support/backend-message.js';
import type { Answer } from './answer.js';
import { type Circumstances, Ledger } from './ledger.js';
import { extended, type Place, plain, readAt, simple, type Unit, writeAt } from './statements.js';

const PLACE: Place = { id: '0000001', here: 0, there: 1, tags: ['a', 'b'] };
const begin = plain('BEGIN', { kind: 'begin' });
const commit = plain('COMMIT', { kind: 'commit' });
const rollback = plain('ROLLBACK', { kind: 'rollback' });
const write = (name: string) => ({ ...writeAt(PLACE, 0, name), inBlock: true });
const read = readAt(PLACE, 0);

/** 'tag COMMIT', 'row', 'error 40001', 'bound' …: one word or two for each message; the status last. */
function answer(text: string): Answer {
  const messages = text.split(', ').map((said): BackendMessage => {
    const [what, argument = ''] = said.split(/ (.*)/);
    if (what === 'tag') return { type: 'CommandComplete', tag: argument };
    if (what === 'row') return { type: 'DataRow', values: [] };
    if (what === 'error') return { type: 'ErrorResponse', fields: { C: argument, M: '' } };
    if (what === 'columns') return { type: 'RowDescription', columns: [] };
    if (what === 'parsed') return { type: 'ParseComplete' };
    if (what === 'bound') return { type: 'BindComplete' };
    return { type: 'ReadyForQuery', status: what! };
  });
  const isOver = messages.at(-1)!.type === 'ReadyForQuery';
  return { messages, ended: isOver ? 'ready' : 'closed', isInMessage: false };
}

const WRITTEN = 'columns, row, tag INSERT 0 1';
const LOSS: Circumstances = { undisturbed: null, lossPossible: true, lostShard: 0, rest: [], id: PLACE.id };

type Said = readonly [unit: Unit, answered: string, rest?: readonly Unit[]];

function rulesBroken(said: readonly Said[]): string[] {
  const ledger = new Ledger();
  for (const [unit, answered, rest = []] of said) ledger.take(unit, answer(answered), { ...LOSS, rest });
  return ledger.violations.map((each) => /\[(.*?)\]/.exec(each)![1]!);
}

const fatesOf = (said: readonly Said[]): string[] => {
  const ledger = new Ledger();
  for (const [unit, answered, rest = []] of said) ledger.take(unit, answer(answered), { ...LOSS, rest });
  return ledger.fates.flatMap(({ rows, fate }) => rows.map(({ key }) => `${key.at(-1)} ${fate}`));
};

const begun: Said = [simple(begin), 'tag BEGIN, T'];
const wrote = (name: string): Said => [simple(write(name)), `${WRITTEN}, T`];

t.test('true answers', async (t) => {
  const good: Readonly<Record<string, readonly Said[]>> = {
    'a read that is lost': [[simple(read), 'error 08006, I']],
    'a write that is lost': [[simple(writeAt(PLACE, 0, 'w')), 'error 08007, I']],
    'a write that was not sent': [[simple(writeAt(PLACE, 0, 'w')), 'error 08006, I']],
    'a block': [begun, wrote('w'), [simple(commit), 'tag COMMIT, I']],
    'a block that is lost': [
      begun,
      wrote('w'),
      [simple(write('v')), 'error 40001, E'],
      [simple(write('x')), 'error 25P02, E'],
      [simple(commit), 'tag ROLLBACK, I'],
    ],
    'a COMMIT that is lost': [begun, wrote('w'), [simple(commit), 'error 08007, I']],
    'a pipelined block whose COMMIT was sent': [
      begun,
      [simple(write('w')), 'error 08007, E', [simple(commit)]],
      [simple(commit), 'tag ROLLBACK, I'],
    ],
    'a ROLLBACK': [begun, wrote('w'), [simple(rollback), 'tag ROLLBACK, I']],
    'a batch': [[extended(read), 'parsed, bound, columns, row, tag SELECT 1, I']],
    'half a batch': [[extended(read, read), 'parsed, bound, columns, row, tag SELECT 1, parsed, error 08006, I']],
  };
  for (const [name, said] of Object.entries(good)) t.same(rulesBroken(said), [], name);
});

t.test('false ones', async (t) => {
  const bad: Readonly<Record<string, readonly [rule: string, said: readonly Said[]]>> = {
    'a block is over without a word': ['I in a block', [begun, [simple(write('w')), 'error 40001, I']]],
    'an unknown outcome of what cannot be committed': ['08007', [begun, [simple(write('w')), 'error 08007, E']]],
    'an unknown outcome of a read': ['08007', [[simple(read), 'error 08007, I']]],
    'a rollback of no block': ['40001', [[simple(read), 'error 40001, I']]],
    'a block that may be repeated in part': ['08006', [begun, wrote('w'), [simple(read), 'error 08006, E']]],
    'two errors': ['two errors', [[extended(read), 'error 08006, error 25P02, I']]],
    'an answer that is missing': ['missing', [[extended(read, read), 'parsed, bound, columns, row, tag SELECT 1, I']]],
    'an answer to what was not parsed': ['shape', [[extended(read), 'bound, columns, row, tag SELECT 1, I']]],
    'a ROLLBACK that fails': ['rollback', [begun, wrote('w'), [simple(rollback), 'error 40001, E']]],
    'a lost block that is committed': [
      'lost block',
      [begun, [simple(write('w')), 'error 40001, E'], [simple(commit), 'tag COMMIT, I']],
    ],
    'a write in a failed block': ['failed block', [begun, [simple(write('w')), 'error 40001, E'], wrote('v')]],
    'a write of a block alone': [
      'alone',
      [begun, [simple(write('w')), 'error 40001, I'], [simple(write('v')), `${WRITTEN}, I`]],
    ],
    'a status that is not true': ['status', [[simple(read), 'columns, row, tag SELECT 1, T']]],
    'an error without a cause': ['error', [[simple(read), 'error 08P01, I']]],
    'the end without a word': ['closed', [begun, [simple(write('w')), 'columns']]],
  };
  for (const [name, [rule, said]] of Object.entries(bad)) t.ok(rulesBroken(said).includes(rule), `${name}: ${rule}`);
  const ledger = new Ledger();
  ledger.take(simple(read), answer('error 08006, I'), { ...LOSS, lossPossible: false });
  t.ok(ledger.violations[0]!.startsWith('[no loss]'), 'a loss that was none');
});

t.test('what has to be found afterwards', async (t) => {
  t.same(fatesOf([begun, wrote('w'), [simple(commit), 'tag COMMIT, I']]), ['w there']);
  t.same(fatesOf([begun, wrote('w'), [simple(commit), 'error 08007, I']]), ['w unknown']);
  t.same(fatesOf([begun, wrote('w'), [simple(write('v')), 'error 40001, E']]), ['w absent', 'v absent']);
  t.same(fatesOf([begun, wrote('w')]), ['w absent'], 'a block that nobody ends');
  t.same(fatesOf([[simple(writeAt(PLACE, 0, 'w')), 'error 08006, I']]), ['w absent']);
  t.same(fatesOf([[simple(writeAt(PLACE, 0, 'w')), `${WRITTEN}, I`]]), ['w there']);
  const savepoint = plain('SAVEPOINT s', { kind: 'savepoint', name: 's' });
  const back = plain('ROLLBACK TO s', { kind: 'rollback to', name: 's' });
  t.same(
    fatesOf([
      begun,
      wrote('w'),
      [simple(savepoint), 'tag SAVEPOINT, T'],
      wrote('v'),
      [simple(back), 'tag ROLLBACK, T'],
      [simple(commit), 'error 08007, I'],
    ]),
    ['w unknown', 'v absent'],
  );
  t.same(
    fatesOf([
      begun,
      [simple(write('w')), 'error 08007, E', [simple(write('v')), simple(commit)]],
      [simple(write('v')), 'error 25P02, E', [simple(commit)]],
      [simple(commit), 'tag ROLLBACK, I'],
    ]),
    ['w unknown', 'v unknown'],
    'what was sent behind it is part of it',
  );
});
