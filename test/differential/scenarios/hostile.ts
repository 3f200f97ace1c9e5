// Messages that are wrong: out of order, unknown, malformed, too long. Postgres answers with an error it recovers from,
// or ends the connection.
import { frame, int16, int32 } from '../../support/frontend-message.js';
import type { Scenario, SendStep, Theme } from '../scenario.js';

const raw = (...parts: readonly Buffer[]): SendStep => ({ send: [{ raw: Buffer.concat(parts) }], until: 'closed' });
const recovers = (...parts: readonly Buffer[]): SendStep => ({
  send: [{ raw: Buffer.concat(parts) }, 'sync'],
  until: 1,
});
const alive: SendStep = { send: [{ query: 'select $$still here$$' }] };

/** The server says why and hangs up. */
const fatal = (name: string, ...parts: readonly Buffer[]): Scenario => ({
  name: `fatal: ${name}`,
  readOnly: true,
  steps: [alive, raw(...parts)],
});

export const hostile: Theme = {
  name: 'wrong messages',
  scenarios: [
    fatal('an unknown message type', frame('z')),
    fatal('a backend message', frame('Z', Buffer.from('I'))),
    fatal('a message type of zero', Buffer.from([0, 0, 0, 0, 4])),
    fatal('a length of zero', Buffer.from('Q\0\0\0\0', 'latin1')),
    fatal('a length of three', Buffer.from([0x51, 0, 0, 0, 3])),
    fatal('a negative length', Buffer.concat([Buffer.from('Q'), int32(-5)])),
    fatal('a length of two gigabytes', Buffer.concat([Buffer.from('Q'), int32(0x7fffffff)])),
    fatal('a Sync with a body too long for it', Buffer.concat([Buffer.from('S'), int32(100_000)])),
    fatal('an Execute longer than 10,000 bytes', Buffer.concat([Buffer.from('E'), int32(1_000_000)])),
    fatal('a password out of turn', frame('p', Buffer.from('secret\0'))),
    fatal('garbage', Buffer.from('\xde\xad\xbe\xef\xde\xad\xbe\xef', 'latin1')),
    fatal('Terminate with a body', frame('X', Buffer.from('bye'))),
    fatal('a second StartupMessage', Buffer.concat([int32(8), int32(3 << 16)])),
    {
      name: 'malformed messages that a Sync recovers from',
      readOnly: true,
      steps: [
        recovers(frame('P', Buffer.from('name\0select 1\0'))),
        recovers(frame('P', Buffer.from('no end of string'))),
        recovers(frame('P', Buffer.from('\0select 1\0'), int16(3), int32(23))),
        recovers(frame('P', Buffer.from('\0select 1\0'), int16(-1))),
        recovers(frame('P', Buffer.from('\0select 1\0'), int16(0), Buffer.from('surplus'))),
        alive,
        recovers(frame('B')),
        recovers(frame('B', Buffer.from('\0\0'), int16(0), int16(5), int32(4))),
        recovers(frame('B', Buffer.from('\0\0'), int16(0), int16(0), int16(0), Buffer.from('surplus'))),
        recovers(frame('D')),
        recovers(frame('D', Buffer.from('Z\0'))),
        recovers(frame('D', Buffer.from('S'))),
        recovers(frame('C', Buffer.from('Z\0'))),
        recovers(frame('E', Buffer.from('\0'))),
        recovers(frame('E', Buffer.from('\0'), int32(0), Buffer.from('surplus'))),
        alive,
      ],
    },
    {
      name: 'Sync and Flush with bodies',
      readOnly: true,
      steps: [
        { send: [{ raw: frame('S', Buffer.from('surplus')) }], until: 1 },
        { send: [{ raw: frame('H', Buffer.from('surplus')) }, 'sync'], until: 1 },
        alive,
      ],
    },
    {
      name: 'Query without its NUL',
      readOnly: true,
      steps: [
        { send: [{ raw: frame('Q', Buffer.from('select 1')) }], until: 1 },
        alive,
        { send: [{ raw: frame('Q') }], until: 1 },
        alive,
      ],
    },
    {
      name: 'parameters with lengths that lie',
      readOnly: true,
      steps: [
        { send: [{ parse: 'select $1::text', name: 's1' }, 'sync'] },
        recovers(frame('B', Buffer.from('\0s1\0'), int16(0), int16(1), int32(100), Buffer.from('abc'), int16(0))),
        recovers(frame('B', Buffer.from('\0s1\0'), int16(0), int16(1), int32(-2), int16(0))),
        recovers(frame('B', Buffer.from('\0s1\0'), int16(0), int16(1), int32(0x7fffffff), int16(0))),
        recovers(frame('B', Buffer.from('\0s1\0'), int16(-1), int16(1), int32(-1), int16(0))),
        recovers(frame('B', Buffer.from('\0s1\0'), int16(0), int16(1), int32(-1), int16(-1))),
        { send: [{ bind: ['fine'], statement: 's1' }, { execute: '' }, 'sync'] },
      ],
    },
    {
      name: 'COPY messages without a COPY',
      readOnly: true,
      steps: [
        { send: [{ copyData: 'x' }, 'copyDone', { copyFail: 'y' }, 'sync'], until: 1 },
        alive,
        { send: [{ copyData: Buffer.alloc(100_000) }, { query: 'select 1' }], until: 1 },
      ],
    },
    {
      name: 'messages in the middle of COPY that do not belong there',
      setup: 'create table if not exists public.lines (x text); grant all on public.lines to public',
      steps: [
        { send: [{ query: 'copy lines from stdin' }, { bind: [] }, 'sync'], until: 1 },
        { send: ['sync'], until: 1 },
        alive,
        { send: [{ query: 'copy lines from stdin' }, 'sync', 'flush', 'copyDone'], until: 1 },
        alive,
        { send: [{ query: 'copy lines from stdin' }, { raw: frame('z') }], until: 'closed' },
      ],
    },
    {
      name: 'Terminate in the middle of things',
      steps: [
        { send: [{ query: 'begin' }, { query: 'create table never (x int)' }, 'terminate'], until: 'closed' },
        { vanish: 'a' },
        { send: [{ query: 'select * from never' }] },
        { send: [{ parse: 'select 1' }, 'terminate'], until: 'closed' },
        { vanish: 'a' },
        { send: [{ query: 'select 1' }, 'terminate', { query: 'select 2' }], until: 'closed' },
        { vanish: 'a' },
        alive,
      ],
    },
    {
      name: 'a backend that ends itself',
      readOnly: true,
      setup: 'grant pg_signal_backend to app',
      teardown: 'revoke pg_signal_backend from app',
      steps: [
        { send: [{ query: 'select pg_cancel_backend(pg_backend_pid())' }] },
        alive,
        { send: [{ query: 'select pg_terminate_backend(pg_backend_pid())' }], until: 'closed' },
      ],
    },
    {
      name: 'idle and statement timeouts of the session',
      readOnly: true,
      steps: [
        { send: [{ query: `set statement_timeout = '30ms'` }] },
        { send: [{ query: 'select pg_sleep(5)' }] },
        { send: [{ parse: 'select pg_sleep(5)' }, { bind: [] }, { execute: '' }, 'sync'] },
        { send: [{ query: `set statement_timeout = 0; set idle_in_transaction_session_timeout = '30ms'` }] },
        { send: [{ query: 'begin' }] },
        { send: [], until: 'closed' },
      ],
    },
  ],
};
