// A write whose arrays are cut (MemberPlan): what each shard gets of it, and the rows that they return, in the order of the members.
import { rewrittenText, unsharedText } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import type { ClusterView, ShardView } from '../../cluster/cluster-view.js';
import type { BranchTarget } from '../../execute/two-phase/branch.js';
import type { BranchResult } from '../../execute/two-phase/branch-reader.js';
import type { BranchStatement } from '../../execute/two-phase/write-branch.js';
import type { SpreadBranch } from '../../execute/two-phase/write-request.js';
import type { MemberPlan, SpreadPlan } from '../../sql/plan/kv-plan.js';
import { numberedInstants } from '../../sql/scatter/instant-parameters.js';
import type { ClientEncoding } from '../../sql/text/client-encoding.js';
import { readColumns, withoutLastColumns } from '../../wire/row-description.js';
import { withoutLastValues } from '../../wire/row-values.js';
import { TypeOid } from '../../wire/type-oids.js';
import type { KvStatement } from '../unit/kv-statements.js';
import { keyText } from '../unit/member-keys.js';
import { type ShardMembers, splitMembers } from './member-split.js';
import { type BoundParts, placedError } from './scatter-request-of.js';

const TEXT = 0;

export interface CutWrite extends SpreadPlan {
  readonly members: MemberPlan;
}

interface Surroundings {
  readonly target: (shard: ShardView) => BranchTarget;
  readonly view: ClusterView;
  readonly bound: BoundParts;
  readonly how: Pick<BranchStatement, 'template' | 'isAtomic'>;
}

interface CutParts {
  readonly branches: readonly SpreadBranch[];
  description(told: Buffer): Buffer;
  rows(returned: readonly BranchResult[]): readonly Buffer[];
}

export function byMembers(
  statement: KvStatement,
  { members: plan, returns, hasInstant, text: planned }: CutWrite,
  shards: readonly ShardView[],
  { target, view, bound, how }: Surroundings,
): CutParts {
  const { text, literals, encoding } = statement;
  const split = splitMembers(statement, plan, shards, view, bound.parameters);
  const numbered = split.numbered(planned ?? statement.plan.text);
  // The time comes behind all others.
  const parts = hasInstant ? numberedInstants(numbered, split.types.length + 1) : numbered;
  const types = hasInstant ? [...split.types, TypeOid.timestamptz, TypeOid.timestamptz] : split.types;
  const rewritten = { parts, text, literals, encoding };
  const source = unsharedText(rewrittenText(rewritten), types, encoding);
  const hidden = plan.order === 'number' ? 1 : 2;
  const { formats } = bound;
  // What is hidden is text, which is the same in both formats.
  const all = formats.length > 1 ? [...formats, ...Array.from({ length: hidden }, () => TEXT)] : formats;
  const place = (error: Buffer): Buffer => placedError(error, rewritten);
  return {
    branches: split.shards.map((own) => ({
      target: target(own.shard),
      statement: { source, parameters: [own.parameters], formats: returns ? all : null, ...how },
      place,
    })),
    description: (told) => withoutLastColumns(told, readColumns(told), hidden),
    rows: (returned) => {
      const ordered = split.shards.flatMap((own, index) =>
        plan.order === 'number' ? byNumber(returned[index]!) : byKey(returned[index]!, own, split.keys, encoding),
      );
      return ordered.sort(([one], [other]) => (plan.descending ? other - one : one - other)).map(([, row]) => row);
    },
  };
}

const byNumber = ({ rows }: BranchResult): [number, Buffer][] =>
  rows.map((message) => {
    const { row, last } = withoutLastValues(message, 1);
    return [Number(last[0]?.toString('latin1')), row];
  });

/** Where rows are missing, as behind DO NOTHING, their keys say which those are that have come. */
function byKey(
  { rows }: BranchResult,
  { members }: ShardMembers,
  keys: readonly string[],
  encoding: ClientEncoding,
): [number, Buffer][] {
  const byText = new Map<string, number[]>();
  for (const member of members) {
    const same = byText.get(keys[member]!);
    if (same === undefined) byText.set(keys[member]!, [member]);
    else same.push(member);
  }
  return rows.map((message) => {
    const { row, last } = withoutLastValues(message, 2);
    const [tenant, key] = last.map((value) => (value === null ? null : encoding.read(value)));
    const found = byText.get(keyText(tenant ?? null, key ?? null))?.shift();
    if (found === undefined) throw new PgkvError('internal', { detail: 'a shard returned a row of another key' });
    return [found, row];
  });
}
