// The view that configuration and catalogue give together: nodes from the first; slots, tables, epoch from the second.
import { type ClusterView, initialView, type NodeAddress, type NodeRole } from '../cluster/cluster-view.js';
import type { NodeSettings, ShardSettings } from '../config/settings.js';
import { CatalogError } from './catalog-error.js';
import type { CatalogState } from './catalog-state.js';

/**
 * Shards in the catalogue's order, so that ids and the home shard stay what they are when the configuration is sorted
 * anew. @throws CatalogError that names the shards which only one of both knows
 */
export function viewFrom(shards: readonly ShardSettings[], state: CatalogState): ClusterView {
  const configured = new Map(shards.map((shard) => [shard.name, shard]));
  const unconfigured = state.shards.filter(({ name }) => !configured.has(name)).map(({ name }) => name);
  if (unconfigured.length > 0) {
    throw new CatalogError(`the catalogue has ${named(unconfigured)}, the configuration does not`, {
      hint: `Add [[shards]] with ${unconfigured.length > 1 ? 'these names' : 'this name'} and the nodes: keys are stored there.`,
    });
  }
  const known = new Set(state.shards.map(({ name }) => name));
  const unknown = shards.filter(({ name }) => !known.has(name)).map(({ name }) => name);
  if (unknown.length > 0) {
    throw new CatalogError(`the configuration has ${named(unknown)}, the catalogue does not`, {
      hint: `The catalogue has ${named([...known])}. A shard is not added by configuration alone: it holds no slots.`,
    });
  }
  const descriptions = state.shards.map(({ name, hashSlots, systemIdentifier }) => {
    return { name, hashSlots, systemIdentifier, nodes: primaryFirst(configured.get(name)!.nodes) };
  });
  return initialView(descriptions, state.tables, state.epoch, state.database, state.clusterId ?? null);
}

/** Nodes whose role is not stated count as stated in order: the first is taken for the primary, which it has to prove (D28). */
export function primaryFirst(nodes: readonly NodeSettings[]): (NodeAddress & { readonly role: NodeRole })[] {
  return [...nodes].sort((a, b) => Number(b.role === 'primary') - Number(a.role === 'primary'));
}

function named(names: readonly string[]): string {
  return `${names.length > 1 ? 'shards' : 'shard'} ${names.map((name) => `"${name}"`).join(', ')}`;
}
