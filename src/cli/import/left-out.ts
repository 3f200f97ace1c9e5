// The rows that an import leaves out, one JSON document a line, and the first of them on the terminal.
import { appendFileSync } from 'node:fs';
import { messageOf } from '../../base/errors.js';
import { CommandFailure } from '../command-failure.js';
import type { Terminal } from '../terminal.js';
import { clearLine } from './import-progress.js';
import type { SourceRow } from './source-rows.js';

export type LeftOutKind = 'unfit' | 'kept' | 'different';

export interface LeftOutRow {
  readonly kind: LeftOutKind;
  readonly row: SourceRow;
  readonly reason: string;
}

const SHOWN_MAX = 10;

/** A row as what is told of it names it: by its place in the source, and its key. */
export function rowName({ tenant, key, position }: SourceRow, keyColumns: readonly string[]): string {
  const place = keyColumns.map((column, at) => `${column} ${position[at]}`).join(', ');
  return `the row with ${place} (tenant ${text(tenant)}, key ${text(key)})`;
}

const text = (value: string | null): string => (value === null ? 'NULL' : JSON.stringify(shortened(value)));
const shortened = (value: string): string => (value.length > 200 ? `${value.slice(0, 200)}…` : value);

export class LeftOut {
  readonly #path: string;
  readonly #keyColumns: readonly string[];
  readonly #terminal: Terminal;
  #waiting: string[] = [];
  #shown = 0;

  constructor(path: string, keyColumns: readonly string[], terminal: Terminal) {
    this.#path = path;
    this.#keyColumns = keyColumns;
    this.#terminal = terminal;
  }

  add({ kind, row, reason }: LeftOutRow): void {
    const place = Object.fromEntries(this.#keyColumns.map((column, at) => [column, row.position[at]]));
    this.#waiting.push(`${JSON.stringify({ kind, row: place, tenant: row.tenant, key: row.key, reason })}\n`);
    if (++this.#shown > SHOWN_MAX) return;
    const more = this.#shown === SHOWN_MAX ? `pgkv: further ones are in ${this.#path} only\n` : '';
    this.#terminal.errors.write(
      `${clearLine(this.#terminal)}pgkv: ${kind}: ${rowName(row, this.#keyColumns)}: ${reason}\n${more}`,
    );
  }

  /** Before the state goes on: a row may stand there twice, but is never missing. */
  flush(): void {
    if (this.#waiting.length === 0) return;
    try {
      appendFileSync(this.#path, this.#waiting.join(''), { mode: 0o600 });
    } catch (error) {
      throw new CommandFailure(1, `cannot write the rows left out: ${messageOf(error)}`, undefined, error);
    }
    this.#waiting = [];
  }
}
