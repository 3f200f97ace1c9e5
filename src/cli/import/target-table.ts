// The table that is imported into, through pgkv: rows are written by COPY, all of them or none, and read back by their keys.
import type pg from 'pg';
import { CommandFailure } from '../command-failure.js';
import { ConnectionLost, type CopyTarget, type SqlSession } from '../sql/sql-session.js';
import { arrayLiteral, fieldText, LineCutter, literal, NONE } from './copy-text.js';
import type { SourceRow } from './source-rows.js';

export type WriteOutcome =
  | { readonly kind: 'written' }
  /** A key is there: none was written. `line` counts from 1. */
  | { readonly kind: 'exists'; readonly line: number | null; readonly reason: string }
  /** The row at `line` is not taken by the table: none was written. */
  | { readonly kind: 'unfit'; readonly line: number; readonly reason: string }
  /** None was written, and it may be tried again. */
  | { readonly kind: 'busy'; readonly reason: string };

const SEND_BYTES = 64 * 1024;
/** Keys of one tenant in one statement, and pairs of several tenants. */
const KEYS_MAX = 5_000;
const PAIRS_MAX = 1_000;
/** A tenant with fewer keys in the chunk is read among others. */
const KEYS_OF_ONE = 50;
/** Texts that become jsonb in one statement. */
const TEXT_BYTES = 1024 * 1024;
const LINE = /^COPY .*?, line (\d+)/m;
/** Locks and deadlocks, serialization, no slot or connection left. */
const BUSY = new Set(['40001', '40P01', '55P03', '53200', '53300']);
/** What a row's data are to blame for: its syntax and bounds, constraints, sizes, what a trigger raises. */
const OF_A_ROW = /^(?:22|23|54|P0)/;

export class TargetTable {
  readonly #session: SqlSession;
  readonly #name: string;
  readonly #isJson: boolean;

  /** @param name quoted */
  constructor(session: SqlSession, name: string, isJson: boolean) {
    this.#session = session;
    this.#name = name;
    this.#isJson = isJson;
  }

  /** @throws CommandFailure where the outcome is not known, or nothing can be done about it here */
  async write(rows: readonly SourceRow[]): Promise<WriteOutcome> {
    const error = await this.#run(`COPY ${this.#name} (tenant_id, key, value, ttl) FROM STDIN`, {
      copyIn: (target) => sendRows(rows, target),
    });
    if (error === null) return { kind: 'written' };
    const found = LINE.exec(error.where ?? '');
    const line = found === null ? null : Number(found[1]);
    const reason = error.detail === undefined ? error.message : `${error.message} (${error.detail})`;
    const { code = '' } = error;
    if (code === '23505') return { kind: 'exists', line, reason };
    if (BUSY.has(code)) return { kind: 'busy', reason };
    if (line !== null && OF_A_ROW.test(code)) return { kind: 'unfit', line, reason };
    throw this.#failure(error);
  }

  /** What the table has under the keys of `rows`: key → tenant, key, value, ttl as COPY writes them, joined by tabs. */
  async find(rows: readonly SourceRow[]): Promise<Map<string, string>> {
    const found = new Map<string, string>();
    for (const condition of conditionsFor(rows)) {
      const cutter = new LineCutter((line) => found.set(line.split('\t', 2).join('\t'), line));
      const columns = 'tenant_id, key, value, ttl';
      const error = await this.#run(`COPY (SELECT ${columns} FROM ${this.#name} WHERE ${condition}) TO STDOUT`, {
        copyOut: (bytes) => cutter.push(bytes),
      });
      if (error !== null) throw this.#failure(error);
    }
    return found;
  }

  /**
   * The rows as the table would show them; null: its value is no jsonb.
   * @param areTexts values are JSON as somebody has written it
   */
  async shown(rows: readonly SourceRow[], areTexts: boolean): Promise<(string | null)[]> {
    const values = this.#isJson && areTexts ? await this.#asJsonb(rows) : null;
    return rows.map(({ fields: [tenant, key, value, ttl] }, index) => {
      const shown = values === null ? value : values[index]!;
      return shown === null ? null : [tenant, key, shown, ttl].join('\t');
    });
  }

  async #asJsonb(rows: readonly SourceRow[]): Promise<(string | null)[]> {
    const values: (string | null)[] = [];
    let texts: string[] = [];
    let bytes = 0;
    const flush = async (): Promise<void> => {
      for (const value of await this.#converted(texts)) values.push(value);
      texts = [];
      bytes = 0;
    };
    for (const { fields } of rows) {
      const text = fieldText(fields[2]);
      if (text !== null) texts.push(text);
      bytes += fields[2].length;
      if (bytes >= TEXT_BYTES) await flush();
    }
    await flush();
    let next = 0;
    return rows.map(({ fields }) => (fields[2] === NONE ? NONE : values[next++]!));
  }

  /** Where one of them is none, halves are tried, and halves of these. */
  async #converted(texts: readonly string[]): Promise<(string | null)[]> {
    if (texts.length === 0) return [];
    const values: string[] = [];
    const cutter = new LineCutter((line) => values.push(line));
    const each = `unnest(${arrayLiteral(texts)}) WITH ORDINALITY AS each (value, place)`;
    const error = await this.#run(`COPY (SELECT value::jsonb FROM ${each} ORDER BY place) TO STDOUT`, {
      copyOut: (chunk) => cutter.push(chunk),
    });
    if (error === null) return values;
    if (!OF_A_ROW.test(error.code ?? '')) throw this.#failure(error);
    if (texts.length === 1) return [null];
    const middle = texts.length >> 1;
    return [...(await this.#converted(texts.slice(0, middle))), ...(await this.#converted(texts.slice(middle)))];
  }

  async #run(
    sql: string,
    handlers: { copyIn?(target: CopyTarget): Promise<void>; copyOut?(bytes: Buffer): void },
  ): Promise<pg.DatabaseError | null> {
    let failure: pg.DatabaseError | null = null;
    try {
      await this.#session.run(sql, {
        columns: () => undefined,
        row: () => undefined,
        complete: () => undefined,
        error: (error) => {
          failure = error;
        },
        copyOut: (bytes) => {
          handlers.copyOut?.(bytes);
          return undefined;
        },
        copyIn: handlers.copyIn ?? (async (target) => target.fail('COPY is not expected here')),
      });
    } catch (error) {
      if (!(error instanceof ConnectionLost)) throw error;
      const why = error.fatal === undefined ? '' : `: ${error.fatal.message}`;
      throw new CommandFailure(2, `the connection to pgkv was lost${why}`, GO_ON, error);
    }
    return failure;
  }

  #failure({ message, detail, hint, code }: pg.DatabaseError): CommandFailure {
    const what = `pgkv says of ${this.#name}: ${message} (${code})`;
    return new CommandFailure(1, detail === undefined ? what : `${what}\nDETAIL:  ${detail}`, hint ?? GO_ON);
  }
}

const GO_ON = 'Run the same command again to go on from the last chunk that is known to be there.';

async function sendRows(rows: readonly SourceRow[], target: CopyTarget): Promise<void> {
  let lines: string[] = [];
  let bytes = 0;
  for (const { fields } of rows) {
    const line = fields.join('\t');
    lines.push(line);
    bytes += line.length;
    if (bytes < SEND_BYTES) continue;
    await target.send(Buffer.from(`${lines.join('\n')}\n`, 'latin1'));
    lines = [];
    bytes = 0;
  }
  if (lines.length > 0) await target.send(Buffer.from(`${lines.join('\n')}\n`, 'latin1'));
  target.end();
}

function conditionsFor(rows: readonly SourceRow[]): string[] {
  const byTenant = new Map<string, string[]>();
  for (const { tenant, key } of rows) {
    const keys = byTenant.get(tenant!);
    if (keys === undefined) byTenant.set(tenant!, [key!]);
    else keys.push(key!);
  }
  const conditions: string[] = [];
  let pairs: string[] = [];
  const flush = (): void => {
    if (pairs.length > 0) conditions.push(`(tenant_id, key) IN (${pairs.join(', ')})`);
    pairs = [];
  };
  for (const [tenant, keys] of byTenant) {
    if (keys.length < KEYS_OF_ONE) {
      for (const key of keys) pairs.push(`(${literal(tenant)}, ${literal(key)})`);
      if (pairs.length >= PAIRS_MAX) flush();
      continue;
    }
    for (let start = 0; start < keys.length; start += KEYS_MAX) {
      const some = arrayLiteral(keys.slice(start, start + KEYS_MAX));
      conditions.push(`tenant_id = ${literal(tenant)} AND key = ANY(${some})`);
    }
  }
  flush();
  return conditions;
}
