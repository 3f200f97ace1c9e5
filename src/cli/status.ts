// `pgkv status`: asks a running router for `SHOW pgkv.status` and shows its answer. Finds a `pgkv dev` by the run.json
// in its data folder.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { messageOf } from '../base/errors.js';
import { CommandFailure } from './command-failure.js';
import { connect } from './connect.js';
import { type ConnectionTarget, connectionTarget, type Environment, placeOf } from './connection-target.js';
import type { StatusOptions } from './options.js';
import { passwordPrompt } from './password-prompt.js';
import { alignedTable } from './sql/aligned-table.js';
import type { Terminal } from './terminal.js';

/** What `pgkv dev` writes into its data folder while it runs. */
export interface RunFile {
  readonly pid: number;
  readonly host: string;
  readonly port: number;
  readonly httpPort: number;
  readonly user: string;
  readonly database: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly shards: readonly { readonly name: string; readonly host: string; readonly port: number }[];
  /** Path of the catalogue's file. */
  readonly catalog: string;
}

export const RUN_FILE = 'run.json';
const DEFAULT_DATA_DIR = '.pgkv';
const UNDEFINED_OBJECT = '42704';

interface Address {
  readonly host: string;
  readonly port: number;
}

/** The fields of the router's answer that people are shown; `--json` passes on all of them. */
export interface RouterStatus {
  readonly epoch: number;
  readonly version?: string;
  readonly shards: readonly {
    readonly id: number;
    readonly name: string;
    readonly primary: Address;
    readonly replicas: readonly Address[];
    /** Hash slots, first and last of each range. */
    readonly slots: readonly (readonly [number, number])[];
    readonly healthy?: boolean;
  }[];
}

/** @throws CommandFailure with exit code 2 where no router answers */
export async function runStatus(options: StatusOptions, terminal: Terminal): Promise<number> {
  const target = statusTarget(options, terminal.env);
  const text = await askRouter(target, terminal);
  const status = parseStatus(text, target);
  const lines = options.json ? [text] : statusLines(status, target);
  terminal.output.write(`${lines.join('\n')}\n`);
  return 0;
}

/** `--data-dir` is decisive; without any address given, a run.json in `.pgkv` is used if there is one. */
function statusTarget(options: StatusOptions, env: Environment): ConnectionTarget {
  const addressed = options.port !== undefined || options.host !== undefined || options.url !== undefined;
  if (options.dataDir === undefined && addressed) return connectionTarget(options, env);
  const run = readRunFile(options.dataDir ?? DEFAULT_DATA_DIR, options.dataDir !== undefined);
  if (!run) return connectionTarget(options, env);
  const { host, port, user, database } = run;
  return connectionTarget({ host, port, user, dbname: database, ...definedOnly(options) }, env);
}

function definedOnly({ host, port, user, dbname }: StatusOptions): Partial<StatusOptions> {
  return {
    ...(host !== undefined && { host }),
    ...(port !== undefined && { port }),
    ...(user !== undefined && { user }),
    ...(dbname !== undefined && { dbname }),
  };
}

function readRunFile(dataDir: string, required: boolean): RunFile | undefined {
  const path = join(dataDir, RUN_FILE);
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as RunFile;
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (missing && !required) return undefined;
    if (!missing) throw new CommandFailure(2, `cannot read ${path}: ${messageOf(error)}`, undefined, error);
    throw new CommandFailure(
      2,
      `no router runs with the data folder ${dataDir}: there is no ${path}`,
      `Start one with "pgkv dev --data-dir ${dataDir}", or name a port with --port.`,
    );
  }
}

async function askRouter(target: ConnectionTarget, terminal: Terminal): Promise<string> {
  const client = await connect(target, passwordPrompt(terminal.input, terminal.errors));
  try {
    const answer = await client.query<[string]>({ text: 'SHOW pgkv.status', rowMode: 'array' });
    return answer.rows[0]?.[0] ?? '';
  } catch (error) {
    if (error instanceof pg.DatabaseError && error.code === UNDEFINED_OBJECT) {
      throw new CommandFailure(2, `what answers at ${placeOf(target)} is not a pgkv router`, undefined, error);
    }
    throw new CommandFailure(2, `the router at ${placeOf(target)} failed: ${messageOf(error)}`, undefined, error);
  } finally {
    await client.end();
    terminal.input.destroy();
  }
}

function parseStatus(text: string, target: ConnectionTarget): RouterStatus {
  let status: Partial<RouterStatus> | null;
  try {
    status = JSON.parse(text) as Partial<RouterStatus> | null;
  } catch {
    status = null;
  }
  if (typeof status?.epoch === 'number' && Array.isArray(status.shards)) return status as RouterStatus;
  throw new CommandFailure(2, `the router at ${placeOf(target)} gave a status this program cannot read: ${text}`);
}

function statusLines(status: RouterStatus, target: ConnectionTarget): string[] {
  const version = status.version === undefined ? '' : ` ${status.version}`;
  const table = alignedTable({
    columns: [
      { name: 'id', align: 'right' },
      { name: 'shard', align: 'left' },
      { name: 'primary', align: 'left' },
      { name: 'replicas', align: 'left' },
      { name: 'slots', align: 'left' },
      { name: 'health', align: 'left' },
    ],
    rows: status.shards.map((shard) => [
      String(shard.id),
      shard.name,
      addressText(shard.primary),
      shard.replicas.map(addressText).join('\n'),
      shard.slots.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', '),
      shard.healthy === undefined ? '' : shard.healthy ? 'ok' : 'down',
    ]),
    footers: [],
  });
  return [`pgkv${version} at ${addressText(target)}, epoch ${status.epoch}`, '', ...table].slice(0, -1);
}

function addressText({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
