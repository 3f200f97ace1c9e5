// What every Node client program here shares: running named checks in order and printing one JSON line for each.
// A check passes when its function returns; what it returns is its answer, which run.mjs compares with plain Postgres.
// So an answer must not hold pids, ports, times or anything else that differs from run to run.

import { equal, ok } from 'node:assert/strict';

const CHECK_TIMEOUT_MS = 60_000;

export const hasPassword = (process.env.PGPASSWORD ?? '') !== '';

/** Thrown by a check that does not apply here; the reason is reported. */
export class Skip extends Error {}

/** @param {Record<string, () => unknown>} checks name to function; run in order, each with a time limit */
export async function runChecks(checks) {
  for (const [name, body] of Object.entries(checks)) {
    const startedMs = performance.now();
    const line = { check: name };
    try {
      const answer = await withTimeLimit(body(), name);
      Object.assign(line, { ok: true, answer: answer === undefined ? null : answer });
    } catch (error) {
      if (error instanceof Skip) Object.assign(line, { ok: true, skip: error.message });
      else {
        Object.assign(line, { ok: false, error: error.stack ?? String(error), sqlState: error.code });
        process.exitCode = 1;
      }
    }
    line.ms = Math.round(performance.now() - startedMs);
    console.log(JSON.stringify(line, (_key, value) => (typeof value === 'bigint' ? `${value}n` : value)));
  }
}

function withTimeLimit(promise, name) {
  let timer;
  const limit = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${name}: no end after ${CHECK_TIMEOUT_MS} ms`)), CHECK_TIMEOUT_MS);
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(timer));
}

/** The fields of a database error that must be the same through a router; `call` must fail with this SQLSTATE. */
export async function databaseErrorOf(sqlState, call) {
  let error;
  try {
    await call();
  } catch (caught) {
    error = caught;
  }
  ok(error, `expected SQLSTATE ${sqlState}, but the call succeeded`);
  equal(error.code, sqlState, error.stack);
  const { severity, code, message, detail, hint, position, where } = error;
  const schema = error.schema ?? error.schema_name;
  const table = error.table ?? error.table_name;
  const column = error.column ?? error.column_name;
  const constraint = error.constraint ?? error.constraint_name;
  return { severity, code, message, detail, hint, position, where, schema, table, column, constraint };
}
