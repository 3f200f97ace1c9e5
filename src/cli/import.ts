// `pgkv import`: rows of any Postgres table into a key-value table, through pgkv. What it does and why so: docs/DECISIONS.md, R62.
// Exit codes: 0 all is there; 1 it has stopped, and can go on; 2 no connection; 3 at its end, but rows were left out or differ.
import { CommandFailure } from './command-failure.js';
import { type ConnectionTarget, connectionTarget } from './connection-target.js';
import { type ImportPlan, importPlan } from './import/import-plan.js';
import { clearLine, ImportProgress } from './import/import-progress.js';
import { type ImportResult, runChunks } from './import/import-run.js';
import { StateFile } from './import/import-state.js';
import { LeftOut } from './import/left-out.js';
import { SourceRows } from './import/source-rows.js';
import { TargetTable } from './import/target-table.js';
import type { ImportOptions } from './options.js';
import { passwordPrompt } from './password-prompt.js';
import { routerTarget } from './run-file.js';
import { SqlSession } from './sql/sql-session.js';
import type { Terminal } from './terminal.js';

const SOURCE_PORT = '5432';
/** So that both sides write values alike, and nothing ends a read that takes long. */
const COMMON = [
  "TimeZone = 'UTC'",
  "DateStyle = 'ISO, YMD'",
  "bytea_output = 'hex'",
  'standard_conforming_strings = on',
];
const OF_SOURCE = [
  ...COMMON,
  'extra_float_digits = 1',
  "IntervalStyle = 'postgres'",
  'statement_timeout = 0',
  'default_transaction_read_only = on',
];
const ROWS_LEFT = 3;

/** @returns the exit code. @throws CommandFailure */
export async function runImport(options: ImportOptions, terminal: Terminal): Promise<number> {
  const from = sourceTarget(options, terminal);
  const to = routerTarget(options.to === undefined ? {} : { url: options.to }, terminal.env);
  const askPassword = passwordPrompt(terminal.input, terminal.errors);
  const sessions: SqlSession[] = [];
  const open = async (target: ConnectionTarget, settings: readonly string[]): Promise<SqlSession> => {
    const session = await SqlSession.open(target, askPassword);
    sessions.push(session);
    for (const setting of settings) await session.rows(`SET ${setting}`);
    return session;
  };
  let stops = false;
  const release = terminal.onInterrupt(() => {
    if (stops) process.exit(130);
    stops = true;
  });
  try {
    const source = await open(from, OF_SOURCE);
    const target = await open(to, COMMON);
    return await importRows(options, { source, target, terminal, stops: () => stops });
  } finally {
    release();
    for (const session of sessions) session.abandon();
    terminal.input.destroy();
  }
}

function sourceTarget({ from }: ImportOptions, { env }: Terminal): ConnectionTarget {
  const user = env['PGUSER'] ?? env['USER'];
  return connectionTarget(
    { url: from },
    { PGPORT: SOURCE_PORT, PGUSER: user, PGDATABASE: user, PGPASSWORD: env['PGKV_SOURCE_PASSWORD'] },
  );
}

interface Sides {
  readonly source: SqlSession;
  readonly target: SqlSession;
  readonly terminal: Terminal;
  stops(): boolean;
}

async function importRows(options: ImportOptions, { source, target, terminal, stops }: Sides): Promise<number> {
  const plan = await importPlan(options, source, target);
  const path = options.state ?? `pgkv-import-${options.into.schema}.${options.into.name}.json`;
  const state = new StateFile(path);
  const before = options.dryRun ? null : state.read(plan.what);
  if (before !== null) terminal.errors.write(`pgkv: goes on behind ${before.counts.read} rows (${path})\n`);
  const total = await totalOf(plan, source);
  const progress = new ImportProgress(terminal, total.rows, total.isEstimate, before?.counts.read ?? 0);
  const leftOut = `${path}.left-out`;
  const result = await runChunks(
    { ...plan, ...options, before },
    {
      target: new TargetTable(target, plan.into, plan.isJson),
      rows: new SourceRows(source, plan.rowsBehind(before?.position ?? null), options.chunkRows),
      state: options.dryRun ? null : state,
      leftOut: new LeftOut(leftOut, plan.keyColumns, terminal),
      progressed: (counts) => progress.show(counts.read),
      stops,
      writtenAgain: (rows) =>
        terminal.errors.write(
          `${clearLine(terminal)}pgkv: of the chunk that the import was stopped at, ${rows} rows were not there and are written now\n`,
        ),
    },
  );
  terminal.errors.write(clearLine(terminal));
  if (result.isStopped) {
    throw new CommandFailure(1, `stopped behind ${result.counts.read} rows`, 'Run the same command again to go on.');
  }
  const now = await countOf(plan, source);
  if (!options.dryRun) state.remove();
  report(result, options, { now, leftOut }, terminal);
  const { unfit, kept, different } = result.counts;
  return unfit + kept + different > 0 ? ROWS_LEFT : 0;
}

async function totalOf(plan: ImportPlan, source: SqlSession): Promise<{ rows: number; isEstimate: boolean }> {
  if (plan.estimate !== null) return { rows: Number(plan.estimate), isEstimate: true };
  return { rows: await countOf(plan, source), isEstimate: false };
}

const countOf = async (plan: ImportPlan, source: SqlSession): Promise<number> =>
  Number((await source.rows(plan.count))[0]![0]);

interface Ends {
  /** Rows that the source has at the end. */
  readonly now: number;
  readonly leftOut: string;
}

function report(
  { counts, sourceSum, targetSum }: ImportResult,
  { dryRun, json }: ImportOptions,
  { now, leftOut }: Ends,
  { output }: Terminal,
): void {
  const { read, written, present, expired, kept, unfit, different } = counts;
  const isWhole = kept + unfit + different === 0;
  if (json) {
    const rest = dryRun ? {} : { sourceChecksum: sourceSum, targetChecksum: targetSum };
    output.write(`${JSON.stringify({ ok: isWhole, dryRun, ...counts, sourceRows: now, ...rest })}\n`);
    return;
  }
  const lines = [
    `${read} rows read: ${written} ${dryRun ? 'to be written' : 'written'}, ${present} were there already, ${expired} had expired`,
  ];
  if (kept > 0) lines.push(`${kept} left out: their keys are there with another value or ttl, which stays`);
  if (unfit > 0) lines.push(`${unfit} left out: they do not fit`);
  if (different > 0)
    lines.push(`${different} were read back otherwise than they were written: somebody else has written them`);
  if (dryRun) lines.push('nothing was written: this was a dry run');
  else
    lines.push(
      `checksum of what was imported: ${sourceSum}, and as read back: ${targetSum}${sourceSum === targetSum ? ': equal' : ''}`,
    );
  if (now !== read) lines.push(`the source has ${now} rows now: it has changed meanwhile`);
  if (!isWhole) lines.push(`which ones: ${leftOut}`);
  output.write(`${lines.join('\n')}\n`);
}
