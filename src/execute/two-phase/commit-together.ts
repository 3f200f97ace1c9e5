// Ends what was written on several shards as one: branches that have written nothing commit plainly, since what has only been read
// is there whatever becomes of its transaction; then the only writer does, or the coordinator commits all writers together.

import { assert } from '../../base/assert.js';
import type { Clock, Random } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { encodeError } from '../../wire/server-messages.js';
import { type CommitBranch, Coordinator, type Outcome } from './coordinator.js';
import { newGid } from './gid.js';
import type { PreparedSlots } from './prepared-slots.js';
import type { Answer } from './protocol.js';

export interface CommittingBranch extends CommitBranch {
  commit(told: (answer: Answer) => void): void;
}

export interface TogetherOptions {
  /** Null: there is one shard, and nothing is prepared. */
  readonly clusterId: string | null;
  /** That logged in. */
  readonly role: string;
  /** Where those that are prepared need one. */
  readonly slots: PreparedSlots;
  readonly clock: Clock;
  readonly random: Random;
  /** What is told to have been rolled back. */
  readonly what: 'statement' | 'transaction';
  /** By its client, which counts as long as nothing is prepared. */
  isCancelled?(): boolean;
}

/** How long the client waits for a shard to show what is decided. */
export const FINISH_MS = 10_000;

/** @param over all have called back */
export function forEach<Branch>(
  branches: readonly Branch[],
  act: (branch: Branch, done: () => void) => void,
  over: () => void,
): void {
  let left = branches.length;
  if (left === 0) return over();
  for (const branch of branches) {
    act(branch, () => {
      if (--left === 0) over();
    });
  }
}

/**
 * @param writers the last gets the decision
 * @param over called once; error: what the client is told, null: all shards show the commit
 */
export function commitTogether(
  readers: readonly CommittingBranch[],
  writers: readonly CommittingBranch[],
  options: TogetherOptions,
  over: (error: Buffer | null) => void,
): void {
  forEach(
    readers,
    (branch, done) => branch.commit(done),
    () => commitWriters(writers, options, over),
  );
}

function commitWriters(
  writers: readonly CommittingBranch[],
  options: TogetherOptions,
  over: (error: Buffer | null) => void,
): void {
  const { clusterId, role, slots, clock, random, what } = options;
  const [only, ...more] = writers;
  if (only === undefined) return over(null);
  if (more.length === 0) return only.commit((answer) => over(errorOfOnly(only.shardName, answer)));
  assert(clusterId !== null, 'a cluster of several shards has an id');
  const gid = newGid(clusterId, writers.at(-1)!.shardName, role, random);
  const prepared = writers.slice(0, -1).map(({ shardName }) => shardName);
  slots.take(prepared, (full) => {
    const rollBack = (branch: CommittingBranch, done: () => void): void => branch.rollback(done);
    const isCancelled = options.isCancelled?.() === true;
    if (full === null && isCancelled) slots.give(prepared);
    if (isCancelled) return forEach(writers, rollBack, () => over(CANCELLED));
    if (full !== null) return forEach(writers, rollBack, () => over(noSlotOn(full, what)));
    new Coordinator({
      gid,
      branches: writers,
      clock,
      finishMs: FINISH_MS,
      over: (outcome, left) => {
        slots.give(prepared, left);
        over(errorOfOutcome(outcome, what));
      },
    }).start();
  });
}

const noSlotOn = (shard: string, what: string): Buffer =>
  errorOf(
    new PgkvError('prepared_slots_full', {
      detail: `The ${what} was rolled back on all shards: on shard "${shard}" as many are prepared as pgkv may have there.`,
      hint: 'Raise max_prepared_transactions on the servers, or let fewer of them commit at one time.',
    }),
  );

const errorOf = (error: PgkvError): Buffer => encodeError(error, 'ERROR');
const CANCELLED = errorOf(new PgkvError('cancelled'));
const UNTOLD = errorOf(new PgkvError('transaction_lost', { message: 'the transaction was rolled back by its server' }));

/** Of a writer that has committed by itself. */
export function errorOfOnly(shard: string, answer: Answer): Buffer | null {
  if (answer.kind === 'done') return null;
  if (answer.kind === 'local') return notConfirmed(shard);
  return answer.kind === 'refused' ? (answer.error ?? UNTOLD) : outcomeUnknown(shard);
}

/** What the client is told of a transaction that was to be committed together; null: it is. */
export function errorOfOutcome(outcome: Outcome, what: string): Buffer | null {
  switch (outcome.kind) {
    case 'committed':
      return null;
    case 'invisible':
      return invisibleOn(outcome.shards);
    case 'unknown':
      return outcomeUnknown(outcome.shard);
    case 'unconfirmed':
      return notConfirmed(outcome.shard);
    case 'aborted': {
      const { shard, answer } = outcome;
      if (answer.kind === 'refused' && answer.error !== null) return answer.error;
      const message = `the ${what} was rolled back on all shards: shard "${shard}" ${WHY_ABORTED[answer.kind]}`;
      return errorOf(new PgkvError('transaction_lost', { message }));
    }
  }
}

/** Of what commits, nothing was sent where it is `refused` without a word. */
const WHY_ABORTED: Readonly<Record<Answer['kind'], string>> = {
  done: 'would not decide it',
  refused: 'had lost its part before the commit',
  local: 'could not prepare it on its standbys',
  lost: 'could not prepare it',
};

/** It may be gone where a standby takes over. */
const notConfirmed = (shard: string): Buffer => {
  const message = `shard "${shard}" has committed, and its standby has not confirmed that; the outcome is unknown`;
  return errorOf(new PgkvError('outcome_unknown', { message, detail: 'All shards will show it, or none.' }));
};

const outcomeUnknown = (shard: string): Buffer =>
  errorOf(
    new PgkvError('outcome_unknown', {
      message: `the connection to shard "${shard}" was lost during the commit; the outcome is unknown`,
      detail: 'All shards will show it, or none.',
    }),
  );

export const quoted = (names: readonly string[]): string => names.map((name) => `"${name}"`).join(', ');

const invisibleOn = (shards: readonly string[]): Buffer =>
  errorOf(
    new PgkvError('outcome_unknown', {
      message: `committed, not yet visible on shard ${quoted(shards)}`,
      detail: 'It is finished there as soon as the shard answers.',
    }),
  );
