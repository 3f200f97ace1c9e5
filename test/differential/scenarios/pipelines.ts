// Pipelines: many messages before an answer is read, with errors in the middle and Syncs in between.
import { encodeAll, type FrontendMessage } from '../../support/frontend-message.js';
import type { SendStep, Theme } from '../scenario.js';

const send = (...messages: FrontendMessage[]): SendStep => ({ send: messages });
const run = (sql: string, ...params: string[]): FrontendMessage[] => [
  { parse: sql },
  { bind: params },
  { describe: 'portal' },
  { execute: '' },
];

const MIXED: readonly FrontendMessage[] = [
  ...run('select $1::text', 'first'),
  'sync',
  { query: 'select 2; select 3' },
  ...run('select 4'),
  ...run('select 1/0'),
  ...run('select $$skipped$$'),
  'sync',
  { query: 'select 5' },
  { parse: 'select $1::int', name: 's1' },
  { bind: ['6'], statement: 's1' },
  { execute: '' },
  'sync',
];

export const pipelines: Theme = {
  name: 'pipelines',
  fixture: 'create table fact (id int primary key, note text); insert into fact values (1, $$one$$);',
  scenarios: [
    {
      name: 'statements before one Sync are one transaction',
      steps: [
        send(...run('insert into fact values (2, $1)', 'two'), ...run('select count(*) from fact'), 'sync'),
        send(...run('insert into fact values (3)'), ...run('insert into fact values (1)'), ...run('select 1'), 'sync'),
        send({ query: 'select count(*) from fact' }),
        send(
          ...run('insert into fact values (4)'),
          'sync',
          ...run('insert into fact values (1)'),
          'sync',
          ...run('select 2'),
          'sync',
        ),
        send({ query: 'select count(*) from fact' }),
        send(...run('begin'), ...run('insert into fact values (5)'), ...run('commit'), 'sync'),
        send(...run('insert into fact values (6)'), ...run('commit'), ...run('select 1/0'), 'sync'),
        send({ query: 'select id from fact order by id' }),
        send(...run('begin'), ...run('insert into fact values (7)'), 'sync'),
        send(...run('select 1/0'), ...run('rollback'), 'sync'),
        send(...run('rollback'), ...run('select count(*) from fact'), 'sync'),
        send(...run('savepoint a'), 'sync'),
        send(...run('select 1'), ...run('savepoint a'), 'sync'),
        send(...run('set local work_mem = $$3MB$$'), ...run('show work_mem'), 'sync'),
        send(...run('show work_mem'), 'sync'),
        send(...run('vacuum fact'), 'sync'),
        send(...run('select 1'), ...run('vacuum fact'), 'sync'),
        send(...run('vacuum fact'), ...run('select 1'), 'sync'),
        send(...run('begin'), ...run('vacuum fact'), 'sync'),
        send(...run('rollback'), 'sync'),
        send(...run('select 1'), ...run('begin'), ...run('select 2'), 'sync'),
        send(...run('commit'), 'sync'),
        send(...run('create index concurrently on fact (note)'), 'sync'),
        send(...run('lock table fact'), 'sync'),
      ],
    },
    {
      name: 'an error skips everything up to the Sync',
      steps: [
        send({ parse: 'syntax error' }, { bind: [] }, { describe: 'portal' }, { execute: '' }, 'sync'),
        send(
          { parse: 'select 1', name: 's1' },
          { bind: ['too many'], statement: 's1' },
          { parse: 'select 2', name: 's2' },
          'sync',
        ),
        send({ bind: [], statement: 's2' }, 'sync'),
        send({ bind: [], statement: 's1' }, { execute: '' }, 'sync'),
        send(
          ...run('select 1/0'),
          { close: 'statement', name: 's1' },
          'flush',
          { query: 'select $$skipped$$' },
          'sync',
        ),
        { ...send(...run('select 1/0'), { query: 'select $$skipped as well$$' }, 'sync'), until: 1 },
        send({ bind: [], statement: 's1' }, { execute: '' }, 'sync'),
        send({ execute: 'no portal' }, { copyData: 'ignored' }, 'copyDone', { copyFail: 'ignored' }, 'sync'),
        { ...send({ execute: 'no portal' }, { functionCall: 1598, args: [] }, 'sync'), until: 1 },
        send('sync', 'sync', 'sync'),
        send(...run('select 1/0'), 'sync', 'sync', ...run('select 1'), 'sync'),
      ].map((step) => ({ ...step, until: step.until ?? syncsOf(step.send) })),
    },
    {
      name: 'simple and extended queries mixed in one packet',
      readOnly: true,
      steps: [{ send: MIXED }, { send: [...MIXED.slice(0, 6), { query: 'select $$end$$' }] }],
    },
    {
      name: 'the same packet cut at many places',
      readOnly: true,
      steps: [
        { send: MIXED, cutAt: [1] },
        { send: [{ close: 'statement', name: 's1' }, ...MIXED], cutAt: [3, 4, 5, 6] },
        { send: [{ close: 'statement', name: 's1' }, ...MIXED], cutAt: everyNth(MIXED, 7) },
      ],
    },
    {
      name: 'a long pipeline of reads',
      readOnly: true,
      steps: [
        send(
          ...Array.from({ length: 200 }, (_, i) => [
            ...run('select note, $1::int from fact', `${i}`),
            'sync' as const,
          ]).flat(),
        ),
        send(...Array.from({ length: 200 }, (_, i) => run('select $1::text', `${i}`)).flat(), 'sync'),
        send(...Array.from({ length: 50 }, (_, i) => ({ query: `select ${i}` }))),
      ],
    },
    {
      name: 'a long pipeline of writes',
      steps: [
        send(
          { parse: 'insert into fact values ($1, $2)', name: 'ins' },
          ...Array.from({ length: 100 }, (_, i): FrontendMessage[] => [
            { bind: [`${i + 10}`, 'bulk'], statement: 'ins' },
            { execute: '' },
          ]).flat(),
          'sync',
        ),
        send({ query: 'select count(*) from fact' }),
        send(
          ...Array.from({ length: 30 }, (_, i): FrontendMessage[] => [
            { bind: [`${i * 5}`, 'some fail'], statement: 'ins' },
            { execute: '' },
            'sync',
          ]).flat(),
        ),
        send({ query: 'select count(*) from fact' }),
      ],
    },
    {
      name: 'transactions begun and ended inside pipelines',
      steps: [
        send({ query: 'begin' }, { query: 'insert into fact values (20)' }, { query: 'commit' }, { query: 'select 1' }),
        send(
          { query: 'begin' },
          { query: 'select 1/0' },
          { query: 'select 1' },
          { query: 'rollback' },
          { query: 'select 2' },
        ),
        send(
          ...run('begin'),
          'sync',
          ...run('insert into fact values (21)'),
          'sync',
          ...run('rollback'),
          'sync',
          ...run('select 3'),
          'sync',
        ),
        send(
          ...run('begin'),
          'sync',
          { query: 'select 1/0' },
          ...run('select 4'),
          'sync',
          { query: 'commit' },
          ...run('select 5'),
          'sync',
        ),
        send(
          { query: 'begin; savepoint a' },
          ...run('select 1/0'),
          'sync',
          ...run('rollback to a'),
          ...run('insert into fact values (22)'),
          'sync',
          { query: 'commit' },
        ),
        send({ query: 'select id from fact order by id' }),
      ],
    },
    {
      name: 'notices and big rows between the answers of a pipeline',
      readOnly: true,
      steps: [
        send(
          ...run('do $$ begin raise notice $n$one$n$; end $$'),
          ...run('select repeat($1, 50000)', 'x'),
          'sync',
          ...run('do $$ begin raise warning $n$two$n$; end $$'),
          'sync',
          { query: 'do $$ begin raise info $n$three$n$; end $$; select 1' },
        ),
      ],
    },
  ],
};

function syncsOf(messages: readonly FrontendMessage[]): number {
  return messages.filter((message) => message === 'sync').length;
}

/** Cuts after every n bytes. */
function everyNth(messages: readonly FrontendMessage[], bytes: number): number[] {
  const length = encodeAll(messages).length;
  return Array.from({ length: Math.floor(length / bytes) }, (_, i) => (i + 1) * bytes);
}
