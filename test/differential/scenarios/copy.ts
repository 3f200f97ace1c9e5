// COPY in and out, in every format, through the simple and the extended protocol, and everything that goes wrong.
import { type FrontendMessage, int16, int32 } from '../../support/frontend-message.js';
import type { SendStep, Theme } from '../scenario.js';

const send = (...messages: FrontendMessage[]): SendStep => ({ send: messages });
const copyIn = (sql: string, ...rest: FrontendMessage[]): SendStep => ({ send: [{ query: sql }, ...rest], until: 1 });
const lines = (text: string): FrontendMessage => ({ copyData: text });

const SIGNATURE = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), int32(0), int32(0)]);
const TRAILER = int16(-1);

function binaryRow(...values: readonly (Buffer | null)[]): Buffer {
  const fields = values.map((value) => (value === null ? int32(-1) : Buffer.concat([int32(value.length), value])));
  return Buffer.concat([int16(values.length), ...fields]);
}

export const copy: Theme = {
  name: 'COPY',
  fixture: `
    create table line (id int primary key, text text, n numeric check (n < 1000), at date default '2000-01-01');
    insert into line values (1, 'plain', 1.5, null), (2, e'tab\\there', null, '2024-02-29'), (3, '"quoted", é', 3, default);
    create table loud (x int);
    create function shout() returns trigger language plpgsql as $$ begin raise notice 'row %', new.x; return new; end $$;
    create trigger shout before insert on loud for each row execute function shout();`,
  scenarios: [
    {
      name: 'COPY TO STDOUT in every format',
      readOnly: true,
      steps: [
        send({ query: 'copy line to stdout' }),
        send({ query: 'copy line (text, id) to stdout with (format csv)' }),
        send({
          query: `copy line to stdout with (format csv, header, delimiter ';', quote '''', null 'NIL', force_quote *)`,
        }),
        send({ query: `copy line to stdout with (delimiter '|', null '')` }),
        send({ query: 'copy line to stdout with (format binary)' }),
        send({ query: 'copy line to stdout binary' }),
        send({ query: 'copy (select id, text from line where id > 1 order by id) to stdout csv header' }),
        send({ query: 'copy (select g, repeat($$x$$, 200) from generate_series(1, 300) g) to stdout' }),
        send({ query: 'copy (select 1 where false) to stdout' }),
        send({ query: 'copy (values (1, null), (2, $$\\N$$)) to stdout' }),
        send({ query: `copy line to stdout with (encoding 'LATIN1')` }),
        send({ query: 'copy (select 10 / (3 - g) from generate_series(1, 5) g) to stdout' }),
        send({ query: 'select 1; copy line (id) to stdout; select 2' }),
        send({ query: 'copy no_such_table to stdout' }),
        send({ query: 'copy line (no_such_column) to stdout' }),
        send({ query: 'copy line to stdout with (format no_such_format)' }),
        send({ query: 'copy line to stdout with (no_such_option)' }),
        send({ query: `copy line to program 'true'` }),
        send({ query: 'copy (delete from line where false returning id) to stdout' }),
        send({ query: 'copy (delete from line where false) to stdout' }),
      ],
    },
    {
      name: 'COPY FROM STDIN in every format',
      steps: [
        copyIn('copy line from stdin', lines('10\tten\t10\t2024-01-01\n11\t\\N\t\\N\t\\N\n'), 'copyDone'),
        copyIn(
          'copy line (id, text) from stdin with (format csv)',
          lines('12,"a, b"\n13,"multi\nline"\n14,\n15,""\n'),
          'copyDone',
        ),
        copyIn(
          `copy line (id, text) from stdin with (format csv, header match, null 'NIL', delimiter ';')`,
          lines('id;text\n16;NIL\n'),
          'copyDone',
        ),
        copyIn(
          'copy line (id, text) from stdin with (format csv, header match)',
          lines('id,wrong\n17,x\n'),
          'copyDone',
        ),
        copyIn(
          'copy line (id, text, n) from stdin with (format binary)',
          { copyData: SIGNATURE },
          { copyData: binaryRow(int32(18), Buffer.from('binary'), null) },
          { copyData: TRAILER },
          'copyDone',
        ),
        copyIn('copy line (id, text) from stdin', lines('19\tend mark\n\\.\n'), 'copyDone'),
        copyIn('copy line (id, text) from stdin', 'copyDone'),
        copyIn(
          'copy line (id, text) from stdin',
          lines('2'),
          lines('0\tcut'),
          lines(' in pieces\n2'),
          lines('1\tx'),
          'copyDone',
        ),
        copyIn('copy line (id, text) from stdin where id > 22', lines('22\tno\n23\tyes\n'), 'copyDone'),
        copyIn('copy line (id, text) from stdin', lines(''), lines('24\tempty messages\n'), lines(''), 'copyDone'),
        copyIn('copy line (id, text) from stdin with (freeze)', lines('25\tx\n'), 'copyDone'),
        copyIn('copy loud from stdin', lines('1\n2\n3\n'), 'copyDone'),
        copyIn(
          'copy line (id, text) from stdin',
          ...Array.from({ length: 300 }, (_, i) => lines(`${i + 100}\t${'x'.repeat(100)}\n`)),
          'copyDone',
        ),
        send({ query: 'select count(*), sum(id), min(text) from line' }),
        send({ query: 'select id, text, n, at from line where id < 30 order by id' }),
      ],
    },
    {
      name: 'COPY FROM STDIN that fails',
      steps: [
        copyIn('copy line from stdin', lines('1\tduplicate\t1\t2024-01-01\n'), 'copyDone'),
        copyIn('copy line (id, text) from stdin', lines('30\tx\nnot a number\ty\n'), 'copyDone'),
        copyIn('copy line (id, text) from stdin', lines('30\tx\textra\n'), 'copyDone'),
        copyIn('copy line (id, text) from stdin', lines('30\n'), 'copyDone'),
        copyIn('copy line (id, n) from stdin', lines('30\t5000\n'), 'copyDone'),
        copyIn('copy line (id, text) from stdin', { copyFail: 'the client gave up' }),
        copyIn('copy line (id, text) from stdin', lines('30\tx\n'), { copyFail: '' }),
        copyIn('copy line (id, text) from stdin csv', lines('30,"unterminated\n'), 'copyDone'),
        copyIn('copy line (id, text) from stdin binary', lines('not binary at all......'), 'copyDone'),
        copyIn(
          'copy line (id, text) from stdin binary',
          { copyData: SIGNATURE },
          { copyData: binaryRow(int32(1)) },
          'copyDone',
        ),
        copyIn('copy line (id, text) from stdin', { copyData: Buffer.from('30\t\xff\n', 'latin1') }, 'copyDone'),
        copyIn('copy line (id, text) from stdin', { copyData: Buffer.from('30\ta\0b\n') }, 'copyDone'),
        copyIn('copy line (id, text) from stdin', lines('30\tx\n'), { query: 'select 1' }),
        send({ query: 'select $$still here$$' }),
        copyIn('copy no_such_table from stdin'),
        copyIn('copy line (id, id) from stdin'),
        copyIn('copy tools from stdin'),
        copyIn('copy (select 1) from stdin'),
        // What a client sends on after an error is ignored: it could not know yet.
        send({ query: 'copy no_such_table from stdin' }, lines('1\n'), 'copyDone', { query: 'select 1' }),
        send(lines('data out of the blue'), 'copyDone', { copyFail: 'why' }, { query: 'select 2' }),
        send({ query: 'select count(*) from line' }),
      ],
    },
    {
      name: 'COPY inside transactions and several statements',
      steps: [
        send({ query: 'begin' }),
        copyIn('copy line (id, text) from stdin', lines('40\tx\n'), 'copyDone'),
        send({ query: 'copy (select id from line where id = 40) to stdout' }),
        send({ query: 'rollback' }),
        send({ query: 'select count(*) from line' }),
        send({ query: 'begin' }),
        copyIn('copy line (id, text) from stdin', lines('bad\n'), 'copyDone'),
        send({ query: 'copy line to stdout' }),
        send({ query: 'rollback' }),
        copyIn('select 1; copy line (id, text) from stdin; select 2', lines('41\tx\n'), 'copyDone'),
        copyIn('insert into line (id) values (42); copy line (id, text) from stdin', lines('bad\n'), 'copyDone'),
        copyIn(
          'copy line (id) from stdin; copy line (id) from stdin',
          lines('43\n'),
          'copyDone',
          lines('44\n'),
          'copyDone',
        ),
        copyIn('begin; copy line (id) from stdin; commit', lines('45\n'), 'copyDone'),
        send({ query: 'select id from line where id >= 40 order by id' }),
        send({ query: 'begin; savepoint s' }),
        copyIn('copy line (id) from stdin', { copyFail: 'no' }),
        send({ query: 'rollback to s; commit; select count(*) from line' }),
      ],
    },
    {
      name: 'COPY through the extended protocol',
      steps: [
        send(
          { parse: 'copy line to stdout' },
          { describe: 'statement' },
          { bind: [] },
          { describe: 'portal' },
          { execute: '' },
          'sync',
        ),
        {
          send: [{ parse: 'copy line (id, text) from stdin' }, { bind: [] }, { execute: '' }, 'flush'],
          until: { type: 'CopyInResponse' },
        },
        { send: [lines('50\tx\n'), 'copyDone', 'sync'], until: 1 },
        {
          send: [
            { parse: 'copy line (id) from stdin' },
            { bind: [] },
            { execute: '' },
            lines('51\n'),
            'copyDone',
            'sync',
          ],
          until: 1,
        },
        {
          send: [{ parse: 'copy line (id) from stdin' }, { bind: [] }, { execute: '' }, { copyFail: 'no' }, 'sync'],
          until: 1,
        },
        {
          send: [
            { parse: 'copy line (id) from stdin' },
            { bind: [] },
            { execute: '' },
            lines('bad\n'),
            'copyDone',
            'sync',
          ],
          until: 1,
        },
        // Sync and Flush are ignored during COPY, so the Sync behind Execute does not count.
        {
          send: [
            ...[{ parse: 'copy line (id) from stdin' }, { bind: [] }, { execute: '' }, 'sync' as const],
            ...[lines('52\n'), 'flush' as const, lines('53\n'), 'copyDone' as const, 'sync' as const],
          ],
          until: 1,
        },
        {
          send: [{ parse: 'copy line (id) from stdin' }, { bind: [] }, { execute: '' }, { parse: 'select 1' }, 'sync'],
          until: 1,
        },
        send(
          { parse: 'select 1/0' },
          { bind: [] },
          { execute: '' },
          { parse: 'copy line to stdout' },
          { bind: [] },
          { execute: '' },
          'sync',
        ),
        send(
          ...[{ parse: 'copy (select id from line where id < 3) to stdout' }, { bind: [] }, { execute: '' }],
          ...[{ parse: 'select 1' }, { bind: [] }, { execute: '' }, 'sync' as const],
        ),
        send({ parse: 'copy (select id from line) to stdout' }, { bind: [] }, { execute: '', rows: 1 }, 'sync'),
        send({ parse: 'copy (select $1::int) to stdout' }, 'sync'),
        send({ query: 'select id from line where id >= 50 order by id' }),
      ],
    },
    {
      name: 'a client that leaves in the middle of COPY',
      steps: [
        { send: [{ query: 'copy line (id) from stdin' }, lines('60\n61\n')], until: { type: 'CopyInResponse' } },
        { vanish: 'a' },
        send({ query: 'select count(*) from line' }),
        {
          send: [{ query: 'copy (select repeat($$x$$, 1000) from generate_series(1, 20000)) to stdout' }],
          until: { type: 'CopyData', count: 3 },
        },
        { vanish: 'a' },
        send({ query: 'select count(*) from line' }),
      ],
    },
    {
      name: 'options of newer COPY',
      sinceMajor: 17,
      steps: [
        copyIn('copy line (id, text) from stdin with (on_error ignore)', lines('70\tx\nbad\ty\n71\tz\n'), 'copyDone'),
        copyIn(
          `copy line (id, text) from stdin with (on_error ignore, log_verbosity verbose)`,
          lines('bad\ty\n'),
          'copyDone',
        ),
        copyIn(`copy line (id, at) from stdin with (format csv, default 'D')`, lines('72,D\n'), 'copyDone'),
        send({ query: 'select id, at from line where id >= 70 order by id' }),
      ],
    },
  ],
};
