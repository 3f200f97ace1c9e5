// Which cluster a command is about: that of a configuration file, or the one `pgkv dev` runs with a data folder.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../base/errors.js';
import type { CatalogDriver } from '../../catalog/catalog-driver.js';
import type { CatalogState } from '../../catalog/catalog-state.js';
import { openCatalog } from '../../catalog/open-catalog.js';
import { defaultSettings } from '../../config/load.js';
import type { Settings } from '../../config/settings.js';
import { CommandFailure } from '../command-failure.js';
import { settingsFrom } from '../config-file.js';
import type { ClusterOptions } from '../options.js';
import { RUN_FILE, type RunFile } from '../run-file.js';

export interface ClusterAccess {
  readonly settings: Settings;
  /** As the user named it, for messages. */
  readonly source: string;
  /** Who connects where nobody was named; undefined: the service role. */
  readonly user: string | undefined;
}

/** @throws CommandFailure */
export function clusterAccess(options: ClusterOptions): ClusterAccess {
  const { configFile, dataDir, user } = options;
  if (configFile !== undefined) return { settings: settingsFrom(configFile), source: configFile, user };
  if (dataDir === undefined) {
    throw new CommandFailure(
      1,
      'which cluster?',
      'Name its configuration (--config FILE) or its data (--data-dir DIR).',
    );
  }
  const run = readRunFile(dataDir);
  return { settings: devSettings(run), source: join(dataDir, RUN_FILE), user: user ?? run.user };
}

/** What `pgkv dev` runs with, as far as its servers and their tables are concerned. */
export function devSettings(run: Pick<RunFile, 'user' | 'database' | 'shards' | 'catalog'>): Settings {
  return defaultSettings({
    catalog: { path: run.catalog },
    servers: { tls: 'disable' },
    admin: { roles: [run.user] },
    auth: { method: 'trust', service: { user: run.user, database: run.database } },
    shards: run.shards.map(({ name, host, port }) => ({ name, nodes: [{ host, port, role: 'primary' as const }] })),
  });
}

/** @throws CommandFailure where the configuration names none */
export function requireCatalog({ settings, source }: ClusterAccess): CatalogDriver {
  const catalog = openCatalog(settings);
  if (catalog !== null) return catalog;
  throw new CommandFailure(1, `${source} names no catalogue`, 'Add to it: [catalog] with path = "catalog.json".');
}

/** @throws CommandFailure where there is none yet */
export async function requireState(catalog: CatalogDriver, { source }: ClusterAccess): Promise<CatalogState> {
  const state = await catalog.read();
  if (state !== null) return state;
  throw new CommandFailure(1, `there is no catalogue ${catalog.place}`, `Make one: pgkv init --config ${source}`);
}

function readRunFile(dataDir: string): RunFile {
  const path = join(dataDir, RUN_FILE);
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as RunFile;
  } catch (error) {
    throw new CommandFailure(
      2,
      `no pgkv runs with the data folder ${dataDir}: ${messageOf(error)}`,
      `Start one: pgkv dev --data-dir ${dataDir}`,
      error,
    );
  }
}
