// Statements whose texts differ, as applications send them: the n-th is the same in every run. A number in an alias or a list of
// another length makes a new shape; a number among the values makes a new text of the same shape, of which a router should keep
// nothing. Some of them are refused by pgkv, and some are no SQL.

const list = (count, item) => Array.from({ length: count }, (_, index) => item(index)).join(', ');
const trace = (n) => `/*traceparent='00-${n.toString(16).padStart(32, '0')}-00f067aa0ba902b7-01'*/`;

/** By the simple protocol: the text alone. */
const simple = (text) => ({ protocol: 'simple', text, values: [] });
const unnamed = (text, ...values) => ({ protocol: 'unnamed', text, values });
const named = (text, ...values) => ({ protocol: 'named', text, values });

/** Columns as an ORM writes them, some 3 KiB. */
const wideSelect = (n) =>
  `SELECT ${list(60, (column) => `"t0"."name" AS "t0_${n}_column_${column}"`)} FROM "account" "t0" WHERE "t0"."id" = $1`;

const report = (
  n,
) => `WITH recent AS (SELECT id, name FROM account WHERE id BETWEEN ${n} AND ${n + 100} AND name LIKE 'a%')
  SELECT r.name AS name_${n}, count(*) FILTER (WHERE a.id % 2 = 0) AS even, max(length(a.name)) AS longest
  FROM recent r JOIN account a ON a.id = r.id LEFT JOIN account b ON b.id = a.id + 1
  WHERE EXISTS (SELECT FROM account c WHERE c.id = b.id) OR b.id IS NULL
  GROUP BY r.name HAVING count(*) > ${n % 7} ORDER BY 2 DESC, r.name LIMIT 10`;

const KINDS = [
  // Key-value tables: on one key
  (n) => simple(`SELECT value FROM kv WHERE tenant_id = 'bench' AND key = 'user:${n}'`),
  (n) => simple(`SELECT key, value, version AS v${n} FROM kv WHERE tenant_id = 'bench' AND key = 'user:${n}'`),
  (n) => unnamed(`SELECT value -> 'field_${n}' FROM kv WHERE tenant_id = $1 AND key = $2`, 'bench', `user:${n}`),
  (n) => unnamed(`SELECT value, version FROM kv WHERE tenant_id = 'bench' AND key = 'user:${n}'`),
  (n) => named(`SELECT value, ttl AS expires_${n} FROM kv WHERE tenant_id = $1 AND key = $2`, 'bench', `user:${n}`),
  (n) =>
    simple(
      `INSERT INTO kv (tenant_id, key, value) VALUES ('bench', 'user:${n % 1000}', '{"n": ${n}}')
       ON CONFLICT (tenant_id, key) DO UPDATE SET value = EXCLUDED.value RETURNING version AS v${n}`,
    ),
  (n) =>
    named(
      `UPDATE kv SET value = jsonb_set(kv.value, '{n}', '${n}') WHERE tenant_id = $1 AND key = $2 RETURNING version`,
      'bench',
      `user:${n % 1000}`,
    ),
  (n) => simple(`SELECT kv_get('bench', 'user:${n}') AS got_${n}`),
  // … on several
  (n) => unnamed(`SELECT key, value AS v${n} FROM kv WHERE tenant_id = $1 AND key = ANY($2)`, 'bench', `{a,b${n}}`),
  (n) =>
    simple(
      `SELECT key AS k${n}, value FROM kv WHERE tenant_id = 'bench' AND key IN (${list(1 + (n % 40), (i) => `'${n}:${i}'`)})`,
    ),
  (n) =>
    simple(`SELECT key AS k${n}, value FROM kv WHERE tenant_id = 'bench' AND key > 'user:${n}' ORDER BY key LIMIT 5`),
  (n) =>
    unnamed(
      `SELECT count(*) AS c${n}, avg(version)::numeric(20, 2) FROM kv WHERE tenant_id = $1 GROUP BY length(key)`,
      'bench',
    ),
  // … refused
  (n) => simple(`SELECT a.value AS v${n} FROM kv a JOIN kv b ON b.key = a.key WHERE a.tenant_id = 'bench'`),
  // Ordinary tables
  (n) => simple(`SELECT name AS name_${n} FROM account WHERE id = ${n}`),
  (n) => simple(`SELECT id, name FROM account WHERE name = 'customer ${n}' AND id > ${n}`),
  (n) => unnamed(`SELECT name FROM account WHERE id = ${n}`),
  (n) => unnamed(`SELECT name FROM account WHERE id = $1 ${trace(n)}`, String(n)),
  (n) => named(`SELECT name, '${n}' AS tag FROM account WHERE id = $1`, String(n)),
  (n) => simple(`SELECT id AS id_${n} FROM account WHERE id IN (${list(1 + (n % 60), (i) => n + i)})`),
  (n) => simple(report(n)),
  (n) => (n % 5 === 0 ? unnamed(wideSelect(n), String(n)) : simple(`SELECT 1 AS one_${n}`)),
  (n) =>
    n % 10 === 0
      ? simple(`SELECT count(*) AS c${n} FROM (VALUES ${list(200, (i) => `(${n + i}, 'row ${i} of ${n}')`)}) AS r`)
      : simple(`SELECT now() AS "at ${n}"`),
  (n) => simple(`SET statement_timeout = ${600_000 + (n % 5000)}`),
  (n) => simple(`SELECT id::varchar(${1 + n}) FROM account LIMIT 0`),
  (n) => simple(`SELEC ${n} FRO account`),
];

/** Errors that some of them are meant to get: refused, no SQL. */
export const EXPECTED_ERRORS = new Set(['0A000', '42601']);

/** @returns {{ protocol: 'simple' | 'unnamed' | 'named', text: string, values: string[] }} */
export const distinctText = (n) => KINDS[n % KINDS.length](n);
