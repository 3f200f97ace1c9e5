// Every error in which a server names a prepared statement, with everything that may have become of the name by the time the
// error comes: closed, made anew, deallocated, in the same batch or the next. Generated; one script for each error.
import type { FuzzMessage, Packet, Statement, Touch } from './script.js';

const NONE: Touch = { kind: 'none' };
const HOME: Touch = { kind: 'home' };

const neutral = (sql: string): Statement => ({ sql, touch: NONE });
const atHome = (sql: string): Statement => ({ sql, touch: HOME });
const parse = (sql: string, name = ''): FuzzMessage => ({ parse: neutral(sql), name, types: [] });
const bind = (statement: string, ...values: string[]): FuzzMessage => ({
  bind: values,
  portal: '',
  statement,
  resultFormats: [],
});
const execute: FuzzMessage = { execute: '', rows: 0 };
const close = (name: string): FuzzMessage => ({ close: 'statement', name });
const query = (...sql: string[]): FuzzMessage => ({ query: sql.map(atHome) });
const run = (sql: string): FuzzMessage[] => [{ parse: atHome(sql), name: '', types: [] }, bind(''), execute];

const TEXT = 'select $1::int + 1 as n';
/** s1 and s3 have one text, which the connection knows under one name. */
const PREPARED: readonly FuzzMessage[] = [parse(TEXT, 's1'), parse(TEXT, 's3'), parse('select $1::int, $2::int', 'S4')];

/** Messages that a server answers by an error with a name in it. */
const FAILING: Readonly<Record<string, readonly FuzzMessage[]>> = {
  'Bind with too few values': [bind('s1'), execute],
  'Bind with too many values': [bind('S4', '1', '2', '3'), execute],
  'Bind of the second name of a text': [bind('s3'), execute],
  'Bind of what there is not': [bind('s9'), execute],
  'Bind of a name like those of pgkv': [bind('pgkv_1', '1'), execute],
  'Describe of what there is not': [{ describe: 'statement', name: 's9' }],
  'Describe of a name like those of pgkv': [{ describe: 'statement', name: 'pgkv_2' }],
  'unnamed Bind with too few values': [parse(TEXT), bind(''), execute],
  'Parse of a name that is taken': [parse('select 7', 's1'), bind('s1', '1'), execute],
  'SQL EXECUTE with too many values': [query('execute s1(1, 2)')],
  'SQL EXECUTE with too few values': [query('execute "S4"(1)')],
  'SQL EXECUTE behind another one': [query('execute s1(1)', 'execute s3', 'select 1')],
  'SQL EXECUTE of what there is not': [query('execute s9(1)')],
  'SQL EXECUTE of a name like those of pgkv': [query('execute pgkv_1(1)')],
  'EXPLAIN EXECUTE': [query('explain execute s1')],
  'EXECUTE as an extended statement': [...run('execute s1')],
  'EXECUTE as a named statement': [parse('execute s3(1, 2)', 's5'), bind('s5'), execute],
  'EXECUTE of a name like those of pgkv, extended': [...run('execute pgkv_1')],
  'DEALLOCATE of what there is not': [query('deallocate s9')],
  'DEALLOCATE of a name like those of pgkv': [query('deallocate pgkv_1')],
  'DEALLOCATE of it, extended': [...run('deallocate pgkv_1')],
  'DEALLOCATE twice': [...run('deallocate s1'), ...run('deallocate s1')],
};

/** What is sent behind it, before its error can have come. */
const BEHIND: readonly (readonly FuzzMessage[])[] = [
  [],
  [close('s1'), close('s3'), close('S4')],
  [close('s1'), parse('select 1', 's1'), bind('s1'), execute],
  [close('s3'), close('S4'), parse(TEXT, 'S4'), bind('S4', '5'), execute],
  [...run('deallocate s1')],
  [...run('deallocate all')],
  [...run('discard all')],
  [parse('select 8'), bind(''), execute],
  [bind('s3', '2'), execute, bind('s1', '3'), execute],
];
/** The same as texts, which are batches of their own. */
const TEXTS_BEHIND = ['deallocate s1', 'deallocate all', 'discard all', 'select 1'];

function packetsOf(failing: readonly FuzzMessage[]): Packet[] {
  const packets: Packet[] = [];
  const send = (...messages: FuzzMessage[]): void => {
    packets.push({ session: 0, messages });
  };
  const anew = (): void => {
    send(query('deallocate all'));
    send(...PREPARED, 'sync');
  };
  const isText = failing.some((message) => typeof message !== 'string' && 'query' in message);
  const end: FuzzMessage[] = isText ? [] : ['sync'];
  for (const behind of BEHIND) {
    anew();
    // Twice: on the first time around the connection may not have the statement.
    if (!isText) send(...failing, ...behind, 'sync');
    send(...failing, ...end, ...behind, 'sync');
  }
  for (const text of TEXTS_BEHIND) {
    anew();
    send(...failing, ...end, query(text));
  }
  anew();
  send(query('begin'));
  send(...failing, ...end, close('s1'), 'sync');
  send(query('rollback'));
  return packets;
}

export const NAME_SCRIPTS: Readonly<Record<string, readonly Packet[]>> = Object.fromEntries(
  Object.entries(FAILING).map(([name, failing]) => [`names in errors: ${name}`, packetsOf(failing)]),
);
