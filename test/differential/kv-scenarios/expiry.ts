// Expired means absent (D9). On Postgres itself what has expired is deleted, behind the session's back or by the session.
import type { Theme } from '../scenario.js';
import { anyOrder, bound, CONTENT, each, expire, REAP, ROWS } from './rows.js';

const AT = `where tenant_id = 'acme' and key = 'k07'`;
const EXPIRED = expire(`tenant_id = 'acme' and key = 'k07'`);
const PAST = `statement_timestamp() - interval '1 s'`;

/** Statements on a key that has expired. */
const ON_EXPIRED = [
  `select * from kv ${AT}`,
  `select count(*), max(version) from kv ${AT}`,
  `select key from kv ${AT} or false`,
  `select key from kv ${AT} and ttl is not null`,
  `select key from kv ${AT} for update`,
  `select tenant_id, key from kv where tenant_id = 'acme' and key in ('k06', 'k07', 'k08') order by key`,
  `select count(*), sum(version) from kv where tenant_id = 'acme'`,
  `select key from kv where tenant_id = 'acme' and key >= 'k05' order by key limit 3`,
  `select count(*) as n from kv where ttl is not null`,
  `update kv set value = '1' ${AT} returning *`,
  `update kv set ttl = null ${AT} returning key`,
  `update kv set ttl = now() + interval '1 h', value = '1' ${AT}`,
  `update kv set version = version ${AT} returning version`,
  `delete from kv ${AT} returning *`,
  `delete from kv ${AT}`,
  `select * from kv_get('acme', 'k07')`,
  `select kv_ttl('acme', 'k07'), kv_touch('acme', 'k07'), kv_persist('acme', 'k07')`,
  `select kv_expire('acme', 'k07', '1 hour'), kv_delete('acme', 'k07')`,
  `select * from kv_cas('acme', 'k07', 7, '1')`,
];

const REBORN = 'returning tenant_id, key, version, value, ttl, updated_at = statement_timestamp() as fresh';

/** Writes that make the key anew. */
const REBIRTHS = [
  `insert into kv (tenant_id, key, value) values ('acme', 'k07', '"reborn"')`,
  `insert into kv (tenant_id, key, value) values ('acme', 'k07', '"reborn"') ${REBORN}`,
  `insert into kv (key, value, tenant_id) values ('k07', default, 'acme') ${REBORN}`,
  `insert into kv values ('acme', 'k07') ${REBORN}`,
  `insert into public.kv as k (tenant_id, key, value) values ('acme', 'k07', '1') returning k.key, k.version`,
  `insert into kv (tenant_id, key, value) values ('acme', 'k07', '1') on conflict do nothing ${REBORN}`,
  `insert into kv (tenant_id, key, value) values ('acme', 'k07', '1') on conflict (tenant_id, key) do nothing ${REBORN}`,
  `insert into kv (tenant_id, key, value) values ('acme', 'k07', '1') on conflict on constraint kv_pkey do nothing ${REBORN}`,
  `insert into kv (tenant_id, key, value) values ('acme', 'k07', '1') on conflict (tenant_id, key) do update set value = '"wrong"' ${REBORN}`,
  `insert into kv (tenant_id, key, value) values ('acme', 'k07', '1') on conflict (tenant_id, key) do update set value = kv.value || '"wrong"', ttl = null where kv.version > 0 ${REBORN}`,
  `insert into kv (tenant_id, key, value, ttl) values ('acme', 'k07', '1', '2100-01-01 00:00+00') on conflict (tenant_id, key, slot) do update set version = 500 ${REBORN}`,
  `insert into kv (tenant_id, key, value, version) values ('acme', 'k07', '1', 70) on conflict (tenant_id, key) do update set value = excluded.value where false ${REBORN}`,
  bound(`insert into kv (tenant_id, key, value) values ($1, $2, $3) ${REBORN}`, 'acme', 'k07', '"bound"'),
  bound(
    `insert into kv (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = $3, version = $4 ${REBORN}`,
    'acme',
    'k07',
    '"bound"',
    '9',
  ),
  bound(
    `insert into kv values ($1, $2, $3, $4, $5, $6, $7) returning *`,
    'acme',
    'k07',
    '3',
    '1',
    null,
    '2026-01-01 00:00+00',
    null,
  ),
  `select kv_put('acme', 'k07', '"put"')`,
  `select * from kv_cas('acme', 'k07', 0, '"cas"')`,
  `select kv_incr('acme', 'k07', 3)`,
  `select * from kv_merge('acme', 'k07', '{"merged": 1}')`,
];

export const kvExpiry: Theme = {
  name: 'kv: expiry',
  rows: ROWS,
  scenarios: [
    {
      name: 'kv: statements on an expired key',
      steps: [EXPIRED, ...ON_EXPIRED, ...CONTENT],
    },
    {
      name: 'kv: statements on an expired key in a transaction',
      steps: [
        EXPIRED,
        // Of one key each: they stay on its shard.
        'begin',
        ...ON_EXPIRED.filter((sql) =>
          / (where tenant_id = 'acme' and key = 'k07'|kv_\w+\('acme', 'k07')(?! or)/.test(sql),
        ),
        'commit',
        ...CONTENT,
      ],
    },
    {
      name: 'kv: an expired key is born again',
      steps: [
        ...REBIRTHS.flatMap((rebirth) => [
          EXPIRED,
          rebirth,
          `select version, value, ttl, updated_at <= statement_timestamp() from kv ${AT}`,
        ]),
        ...CONTENT,
      ],
    },
    {
      name: 'kv: an expired key is born again in a transaction',
      steps: [
        ...REBIRTHS.slice(0, 12).flatMap((rebirth) => [
          'begin',
          `select key from kv ${AT}`,
          `update kv set ttl = ${PAST} ${AT}`,
          REAP,
          rebirth,
          `select version, value from kv ${AT}`,
          'rollback',
        ]),
        ...CONTENT,
      ],
    },
    {
      name: 'kv: rows that are written with a time to live in the past',
      steps: [
        `insert into kv (tenant_id, key, value, ttl) values ('t', 'a', '1', ${PAST})`,
        REAP,
        `select * from kv where tenant_id = 't' and key = 'a'`,
        `insert into kv (tenant_id, key, value, ttl) values ('t', 'a', '2', now() - interval '1 day') returning key, value, version`,
        REAP,
        `insert into kv (tenant_id, key, value, ttl) values ('t', 'a', '3', now() - interval '1 day') on conflict (tenant_id, key) do update set value = '"wrong"' returning value, version`,
        REAP,
        `insert into kv (tenant_id, key, value, ttl) values ('t', '{a}1', '1', '-infinity'), ('t', '{a}2', '2', 'infinity'), ('t', '{a}3', '3', ${PAST})`,
        REAP,
        `insert into kv (tenant_id, key, value) values ('t', '{a}1', '"new"'), ('t', '{a}2', '"new"'), ('t', '{a}3', '"new"') on conflict (tenant_id, key) do update set value = '"updated"' returning key, value, version`,
        `insert into kv (tenant_id, key, value, ttl) values ('t', '{a}1', '"newer"', null), ('t', '{a}4', '4', null) on conflict do nothing returning key, value, version`,
        anyOrder(`select key, value, version, ttl from kv where tenant_id = 't'`),
        `update kv set ttl = ${PAST} where tenant_id = 't' and key = '{a}1' returning key, version, ttl < now() + interval '1 s'`,
        REAP,
        `select count(*) from kv where tenant_id = 't'`,
        `update kv set ttl = null where tenant_id = 't' and key = '{a}1' returning key`,
        `insert into kv (tenant_id, key, value) values ('t', '{a}1', '5'), ('t', '{a}2', '6')`,
        `select value from kv where tenant_id = 't' and key = '{a}1'`,
        bound(
          'insert into kv (tenant_id, key, value, ttl) values ($1, $2, $3, now() + $4::interval)',
          't',
          'b',
          '1',
          '-1 s',
        ),
        REAP,
        bound('select count(*) from kv where tenant_id = $1 and key = $2', 't', 'b'),
        bound(
          'insert into kv (tenant_id, key, value, ttl) values ($1, $2, $3, $4) returning value',
          't',
          'b',
          '2',
          '2000-01-01 00:00+00',
        ),
        REAP,
        bound(
          'insert into kv (tenant_id, key, value) values ($1, $2, $3), ($1, $4, $3) returning key, value',
          't',
          '{b}x',
          '3',
          '{b}y',
        ),
        `insert into blobs (tenant_id, key, value, ttl) values ('t', 'a', 'x', '2000-01-01')`,
        { onlyPostgres: 'delete from blobs where ttl <= statement_timestamp()' },
        `insert into blobs (tenant_id, key, value) values ('t', 'a', 'y') returning value, version`,
        ...CONTENT,
      ],
    },
    {
      name: 'kv: a key expires within a transaction, not at its end',
      steps: [
        'begin',
        `update kv set ttl = ${PAST} ${AT} returning key`,
        REAP,
        `select key from kv ${AT}`,
        `insert into kv (tenant_id, key, value) values ('acme', 'k07', '"reborn"') returning version, value`,
        `select version, value from kv ${AT}`,
        'savepoint s',
        `update kv set ttl = ${PAST} ${AT} returning key`,
        REAP,
        `select key from kv ${AT}`,
        'rollback to s',
        `select version, value from kv ${AT}`,
        `select kv_expire('acme', 'k07', '-1 s')`,
        REAP,
        `select kv_put('acme', 'k07', '"put"')`,
        'commit',
        `select version, value from kv ${AT}`,
        ...CONTENT,
      ],
    },
    {
      name: 'kv: expiry in the middle of an extended session',
      steps: [
        { send: [{ parse: `select version from kv where tenant_id = $1 and key = $2`, name: 'get' }, 'sync'] },
        { send: [{ bind: ['acme', 'k07'], statement: 'get' }, { execute: '' }, 'sync'] },
        EXPIRED,
        { send: [{ bind: ['acme', 'k07'], statement: 'get' }, { execute: '' }, 'sync'] },
        {
          send: [
            { parse: `insert into kv (tenant_id, key, value) values ($1, $2, $3) returning version`, name: 'put' },
            { describe: 'statement', name: 'put' },
            'sync',
          ],
        },
        { send: [{ bind: ['acme', 'k07', '1'], statement: 'put' }, { execute: '' }, 'sync'] },
        { send: [{ bind: ['acme', 'k07', '1'], statement: 'put' }, { execute: '' }, 'sync'] },
        EXPIRED,
        {
          send: [
            { bind: ['acme', 'k07', '1'], statement: 'put' },
            { execute: '' },
            { bind: ['acme', 'k07'], statement: 'get' },
            { execute: '' },
            'sync',
          ],
        },
        ...each([1, 2, 3, 4, 5, 6], () => EXPIRED).flatMap((step) => [
          step,
          { send: [{ bind: ['acme', 'k07', '1'], statement: 'put' }, { execute: '' }, 'sync' as const] },
        ]),
      ],
    },
  ],
};
