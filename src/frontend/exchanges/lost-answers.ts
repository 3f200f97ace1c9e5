// What the client is told of a connection that broke under it (R5, D27): batch by batch, from what was still owed and from what
// had been answered. Invariants: each batch gets its one ReadyForQuery and one error at most; what a server has answered is
// not taken back; a block that is lost stays failed until the client ends it, and one that it has ended is over.
import type { ServerLoss } from '../../backend/connection/server-connection.js';
import { type Deed, type Done, NOTHING_DONE } from '../../backend/replies/deeds.js';
import { type Owed, Reply, type ReplyKind } from '../../backend/replies/reply-queue.js';
import { type ErrorName, PgkvError } from '../../base/errors.js';
import { TransactionStatus } from '../../wire/protocol.js';
import {
  BIND_COMPLETE,
  CLOSE_COMPLETE,
  encodeCommandComplete,
  encodeError,
  encodeWarning,
  NO_DATA,
  NO_PARAMETERS,
  PARSE_COMPLETE,
  READY_FAILED,
  READY_IDLE,
  readyOf,
} from '../../wire/server-messages.js';
import type { BlockPlace } from './block-span.js';
import type { ExchangeContext } from './exchange-context.js';

const ROLLED_BACK = encodeCommandComplete('ROLLBACK');
const NO_BLOCK = encodeWarning('there is no transaction in progress', '25P01');

/** One batch of those that are owed, the last of which may be without its Sync. */
type Batch = readonly Owed[];

export class LostAnswers {
  readonly #context: ExchangeContext;

  constructor(context: ExchangeContext) {
    this.#context = context;
  }

  /**
   * The current lane's connection broke, and the session goes on: answers all that is owed.
   * @param block where the last block stands among what is owed
   */
  connectionLost(loss: ServerLoss, block: BlockPlace): void {
    const { batch, output, transaction } = this.#context;
    const { owedReadies } = loss;
    if (owedReadies === 0 && !batch.isOwed) {
      transaction.lose(false);
      return;
    }
    const { state } = transaction;
    const batches = batchesOf(loss.owed);
    const isUnbegun = wasSkipped(loss, block, batches);
    const inBlock = !isUnbegun && (state.kind === 'open' || state.kind === 'ending' || state.kind === 'failed');
    const last = batches.at(-1) ?? [];
    // What follows the end of a block in another batch waits for its answer: the end is in the last batch.
    const done = batches.length > 1 ? NOTHING_DONE : loss.done;
    const isOver = state.kind === 'ending' && done.ended;
    // A ROLLBACK under way has succeeded: there is nothing left to roll back.
    const rolledBack =
      state.kind === 'ending' && state.how === 'rollback' && done.statements === 0 && onlyRollsBack(last);
    const errorOf = (index: number): Buffer | null => {
      const isInside = inBlock && index >= block.outside && index < block.through;
      // The block could not be gone on with where it was to go: it has failed, and nothing of it was done.
      if (loss.refusal !== null) return loss.refusal;
      if (isInside && !(isOver && index >= batches.length - 1)) return this.#inBlock(loss, block, batches);
      const known = index > 0 ? NOTHING_DONE : isOver ? { ...done, wrote: done.wroteSinceEnd } : loss.done;
      return this.#outside(loss, batches[index] ?? [], known, index < block.outside && block.commitsBefore);
    };
    const errors = Array.from({ length: owedReadies + 1 }, (_, index) => errorOf(index));
    if (isUnbegun) transaction.loseUnbegun();
    else this.#loseBlock(loss, batches, isOver);
    let { told } = loss;
    for (let index = 0; index < owedReadies; index++) {
      const isLast = index === owedReadies - 1 && batch.state === 'none';
      if (isLast && rolledBack && !told) this.#rolledBack(last);
      else if (!told) this.#tell(errors[index]!, batches[index] ?? []);
      told = false;
      const staysFailed = inBlock && index >= block.outside && index < block.through - 1;
      output.send(isLast ? readyOf(transaction.status) : staysFailed ? READY_FAILED : READY_IDLE);
    }
    if (batch.isOwed) {
      if (rolledBack && !told && batch.state === 'open') this.#rolledBack(last);
      else {
        if (!told)
          this.#tell(errors[owedReadies] ?? this.#error(loss, 'server_unreachable'), batches[owedReadies] ?? []);
        batch.failed();
      }
    }
    output.flush();
  }

  /** @param isOver a server has said that the block has ended */
  #loseBlock({ told, done, refusal }: ServerLoss, batches: readonly Batch[], isOver: boolean): void {
    const { transaction } = this.#context;
    const isOne = batches.length <= 1;
    // What was bound and not executed has ended nothing; nor has what the server skips behind an error.
    const ends = (batches.at(-1) ?? []).some((owed) => mayDo(owed, 'commits') || mayDo(owed, 'rolls back'));
    transaction.lose(true, isOver || (ends && !((told || refusal !== null) && isOne)));
    // A text that begins a block, and has failed in it.
    if (told && isOne && done.begun) transaction.failedInText();
  }

  /** The error of a batch of the block. */
  #inBlock(
    loss: ServerLoss,
    { outside, mayHaveCommitted, mayHaveWritten }: BlockPlace,
    batches: readonly Batch[],
  ): Buffer {
    const { told, done, status } = loss;
    const isExecuted = done.statements > 0 || batches.flat().some(mayEnd);
    // By the server's word, and nothing was sent behind that which it would have gone on with.
    const behind = (told ? batches.slice(1) : batches).flat();
    const isKnown = outside === 0 && (told || status === TransactionStatus.failed);
    const hasFailed = isKnown && !behind.some(mayRecover) && !mayWriteBehindEnd(behind);
    const inDoubt = isExecuted && mayHaveCommitted && mayHaveWritten && !hasFailed;
    return this.#error(loss, inDoubt ? 'outcome_unknown' : 'transaction_lost');
  }

  /** The same outside of a block. Null: there is nothing to tell, since every statement is answered. */
  #outside(loss: ServerLoss, batch: Batch, done: Done, commits: boolean): Buffer | null {
    if (isAnswered(batch, done)) return null;
    const inDoubt = done.wrote || !onlyReads(batch, done) || (commits && batch.some(mayEndBlock));
    return this.#error(loss, inDoubt ? 'outcome_unknown' : 'server_unreachable');
  }

  #error({ error: { detail } }: ServerLoss, name: ErrorName): Buffer {
    return encodeError(new PgkvError(name, detail === undefined ? {} : { detail }), 'ERROR');
  }

  /** Answers what is still owed of a batch that does nothing but roll back. */
  #rolledBack(batch: Batch): void {
    const { output } = this.#context;
    let ended = 0;
    for (const { kind, bytes, assumption, does } of batch) {
      // What is told to be parsed or closed is so.
      assumption?.redo?.();
      if (bytes !== null) output.send(bytes);
      if (kind === Reply.parse) output.send(PARSE_COMPLETE);
      else if (kind === Reply.bind) output.send(BIND_COMPLETE);
      else if (kind === Reply.close) output.send(CLOSE_COMPLETE);
      else if (kind === Reply.describePortal) output.send(NO_DATA);
      else if (kind === Reply.describeStatement) {
        output.send(NO_PARAMETERS);
        output.send(NO_DATA);
      } else if (kind === Reply.execute || kind === Reply.query) {
        for (const _ of does!) {
          if (ended++ > 0) output.send(NO_BLOCK);
          output.send(ROLLED_BACK);
        }
      }
    }
  }

  /** An error stands in the place of the first answer that is owed of the batch; the rest of it is skipped (ReplyQueue.clear). */
  #tell(error: Buffer | null, [first]: Batch): void {
    if (error === null) return;
    this.#context.output.send(error);
    // A Parse that the client has no answer to yet, though no server was to parse anything.
    if (first?.bytes === PARSE_COMPLETE) this.#context.session.unnamed.set(null);
  }
}

/**
 * What the session takes for its block was begun behind an error that the client was told, in the same batch: a server skips
 * that, and the block is none.
 */
function wasSkipped({ told, done, status }: ServerLoss, { outside }: BlockPlace, batches: readonly Batch[]): boolean {
  if (!told || outside > 0) return false;
  const isOpen = done.begun || (!done.ended && status !== TransactionStatus.idle);
  return !isOpen && !batches.slice(1).flat().some(begins);
}

const isStatement = ({ kind }: Owed): boolean => kind === Reply.query || kind === Reply.execute;
const mayDo = (owed: Owed, deed: Deed): boolean => isStatement(owed) && owed.does?.includes(deed) !== false;
const mayEndBlock = (owed: Owed): boolean => mayDo(owed, 'commits');
const begins = (owed: Owed): boolean => mayDo(owed, 'begins');
/** The block, or, as AND CHAIN does, what is open by then of it. */
const mayEnd = (owed: Owed): boolean => ENDS.some((deed) => mayDo(owed, deed));
const ENDS: readonly Deed[] = ['commits', 'rolls back', 'recovers'];
/** A failed block may go on behind it. */
const mayRecover = (owed: Owed): boolean => mayDo(owed, 'recovers');

const endsBatch = ({ kind }: Owed): boolean =>
  kind === Reply.query || kind === Reply.sync || kind === Reply.functionCall;

/** What stands behind the end of a block, perhaps in the same text, is committed by itself. */
function mayWriteBehindEnd(batch: Batch): boolean {
  const deeds = batch.filter(isStatement).flatMap(({ does }) => does ?? UNKNOWN);
  const end = deeds.findIndex((deed) => deed === 'commits' || deed === 'rolls back');
  return end >= 0 && deeds.includes('anything', end);
}
const UNKNOWN: readonly Deed[] = ['rolls back', 'anything'];

function batchesOf(owed: readonly Owed[]): Batch[] {
  const batches: Owed[][] = [];
  let open = false;
  for (const entry of owed) {
    if (!open) batches.push([]);
    batches.at(-1)!.push(entry);
    open = !endsBatch(entry);
  }
  return batches;
}

/** All that is missing is ReadyForQuery, and no commit hangs on that: one of a text is over when its last tag has come. */
function isAnswered(batch: Batch, { statements, wrote }: Done): boolean {
  const [only] = batch;
  if (only === undefined || batch.length > 1 || statements === 0) return false;
  if (only.kind === Reply.query) return only.does !== null && statements >= only.does.length;
  return only.kind === Reply.sync && !wrote;
}

/** Nothing of it that is not answered writes. */
function onlyReads(batch: Batch, { statements }: Done): boolean {
  return batch.every(({ kind, does }, index) => {
    if (kind === Reply.functionCall) return false;
    if (kind !== Reply.query && kind !== Reply.execute) return true;
    const left = index === 0 && kind === Reply.query ? does?.slice(statements) : does;
    return left?.includes('anything') === false;
  });
}

/** There is a ROLLBACK in it, and nothing else whose answer is not known. */
function onlyRollsBack(batch: Batch): boolean {
  return batch.some(isStatement) && batch.every((owed) => ALWAYS_DONE.has(owed.kind) || isOfRollback(owed));
}

const ALWAYS_DONE: ReadonlySet<ReplyKind> = new Set([Reply.close, Reply.sync, Reply.local]);
const isOfRollback = ({ kind, does, insteadOfError }: Owed): boolean =>
  kind !== Reply.functionCall && insteadOfError === null && does?.every((deed) => deed === 'rolls back') === true;
