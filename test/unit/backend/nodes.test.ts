// Pools are found by node, whatever shard it is part of and whichever view is in force.
import t from 'tap';
import { ServerProof } from '../../../src/backend/connection/server-proof.js';
import { SettingsRegistry } from '../../../src/backend/connection/settings-group.js';
import { NodePool } from '../../../src/backend/pool/node-pool.js';
import { NodeDirectory } from '../../../src/backend/pool/nodes.js';
import { systemClock, systemRandom } from '../../../src/base/clock.js';
import { type ClusterView, initialView, nodeId } from '../../../src/cluster/cluster-view.js';

const LIMITS = {
  sizeMax: 2,
  queueMax: 10,
  waitTimeoutMs: 1_000,
  answerTimeoutMs: 1_000,
  roleShare: 1,
  idleTimeoutMs: 1_000,
  lifetimeMaxMs: 1_000,
  connectTimeoutMs: 1_000,
  preparedStatementsMax: 10,
  serverMessageBytesMax: 1_000,
};
const registry = new SettingsRegistry();
const at = (port: number) => ({ host: 'h', port });
const view = (epoch: number, ...shards: (readonly number[])[]): ClusterView =>
  initialView(
    shards.map((ports, index) => ({ name: `s${index}`, hashSlots: [], nodes: ports.map(at) })),
    [],
    epoch,
  );

function directory(t: { teardown(end: () => void): void }, first: ClusterView) {
  const opened: number[] = [];
  const nodes = new NodeDirectory({
    view: first,
    open: ({ node }, proof) => {
      t.teardown(() => pool.destroy());
      opened.push(node.port);
      const pool = new NodePool({
        address: node,
        limits: LIMITS,
        openStream: () => ({ abort: () => undefined }),
        clock: systemClock,
        random: systemRandom,
        noSettings: registry.empty,
        proof,
      });
      return pool;
    },
  });
  return { nodes, opened };
}

t.test('a pool is opened once, when it is first asked for', async (t) => {
  const first = view(1, [1, 2], [3]);
  const { nodes, opened } = directory(t, first);
  t.strictSame(opened, []);
  t.equal(nodes.home, nodes.pool(nodeId(at(1))));
  t.equal(nodes.primary(first.shards[1]!), nodes.pool(nodeId(at(3))));
  t.strictSame(opened, [1, 3]);
  t.equal([...nodes.pools()].length, 2);
  t.throws(() => nodes.pool(nodeId(at(9))), /could not be reached/);
});

t.test(
  'another view: a node that stays keeps its pool in whatever shard and role, one that is gone is drained',
  async (t) => {
    const { nodes, opened } = directory(t, view(1, [1, 2], [3]));
    const [one, two, three] = [1, 2, 3].map((port) => nodes.pool(nodeId(at(port))));
    const next = view(2, [2, 1], [4]);
    nodes.follow(next);
    t.equal(nodes.home, two, 'the replica that became the primary');
    t.equal(nodes.pool(nodeId(at(1))), one);
    nodes.primary(next.shards[1]!);
    t.strictSame(opened, [1, 2, 3, 4]);
    const refusals: string[] = [];
    three!.acquire({
      group: three!.group(new Map([['user', 'u']]), { kind: 'none' }),
      settings: registry.empty,
      queuedAt: 0,
      granted: () => undefined,
      refused: (error) => refusals.push(error.errorName),
    });
    t.strictSame(refusals, ['shutting_down'], 'takes no one in');
    t.throws(() => nodes.pool(nodeId(at(3))), /could not be reached/);
  },
);

t.test('a proof: without anything to hold against a server, nothing is asked', async (t) => {
  const expected = { shard: 's', clusterId: null, systemIdentifier: null, database: null, role: null };
  const proof = new ServerProof(() => expected);
  const sender = {
    parameters: new Map(),
    sendControl: () => t.fail('something was asked'),
    output: { flush: () => undefined },
  };
  t.equal(
    proof.ask(sender, 'd', () => undefined),
    true,
  );
});
