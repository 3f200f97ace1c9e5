// One client's statement and the one that does the work of many, side by side on a real server: what the server finds for
// the parameters of the first goes into the second, as the merged lane does it.
import pg from 'pg';
import type { KvTable } from '../../src/cluster/kv-table.js';
import {
  type BatchStatement,
  batchStatement,
  type SingleStatement,
  singleStatement,
} from '../../src/sql/batch/batch-statement.js';
import { planKv } from '../../src/sql/keyed/kv-analysis.js';
import { loadParser, parse } from '../../src/sql/meaning/parse.js';
import { lexShape } from '../../src/sql/text/shape-lexer.js';
import { BLOBS, KV, prepareShard } from './kv-cluster.js';
import type { PostgresVersion } from './postgres-binaries.js';
import { type PostgresServer, startPostgres } from './postgres-server.js';

await loadParser();

/** Of connections that merged statements go over (D11). */
export const SHARED_SETTINGS = `
  set plan_cache_mode = force_generic_plan; set jit = off; set max_parallel_workers_per_gather = 0;
  set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set enable_bitmapscan = off;
  set enable_memoize = off; set enable_material = off; set pgkv.router = 'on'`;

/** Values come as text. */
const AS_TEXT = { getTypeParser: () => (value: string) => value };

export async function batchServer(version: PostgresVersion): Promise<{ server: PostgresServer; client: pg.Client }> {
  const server = await startPostgres({ version });
  await prepareShard(server, [KV, BLOBS]);
  const client = new pg.Client({
    host: server.host,
    port: server.port,
    user: server.superuser,
    database: 'postgres',
    types: AS_TEXT as unknown as pg.CustomTypesConfig,
  });
  await client.connect();
  await client.query(SHARED_SETTINGS);
  return { server, client };
}

export interface Pair {
  readonly single: SingleStatement;
  readonly merged: BatchStatement;
  /** Of its parameters, names in SQL. */
  readonly types: readonly string[];
}

const find = (schema: string | null, name: string): KvTable | null =>
  [KV, BLOBS].find((table) => table.name === name && table.schema === (schema ?? 'public')) ?? null;

/** @param fromText the statement has its values as literals */
export async function pairOf(client: pg.Client, sql: string, fromText: boolean): Promise<Pair> {
  const parsed = parse(sql);
  if (parsed.kind === 'failed') throw new Error(`${parsed.message}: ${sql}`);
  const literals = lexShape(sql, true)!.literals;
  const plan = planKv({
    text: sql,
    statements: parsed.statements,
    literals,
    scope: { find, holds: () => false, searchesPgkv: false },
  });
  if (plan?.kind !== 'kv') throw new Error(`no plan: ${sql}`);
  const single = singleStatement(plan, sql, literals, [], fromText);
  if (single === null) throw new Error(`no single form: ${sql}`);
  const types = await parameterTypes(client, single);
  const merged = batchStatement(plan, single, types);
  if (merged === null) throw new Error(`not merged: ${sql}`);
  return { single, merged, types };
}

async function parameterTypes(client: pg.Client, single: SingleStatement): Promise<string[]> {
  await client.query(`prepare learnt (${declared(single)}) as ${single.text}`);
  const { rows } = await client.query({
    text: `select 'pg_catalog.' || t.typname from pg_prepared_statements s, unnest(s.parameter_types) with ordinality p (type, place)
      join pg_type t on t.oid = p.type where s.name = 'learnt' order by place`,
    rowMode: 'array',
  });
  await client.query('deallocate learnt');
  return rows.map(([name]) => name);
}

export interface Answer {
  readonly rows: readonly (string | null)[][];
  readonly rowCount: number;
  readonly columns: readonly number[];
}

type Values = readonly (string | null)[];

/** Answers of the members, by one statement; `slots` of their keys where it asks for them. */
export async function runMerged(
  client: pg.Client,
  { single, merged }: Pair,
  members: readonly Values[],
  text = merged.text,
): Promise<Answer[]> {
  const arrays: unknown[] = single.refs.map((_, index) => members.map((member) => member[index]!));
  const [tenant, key] = merged.keyValues;
  if (merged.withSlots) arrays.push(await slotsOf(client, merged, members));
  const result = await client.query({ text, values: arrays, rowMode: 'array' });
  const columns = result.fields.slice(merged.hidden).map(({ dataTypeID }) => dataTypeID);
  const found: (string | null)[][][] = members.map(() => []);
  for (const row of result.rows as (string | null)[][]) {
    const index =
      merged.identifies === 'ordinal'
        ? Number(row[0]) - 1
        : members.findIndex((member) => member[tenant] === row[0] && member[key] === row[1]);
    found[index]!.push(row.slice(merged.hidden));
  }
  return found.map((rows) => ({ rows: columns.length === 0 ? [] : rows, rowCount: rows.length, columns }));
}

async function slotsOf(
  client: pg.Client,
  { keyValues: [tenant, key] }: BatchStatement,
  members: readonly Values[],
): Promise<string[]> {
  const { rows } = await client.query({
    text: 'select pgkv.slot(t, k) from unnest($1::text[], $2::text[]) with ordinality m (t, k, o) order by o',
    values: [members.map((member) => member[tenant]), members.map((member) => member[key])],
    rowMode: 'array',
  });
  return rows.map(([slot]) => slot);
}

/** Answers of the members by the text for one that does not reap, each by itself. */
export async function runHoping(
  client: pg.Client,
  { merged, types }: Pair,
  members: readonly Values[],
): Promise<Answer[]> {
  await client.query(`prepare hoping (${[...types, 'int4'].join(', ')}) as ${merged.optimistic!.one}`);
  const slots = await slotsOf(client, merged, members);
  const answers: Answer[] = [];
  for (const [index, member] of members.entries()) {
    answers.push(await executed(client, 'hoping', [...member, slots[index]!]));
  }
  await client.query('deallocate hoping');
  return answers;
}

async function executed(client: pg.Client, name: string, values: Values): Promise<Answer> {
  const given = values.map((value) => (value === null ? 'null' : pg.escapeLiteral(value)));
  const result = await client.query({ text: `execute ${name} (${given.join(', ')})`, rowMode: 'array' });
  return {
    rows: result.rows as unknown as (string | null)[][],
    rowCount: result.rowCount ?? 0,
    columns: result.fields.map(({ dataTypeID }) => dataTypeID),
  };
}

/** Runs a member's own statement, prepared as `own`; answers its SQLSTATE where it fails. In a transaction, which goes on. */
export async function runnerOfSingle(
  client: pg.Client,
  { single }: Pair,
): Promise<(values: Values) => Promise<Answer | string>> {
  await client.query(`prepare own (${declared(single)}) as ${single.text}`);
  return async (values) => {
    await client.query('savepoint member');
    try {
      return await executed(client, 'own', values);
    } catch (error) {
      await client.query('rollback to savepoint member');
      return (error as pg.DatabaseError).code ?? String(error);
    }
  };
}

const TYPE_NAMES: Readonly<Record<number, string>> = { 0: 'unknown', 20: 'int8', 23: 'int4' };
const declared = ({ types }: SingleStatement): string => types.map((type) => TYPE_NAMES[type]).join(', ');
