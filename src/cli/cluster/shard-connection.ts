// Connections of the commands that set up and check a cluster: one to the primary of each shard, with the protection and
// patience the configuration asks for towards servers.
import { primaryFirst } from '../../catalog/view-from.js';
import type { NodeAddress } from '../../cluster/cluster-view.js';
import type { Settings } from '../../config/settings.js';
import { CommandFailure } from '../command-failure.js';
import { type AskPassword, connect, type DriverClient } from '../connect.js';
import type { ConnectionTarget, Environment } from '../connection-target.js';

export interface ShardPlace {
  readonly name: string;
  readonly primary: NodeAddress;
}

export interface ShardConnection extends ShardPlace {
  readonly client: DriverClient;
}

/** Who connects, and how. */
export interface ShardAccess {
  readonly user: string;
  readonly password: string | undefined;
  readonly database: string;
  readonly sslMode: ConnectionTarget['sslMode'];
  readonly sslRootCert: string | undefined;
  readonly connectTimeoutMs: number;
}

export function shardPlaces(settings: Settings): ShardPlace[] {
  // Each shard has a node: the schema of the settings sees to it.
  return settings.shards.map(({ name, nodes }) => ({ name, primary: primaryFirst(nodes)[0]! }));
}

/** `user`, with PGPASSWORD; without one, the service role with its own password. */
export function accessFrom(
  settings: Settings,
  given: { readonly user: string | undefined; readonly database: string },
  env: Environment,
): ShardAccess {
  const { service } = settings.auth;
  const isService = given.user === undefined || given.user === service.user;
  const servicePassword = isService ? service.password?.reveal() : undefined;
  return {
    user: given.user ?? service.user,
    // PGPASSWORD is often that of somebody else.
    password: servicePassword ?? (env['PGPASSWORD'] || undefined),
    database: given.database,
    sslMode: settings.servers.tls,
    sslRootCert: settings.servers.tlsCaFile ?? undefined,
    connectTimeoutMs: settings.servers.connectTimeoutMs,
  };
}

export type ConnectionOutcome =
  | { readonly kind: 'connected'; readonly shard: ShardConnection }
  | { readonly kind: 'failed'; readonly shard: ShardPlace; readonly failure: CommandFailure };

/** Tries all at once; whoever may be asked for a password is asked once. */
export async function tryShards(
  shards: readonly ShardPlace[],
  access: ShardAccess,
  askPassword: AskPassword,
): Promise<ConnectionOutcome[]> {
  let answer: ReturnType<AskPassword> | undefined;
  const askOnce: AskPassword = (user) => {
    answer ??= askPassword(user);
    return answer;
  };
  return Promise.all(
    shards.map(async (shard): Promise<ConnectionOutcome> => {
      try {
        const client = await connect(targetOf(shard, access), askOnce);
        return { kind: 'connected', shard: { ...shard, client } };
      } catch (error) {
        if (!(error instanceof CommandFailure)) throw error;
        return { kind: 'failed', shard, failure: error };
      }
    }),
  );
}

/**
 * Runs `work` with a connection to every shard, and closes them after it.
 * @throws CommandFailure that names all shards which cannot be reached
 */
export async function withShards<T>(
  shards: readonly ShardPlace[],
  access: ShardAccess,
  askPassword: AskPassword,
  work: (connections: readonly ShardConnection[]) => Promise<T>,
): Promise<T> {
  const outcomes = await tryShards(shards, access, askPassword);
  const connected = outcomes.flatMap((outcome) => (outcome.kind === 'connected' ? [outcome.shard] : []));
  const failed = outcomes.flatMap((outcome) => (outcome.kind === 'failed' ? [outcome] : []));
  try {
    if (failed.length === 0) return await work(connected);
    const reasons = failed.map(({ shard, failure }) => `shard ${shard.name}: ${failure.message}`);
    throw new CommandFailure(2, reasons.join('\n'), 'All shards are needed: see that these servers run and let us in.');
  } finally {
    await endAll(connected);
  }
}

export async function endAll(connections: readonly ShardConnection[]): Promise<void> {
  await Promise.all(connections.map(({ client }) => client.end()));
}

function targetOf({ primary }: ShardPlace, access: ShardAccess): ConnectionTarget {
  return {
    ...primary,
    ...access,
    sslCert: undefined,
    sslKey: undefined,
    applicationName: 'pgkv',
    // Definitions are compared as texts, in which names are qualified unless they are in the path.
    serverOptions: '-c search_path=pg_catalog',
  };
}
