// An import from its first row, or the one it was stopped at, to its last: chunk by chunk, in the order of the source's key. A chunk
// is written, read back and compared, and only then written down as done.
import loadXxhash from 'xxhash-wasm';
import { ChunkImport, type ChunkOptions } from './chunk-import.js';
import { type ImportCounts, type ImportState, noCounts, type StateFile } from './import-state.js';
import type { LeftOut } from './left-out.js';
import { rowKey, type SourceRow, type SourceRows } from './source-rows.js';
import type { TargetTable } from './target-table.js';

const SUM_BITS = 64;

export interface ImportRunOptions extends ChunkOptions {
  readonly what: string;
  /** What was done before. */
  readonly before: ImportState | null;
}

export interface ImportServices {
  readonly target: TargetTable;
  readonly rows: SourceRows;
  /** Null: nothing is to be written down. */
  readonly state: StateFile | null;
  readonly leftOut: LeftOut;
  /** Behind each chunk. */
  progressed(counts: ImportCounts): void;
  /** It is to stop behind the chunk at hand. */
  stops(): boolean;
  /** Of the chunk that an earlier import was stopped at, some rows were there, and so many were not. */
  writtenAgain(rows: number): void;
}

export interface ImportResult {
  readonly counts: ImportCounts;
  readonly sourceSum: string;
  readonly targetSum: string;
  readonly isStopped: boolean;
}

export async function runChunks(options: ImportRunOptions, services: ImportServices): Promise<ImportResult> {
  const { target, rows, state, leftOut } = services;
  const hash = (await loadXxhash()).h64;
  const { before } = options;
  const counts: ImportCounts = { ...noCounts(), ...before?.counts };
  let sourceSum = BigInt(`0x${before?.sourceSum ?? '0'}`);
  let targetSum = BigInt(`0x${before?.targetSum ?? '0'}`);
  const result = (isStopped: boolean): ImportResult => ({
    counts,
    sourceSum: hex(sourceSum),
    targetSum: hex(targetSum),
    isStopped,
  });
  let isInDoubt = before !== null;
  for (let chunk = await rows.next(); chunk !== null; chunk = await rows.next()) {
    if (services.stops()) return result(true);
    const { present, written } = counts;
    const there = await new ChunkImport(target, options, counts, (row) => leftOut.add(row)).run(chunk, isInDoubt);
    if (isInDoubt && counts.present > present && counts.written > written)
      services.writtenAgain(counts.written - written);
    isInDoubt = false;
    if (!options.dryRun) {
      const sums = await compare(there);
      sourceSum = BigInt.asUintN(SUM_BITS, sourceSum + sums.source);
      targetSum = BigInt.asUintN(SUM_BITS, targetSum + sums.target);
    }
    leftOut.flush();
    const position = chunk.at(-1)!.position;
    state?.write({ what: options.what, position, counts, sourceSum: hex(sourceSum), targetSum: hex(targetSum) });
    services.progressed(counts);
  }
  return result(services.stops());

  async function compare(there: readonly SourceRow[]): Promise<{ readonly source: bigint; readonly target: bigint }> {
    const found = await target.find(there);
    const shown = await target.shown(there, options.valuesAreTexts);
    let [source, read] = [0n, 0n];
    for (const [index, row] of there.entries()) {
      const seen = found.get(rowKey(row));
      if (seen === undefined && hasExpired(row)) continue;
      source += hash(shown[index]!);
      if (seen !== undefined) read += hash(seen);
      if (seen === shown[index]) continue;
      counts.different++;
      const reason =
        seen === undefined ? 'it was written, and is not there now' : 'it was written, and is otherwise now';
      leftOut.add({ kind: 'different', row, reason });
    }
    return { source, target: read };
  }
}

const hex = (sum: bigint): string => sum.toString(16).padStart(SUM_BITS / 4, '0');

/** As servers with DateStyle ISO and TimeZone UTC write it; clocks of servers may differ by as much. */
const CLOCKS_MS = 60_000;
const hasExpired = ({ fields: [, , , ttl] }: SourceRow): boolean =>
  Date.parse(ttl.replace(' ', 'T').replace(/\+00$/, 'Z')) <= Date.now() + CLOCKS_MS;
