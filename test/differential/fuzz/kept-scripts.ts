// Scripts by hand of faults that were met once, by whoever found them: each says a sequence, not one of its cases; the keys
// come from the number of shards, so that it crosses them wherever there are several.
import {
  again,
  atHome,
  catalogue,
  control,
  count,
  execute,
  type Keys,
  keysFor,
  NONE,
  neutral,
  packet,
  parse,
  put,
  query,
  read,
  remove,
  run,
  type Step,
  steps,
  TENANT,
  WRONG,
} from './by-hand.js';
import { BLOCK_SCRIPTS } from './kept-blocks.js';
import { EDGE_SCRIPTS } from './kept-edges.js';
import type { FuzzMessage, Packet, Statement } from './script.js';

/** What a transaction gives up of a session comes back with its end, wherever the keys of the transaction are. */
function givenUpScripts(): Record<string, (keys: Keys) => readonly Packet[]> {
  const channels = atHome('select count(*) from pg_listening_channels()');
  const temporary = atHome('select count(*) from scratch');
  const kinds = [
    { made: 'listen c', given: 'unlisten c', probe: channels },
    { made: 'listen c', given: 'unlisten *', probe: channels },
    { made: 'create temp table scratch (n int)', given: 'discard temp', probe: temporary },
  ];
  const ways = (given: Statement, { home, other }: Keys): Record<string, readonly Step[]> => ({
    'a batch with a key elsewhere that fails': [[...run(given), ...run(put(other)), ...run(WRONG), 'sync']],
    'a batch with a read elsewhere that fails': [[...run(given), ...run(read(other)), ...run(WRONG), 'sync']],
    'a batch that sets something and fails': [
      [...run(given), ...run(neutral("set work_mem = '3MB'")), ...run(read(other)), ...run(WRONG), 'sync'],
    ],
    'a batch with keys before and behind it': [[...run(read(home)), ...run(given), ...run(read(other)), 'sync']],
    'a batch that is whole': [[...run(given), ...run(put(other)), 'sync']],
    'a batch with a read of all shards that fails': [[...run(given), ...run(count), ...run(WRONG), 'sync']],
    'a block that is committed': [control('begin'), given, put(other), control('commit')],
    'a block that is rolled back': [control('begin'), given, put(other), control('rollback')],
    'a block of batches': [
      [...run(control('begin')), ...run(given), 'sync'],
      [...run(put(other)), 'sync'],
      [...run(control('commit')), 'sync'],
    ],
    'a block begun in one text': [[query(control('begin'), given)], put(other), control('commit')],
    'a savepoint': [
      control('begin'),
      control('savepoint a'),
      given,
      control('rollback to a'),
      put(other),
      control('commit'),
    ],
  });
  const scripts: Record<string, (keys: Keys) => readonly Packet[]> = {};
  for (const { made, given, probe } of kinds) {
    for (const name of Object.keys(ways(neutral(given), { home: '', other: '', third: '' }))) {
      scripts[`${given} in ${name}`] = (keys) =>
        steps(atHome(made), ...ways(atHome(given), keys)[name]!, control('rollback'), probe);
    }
  }
  return scripts;
}

/** Names say which item of issue 9 it is. */
export const KEPT_SCRIPTS: Readonly<Record<string, (keys: Keys) => readonly Packet[]>> = {
  'A1: BEGIN in a bound block': ({ home, other }) =>
    steps(control('begin'), remove(other), control('begin'), read(home), control('commit'), read(other)),
  'A1: START TRANSACTION READ ONLY in a bound block': ({ other }) =>
    steps(control('begin'), read(other), control('start transaction read only'), put(other), control('rollback')),
  'A1: savepoints of a block before an inner BEGIN': ({ home, other }) =>
    steps(
      control('begin'),
      control('savepoint a'),
      remove(other),
      control('begin'),
      read(home),
      control('rollback to a'),
      control('commit'),
    ),
  'A2: ROLLBACK and INSERT in one text': ({ other }) =>
    steps(control('begin'), neutral('select 1 / 0'), [query(control('rollback'), put(other))], read(other), count),
  'A2: ROLLBACK TO and INSERT in one text': ({ other }) =>
    steps(
      control('begin'),
      control('savepoint s'),
      read(other),
      neutral('selec'),
      [query(control('rollback to s'), put(other))],
      control('commit'),
      count,
    ),
  'A2: COMMIT of a failed block and a function in one text': ({ other }) =>
    steps(
      control('begin'),
      neutral('select 1 / 0'),
      [
        query(control('commit'), {
          sql: `select kv_put('${TENANT}', '${other}', '9')`,
          touch: { kind: 'keys', keys: [[TENANT, other]], writes: true },
        }),
      ],
      read(other),
    ),
  'A2: simple messages pipelined behind ROLLBACK': ({ home, other }) =>
    steps(control('begin'), remove(home), neutral('select 1 / 0'), [
      query(control('rollback')),
      query(put(other)),
      query(count),
    ]),
  'A2: simple messages pipelined behind COMMIT': ({ home, other }) =>
    steps(control('begin'), remove(home), [
      query(control('commit')),
      query(put(other)),
      query(count),
      query(read(other)),
    ]),
  'A2: extended messages pipelined behind ROLLBACK TO': ({ home, other }) =>
    steps(
      control('begin'),
      control('savepoint s'),
      read(home),
      neutral('select 1 / 0'),
      [...run(control('rollback to s')), 'sync', ...run(read(other)), 'sync', ...run(count), 'sync'],
      control('rollback'),
    ),
  'A6: a Parse refused in a block, another shard': ({ home, other }) =>
    steps(
      control('begin'),
      read(home),
      [...run(read(other)), 'sync'],
      [...run(neutral('select 1')), 'sync'],
      control('rollback'),
    ),
  'A6: a Parse refused in a block, home': ({ other }) =>
    steps(control('begin'), read(other), [...run(atHome('listen c')), 'sync'], control('rollback')),
  'A6: BEGIN in the batch, as JDBC sends it': ({ home, other }) =>
    steps(
      [...run(control('begin')), ...run(read(home)), 'sync'],
      [...run(read(other)), 'sync'],
      [...run(control('rollback')), 'sync'],
    ),
  'A6: a Parse refused behind an unnamed DELETE': ({ home, other }) =>
    steps(
      control('begin'),
      [...run(remove(home)), 'sync'],
      [...run(atHome('insert into note values (9, $$n$$)')), 'sync', ...run(read(other)), 'sync'],
      control('rollback'),
      read(home),
    ),
  'A6: two batches in a packet, the first refused': ({ home, other }) =>
    steps(control('begin'), read(home), [...run(read(other)), 'sync', ...run(read(home)), 'sync'], control('rollback')),
  'A6: a syntax error in a block bound elsewhere': ({ other }) =>
    steps(
      control('begin'),
      read(other),
      [...run(neutral('selec 1')), 'sync'],
      control('rollback'),
      control('begin'),
      read(other),
      neutral('selec 1'),
      control('rollback'),
    ),
  'A6: an empty query in an aborted block': ({ other }) =>
    steps(
      control('begin'),
      read(other),
      neutral('select 1 / 0'),
      neutral(''),
      [...run(neutral('')), 'sync'],
      neutral(';'),
      control('rollback'),
    ),
  'A6: COMMIT AND CHAIN': ({ home, other }) =>
    steps(
      control('begin isolation level repeatable read'),
      read(home),
      control('commit and chain'),
      neutral('show transaction_isolation'),
      read(other),
      control('rollback and chain'),
      read(home),
      control('commit'),
    ),
  'A8: a named statement that is EXECUTE': () => [
    packet(0, neutral('select 1')),
    packet(0, atHome('prepare x as select 10')),
    packet(0, [parse(atHome('execute x'), 's1'), 'sync']),
    packet(0, [...again('s1'), 'sync']),
    packet(1, atHome('prepare x as select 20')),
    packet(1, [parse(atHome('execute x'), 's1'), ...again('s1'), 'sync']),
    packet(0, [...again('s1'), 'sync']),
    packet(0, neutral('deallocate x')),
    packet(0, atHome('prepare x as select 30')),
    packet(0, [...again('s1'), 'sync']),
    packet(1, [...again('s1'), 'sync']),
  ],
  'A8: DEALLOCATE as a named statement': () =>
    steps(
      atHome('prepare x as select 1'),
      [parse(neutral('deallocate x'), 's1'), 'sync'],
      atHome('execute x'),
      [...again('s1'), 'sync'],
      atHome('execute x'),
      atHome('prepare x as select 2'),
      [...again('s1'), 'sync'],
      [...again('s1'), 'sync'],
    ),
  'A8: DEALLOCATE ALL and DISCARD ALL, named and pipelined': () =>
    steps(
      atHome('prepare x as select 1'),
      [parse(neutral('deallocate all'), 's1'), parse(neutral('select 7'), 's2'), 'sync'],
      [...again('s2'), 'sync'],
      [...again('s1'), ...again('s2'), 'sync'],
      atHome('execute x'),
      [parse(neutral('discard all'), 's1'), 'sync'],
      [...again('s1'), 'sync', ...again('s1'), 'sync'],
    ),
  'A8: PREPARE and DEALLOCATE pipelined in one packet': () =>
    steps(
      [
        query(atHome('prepare x as select 1')),
        query(neutral('deallocate x')),
        query(atHome('prepare x as select 2')),
        query(atHome('execute x')),
      ],
      [query(neutral('deallocate all')), query(atHome('execute x'))],
    ),
  'A10: bytes of another encoding in a comment': ({ other }) => {
    const statements = [put(other), read(other.replace('1', '7')), count].map(
      (statement): FuzzMessage => ({ query: [{ ...statement, sql: `${statement.sql} /* \u00e9 */` }], latin1: true }),
    );
    return steps(neutral("set client_encoding to 'LATIN1'"), ...statements.map((message) => [message]));
  },
  'A11: more types declared than used': () =>
    steps([
      { parse: count, name: '', types: [23] },
      { bind: ['7'], portal: '', statement: '', resultFormats: [] },
      execute,
      'sync',
    ]),
  'A11: LIMIT by a float8 in binary, declared and inferred': () => {
    const limited = (limit: string): Statement => ({
      ...count,
      sql: `select key from kv where tenant_id = '${TENANT}' order by key limit ${limit}`,
    });
    const three: FuzzMessage = { bind: [{ hex: '4008000000000000' }], portal: '', statement: '', resultFormats: [] };
    return steps(
      [{ parse: limited('$1'), name: '', types: [701] }, three, execute, 'sync'],
      [{ parse: limited('$1::float8'), name: '', types: [] }, three, execute, 'sync'],
    );
  },
  'A11: LIMIT in other spellings of a number': () =>
    steps(
      ...['0x2', '1_0', '0b1', '0o3'].map(
        (limit): Statement => ({
          ...count,
          sql: `select key from kv where tenant_id = '${TENANT}' order by key limit ${limit}`,
        }),
      ),
    ),
  'A11: one instant for all shards': () =>
    steps(
      { ...count, sql: `select count(distinct n) from (select now() as n) x`, touch: NONE },
      { ...count, sql: `select count(*), count(distinct now()) from kv where tenant_id = '${TENANT}'` },
      { ...count, sql: `select distinct now() = statement_timestamp() from kv where tenant_id = '${TENANT}'` },
    ),
  'A11: catalogues in a block bound elsewhere': ({ other }) =>
    steps(
      control('begin'),
      read(other),
      { sql: `select count(*) from pg_class where relname = 'note'`, touch: { kind: 'catalog' } },
      control('commit'),
    ),
  'A7: PREPARE TRANSACTION': ({ other }) =>
    steps(
      control('begin'),
      put(other),
      { sql: `prepare transaction 'g'`, touch: { kind: 'unsupported', what: 'two-phase commit' } },
      control('rollback'),
      { sql: `rollback prepared 'g'`, touch: { kind: 'unsupported', what: 'two-phase commit' } },
    ),
  'D30: what is harmless leaves a block where it is': ({ other }) =>
    steps(
      control('begin'),
      read(other),
      neutral('show work_mem'),
      neutral('deallocate all'),
      neutral('close all'),
      neutral('set constraints all deferred'),
      neutral('unlisten c'),
      neutral('discard plans'),
      neutral('select pg_advisory_unlock_all()'),
      put(other),
      control('commit'),
    ),
  'D30: what is harmless does not bind a block': ({ other }) =>
    steps(
      ...[
        'show work_mem',
        'deallocate all',
        'close all',
        'set constraints all deferred',
        'unlisten *',
        'discard plans',
        'select pg_advisory_unlock_all()',
        "set local work_mem = '3MB'",
      ].flatMap((sql) => [control('begin'), neutral(sql), read(other), control('commit')]),
    ),
  'D30: several in one text': ({ other }) =>
    steps(
      [query(control('begin'), neutral("set local work_mem = '3MB'"))],
      read(other),
      [query(neutral("set local work_mem = '2MB'"), neutral("set local datestyle = 'German'"))],
      [query(control('savepoint a'), control('release a'), control('savepoint a'))],
      put(other),
      control('commit'),
    ),
  'portals of one name opened twice in a block': () => {
    const open: FuzzMessage[] = [
      parse({ ...count, sql: 'select key from kv order by tenant_id, key' }),
      { bind: [], portal: 'p1', statement: '', resultFormats: [] },
      { execute: 'p1', rows: 3 },
    ];
    return steps(
      control('begin'),
      [...open, { execute: 'p1', rows: 2 }, 'sync'],
      [...open, 'sync'],
      control('rollback'),
    );
  },
  'a write in front of BEGIN in one batch, and a key elsewhere behind it': ({ home, other }) =>
    steps(
      [...run(put(home)), ...run(control('begin')), 'sync'],
      read(other),
      control('commit'),
      control('rollback'),
      count,
      read(home),
    ),
  'a chained block moves': ({ other }) =>
    steps(
      control('begin read only'),
      neutral("set local work_mem = '3MB'"),
      control('commit and chain'),
      neutral('show work_mem'),
      [...run(control('rollback and chain')), 'sync'],
      remove(other),
      control('rollback'),
    ),
  'BEGIN beside a connection that is kept': ({ other }) =>
    steps(atHome('prepare q as select 1'), [...run(control('begin')), 'sync'], put(other), control('commit')),
  'catalogues and names in them belong to the home shard': ({ other }) =>
    steps(
      control('begin'),
      read(other),
      catalogue("select 'note'::regclass::text"),
      control('commit'),
      [query(control('begin'), catalogue("select 'note'::regclass::text"))],
      read(other),
      control('commit'),
      [...run(read(other)), ...run(catalogue("select count(*) from pg_class where relname = 'note'")), 'sync'],
      [query(read(other)), query(catalogue("select 'note'::regclass::text"))],
    ),
  'a block that failed while no server had it': ({ other }) =>
    steps(
      control('begin'),
      control('savepoint a'),
      { sql: 'declare k cursor for select key from kv', touch: { kind: 'unsupported', what: 'cursor' } },
      control('rollback to b'),
      control('rollback to a'),
      neutral('show work_mem'),
      control('commit'),
      read(other),
    ),
  'a text of several reads a catalogue, and ends a block that is elsewhere': ({ other }) =>
    steps(
      control('begin'),
      put(other),
      [query(catalogue("select count(*) from pg_class where relname = 'note'"), control('commit and no chain'))],
      [query(remove(other)), query(control('begin'))],
      [query(catalogue("select 'note'::regclass::text"), control('rollback'))],
    ),
  'a text ends a block that is elsewhere, and gives up what nobody has': ({ other }) =>
    steps(control('begin'), put(other), [query(control('commit and chain'), neutral('discard plans'))], read(other), [
      query(control('rollback'), neutral('deallocate all')),
    ]),
  'what pgkv answers itself is refused in a block that has failed': ({ other }) =>
    steps(
      control('begin'),
      [{ parse: count, name: '', types: [] }, { bind: [], portal: 'p1', statement: '', resultFormats: [] }, 'sync'],
      put(other),
      put(other),
      [{ execute: 'p1', rows: 0 }, 'sync'],
      [query(control('rollback'))],
    ),
  ...givenUpScripts(),
  ...BLOCK_SCRIPTS,
  ...EDGE_SCRIPTS,
  'SET LOCAL behind a read of several shards': () =>
    steps([...run(count), ...run(neutral("set local work_mem = '3MB'")), ...run(neutral('show work_mem')), 'sync']),
};

export const keptPackets = (name: string, shards: number): readonly Packet[] => KEPT_SCRIPTS[name]!(keysFor(shards));
