// INSERTs of several clients over several shards, written as one transaction (R58): what BEGIN, PREPARE, the decision and COMMIT
// PREPARED cost is paid once for all of them, as a group commit pays once for the disk. It is told only what is true of each: where
// anything at all goes another way than planned nothing is written, and each member is run by itself, which says what is wrong.
import type { Clock, Random } from '../../base/clock.js';
import type { Template } from '../../sql/plan/template.js';
import type { BranchTarget } from './branch.js';
import { errorOfOutcome, FINISH_MS } from './commit-together.js';
import { type CommitBranch, Coordinator, type Outcome } from './coordinator.js';
import { newGid } from './gid.js';
import { GroupBranch, type GroupStatement } from './group-branch.js';

export interface GroupMember {
  /** What each shard is to run: two at least. */
  readonly parts: readonly { readonly target: BranchTarget; readonly statement: GroupStatement }[];
  /** Of the statement. */
  readonly template: Template;
  readonly bytes: number;
  /** By which it is known where its rows lie: who is written together has the same. */
  readonly view: object;
  /** @param rows of all shards */
  committed(rows: bigint): void;
  /** Nothing of it is written: it is to be run by itself. */
  alone(): void;
  /** Its outcome is not known, or not seen yet. */
  failed(error: Buffer): void;
}

export interface GroupWriteServices {
  readonly clock: Clock;
  readonly random: Random;
}

/** Whose transactions they are. */
export interface GroupOwner {
  readonly clusterId: string;
  /** That logged in. */
  readonly role: string;
}

interface Part {
  readonly target: BranchTarget;
  readonly members: GroupMember[];
  readonly statements: GroupStatement[];
}

/** What each shard gets of all members. */
function partsOf(members: readonly GroupMember[]): Part[] {
  const byShard = new Map<string, Part>();
  for (const member of members) {
    for (const { target, statement } of member.parts) {
      let part = byShard.get(target.shardName);
      if (part === undefined) {
        part = { target, members: [], statements: [] };
        byShard.set(target.shardName, part);
      }
      part.members.push(member);
      part.statements.push(statement);
    }
  }
  return [...byShard.values()];
}

/** @param members of one view. @param over told first, then the members; isWritten: as one */
export function writeGroup(
  members: readonly GroupMember[],
  { clusterId, role }: GroupOwner,
  { clock, random }: GroupWriteServices,
  over: (isWritten: boolean) => void,
): void {
  const { template } = members[0]!;
  let isNoticed = false;
  const branches = partsOf(members).map(({ target, statements, members: own }) => {
    // Nobody knows whose it is.
    const branch = new GroupBranch(target, template, statements, clock, () => {
      isNoticed = true;
    });
    return { branch, members: own };
  });
  // Not always the same shard.
  const [last] = branches.splice(Math.floor(random.fraction() * branches.length), 1) as [(typeof branches)[number]];
  branches.push(last);
  const isAgreed = (): boolean => !isNoticed && branches.every(({ branch }) => !branch.isUnfit);
  const deciding: CommitBranch = {
    shardName: last.branch.shardName,
    prepare: (gid, told) => last.branch.prepare(gid, told),
    decide: (gid, told) => last.branch.decideIf(gid, isAgreed, told),
    rollback: (told) => last.branch.rollback(told),
    finish: (gid, decision, told) => last.branch.finish(gid, decision, told),
  };
  last.branch.write();
  new Coordinator({
    gid: newGid(clusterId, last.branch.shardName, role, random),
    branches: [...branches.slice(0, -1).map(({ branch }) => branch), deciding],
    clock,
    finishMs: FINISH_MS,
    over: (outcome) => {
      for (const { branch } of branches) branch.end();
      over(outcome.kind !== 'aborted');
      tell(outcome, members, branches);
    },
  }).start();
}

function tell(
  outcome: Outcome,
  members: readonly GroupMember[],
  branches: readonly { readonly branch: GroupBranch; readonly members: readonly GroupMember[] }[],
): void {
  const error = outcome.kind === 'aborted' ? null : errorOfOutcome(outcome, 'statement');
  if (outcome.kind === 'aborted' || error !== null) {
    for (const member of members) {
      if (error === null) member.alone();
      else member.failed(error);
    }
    return;
  }
  const rows = new Map<GroupMember, bigint>();
  for (const { branch, members: own } of branches) {
    for (const [index, member] of own.entries()) rows.set(member, (rows.get(member) ?? 0n) + branch.counts[index]!);
  }
  for (const [member, count] of rows) member.committed(count);
}
