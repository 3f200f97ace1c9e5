// One chunk of rows into the target: written by COPY as a whole where none of its keys is there and all of its rows fit, and
// otherwise in pieces, without what is there or does not fit. Nothing that is there is ever overwritten.
import { setTimeout as sleep } from 'node:timers/promises';
import { CommandFailure } from '../command-failure.js';
import type { ImportCounts } from './import-state.js';
import { type LeftOutRow, rowName } from './left-out.js';
import { rowKey, type SourceRow } from './source-rows.js';
import type { TargetTable } from './target-table.js';

const ATTEMPTS_MAX = 5;
const PAUSE_MS = 1_000;
const NO_JSON = 'its value is no JSON that jsonb takes';

export interface ChunkOptions {
  readonly valuesAreTexts: boolean;
  readonly keyColumns: readonly string[];
  readonly onConflict: 'stop' | 'keep';
  readonly onUnfit: 'stop' | 'skip';
  readonly dryRun: boolean;
}

export class ChunkImport {
  readonly #target: TargetTable;
  readonly #options: ChunkOptions;
  readonly #leaveOut: (row: LeftOutRow) => void;
  readonly #counts: ImportCounts;
  readonly #there: SourceRow[] = [];
  /** Keys cannot be written, though none of them was found: so often in a row. */
  #failures = 0;

  constructor(target: TargetTable, options: ChunkOptions, counts: ImportCounts, leaveOut: (row: LeftOutRow) => void) {
    this.#target = target;
    this.#options = options;
    this.#counts = counts;
    this.#leaveOut = leaveOut;
  }

  /**
   * @param isInDoubt it may be there already, by an import that was stopped before it could write that down
   * @returns its rows that are there now
   * @throws CommandFailure where it is to stop at a row
   */
  async run(chunk: readonly SourceRow[], isInDoubt: boolean): Promise<readonly SourceRow[]> {
    this.#counts.read += chunk.length;
    let rest: readonly SourceRow[] = this.#fitting(chunk);
    if (isInDoubt || this.#options.dryRun) rest = await this.#absent(rest);
    if (this.#options.dryRun) {
      await this.#foresee(rest);
      return this.#there;
    }
    let size = rest.length;
    while (rest.length > 0) {
      const piece = rest.slice(0, size);
      const left = await this.#write(piece);
      if (left === 'all') {
        this.#accept(piece);
        rest = rest.slice(piece.length);
        size *= 2;
      } else {
        // Rows that do not fit rarely come alone: smaller pieces are sooner told from the rest.
        const isSmaller = left.length < piece.length;
        rest = [...left, ...rest.slice(piece.length)];
        size = isSmaller ? Math.max(1, Math.min(left.length, size >> 2)) : size;
      }
    }
    return this.#there;
  }

  /** What a run without --dry-run would find, as far as values are read and keys looked up. */
  async #foresee(rows: readonly SourceRow[]): Promise<void> {
    const shown = await this.#target.shown(rows, this.#options.valuesAreTexts);
    const takes = rows.filter((row, index) => {
      if (shown[index] === null) this.#unfit(row, NO_JSON);
      return shown[index] !== null;
    });
    this.#accept(takes);
  }

  #accept(rows: readonly SourceRow[]): void {
    this.#counts.written += rows.length;
    this.#there.push(...rows);
  }

  /** Without those of which it is known here that they are no rows of the table. */
  #fitting(chunk: readonly SourceRow[]): SourceRow[] {
    const seen = new Set<string>();
    return chunk.filter((row) => {
      if (row.hasExpired) {
        this.#counts.expired++;
        return false;
      }
      const reason = this.#whyUnfit(row);
      if (reason !== null) this.#unfit(row, reason);
      else if (seen.has(rowKey(row))) this.#conflict(row, 'another row of the source has that key');
      else {
        seen.add(rowKey(row));
        return true;
      }
      return false;
    });
  }

  #whyUnfit({ tenant, key }: SourceRow): string | null {
    if (tenant === null) return 'its tenant is NULL';
    return key === null ? 'its key is NULL' : null;
  }

  /** @returns what is still to be written of it */
  async #write(piece: readonly SourceRow[]): Promise<readonly SourceRow[] | 'all'> {
    const outcome = await this.#target.write(piece);
    switch (outcome.kind) {
      case 'written':
        this.#failures = 0;
        return 'all';
      case 'unfit':
        this.#failures = 0;
        return this.#without(piece, outcome.line, outcome.reason);
      case 'exists': {
        const absent = await this.#absent(piece);
        if (absent.length < piece.length) {
          this.#failures = 0;
          return absent;
        }
        // A row that has expired since, or one that others have made and removed; or another unique index than that of keys.
        if (++this.#failures < ATTEMPTS_MAX) await sleep(PAUSE_MS / 5);
        else if (outcome.line !== null) return this.#without(piece, outcome.line, outcome.reason);
        else throw new CommandFailure(1, `the chunk cannot be written: ${outcome.reason}`);
        return piece;
      }
      case 'busy':
        if (++this.#failures >= ATTEMPTS_MAX) {
          throw new CommandFailure(
            1,
            `the chunk cannot be written: ${outcome.reason}`,
            'Run the same command again later.',
          );
        }
        await sleep(PAUSE_MS);
        return piece;
    }
  }

  #without(piece: readonly SourceRow[], line: number, reason: string): readonly SourceRow[] {
    const row = piece[line - 1];
    if (row === undefined) throw new CommandFailure(1, `the chunk cannot be written: line ${line}: ${reason}`);
    this.#unfit(row, reason);
    return piece.filter((_, index) => index !== line - 1);
  }

  /** Without those whose keys are there. */
  async #absent(rows: readonly SourceRow[]): Promise<readonly SourceRow[]> {
    const found = await this.#target.find(rows);
    if (found.size === 0) return rows;
    const present = rows.filter((row) => found.has(rowKey(row)));
    const shown = await this.#target.shown(present, this.#options.valuesAreTexts);
    for (const [index, row] of present.entries()) {
      if (found.get(rowKey(row)) === shown[index]) {
        this.#counts.present++;
        this.#there.push(row);
      } else this.#conflict(row, 'its key is there with another value or ttl');
    }
    return rows.filter((row) => !found.has(rowKey(row)));
  }

  #unfit(row: SourceRow, reason: string): void {
    if (this.#options.onUnfit === 'stop' && !this.#options.dryRun) {
      throw new CommandFailure(
        1,
        `${rowName(row, this.#options.keyColumns)} does not fit: ${reason}`,
        'Mend it and run the same command again, which goes on; or leave such rows out with --unfit skip, or by --where.',
      );
    }
    this.#counts.unfit++;
    this.#leaveOut({ kind: 'unfit', row, reason });
  }

  #conflict(row: SourceRow, reason: string): void {
    if (this.#options.onConflict === 'stop' && !this.#options.dryRun) {
      throw new CommandFailure(
        1,
        `${rowName(row, this.#options.keyColumns)}: ${reason}`,
        'Nothing is overwritten. Keep what is there with --conflicts keep; or remove it and run the same command again, which goes on.',
      );
    }
    this.#counts.kept++;
    this.#leaveOut({ kind: 'kept', row, reason });
  }
}
