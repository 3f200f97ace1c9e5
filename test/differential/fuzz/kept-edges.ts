// Scripts by hand of the edges of blocks over shards: what stands in front of them in their packet, how they end, and what is told of
// their settings. See kept-scripts.ts.
import {
  again,
  atHome,
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
  TENANT,
  WRONG,
} from './by-hand.js';
import type { FuzzMessage, Packet, Statement } from './script.js';

type Scripts = Record<string, (keys: Keys) => readonly Packet[]>;

const TOKYO = "set local timezone = 'Asia/Tokyo'";

/** A statement on the branches of a block fails on one of them: the client hears what holds again of what the block has set. */
function settingsUndone(): Scripts {
  const every = (sql: string, writes: boolean): Statement => ({ sql, touch: { kind: 'every', writes } });
  const wrongOn = (key: string): string => `1 / (position('${key}' in key) - 1)`;
  const kinds: Record<string, (key: string) => Statement> = {
    'an UPDATE': (key) => every(`update kv set value = to_jsonb(${wrongOn(key)}) where tenant_id = 't0'`, true),
    'a DELETE': (key) => every(`delete from kv where tenant_id = 't0' and ${wrongOn(key)} = 7`, true),
    'a read': (key) => every(`select count(*) from kv where tenant_id = 't0' and ${wrongOn(key)} < 7`, false),
  };
  const scripts: Scripts = {};
  for (const [kind, statement] of Object.entries(kinds)) {
    for (const where of ['home', 'other', 'third'] as const) {
      const prepare = ({ home, other, third }: Keys): Step[] => [put(home), put(other), put(third)];
      const failing = (keys: Keys): Statement => statement(keys[where].slice(0, -1));
      scripts[`what a block has set is told behind ${kind} that fails on ${where}`] = (keys) =>
        steps(
          ...prepare(keys),
          control('begin'),
          neutral(TOKYO),
          failing(keys),
          neutral('select 1'),
          control('rollback'),
        );
      scripts[`the same of ${kind} in a batch, ${where}`] = (keys) =>
        steps(
          ...prepare(keys),
          [...run(control('begin')), ...run(neutral(TOKYO)), 'sync'],
          [...run(put(keys.third.replace('1', '8'))), 'sync'],
          [...run(failing(keys)), 'sync'],
          [...run(control('rollback')), 'sync'],
        );
    }
  }
  return scripts;
}

/** The end of a block, bound with a value for a type that its text does not use, which Postgres takes in a sound block alone. */
function endsWithValues(): Scripts {
  const ends = ['commit', 'rollback', 'rollback to a', 'commit and chain', 'rollback and chain', 'release a'];
  const probes = [control('rollback to a'), neutral('select 1'), control('commit')];
  const scripts: Scripts = {};
  for (const end of ends) {
    for (const fails of [true, false]) {
      for (const places of [['home'], ['other'], ['home', 'other'], ['other', 'home']] as const) {
        const bound: Step = [
          { parse: control(end), name: '', types: [23] },
          { bind: ['7'], portal: '', statement: '', resultFormats: [] },
          execute,
          'sync',
        ];
        scripts[`${end} with a value, of a block on ${places.join(' and ')}${fails ? ' that has failed' : ''}`] = (
          keys,
        ) =>
          probes.flatMap((probe) =>
            steps(
              control('begin'),
              control('savepoint a'),
              ...places.map((place) => read(keys[place])),
              ...(fails ? [WRONG] : []),
              bound,
              probe,
              control('rollback'),
              neutral('select 2'),
            ),
          );
      }
    }
  }
  return scripts;
}

const NO_KEYS: Keys = { home: '', other: '', third: '' };

/** A block over shards is begun in the same packet as settings of the session, and runs under those on every shard. */
function settingsUnderWay(): Scripts {
  const SETS: Record<string, Statement> = {
    SET: neutral("set timezone = 'Asia/Tokyo'"),
    set_config: neutral("select set_config('timezone', 'Asia/Tokyo', false)"),
    code: atHome("do $$ begin perform set_config('timezone', 'Asia/Tokyo', false); end $$"),
  };
  const begin = control('begin');
  const ways = (set: Statement, { home }: Keys): Record<string, readonly FuzzMessage[]> => ({
    queries: [query(set), query(begin)],
    batches: [...run(set), 'sync', ...run(begin), 'sync'],
    'a query and a batch': [query(set), ...run(begin), 'sync'],
    'a batch and a query': [...run(set), 'sync', query(begin)],
    'one text': [query(set, begin)],
    'one batch': [...run(set), ...run(begin), 'sync'],
    'a batch that reads first': [query(set), ...run(neutral('select 1')), ...run(begin), 'sync'],
    'with a key between them': [query(set), query(read(home)), query(begin)],
    'with a key behind them': [query(set), query(begin), query(read(home))],
    'an error between them': [query(set), query(WRONG), query(begin)],
  });
  const scripts: Scripts = {};
  for (const [name, set] of Object.entries(SETS)) {
    for (const way of Object.keys(ways(set, NO_KEYS))) {
      scripts[`${name} and BEGIN under way: ${way}`] = (keys) =>
        steps(
          ways(set, keys)[way]!,
          read(keys.home),
          read(keys.other),
          neutral('show timezone'),
          count,
          control('commit'),
          neutral('show timezone'),
        );
    }
  }
  return scripts;
}

/** A text ends a block over shards, and what it goes on with fails, in a block of its own or in none. */
function textsThatEndAndGoOn(): Scripts {
  const behind: Record<string, (keys: Keys) => Statement[]> = {
    'an error': () => [WRONG],
    'a block that fails': () => [control('begin'), WRONG],
    'a READ ONLY block that writes': ({ third }) => [control('begin read only'), put(third)],
    'a block that is sound': ({ third }) => [control('begin'), read(third)],
  };
  const probes = [control('rollback to a'), neutral('select 1'), control('savepoint b'), control('commit')];
  const scripts: Scripts = {};
  for (const [what, rest] of Object.entries(behind)) {
    for (const end of ['rollback', 'commit']) {
      for (const fails of [true, false]) {
        scripts[`${end}${fails ? ' of a failed block' : ''} over shards and ${what} in one text`] = (keys) =>
          probes.flatMap((probe) =>
            steps(
              control('begin'),
              read(keys.home),
              read(keys.other),
              ...(fails ? [WRONG] : []),
              [query(control(end), ...rest(keys))],
              probe,
              control('rollback'),
              neutral('select 2'),
            ),
          );
      }
    }
  }
  return scripts;
}

/** A batch that begins with what any shard answers, behind one in the same packet that is still answered, and then has keys elsewhere. */
function batchesBehindBatches(): Scripts {
  const firsts: Record<string, FuzzMessage[]> = {
    'a Close of a statement': [{ close: 'statement', name: 's2' }],
    'a Close of a portal': [{ close: 'portal', name: 'p2' }],
    'two Closes': [
      { close: 'portal', name: '' },
      { close: 'statement', name: '' },
    ],
    'what is neutral': run(neutral('set local work_mem = 64')),
  };
  const before: Record<string, FuzzMessage[]> = {
    'one that fails': again('nowhere'),
    'one that does not': run(atHome('select count(*) from note')),
  };
  const scripts: Scripts = {};
  for (const [first, begun] of Object.entries(firsts)) {
    for (const [behind, earlier] of Object.entries(before)) {
      scripts[`${first} begins a batch behind ${behind}`] = ({ other }) =>
        steps([
          ...earlier,
          'sync',
          ...begun,
          ...run(neutral("set local work_mem = '3MB'")),
          ...run(read(other)),
          'sync',
        ]);
    }
  }
  return scripts;
}

/** Many times, for what a client's messages must not meet: lanes of a block that has just ended, all on their way back. */
function endsUnderWay(): Scripts {
  const every: Statement = {
    sql: "delete from kv where tenant_id = 't0' and version > 5",
    touch: { kind: 'every', writes: true },
  };
  const ends: Record<string, (keys: Keys) => FuzzMessage[]> = {
    'ROLLBACK and a key elsewhere in one text': ({ other }) => [query(control('rollback'), read(other))],
    'ROLLBACK and a block elsewhere': ({ other }) => [
      query(control('rollback')),
      query(control('begin')),
      query(read(other)),
    ],
    'COMMIT and a block elsewhere': ({ third }) => [
      query(control('commit')),
      query(control('begin')),
      query(read(third)),
    ],
    'an error, ROLLBACK and a block elsewhere': ({ other }) => [
      query(WRONG),
      query(control('rollback')),
      query(control('begin')),
      query(read(other)),
    ],
  };
  const scripts: Scripts = {};
  for (const [name, end] of Object.entries(ends)) {
    scripts[`${name}, under way behind a write on all shards`] = (keys) =>
      Array.from({ length: 12 }, () =>
        steps(control('begin'), [query(read(keys.home)), query(every), ...end(keys)], control('rollback')),
      ).flat();
  }
  return scripts;
}

/** What a block holds on the home shard is given up there, wherever the block has gone since. */
function heldAtHome(): Scripts {
  const kinds: { made: string; given: readonly string[]; probe: string }[] = [
    { made: 'prepare p1 as select 8', given: ['deallocate p1', 'deallocate all', 'select 1'], probe: 'execute p1' },
    { made: 'listen c', given: ['unlisten c', 'unlisten *'], probe: 'select count(*) from pg_listening_channels()' },
    {
      made: 'declare c cursor with hold for select 8 as n union all select 9',
      given: ['close c', 'close all'],
      probe: 'fetch c',
    },
    {
      made: 'select pg_advisory_lock(8)',
      given: ['select pg_advisory_unlock(8)', 'select pg_advisory_unlock_all()'],
      probe: "select count(*) from pg_locks where locktype = 'advisory'",
    },
  ];
  const moves: Record<string, (keys: Keys) => Step[]> = {
    'a key': ({ other }) => [read(other)],
    'a write of a key': ({ third }) => [put(third)],
    'all shards': () => [count],
    'all shards and a key': ({ other }) => [count, read(other)],
    'a batch': ({ other }) => [[...run(read(other)), 'sync']],
    'a portal read in part': () => [
      [parse(count), { bind: [], portal: 'p1', statement: '', resultFormats: [] }, { execute: 'p1', rows: 1 }, 'sync'],
    ],
    nowhere: () => [],
  };
  const scripts: Scripts = {};
  for (const { made, given, probe } of kinds)
    for (const [where, move] of Object.entries(moves))
      for (const release of given) {
        const at = Object.keys(scripts).length;
        const isBound = at % 2 === 0;
        const end = control(at % 4 < 2 ? 'commit' : 'rollback');
        scripts[`${made}, ${where}, ${release}${isBound ? ' in a batch' : ''}, ${end.sql}`] = (keys) => {
          const step = (sql: string): Step => (isBound ? [...run(atHome(sql)), 'sync'] : atHome(sql));
          return steps(control('begin'), step(made), ...move(keys), step(release), end, atHome(probe));
        };
      }
  return scripts;
}

/** One shard finds that a value is none, another one that a row is there, or breaks a rule: Postgres looks at all values first. */
function firstOfErrors(): Scripts {
  const places = ['home', 'other', 'third'] as const;
  const scripts: Scripts = {};
  for (const wrong of places)
    for (const taken of places)
      for (const returning of ['', ' returning key'])
        scripts[`${wrong} is no JSON, ${taken} is there${returning}`] = (keys) => {
          const sql = `insert into kv (tenant_id, key, value) values ($1, $2, $3), ($4, $5, $6), ($7, $8, $9)${returning}`;
          const own = places.map((place): [string, string] => [
            TENANT,
            place === taken ? keys[place].replace('1', '7') : keys[place].replace('1', '6'),
          ]);
          const insert: Statement = { sql, touch: { kind: 'keys', keys: own, writes: true } };
          const values = own.flatMap(([tenant, key], index) => [tenant, key, places[index] === wrong ? '[1' : '1']);
          const batch: FuzzMessage[] = [
            { parse: insert, name: '', types: [] },
            { bind: values, portal: '', statement: '', resultFormats: [] },
            ...(wrong === taken ? [{ describe: 'portal', name: '' } as const] : []),
            execute,
            'sync',
          ];
          return steps(put(keys[taken]), batch, count);
        };
  return scripts;
}

/** A text of the block alone goes where the block is, whatever the session holds on the home shard. */
function textsOfBlock(): Scripts {
  const texts: Record<string, readonly Statement[]> = {
    'an error and the end': [WRONG, control('abort')],
    'a value and the end': [neutral('select 1'), control('commit')],
    'a setting and a savepoint': [neutral("set local work_mem = '3MB'"), control('savepoint a')],
  };
  const scripts: Scripts = {};
  for (const [name, text] of Object.entries(texts))
    for (const place of ['home', 'other', 'third'] as const)
      scripts[`${name} in one text, of a block on ${place} of a session that holds something`] = (keys) =>
        steps(
          atHome('prepare q2 as select 4'),
          control('begin'),
          read(keys[place]),
          [query(...text)],
          neutral('select 2'),
          control('rollback'),
          atHome('execute q2'),
        );
  return scripts;
}

export const EDGE_SCRIPTS: Scripts = {
  ...textsOfBlock(),
  ...firstOfErrors(),
  ...heldAtHome(),
  ...batchesBehindBatches(),
  ...settingsUndone(),
  ...endsWithValues(),
  ...settingsUnderWay(),
  ...textsThatEndAndGoOn(),
  ...endsUnderWay(),
};
