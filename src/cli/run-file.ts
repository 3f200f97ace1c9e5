// The run.json that `pgkv dev` writes into its data folder while it runs, and how commands find its router by it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CommandFailure, unreadable } from './command-failure.js';
import { type ConnectionTarget, connectionTarget, type Environment } from './connection-target.js';
import type { RouterOptions } from './options.js';

export interface RunFile {
  readonly pid: number;
  readonly host: string;
  readonly port: number;
  readonly httpPort: number;
  readonly user: string;
  readonly database: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly shards: readonly {
    readonly name: string;
    readonly host: string;
    readonly port: number;
    /** Of its Unix socket, the only way in for the superuser. */
    readonly socketDir: string;
  }[];
  /** Path of the catalogue's file. */
  readonly catalog: string;
}

export const RUN_FILE = 'run.json';
const DEFAULT_DATA_DIR = '.pgkv';

/**
 * `--data-dir` is decisive; where nothing says which server, a run.json in `.pgkv` is used if there is one.
 * @throws CommandFailure
 */
export function routerTarget(options: RouterOptions, env: Environment): ConnectionTarget {
  const { host, port } = options;
  const run = devRun(options, env);
  if (run === undefined) return connectionTarget(options, env);
  return connectionTarget(
    {
      host: host ?? run.host,
      port: port ?? run.port,
      user: options.user ?? (env['PGUSER'] || run.user),
      dbname: options.dbname ?? (env['PGDATABASE'] || run.database),
    },
    env,
  );
}

/** The `pgkv dev` that is meant; undefined where another router is. @throws CommandFailure */
export function devRun({ dataDir, host, port, url }: RouterOptions, env: Environment): RunFile | undefined {
  const addressed = [host, port, url, env['PGHOST'] || undefined, env['PGPORT'] || undefined].some(
    (address) => address !== undefined,
  );
  if (dataDir === undefined && addressed) return undefined;
  return readRunFile(dataDir ?? DEFAULT_DATA_DIR, dataDir !== undefined);
}

function readRunFile(dataDir: string, required: boolean): RunFile | undefined {
  const path = join(dataDir, RUN_FILE);
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as RunFile;
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (missing && !required) return undefined;
    if (!missing) throw unreadable(2, path, error);
    throw new CommandFailure(
      2,
      `no router runs with the data folder ${dataDir}: there is no ${path}`,
      `Start one with "pgkv dev --data-dir ${dataDir}", or name a port with --port.`,
    );
  }
}
