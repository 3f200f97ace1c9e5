// Statements, messages and packets of scripts that are written by hand, and keys on a first, a second and a third shard.
import { hashSlotOf } from '../../../src/cluster/key-hash.js';
import { TAGS } from './kv-statements.js';
import { shardOf } from './refusals.js';
import type { FuzzMessage, Packet, Statement, Touch } from './script.js';

export const TENANT = 't0';
const CONTROL: Touch = { kind: 'control' };
export const NONE: Touch = { kind: 'none' };
const HOME: Touch = { kind: 'home' };

/** Keys on the home shard, on a second and on a third one, where there are so many. */
export interface Keys {
  readonly home: string;
  readonly other: string;
  readonly third: string;
}

export function keysFor(shards: number): Keys {
  const on = (shard: number): string => {
    const tag = TAGS.find((name) => shardOf(hashSlotOf(TENANT, `{${name}}1`), shards) === shard % shards);
    if (tag === undefined) throw new Error(`no key of the fuzzer lies on shard ${shard} of ${shards}`);
    return `{${tag}}1`;
  };
  return { home: on(0), other: on(1), third: on(2) };
}

export const control = (sql: string): Statement => ({ sql, touch: CONTROL });
export const neutral = (sql: string): Statement => ({ sql, touch: NONE });
export const atHome = (sql: string): Statement => ({ sql, touch: HOME });
export const catalogue = (sql: string): Statement => ({ sql, touch: { kind: 'catalog' } });
const keyed = (sql: string, key: string, writes = false): Statement => ({
  sql: sql.replaceAll('KEY', `tenant_id = '${TENANT}' and key = '${key}'`),
  touch: { kind: 'keys', keys: [[TENANT, key]], writes },
});
export const read = (key: string) => keyed('select key, value, version from kv where KEY', key);
export const remove = (key: string) => keyed('delete from kv where KEY', key, true);
export const put = (key: string): Statement => ({
  sql: `insert into kv (tenant_id, key, value) values ('${TENANT}', '${key.replace('1', '7')}', '5')`,
  touch: { kind: 'keys', keys: [[TENANT, key]], writes: true },
});
export const WRONG = neutral('select 1 / 0');
export const count: Statement = {
  sql: `select count(*) from kv where tenant_id = '${TENANT}'`,
  touch: { kind: 'every', writes: false },
};

export const query = (...statements: readonly Statement[]): FuzzMessage => ({ query: statements });
export const parse = (statement: Statement, name = ''): FuzzMessage => ({ parse: statement, name, types: [] });
export const bound = (statement = ''): FuzzMessage => ({ bind: [], portal: '', statement, resultFormats: [] });
export const execute: FuzzMessage = { execute: '', rows: 0 };
export const run = (statement: Statement): FuzzMessage[] => [
  parse(statement),
  bound(),
  { describe: 'portal', name: '' },
  execute,
];
export const again = (name: string): FuzzMessage[] => [bound(name), execute];

export type Step = readonly FuzzMessage[] | Statement;

/** Of one session, or with the number of the session before each step. */
export const steps = (...list: readonly Step[]): Packet[] => list.map((step) => packet(0, step));
export const packet = (session: number, step: Step): Packet => ({
  session,
  messages: 'sql' in step ? [query(step)] : step,
});
