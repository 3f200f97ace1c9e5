// The pools of a process, one for each node that is used, found by the node and never by a shard's number: which node is a
// shard's primary changes with the view. Owns opening and draining them: a pool is opened when it is first asked for, and
// drained when the view in force names its node no longer. What a node must prove to be, it takes from the view.
import { PgkvError } from '../../base/errors.js';
import { type ClusterView, homeShard, type NodeId, type NodeView, type ShardView } from '../../cluster/cluster-view.js';
import type { ExpectedServer } from '../connection/server-identity.js';
import { ServerProof } from '../connection/server-proof.js';
import type { NodePool } from './node-pool.js';

/** A node, and the shard it is part of. */
export interface NamedNode {
  readonly node: NodeView;
  readonly shard: ShardView;
}

export interface NodeDirectoryOptions {
  readonly view: ClusterView;
  open(named: NamedNode, proof: ServerProof): NodePool;
  /** The node turned out to be another server than the one it should be, or (null) the right one is back. */
  identityChanged?(named: NamedNode, fault: string | null): void;
}

export class NodeDirectory {
  readonly #options: NodeDirectoryOptions;
  readonly #open = new Map<NodeId, NodePool>();
  #view: ClusterView;
  #named: ReadonlyMap<NodeId, NamedNode>;
  #closed = false;

  constructor(options: NodeDirectoryOptions) {
    this.#options = options;
    this.#view = options.view;
    this.#named = namedNodes(options.view);
  }

  /** @throws PgkvError `server_unreachable` where no node of the view has that id */
  pool(id: NodeId): NodePool {
    const open = this.#open.get(id);
    if (open !== undefined) return open;
    const named = this.#named.get(id);
    if (named === undefined || this.#closed) {
      throw new PgkvError('server_unreachable', { detail: `node ${id} is not part of the cluster` });
    }
    const proof = new ServerProof(
      () => expectedServer(this.#view, this.#named.get(id) ?? named),
      (fault) => this.#options.identityChanged?.(this.#named.get(id) ?? named, fault),
    );
    const pool = this.#options.open(named, proof);
    this.#open.set(id, pool);
    return pool;
  }

  primary(shard: ShardView): NodePool {
    return this.pool(shard.primary.id);
  }

  /** Of the home shard. */
  get home(): NodePool {
    return this.primary(homeShard(this.#view));
  }

  /** Those that are open. */
  pools(): Iterable<NodePool> {
    return this.#open.values();
  }

  /** The view in force from now on: pools of nodes that it does not name take no one in, and end as they empty. */
  follow(view: ClusterView): void {
    this.#view = view;
    this.#named = namedNodes(view);
    for (const [id, pool] of this.#open) {
      if (this.#named.has(id)) continue;
      this.#open.delete(id);
      pool.close();
    }
  }

  /** See NodePool.closeIdle; of all nodes. */
  closeIdle(database: string): void {
    for (const pool of this.#open.values()) pool.closeIdle(database);
  }

  /** Ends every connection at once. */
  destroy(): void {
    this.#closed = true;
    for (const pool of this.#open.values()) pool.destroy();
  }
}

function namedNodes(view: ClusterView): ReadonlyMap<NodeId, NamedNode> {
  return new Map(
    view.shards.flatMap((shard) =>
      [shard.primary, ...shard.replicas].map((node) => [node.id, { node, shard }] as const),
    ),
  );
}

/** Without a catalogue only a stated role is held against the server: nothing else is known of it. */
function expectedServer(view: ClusterView, { node, shard }: NamedNode): ExpectedServer {
  const { database } = view;
  const place = node === shard.primary ? 'primary' : 'replica';
  const stated = node.role === 'auto' ? null : node.role;
  return {
    shard: shard.name,
    clusterId: view.clusterId,
    systemIdentifier: shard.systemIdentifier,
    database,
    role: database === null ? stated : place,
  };
}
