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
import type { Timer } from '../../base/clock.js';
import type { Instant } from '../scatter/instant.js';
import { type BranchTarget, countOf } from './branch.js';
import { commitTogether, errorOfOnly, forEach } from './commit-together.js';
import { HeldNotices } from './held-notices.js';
import { type LockMark, markedSettings } from './lock-mark.js';
import type { Answer } from './protocol.js';
import { CANCELLED, committedInPart, errorOfRun, isDeadlock, LOST } from './spread-errors.js';
import { type RunEnd, type RunPart, type RunWay, SpreadRun } from './spread-run.js';
import { type BranchStatement, WriteBranch } from './write-branch.js';
import type {
  InBlock,
  SpreadBranch,
  SpreadClient,
  SpreadRequest,
  SpreadResult,
  WindowClient,
} from './write-request.js';
import { type WindowEnd, WriteWindow } from './write-window.js';

type Stage = 'new' | 'writing' | 'written' | 'ending' | 'over';

export class SpreadWrite {
  /** Of the statement that was run last, as are the client, and what its branches have said to it. */
  #request: SpreadRequest;
  #client: SpreadClient;
  #parts: readonly RunPart[] = [];
  #run: SpreadRun | null = null;
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
  /** Notices of what may be run again; null: they are told at once. */
  #notices: HeldNotices | null = null;
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
    this.#begin();
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
    this.#begin();
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
      const error = failure === null ? LOST : errorOfRun({ write: failure, place });
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
      branch = new WriteBranch(target, statement, settings, this.#request.clock, (message) => this.#notice(message));
      this.#branches.set(target.shardName, branch);
    }
    return branch;
  }

  #notice(message: Buffer): void {
    if (!this.#isAbandoned && this.#notices?.hold(message) !== true) this.#client.notice(message);
  }

  #tellNotices(): void {
    const held = this.#notices;
    this.#notices = null;
    for (const message of held?.messages ?? []) this.#notice(message);
  }

  #begin(): void {
    const { branches, clock, hasInstant, inBlock } = this.#request;
    this.#stage = 'writing';
    this.#run = null;
    this.#parts = branches.map(({ target, statement, place }) => {
      return { branch: this.#branch(target, statement), statement, place };
    });
    if (!hasInstant || this.#instant !== null) return this.#write(hasInstant ? this.#instant : null);
    if (inBlock !== null) return this.#askBlock(inBlock);
    const { target, statement } = branches[0]!;
    const asked = new WriteBranch(target, statement, markedSettings(this.#mark), clock, () => undefined);
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
    this.#parts[0]!.branch.askInstant(true, (instant) => {
      if (!Buffer.isBuffer(instant) && this.#again === null) return this.#write(settle(instant));
      this.#end(() => this.#client.failed(Buffer.isBuffer(instant) ? instant : CANCELLED));
    });
  }

  #write(instant: Instant | null): void {
    const { contention, table, inBlock } = this.#request;
    const isFirst = !this.#isFurther && inBlock === null;
    const way = contention.isMet(table) || this.#parts.length === 1 ? 'in order' : isFirst ? 'briefly' : 'at once';
    this.#runParts(instant, way);
  }

  #runParts(instant: Instant | null, way: RunWay): void {
    const { clock, inBlock, contention, table } = this.#request;
    this.#notices = way === 'briefly' ? new HeldNotices() : null;
    const run = new SpreadRun({
      parts: this.#parts,
      instant,
      way,
      isInBlock: inBlock !== null,
      waitsBriefly: this.#isFurther,
      clock,
      over: (end) => {
        for (const [branch, write] of run.writes) {
          if (write.kind === 'lost') this.#lost.add(branch);
          else if (write.kind === 'done' && write.hasWritten) this.#writers.add(branch);
        }
        if (end.kind === 'met locks' && this.#again === null) {
          contention.met(table);
          return this.#beginAnew(instant);
        }
        if (end.kind === 'written' && way === 'briefly') contention.passed(table);
        if (end.kind === 'failed' && isDeadlock(end.failure)) contention.met(table);
        this.#tellNotices();
        this.#ran(run, end);
      },
    });
    this.#run = run;
    run.start();
  }

  /** Somebody had locked what it wants: it gives back what it had locked itself, and queues for one shard after the other. */
  #beginAnew(instant: Instant | null): void {
    this.#run = this.#notices = null;
    this.#writers.clear();
    forEach(
      this.#parts,
      ({ branch }, done) => branch.beginAnew(done),
      () => {
        if (this.#again === null) return this.#runParts(instant, 'in order');
        this.#stage = 'written';
        this.rollBack(() => this.#client.failed(CANCELLED));
      },
    );
  }

  #ran(run: SpreadRun, end: RunEnd): void {
    this.#stage = 'written';
    if (end.kind === 'failed') this.rollBack(() => this.#client.failed(errorOfRun(end.failure)));
    else if (this.#again !== null) this.rollBack(() => this.#client.failed(CANCELLED));
    else if (this.#request.inBlock !== null) this.#end(() => this.#client.written(this.#result(run)));
    else this.#client.written(this.#result(run));
  }

  #result(run: SpreadRun): SpreadResult {
    let count = 0n;
    const returned = this.#parts.map(({ branch }) => {
      const write = run.writes.get(branch);
      assert(write?.kind === 'done', 'a statement that is written has been on every shard');
      count += write.count;
      return write.returned;
    });
    return { count, returned };
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
    else if (this.#asked === null) this.#run?.cancel();
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

  #end(tell: () => void): void {
    if (this.#stage === 'over') return;
    this.#stage = 'over';
    for (const branch of this.#branches.values()) branch.end();
    if (!this.#isAbandoned) tell();
  }
}

const CANCEL_AGAIN_MS = 100;
