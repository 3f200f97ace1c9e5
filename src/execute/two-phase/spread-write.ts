// Statements that write on several shards, as one (D14). Every shard runs them in a transaction of its own, on the rows that it
// has; then, when they are to be committed and more than one has written, the coordinator commits them together; else each
// commits by itself, the only writer last. Stages:
//   writing    the branches run a statement
//   written    all have: a simple query is committed at once, a batch of the extended protocol by its Sync, before which more may run; in a
//              block it is over
//   ending     it is being committed, or taken back
//   over       told; nothing of it is on any connection but what the recoverer finds
// Invariant: the client hears of the end once, and of a commit only when every shard shows it.
import { assert } from '../../base/assert.js';
import type { Clock, Random, Timer } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import { encodeError } from '../../wire/server-messages.js';
import type { Instant } from '../scatter/instant.js';
import { type BranchFailure, type BranchTarget, countOf } from './branch.js';
import type { BranchResult } from './branch-reader.js';
import { commitTogether, errorOfOnly, forEach, quoted } from './commit-together.js';
import { placeOf } from './first-failure.js';
import { type LockMark, markedSettings } from './lock-mark.js';
import type { LockWatch } from './lock-watch.js';
import type { PreparedSlots } from './prepared-slots.js';
import type { Answer } from './protocol.js';
import { type BranchStatement, type BranchWrite, WriteBranch } from './write-branch.js';
import { type WindowEnd, WriteWindow } from './write-window.js';

export interface SpreadBranch {
  readonly target: BranchTarget;
  readonly statement: BranchStatement;
  /** An error of that shard, its place told as one in the client's own text. */
  place(error: Buffer): Buffer;
}

/** Of a block it is run in. */
export interface InBlock {
  /** What counts of the time that was told: the block's is what it was before. */
  settle(instant: Instant): Instant;
}

export interface SpreadRequest {
  /** What each shard is to run. */
  readonly branches: readonly SpreadBranch[];
  /** The statement takes the time as its last two parameters: one for all shards. */
  readonly hasInstant: boolean;
  /** All shards commit it or none; else each by itself, all at one time. */
  readonly isAtomic: boolean;
  /** In the client's block, whose branches the targets are, and which decides: it ends when it is written. */
  readonly inBlock: InBlock | null;
  /** Ends it where it waits for others over shards that wait for it. */
  readonly watch: LockWatch;
  readonly slots: PreparedSlots;
  readonly clusterId: string;
  /** That logged in. */
  readonly role: string;
  readonly clock: Clock;
  readonly random: Random;
}

/** What the shards have said to the statement. */
export interface SpreadResult {
  /** Of all shards. */
  readonly count: bigint;
  /** By branch, as in the request. */
  readonly returned: readonly BranchResult[];
}

export interface SpreadClient {
  /** It has run on all shards, and waits for `commit` or `rollBack`; told, alone of all, though the client is gone. */
  written(result: SpreadResult): void;
  committed(): void;
  /** ErrorResponse, as a shard or pgkv words it. */
  failed(error: Buffer): void;
  notice(message: Buffer): void;
}

/** Of a statement of a window, which runs on one shard. */
export interface WindowClient {
  /** All have run, as they are told in their order; as of `SpreadClient.written`. */
  written(results: readonly SpreadResult[]): void;
  /** None has: they are to be run one behind the other. */
  undone(): void;
  failed(error: Buffer): void;
}

type Stage = 'new' | 'writing' | 'written' | 'ending' | 'over';

export class SpreadWrite {
  /** Of the statement that was run last, as are the client, and what its branches have said to it. */
  #request: SpreadRequest;
  #client: SpreadClient;
  #running: readonly WriteBranch[] = [];
  readonly #writes = new Map<WriteBranch, BranchWrite>();
  /** By shard, those of all statements. */
  readonly #branches = new Map<string, WriteBranch>();
  /** That are known to have written. */
  readonly #writers = new Set<WriteBranch>();
  readonly #lost = new Set<WriteBranch>();
  readonly #mark: LockMark;
  #instant: Instant | null = null;
  #stage: Stage = 'new';
  /** Statements before hold connections. */
  #isFurther = false;
  /** The error that is told, by what its place is, and which of several comes first. */
  #failure: { readonly write: BranchFailure; readonly place: SpreadBranch['place']; readonly at: number } | null = null;
  /** Is asked for the time. */
  #asked: WriteBranch | null = null;
  #window: WriteWindow | null = null;
  /** Cancels it once more; null: the client has not cancelled it. */
  #again: Timer | null = null;
  #isAbandoned = false;

  constructor(request: SpreadRequest, client: SpreadClient) {
    this.#request = request;
    this.#client = client;
    this.#mark = request.watch.newMark();
  }

  start(): void {
    assert(this.#stage === 'new', 'the first statement is started once');
    this.#run();
    this.#watch();
  }

  /** Whether it waits for others in a circle is found out beside it. */
  #watch(): void {
    const { inBlock, watch } = this.#request;
    const mark = this.#mark;
    const isOver = (): boolean => this.#stage === 'over';
    const parts = (): readonly WriteBranch[] => [...this.#branches.values()];
    // In a block it is the block that waits.
    if (inBlock !== null || isOver()) return;
    watch.watch({
      mark,
      get isOver() {
        return isOver();
      },
      get parts() {
        return parts();
      },
    });
  }

  /** One more, once the last one is written. */
  more(request: SpreadRequest, client: SpreadClient): void {
    assert(this.#stage === 'written', 'one statement is run at a time');
    this.#request = request;
    this.#client = client;
    this.#isFurther = true;
    this.#run();
  }

  /** Its statements have one time. */
  get hasInstant(): boolean {
    return this.#instant !== null;
  }

  /** Several, each on one shard, side by side: they are the first, or behind what is written. */
  window(requests: readonly SpreadRequest[], client: WindowClient): void {
    assert(
      this.#stage === 'new' || this.#stage === 'written',
      'what is run side by side is run behind what is written',
    );
    const isFurther = this.#stage === 'written';
    this.#stage = 'writing';
    this.#request = requests.at(-1)!;
    const parts = requests.map(({ branches: [only], hasInstant }) => {
      const { target, statement } = only!;
      return { branch: this.#branch(target, statement), statement, hasInstant };
    });
    this.#window = new WriteWindow(parts, this.#instant, (end) => {
      this.#window = null;
      this.#stage = 'written';
      this.#windowEnded(end, requests, client);
    });
    this.#isFurther = true;
    this.#window.start(isFurther);
    if (!isFurther) this.#watch();
  }

  #windowEnded(end: WindowEnd, requests: readonly SpreadRequest[], client: WindowClient): void {
    if (end.kind === 'failed') {
      const { branch, failure } = end;
      if (failure === null || failure.kind === 'lost') this.#lost.add(branch);
      const at = requests.find(({ branches: [only] }) => only!.target.shardName === branch.shardName)!;
      const [{ place }] = at.branches as [SpreadBranch];
      const error = failure === null ? LOST : this.#errorOf({ write: failure, place });
      return this.rollBack(() => client.failed(this.#again !== null ? CANCELLED : error));
    }
    if (this.#again !== null || this.#isAbandoned) return this.rollBack(() => client.failed(CANCELLED));
    if (end.kind === 'undone') return client.undone();
    for (const branch of end.writers) this.#writers.add(branch);
    client.written(end.results.map((returned) => ({ count: countOf(returned.tag), returned: [returned] })));
  }

  #branch(target: BranchTarget, statement: BranchStatement): WriteBranch {
    let branch = this.#branches.get(target.shardName);
    if (branch === undefined) {
      const settings = markedSettings(this.#mark);
      branch = new WriteBranch(target, statement, settings, this.#request.clock, (message) => {
        if (!this.#isAbandoned) this.#client.notice(message);
      });
      this.#branches.set(target.shardName, branch);
    }
    return branch;
  }

  #run(): void {
    const { branches, clock, hasInstant, inBlock } = this.#request;
    const settings = markedSettings(this.#mark);
    this.#stage = 'writing';
    this.#writes.clear();
    this.#running = branches.map(({ target, statement }) => this.#branch(target, statement));
    if (!hasInstant || this.#instant !== null) return this.#write(hasInstant ? this.#instant : null);
    if (inBlock !== null) return this.#askBlock(inBlock);
    const { target, statement } = branches[0]!;
    const asked = new WriteBranch(target, statement, settings, clock, () => undefined);
    this.#asked = asked;
    asked.askInstant(false, (instant) => {
      this.#asked = null;
      asked.end();
      if (!Buffer.isBuffer(instant) && this.#again === null) {
        this.#instant = instant;
        return this.#write(instant);
      }
      this.#stage = 'written';
      this.rollBack(() => this.#client.failed(Buffer.isBuffer(instant) ? instant : CANCELLED));
    });
    if (this.#isFurther) asked.waitBriefly();
  }

  /** The time of the block, where it has its first part. */
  #askBlock({ settle }: InBlock): void {
    this.#running[0]!.askInstant(true, (instant) => {
      if (!Buffer.isBuffer(instant) && this.#again === null) return this.#write(settle(instant));
      this.#end(() => this.#client.failed(Buffer.isBuffer(instant) ? instant : CANCELLED));
    });
  }

  #write(instant: Instant | null): void {
    const { branches, inBlock } = this.#request;
    for (const [index, branch] of this.#running.entries()) {
      const { statement, place } = branches[index]!;
      const told = (write: BranchWrite): void => this.#written(branch, write, place);
      if (inBlock !== null) branch.writeInBlock(statement, instant, told);
      else branch.write(statement, instant, told);
      if (this.#isFurther) branch.waitBriefly();
    }
  }

  /** Once it is written. */
  commit(): void {
    assert(this.#stage === 'written', 'only what is written is committed');
    this.#stage = 'ending';
    const isLost = [...this.#writers].some((branch) => branch.isLost);
    if (isLost) this.#rollBack(() => this.#client.failed(LOST));
    else this.#commit();
  }

  /** Once it is written. @param over nothing of it is left */
  rollBack(over: () => void): void {
    // The block takes it back.
    if (this.#request.inBlock !== null) return this.#stage === 'over' ? over() : this.#end(over);
    assert(this.#stage === 'written', 'only what is written is taken back');
    this.#stage = 'ending';
    this.#rollBack(over);
  }

  /** As long as nothing is decided. */
  cancel(): void {
    if (this.#stage !== 'writing') return;
    if (this.#window !== null) this.#window.cancel();
    else if (this.#asked === null) this.#cancelBranches();
    else this.#asked.cancel();
    // One that comes to a server between two steps of pgkv's own is lost there, and the next may wait for ever.
    this.#again?.cancel();
    this.#again = this.#request.clock.after(CANCEL_AGAIN_MS, () => this.cancel());
  }

  /** The client is gone: it is brought to its end all the same, and told to nobody. What waits for its commit is taken back. */
  abandon(): void {
    this.#isAbandoned = true;
    if (this.#stage === 'written') this.rollBack(() => undefined);
  }

  #cancelBranches(): void {
    for (const branch of this.#running) if (!this.#writes.has(branch)) branch.cancel();
  }

  #written(branch: WriteBranch, write: BranchWrite, place: SpreadBranch['place']): void {
    this.#writes.set(branch, write);
    if (write.kind === 'lost') this.#lost.add(branch);
    else if (write.kind === 'done' && write.hasWritten) this.#writers.add(branch);
    if (write.kind !== 'done') this.#failed(write, place);
    // Those that waited for a connection have answered within their cancel, the last one for all.
    if (this.#stage !== 'writing' || this.#writes.size < this.#running.length) return;
    const failure = this.#failure;
    this.#stage = 'written';
    if (failure !== null) this.rollBack(() => this.#client.failed(this.#errorOf(failure)));
    else if (this.#again !== null) this.rollBack(() => this.#client.failed(CANCELLED));
    else if (this.#request.inBlock !== null) this.#end(() => this.#client.written(this.#result()));
    else this.#client.written(this.#result());
  }

  #failed(write: BranchFailure, place: SpreadBranch['place']): void {
    const at = placeOf(write);
    if (this.#failure !== null && at >= this.#failure.at) return;
    // The others may wait for locks, for nothing, once they had the time to find what stands before it.
    if (this.#failure === null)
      this.#request.clock.after(FIND_MS, () => this.#stage === 'writing' && this.#cancelBranches());
    this.#failure = { write, place, at };
  }

  #result(): SpreadResult {
    let count = 0n;
    const returned = this.#running.map((branch) => {
      const write = this.#writes.get(branch);
      assert(write?.kind === 'done', 'a statement that is written has been on every shard');
      count += write.count;
      return write.returned;
    });
    return { count, returned };
  }

  #rollBack(tell: () => void): void {
    forEach(
      [...this.#branches.values()].filter((branch) => !this.#lost.has(branch)),
      (branch, done) => branch.rollback(done),
      () => this.#end(tell),
    );
  }

  #commit(): void {
    const all = [...this.#branches.values()];
    const writers = all.filter((branch) => this.#writers.has(branch));
    const readers = all.filter((branch) => !this.#writers.has(branch));
    if (!this.#request.isAtomic && writers.length > 1) {
      return forEach(
        readers,
        (branch, done) => branch.commit(done),
        () => this.#commitEach(writers),
      );
    }
    commitTogether(readers, writers, { ...this.#request, what: 'statement' }, (error) => this.#told(error));
  }

  #commitEach(writers: readonly WriteBranch[]): void {
    const answers = new Map<string, Answer>();
    forEach(
      writers,
      (branch, done) =>
        branch.commit((answer) => {
          answers.set(branch.shardName, answer);
          done();
        }),
      () => {
        const failed = [...answers].filter(([, { kind }]) => kind !== 'done');
        if (failed.length === 0) return this.#end(() => this.#client.committed());
        const [[shard, answer]] = failed as [[string, Answer]];
        if (failed.length === answers.size && answer.kind === 'refused') return this.#told(errorOfOnly(shard, answer));
        this.#end(() => this.#client.failed(committedInPart(answers)));
      },
    );
  }

  #told(error: Buffer | null): void {
    this.#end(() => (error === null ? this.#client.committed() : this.#client.failed(error)));
  }

  #errorOf({ write, place }: { readonly write: BranchFailure; readonly place: SpreadBranch['place'] }): Buffer {
    switch (write.kind) {
      case 'failed':
        return place(write.error);
      case 'unable':
        return encodeError(refusalError(refuse('several_shards_unable', { why: write.why })), 'ERROR');
      case 'lost':
        return encodeError(write.error, 'ERROR');
    }
  }

  #end(tell: () => void): void {
    if (this.#stage === 'over') return;
    this.#stage = 'over';
    for (const branch of this.#branches.values()) branch.end();
    if (!this.#isAbandoned) tell();
  }
}

const CANCEL_AGAIN_MS = 100;
const FIND_MS = 20;
const errorOf = (error: PgkvError): Buffer => encodeError(error, 'ERROR');

const LOST = errorOf(new PgkvError('transaction_lost'));
const CANCELLED = errorOf(new PgkvError('cancelled'));
const committedInPart = (answers: ReadonlyMap<string, Answer>): Buffer => {
  const on = (kinds: readonly Answer['kind'][]): string =>
    quoted([...answers].filter(([, { kind }]) => kinds.includes(kind)).map(([name]) => name)) || 'none';
  const message = `committed on some shards only, as pgkv.cross_shard = per_shard allows: on ${on(['done'])}`;
  const detail = `Rolled back on ${on(['refused'])}; not known of ${on(['lost', 'local'])}.`;
  return errorOf(new PgkvError('outcome_unknown', { message, detail }));
};
