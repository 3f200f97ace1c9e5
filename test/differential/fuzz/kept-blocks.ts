// Scripts by hand of blocks: what stands in front of BEGIN in its batch, reads beside a block, errors and AND CHAIN on the way to
// another shard, what a failed block takes back. See kept-scripts.ts.
import {
  again,
  atHome,
  catalogue,
  control,
  count,
  execute,
  type Keys,
  neutral,
  parse,
  put,
  query,
  read,
  run,
  type Step,
  steps,
} from './by-hand.js';
import type { FuzzMessage, Packet, Statement } from './script.js';

type Scripts = Record<string, (keys: Keys) => readonly Packet[]>;

const TOKYO = "set local timezone = 'Asia/Tokyo'";
/** Answered by pgkv itself. */
const PID = neutral('select pg_cancel_backend(null)');

/** Options of a transaction come too late behind whatever has read in it, wherever that ran and wherever they come. */
function lateOptions(): Scripts {
  const options = [
    control('begin isolation level repeatable read'),
    neutral('set transaction isolation level serializable'),
    neutral('set transaction deferrable'),
  ];
  const reads: Record<string, (keys: Keys) => Statement> = {
    'of all shards': () => count,
    'of one key': ({ other }) => read(other),
    'of a catalogue': () => catalogue("select count(*) from pg_class where relname = 'note'"),
    'of nothing': () => neutral('select 1'),
    'of its pid': () => PID,
  };
  const ways = (one: Statement, option: Statement, { other }: Keys): Record<string, readonly Step[]> => ({
    'in its batch': [[...run(one), ...run(option), 'sync'], control('rollback')],
    'in front of BEGIN': [[...run(one), ...run(control('begin')), 'sync'], option, control('rollback')],
    'in front of BEGIN, with a key behind': [
      [...run(one), ...run(control('begin')), 'sync'],
      [...run(option), ...run(read(other)), 'sync'],
      control('rollback'),
    ],
    'in the block': [control('begin'), one, option, control('rollback')],
    'in the block, pipelined': [control('begin'), [query(one), query(option)], control('rollback')],
    'in the block, with a key behind': [
      control('begin'),
      neutral('show work_mem'),
      one,
      [...run(option), ...run(read(other)), 'sync'],
      control('rollback'),
    ],
    'before AND CHAIN': [control('begin'), one, control('commit and chain'), option, control('rollback')],
  });
  const scripts: Scripts = {};
  for (const [of, make] of Object.entries(reads)) {
    for (const way of Object.keys(ways(count, count, { home: '', other: '', third: '' }))) {
      scripts[`options of a transaction behind a read ${of}, ${way}`] = (keys) =>
        options.flatMap((option) => steps(...ways(make(keys), option, keys)[way]!));
    }
  }
  return scripts;
}

/** What was set in front of BEGIN in its batch goes where the block goes, and ends with it. */
function setBeforeBegin(): Scripts {
  const settings = [
    'set constraints all deferred',
    "set work_mem = '3MB'",
    TOKYO,
    'set transaction isolation level repeatable read',
    "select set_config('app.user', 'y', true)",
    'discard plans',
  ];
  return Object.fromEntries(
    settings.map((sql) => [
      `${sql} in front of BEGIN, and a key elsewhere behind`,
      ({ other }: Keys) =>
        ['begin', 'begin isolation level serializable', 'begin read only'].flatMap((begin) =>
          ['commit', 'rollback'].flatMap((end) =>
            steps(
              [...run(neutral(sql)), ...run(control(begin)), 'sync'],
              read(other),
              neutral('show transaction_isolation'),
              neutral('show work_mem'),
              neutral("select current_setting('app.user', true)"),
              control(end),
              neutral('show work_mem'),
              [query(neutral('reset all'))],
            ),
          ),
        ),
    ]),
  );
}

const DESCRIBED: FuzzMessage[] = [
  parse(neutral('select 1 as a')),
  { describe: 'statement', name: '' },
  { bind: [], portal: '', statement: '', resultFormats: [] },
  execute,
];

export const BLOCK_SCRIPTS: Scripts = {
  ...lateOptions(),
  ...setBeforeBegin(),
  'a block is ended behind what pgkv answers beside it, before its server has heard of that': ({ other }) =>
    ['commit', 'rollback', 'commit and chain', 'rollback and chain'].flatMap((end) =>
      [control('begin'), control('begin isolation level repeatable read'), neutral('select 1')].flatMap((behind) =>
        steps(
          control('begin'),
          neutral('show work_mem'),
          [query(PID), query(control(end)), query(behind)],
          read(other),
          control('rollback'),
        ),
      ),
    ),
  'something fails in a block before it goes on elsewhere': ({ other }) =>
    ['release a', 'rollback to a', 'set work_mem = nothing', 'select 1 / 0'].flatMap((wrong) =>
      steps(
        [query(control('begin')), query(neutral(wrong)), query(control('rollback and chain')), query(read(other))],
        control('rollback'),
        control('begin'),
        [query(control('savepoint a')), query(neutral(wrong)), query(control('rollback to a')), query(read(other))],
        control('rollback'),
      ),
    ),
  'a batch begins with what names a statement, sets something and has its key elsewhere': ({ other }) => {
    const first: FuzzMessage[] = [
      { describe: 'statement', name: 's1' },
      { describe: 'statement', name: 's3' },
      { close: 'statement', name: 's9' },
      { close: 'portal', name: 'p9' },
    ];
    return first.flatMap((message) =>
      steps(
        [parse(control('begin'), 's1'), parse(read(other), 's3'), 'sync'],
        [message, ...run(neutral(TOKYO)), ...run(read(other)), 'sync'],
        neutral('deallocate all'),
      ),
    );
  },
  'behind what has run elsewhere, a batch goes on at home with what runs nothing': ({ other }) => {
    const idle: FuzzMessage[][] = [
      [parse(atHome('select text from note'), 's1')],
      [parse(atHome('select text from note'))],
      [{ describe: 'statement', name: 's2' }],
      [{ close: 'statement', name: 's2' }],
      [parse(neutral('show work_mem'), 's1'), { describe: 'statement', name: 's1' }],
    ];
    return idle.flatMap((messages) =>
      steps(
        [parse(atHome('select id from note'), 's2'), 'sync'],
        [...run(read(other)), ...messages, ...run(neutral(TOKYO)), 'sync'],
        [...run(count), ...messages, ...run(neutral('set transaction deferrable')), 'sync'],
        neutral('deallocate all'),
      ),
    );
  },
  'a name was taken, and stands for nothing in the end': ({ other }) => {
    const taken: FuzzMessage[] = [parse(neutral('select 7'), 's1'), 'sync', { close: 'statement', name: 's1' }, 'sync'];
    const gone: FuzzMessage[] = [...again('s9'), ...again('s1'), 'sync', ...again('s1'), 'sync'];
    return [control('begin'), neutral('select 1')].flatMap((first) =>
      steps(
        first,
        [parse(read(other), 's1'), 'sync'],
        taken,
        gone,
        control('rollback'),
        [parse(read(other), 's1'), 'sync', ...taken, ...gone],
        [parse(read(other), 's1'), 'sync', parse(neutral('selec 1'), 's1'), 'sync', ...taken, ...taken],
        control('rollback'),
      ),
    );
  },
  'no portal is there that the client has not bound, where its batch goes on elsewhere': ({ other }) =>
    [{ execute: '', rows: 0 } as const, { describe: 'portal', name: '' } as const].flatMap((message) =>
      steps(
        [...run(read(other)), { close: 'portal', name: '' }, message, 'sync'],
        [...run(count), { close: 'portal', name: '' }, message, 'sync'],
        [...run(read(other)), parse(neutral('show work_mem')), { close: 'portal', name: '' }, message, 'sync'],
        [...run(count), parse(neutral('show work_mem'), 's1'), { close: 'portal', name: '' }, message, 'sync'],
        neutral('deallocate all'),
      ),
    ),
  'BEGIN with a value that nothing uses, and a key elsewhere': ({ other }) =>
    ['begin', 'start transaction read only'].flatMap((begin) =>
      steps(
        [
          { parse: control(begin), name: '', types: [23] },
          { bind: ['7'], portal: '', statement: '', resultFormats: [] },
          execute,
          'sync',
        ],
        [...run(neutral('set transaction deferrable')), 'sync'],
        control('rollback'),
        [
          { parse: control(begin), name: '', types: [23] },
          { bind: ['7'], portal: '', statement: '', resultFormats: [] },
          execute,
          'sync',
        ],
        read(other),
        control('rollback'),
      ),
    ),
  'a text goes on from a savepoint of a block elsewhere': ({ home, other }) =>
    [
      catalogue("select count(*) from pg_class where relname = 'note'"),
      atHome('select count(*) from note'),
      put(home),
      put(other),
      neutral('select 1'),
      control('savepoint b'),
    ].flatMap((behind) =>
      steps(
        control('begin'),
        control('savepoint a'),
        read(other),
        neutral('select 1 / 0'),
        [query(control('rollback to a'), behind)],
        control('rollback'),
      ),
    ),
  'a statement on a table at home is described in a block elsewhere': ({ other }) =>
    steps(
      [parse(atHome('select id from note'), 's1'), parse(read(other), 's3'), 'sync'],
      control('begin'),
      [{ describe: 'statement', name: 's1' }, 'sync'],
      [{ describe: 'statement', name: 's3' }, 'sync'],
      put(other),
      [{ describe: 'statement', name: 's3' }, 'sync'],
      [{ describe: 'statement', name: 's1' }, 'sync'],
      control('rollback'),
    ),
  'what a block has set is told as it is when the block has failed': ({ other }) =>
    steps(
      [...run(control('begin')), ...run(neutral(TOKYO)), 'sync'],
      [...again('s1'), ...run(atHome('select count(*) from note')), ...run(put(other)), 'sync'],
      control('rollback'),
    ),
  'what a batch has set is told beside a read of a catalogue': ({ other }) =>
    steps(
      control('begin'),
      put(other),
      [...run(neutral(TOKYO)), ...run(catalogue("select count(*) from pg_class where relname = 'note'")), 'sync'],
      neutral('show timezone'),
      control('rollback'),
    ),
  'texts behind what undoes the encoding that a block has set': ({ home }) =>
    [
      'select 1 / 0',
      'rollback',
      'commit',
      'rollback to a',
      'insert into note (id, text) values (1, $$n$$) /* \u00e9 */',
    ].flatMap((undoing) =>
      steps(
        control('begin'),
        control('savepoint a'),
        neutral("set client_encoding to 'WIN1251'"),
        [undoing, read(home).sql, 'select 2'].map(
          (sql): FuzzMessage => ({
            query: [{ sql: sql === undoing ? sql : `${sql} /* \u00e9 */`, touch: { kind: 'home' } }],
            latin1: true,
          }),
        ),
        control('rollback'),
        neutral("set client_encoding to 'UTF8'"),
      ),
    ),
  'the unnamed statement is another one when its description comes': ({ home }) =>
    steps(
      [...DESCRIBED, 'sync', parse(read(home)), 'sync'],
      atHome(`do $$ begin execute 'create table made_x ()'; execute 'drop table made_x'; end $$`),
      [...again(''), 'sync'],
      [
        parse(neutral('select 2')),
        { describe: 'statement', name: '' },
        'sync',
        parse(read(home)),
        'sync',
        ...again(''),
        'sync',
      ],
    ),
};
