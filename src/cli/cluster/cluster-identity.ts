// By what a cluster and its servers are known again (D28): an id of the cluster, which each shard repeats, and each shard's
// system identifier, which its server cannot help having. Drawn and noted by init; what is there is kept.
import { randomUUID } from 'node:crypto';
import type { CatalogState } from '../../catalog/catalog-state.js';
import { CommandFailure } from '../command-failure.js';
import type { DriverClient } from '../connect.js';
import type { ServerFacts } from './server-facts.js';
import type { ShardConnection } from './shard-connection.js';
import { readShardState } from './shard-state.js';

/**
 * The state with what is missing of its identity: from the shards where an init that failed half way has left it.
 * @param facts of the servers, in the order of `connections`
 * @throws CommandFailure where the servers belong to several clusters, or are others than the state knows
 */
export async function withIdentity(
  state: CatalogState,
  connections: readonly ShardConnection[],
  facts: readonly ServerFacts[],
): Promise<CatalogState> {
  const servers = new Map(connections.map(({ name }, index) => [name, facts[index]!.systemIdentifier]));
  const clusterId = await clusterIdOf(state, connections);
  const shards = state.shards.map((shard) => {
    const found = servers.get(shard.name)!;
    const known = shard.systemIdentifier ?? found;
    if (known === found) return { ...shard, systemIdentifier: known };
    throw new CommandFailure(
      1,
      `the server of shard ${shard.name} is another one than the catalogue knows: its system identifier is ${found}, not ${known}`,
      'See whether addresses are mixed up. If it was made anew from a dump, take systemIdentifier of the shard out of the catalogue.',
    );
  });
  return { ...state, clusterId, shards };
}

async function clusterIdOf(state: CatalogState, connections: readonly ShardConnection[]): Promise<string> {
  const found = new Map<string, string>();
  if (state.clusterId !== undefined) found.set(state.clusterId, 'the catalogue');
  for (const { name, client } of connections) {
    const id = await statedClusterId(client);
    if (id !== undefined && !found.has(id)) found.set(id, `shard ${name}`);
  }
  if (found.size > 1) {
    const owners = [...found].map(([id, owner]) => `${owner}: ${id}`);
    throw new CommandFailure(
      1,
      `these belong to different clusters: ${owners.join(', ')}`,
      'Bring back the catalogue of that cluster, or use an empty database.',
    );
  }
  return [...found.keys()][0] ?? randomUUID();
}

async function statedClusterId(client: DriverClient): Promise<string | undefined> {
  const { rows } = await client.query(`SELECT pg_catalog.to_regclass('pgkv.shard_state') IS NOT NULL AS known`);
  return rows[0].known ? (await readShardState(client))?.clusterId : undefined;
}
