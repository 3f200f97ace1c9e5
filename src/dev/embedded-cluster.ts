// One real Postgres server per shard on this machine, for `pgkv dev` and tests. Owns the order of things: where the data
// lies, who may use it, what a crash left, making what is missing, starting all shards at once, and ending all of them.
// Everybody on this machine may connect to the servers (trust on 127.0.0.1), though not as superuser: never for production.
import { chmodSync, chownSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CatalogError } from '../catalog/catalog-error.js';
import { FileCatalog } from '../catalog/file-catalog.js';
import { type Binaries, prepareBinaries } from './binaries.js';
import type { ClusterLog } from './cluster-log.js';
import { type DataHome, existingShards, makeTemporaryFolder, openDataHome, shardName } from './data-home.js';
import { EmbeddedClusterError } from './embedded-cluster-error.js';
import { checkVersion, clearRemains, initShardData, removeDrafts, SOCKET_DIR_PREFIX } from './shard-data.js';
import { prepareDatabase } from './shard-database.js';
import { choosePorts, rememberedPorts, rememberPorts } from './shard-ports.js';
import { ShardServer } from './shard-server.js';
import { Watchdog } from './watchdog.js';

export interface EmbeddedClusterOptions {
  /** At least as many as `dataDir` already holds; exactly as many where it has a catalogue. */
  readonly shards: number;
  /** Made if missing; not used when `ephemeral`. */
  readonly dataDir: string;
  /** Data in a temporary folder that stop() removes; commits do not wait for the disk. */
  readonly ephemeral: boolean;
  readonly log: ClusterLog;
  /** Settings of postgresql.conf, over pgkv's own. */
  readonly parameters?: Readonly<Record<string, string>>;
  /** The owner of the database, no superuser; `pgkv` by default. */
  readonly role?: string;
  /** Made on every shard; `kv` by default. */
  readonly database?: string;
  /** Where data goes when the servers' user cannot enter `dataDir`; /var/lib/pgkv by default. */
  readonly stateRoot?: string;
  /** Where binaries are copied to when it cannot enter their package; /var/cache/pgkv or ~/.cache/pgkv by default. */
  readonly cacheRoot?: string;
}

export interface EmbeddedShard {
  /** From 0. */
  readonly id: number;
  readonly name: string;
  readonly host: '127.0.0.1';
  readonly port: number;
  readonly socketDir: string;
  readonly dataDir: string;
}

export interface EmbeddedCluster {
  readonly shards: readonly EmbeddedShard[];
  /** Where the data is, which need not be where it was asked for. */
  readonly dataDir: string;
  /** Resolves within about 5 s, when no server is left. Idempotent. */
  stop(): Promise<void>;
}

/** Where the catalogue of a cluster is whose data lies in `dataDir`. */
export function catalogPath(dataDir: string): string {
  return join(dataDir, 'catalog.json');
}

/** Throws EmbeddedClusterError for what the user can mend. Servers that die later are logged and started again. */
export async function startEmbeddedCluster(options: EmbeddedClusterOptions): Promise<EmbeddedCluster> {
  const { shards, log, ephemeral } = options;
  if (!Number.isInteger(shards) || shards < 1) {
    throw new EmbeddedClusterError(`a cluster has 1 shard or more, not ${shards}`);
  }
  const home = await openDataHome({ dataDir: options.dataDir, ephemeral, stateRoot: options.stateRoot, log });
  const watchdog = new Watchdog(log);
  if (ephemeral) watchdog.addFolder(home.dir);
  const cluster = new RunningCluster(options, home, watchdog);
  try {
    await cluster.start();
  } catch (error) {
    await cluster.stop();
    throw error;
  }
  return cluster;
}

class RunningCluster implements EmbeddedCluster {
  readonly dataDir: string;
  readonly #options: EmbeddedClusterOptions;
  readonly #home: DataHome;
  readonly #watchdog: Watchdog;
  #socketDir: string | undefined;
  #servers: ShardServer[] = [];
  #shards: EmbeddedShard[] = [];
  #stopped: Promise<void> | undefined;

  constructor(options: EmbeddedClusterOptions, home: DataHome, watchdog: Watchdog) {
    this.#options = options;
    this.#home = home;
    this.#watchdog = watchdog;
    this.dataDir = home.dir;
  }

  get shards(): readonly EmbeddedShard[] {
    return this.#shards;
  }

  async start(): Promise<void> {
    const { shards, cacheRoot, log } = this.#options;
    const { user } = this.#home;
    const binaries = await prepareBinaries({ user, cacheRoot, log });
    await this.#takeOver(binaries);
    const socketDir = await makeTemporaryFolder(SOCKET_DIR_PREFIX, user);
    this.#socketDir = socketDir;
    this.#watchdog.addFolder(socketDir);
    chmodSync(socketDir, 0o700);
    if (user !== undefined) chownSync(socketDir, user.uid, user.gid);
    const ports = await choosePorts(this.dataDir, shards, log);
    this.#servers = ports.map((port, id) => this.#prepareServer(id, port, socketDir, binaries));
    // All are settled before a failure is reported, so that none is still starting while the rest is cleared away.
    const outcomes = await Promise.allSettled(
      this.#servers.map((server, id) => this.#startShard(server, id, binaries)),
    );
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    this.#shards = this.#servers.map(({ port }, id) => {
      return { id, name: shardName(id), host: '127.0.0.1', port, socketDir, dataDir: this.#shardDir(id) };
    });
    rememberPorts(
      this.dataDir,
      this.#shards.map(({ port }) => port),
    );
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stopOnce();
    return this.#stopped;
  }

  async #stopOnce(): Promise<void> {
    await Promise.all(this.#servers.map((server) => server.stop()));
    if (this.#socketDir !== undefined) rmSync(this.#socketDir, { recursive: true, force: true });
    this.#home.lock.release();
    if (this.#options.ephemeral) rmSync(this.dataDir, { recursive: true, force: true });
    this.#watchdog.close();
  }

  /** Refuses data that does not fit, before anything in it is touched; then ends what a crash left running on it. */
  async #takeOver(binaries: Binaries): Promise<void> {
    const { shards, log } = this.#options;
    const existing = existingShards(this.dataDir);
    const known = rememberedPorts(this.dataDir).length;
    for (let id = 0; id < known; id++) {
      if (existing.includes(id)) continue;
      throw new EmbeddedClusterError(`the data of ${shardName(id)} is missing from ${this.dataDir}`, {
        hint: 'Put it back, or remove the whole folder to start with empty shards.',
      });
    }
    const count = (existing.at(-1) ?? -1) + 1;
    if (count > shards) {
      throw new EmbeddedClusterError(
        `${this.dataDir} holds ${count} shards, and --shards ${shards} would leave data out`,
        {
          hint: `Start with --shards ${count} or more, or use another --data-dir.`,
        },
      );
    }
    await this.#refuseToGrow();
    for (const id of existing) checkVersion(this.#shardDir(id), binaries.major);
    removeDrafts(this.dataDir);
    await Promise.all(existing.map((id) => clearRemains(this.#shardDir(id), log)));
  }

  /** Once keys are spread over the shards, another one holds none: moving slots is not done by starting it. */
  async #refuseToGrow(): Promise<void> {
    const { shards } = this.#options;
    const state = await new FileCatalog(catalogPath(this.dataDir)).read().catch((error: unknown) => {
      if (!(error instanceof CatalogError)) throw error;
      throw new EmbeddedClusterError(error.message, { hint: error.hint ?? 'Use another --data-dir.', cause: error });
    });
    if (state === null || state.shards.length === shards) return;
    throw new EmbeddedClusterError(
      `${this.dataDir} holds ${state.shards.length} shards, over which its keys are spread, not ${shards}`,
      { hint: `Start with --shards ${state.shards.length}, or use another --data-dir.` },
    );
  }

  #prepareServer(id: number, port: number, socketDir: string, binaries: Binaries): ShardServer {
    const { ephemeral, parameters = {}, log } = this.#options;
    const name = shardName(id);
    const accessFile = join(this.dataDir, `${name}.hba`);
    return new ShardServer({
      settings: { name, dataDir: this.#shardDir(id), port, socketDir, accessFile, ephemeral, parameters },
      settingsFile: join(this.dataDir, `${name}.conf`),
      logFile: join(this.dataDir, `${name}.log`),
      binaries,
      user: this.#home.user,
      watchdog: this.#watchdog,
      log,
    });
  }

  async #startShard(server: ShardServer, id: number, binaries: Binaries): Promise<void> {
    const { ephemeral, role = 'pgkv', database = 'kv', log } = this.#options;
    const dataDir = this.#shardDir(id);
    if (!existsSync(dataDir)) {
      log('info', `making ${shardName(id)}`, { dataDir });
      await initShardData(dataDir, { binaries, user: this.#home.user, ephemeral });
    }
    await server.start();
    await prepareDatabase({ host: this.#socketDir!, port: server.port }, dataDir, role, database);
  }

  #shardDir(id: number): string {
    return join(this.dataDir, shardName(id));
  }
}
