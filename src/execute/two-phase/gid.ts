// Names of transactions over several shards (D14), as pgkv.gid_role() of the extension reads them. A gid says where its
// decision is and whose it is, so that whoever finds it prepared needs to know nothing else. At most 124 bytes of Postgres's 199.
import { createHash } from 'node:crypto';
import type { Random } from '../../base/clock.js';

export interface TransactionName {
  /** Mark of the cluster. */
  readonly cluster: string;
  /** Mark of the shard in whose branch the decision is. */
  readonly shard: string;
  /** That logged in. */
  readonly role: string;
}

const CLUSTER_DIGITS = 16;
const SHARD_DIGITS = 12;
const NUMBER_BYTES = 12;
const FORM = /^pgkv:([0-9a-f]{16}):([0-9a-f]{12}):[0-9a-f]{24}:(.+)$/s;

const mark = (text: string, digits: number): string => createHash('sha256').update(text).digest('hex').slice(0, digits);

export const clusterMark = (clusterId: string): string => mark(clusterId, CLUSTER_DIGITS);
export const shardMark = (shardName: string): string => mark(shardName, SHARD_DIGITS);

/** What the gids of a cluster begin with. No character of it means anything to LIKE. */
export const gidPrefix = (clusterId: string): string => `pgkv:${clusterMark(clusterId)}:`;

/** Never one that was there before. */
export function newGid(clusterId: string, decisionShard: string, role: string, random: Random): string {
  const number = random.bytes(NUMBER_BYTES).toString('hex');
  return `${gidPrefix(clusterId)}${shardMark(decisionShard)}:${number}:${role}`;
}

/** Null: not one of ours. */
export function readGid(gid: string): TransactionName | null {
  const found = FORM.exec(gid);
  return found === null ? null : { cluster: found[1]!, shard: found[2]!, role: found[3]! };
}
