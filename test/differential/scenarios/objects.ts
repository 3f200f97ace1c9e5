// Large objects, and the FunctionCall message that libpq uses for them.
import { type FrontendMessage, frame, int16, int32 } from '../../support/frontend-message.js';
import type { SendStep, Theme } from '../scenario.js';

/** OIDs in pg_proc, fixed since long. */
const FUNCTION = {
  int4pl: 177,
  lower: 870,
  length: 1257,
  loOpen: 952,
  loread: 954,
  lowrite: 955,
  loCreate: 715,
  now: 1299,
  factorial: 1376,
};

const call = (functionCall: number, args: (string | Buffer | null)[], resultFormat = 0): SendStep => ({
  send: [{ functionCall, args, resultFormat } satisfies FrontendMessage],
});

export const objects: Theme = {
  name: 'large objects and FunctionCall',
  scenarios: [
    {
      name: 'large objects in SQL',
      steps: [
        'select lo_create(424242)',
        'select lo_create(424242)',
        `select lo_from_bytea(424243, '\\x0102030405')`,
        'select lo_get(424243), lo_get(424243, 1, 2)',
        `select lo_put(424243, 2, '\\xff')`,
        'select lo_get(424243)',
        'begin',
        'select lo_open(424242, 393216)',
        `select lowrite(0, 'hello large object')`,
        'select lo_lseek(0, 6, 0), lo_tell(0)',
        'select loread(0, 5)',
        'select lo_truncate(0, 5)',
        'select lo_close(0)',
        'select lo_close(0)',
        'rollback',
        'select lo_get(424242)',
        'select loread(0, 5)',
        'comment on large object 424242 is $$x$$',
        'grant select on large object 424242 to public',
        `select lo_export(424242, '/tmp/no')`,
        'select lo_get(999999)',
        'select lo_unlink(424242), lo_unlink(424243)',
        'select lo_unlink(424242)',
      ],
    },
    {
      name: 'FunctionCall',
      readOnly: true,
      steps: [
        call(FUNCTION.int4pl, ['1', '2']),
        call(FUNCTION.int4pl, [int32(1), int32(2)], 1),
        call(FUNCTION.int4pl, ['1', int32(2)], 1),
        call(FUNCTION.lower, ['ÄBC']),
        call(FUNCTION.length, ['Äbc']),
        call(FUNCTION.lower, [null]),
        call(FUNCTION.int4pl, ['1']),
        call(FUNCTION.int4pl, ['1', 'x']),
        call(FUNCTION.int4pl, ['2147483647', '1']),
        call(99999999, []),
        call(FUNCTION.int4pl, [int16(1), int32(2)]),
        call(FUNCTION.factorial, ['5']),
        { send: [{ functionCall: FUNCTION.int4pl, args: ['1', '2'], formats: [0, 0, 0] }] },
        { send: [{ functionCall: FUNCTION.int4pl, args: ['1', '2'], formats: [7] }] },
        { send: [{ functionCall: FUNCTION.int4pl, args: ['1', '2'], resultFormat: 9 }] },
        { send: [{ raw: frame('F', int32(FUNCTION.int4pl)) }], until: 1 },
        {
          send: [
            { functionCall: FUNCTION.int4pl, args: ['1', '2'] },
            { query: 'select 3' },
            { functionCall: FUNCTION.lower, args: ['A'] },
          ],
        },
        { send: [{ query: 'begin' }] },
        call(FUNCTION.int4pl, ['1', 'x']),
        call(FUNCTION.int4pl, ['1', '2']),
        { send: [{ query: 'rollback' }] },
        {
          send: [
            { parse: 'select 1/0' },
            { bind: [] },
            { execute: '' },
            { functionCall: FUNCTION.lower, args: ['A'] },
            'sync',
          ],
          until: 1,
        },
        { send: [{ query: 'select 1' }] },
      ],
    },
    {
      name: 'a large object through FunctionCall, as libpq does it',
      steps: [
        { send: [{ query: 'begin' }] },
        call(FUNCTION.loCreate, [int32(424244)], 1),
        call(FUNCTION.loOpen, [int32(424244), int32(0x60000)], 1),
        call(FUNCTION.lowrite, [int32(0), Buffer.from('written by function call')], 1),
        { send: [{ query: 'commit' }] },
        { send: [{ query: 'begin' }] },
        call(FUNCTION.loOpen, [int32(424244), int32(0x40000)], 1),
        call(FUNCTION.loread, [int32(0), int32(7)], 1),
        { send: [{ query: 'commit' }] },
        call(FUNCTION.loread, [int32(0), int32(7)], 1),
        { send: [{ query: 'select lo_unlink(424244)' }] },
      ],
    },
  ],
};
