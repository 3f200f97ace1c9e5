// The rows that themes of key-value tables begin with, and short forms of steps. Times are fixed, so that they can be
// compared; some rows have expired: they are there behind pgkv, and are not on Postgres itself.
import type { Value } from '../../support/frontend-message.js';
import type { SqlStep, Step } from '../scenario.js';

/** Tenant acme has k01 to k20, and many keys more; cart and {tag} keys lie on one shard each. */
export const ROWS = `
  insert into kv (tenant_id, key, version, value, ttl, updated_at)
  select 'acme', 'k' || lpad(n::text, 2, '0'), n, jsonb_build_object('n', n, 's', chr(96 + n), 'odd', n % 2 = 1),
    case when n % 4 = 0 then timestamptz '2100-01-01 00:00+00' + n * interval '1 day' end,
    timestamptz '2026-01-01 00:00+00' + n * interval '1 min'
  from generate_series(1, 20) n;
  insert into kv (tenant_id, key, version, value, updated_at)
  select v.tenant_id, v.key, v.version, v.value::jsonb, timestamptz '2026-02-01 12:00:00.123456+00'
  from (values
    ('beta', 'number', 3, '41'), ('beta', 'text', 1, '"plain"'), ('beta', 'list', 7, '[1, 2, {"a": null}]'),
    ('beta', 'null', 1, 'null'), ('beta', 'void', 1, null), ('beta', 'object', 2, '{"a": {"b": [1, 2]}, "c": "x"}'),
    ('beta', 'true', 1, 'true'), ('beta', 'decimal', 1, '-12.50'),
    ('cart', '{7}:count', 1, '5'), ('cart', '{7}:total', 1, '19.90'), ('cart', '{7}:lines', 1, '["a"]'),
    ('cart', '{8}:count', 1, '1'), ('cart', '{}:none', 1, '0'), ('cart', 'x{7}y{9}', 1, '9'),
    ('', '', 1, '"both empty"'), ('', 'k01', 1, '"no tenant"'), ('acme', '', 1, '"no key"'),
    ('Straße', 'Öl', 1, '"ß"'), ('日本', '東京🗼', 1, '"塔"'), ('acme', 'a''b', 1, '"quote"'),
    ('acme', 'a\\b', 1, '"backslash"'), ('acme', 'a"b', 1, '"double quote"'), ('acme', 'a b', 1, '"blank"'),
    ('acme', E'a\\nb', 1, '"line"'), ('acme', 'é', 1, '"composed"'), ('acme', E'e\\u0301', 1, '"decomposed"'),
    ('acme', 'K01', 1, '"upper"'), ('acme', 'k01 ', 1, '"trailing blank"'), ('acme', '$1', 1, '"dollar"'),
    ('acme', '007', 1, '"zeros"'), ('acme', '7', 1, '"seven"'), ('acme', 'NULL', 1, '"word"')
  ) as v(tenant_id, key, version, value);
  insert into kv (tenant_id, key, value, updated_at)
  select 'long', repeat('x', 1000 + n), to_jsonb(n), timestamptz '2026-01-01 00:00+00' from generate_series(22, 24) n;
  insert into kv (tenant_id, key, version, value, ttl)
  select v.tenant_id, v.key, 99, '"expired"', statement_timestamp() - interval '1 hour'
  from (values ('acme', 'k00'), ('acme', 'k10a'), ('acme', 'k99'), ('beta', 'gone'), ('cart', '{7}:gone'), ('gone', 'all'))
    as v(tenant_id, key);
  insert into blobs (tenant_id, key, version, value, updated_at)
  select 'acme', 'b' || n, n, decode(repeat(to_hex(n), 2 * n), 'hex'), timestamptz '2026-01-01 00:00+00'
  from generate_series(1, 6) n;
  insert into blobs (tenant_id, key, value, ttl) values ('acme', 'gone', '\\x00', statement_timestamp() - interval '1 hour')`;

/** A statement with parameters. */
export const bound = (sql: string, ...params: readonly Value[]): SqlStep => ({ sql, params });

/** A statement whose rows may come in any order. */
export const anyOrder = (sql: string, ...params: readonly Value[]): SqlStep =>
  params.length === 0 ? { sql, anyOrder: true } : { sql, params, anyOrder: true };

/** A statement that pgkv refuses, with words of the DETAIL. */
export const refused = (detail: string, sql: string, ...params: readonly Value[]): SqlStep =>
  params.length === 0 ? { sql, refused: detail } : { sql, params, refused: detail };

export const each = <Item>(items: readonly Item[], step: (item: Item) => Step): Step[] => items.map(step);

/** All that is in the tables, but for times. */
export const CONTENT: readonly Step[] = [
  `select tenant_id, key, version, value, ttl is null as forever, slot from kv order by tenant_id, key`,
  `select tenant_id, key, version, value, ttl is null as forever, slot from blobs order by tenant_id, key`,
];

/** Rows for which the condition holds expire at once. */
export const expire = (condition: string): Step => ({
  behind: {
    postgres: `delete from kv where ${condition}`,
    pgkv: `update kv set ttl = statement_timestamp() - interval '1 ms', version = version where ${condition}`,
  },
});

/** What has expired goes on Postgres, in the session's own transaction. */
export const REAP: Step = { onlyPostgres: 'delete from kv where ttl <= statement_timestamp()' };
