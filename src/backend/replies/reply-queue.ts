// The replies a server connection owes, in order, each to be forwarded or swallowed. The queue is the connection's
// only knowledge of where the server stands; a reply that does not match it destroys the connection (D11 rule 8).
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY: after an error in the extended
// protocol the server discards messages up to the next Sync, so the replies owed for those are dropped here, and what
// their sender had assumed is undone.

import { PARSE_COMPLETE } from '../../wire/server-messages.js';
import { type Deed, type Deeds, DoneSoFar } from './deeds.js';
import type { RewrittenText } from './statement-source.js';

/** What a reply answers. */
export const Reply = {
  query: 1,
  parse: 2,
  bind: 3,
  close: 4,
  describeStatement: 5,
  describePortal: 6,
  execute: 7,
  sync: 8,
  functionCall: 9,
  /** Not owed by the server: bytes of our own that go out when their turn comes. */
  local: 10,
  /** CopyDone or CopyFail was sent here, before it was known whether there is a copy; no reply is owed for it. */
  copyEnd: 11,
} as const;

export type ReplyKind = (typeof Reply)[keyof typeof Reply];

/** A statement of pgkv's own (settings, state checks): its answer is read here and never forwarded. */
export interface ControlQuery {
  row(values: (string | null)[]): void;
  /** ErrorResponse, whole message. */
  failed(message: Buffer): void;
  ready(): void;
  /** NoticeResponse, whole message. */
  noticed?(message: Buffer): void;
}

/** Undoes what was assumed when a message was sent, when the server has skipped it or refused it. */
export interface Assumption {
  /** @param refused the server has tried and failed; else it has not looked at the message */
  undo(refused: boolean): void;
  /** It holds again: what was undone with its connection is told as done all the same. */
  redo?(): void;
  /** A notice came while this was owed. */
  noticed?(): void;
}

export interface Owed {
  readonly kind: ReplyKind;
  /** The answer is for pgkv itself. */
  readonly swallow: boolean;
  readonly control: ControlQuery | null;
  readonly assumption: Assumption | null;
  /** For `local`: what to send the client. For others: what to send it just before the reply. */
  readonly bytes: Buffer | null;
  /** Hears of the shape of the result that a Describe tells (see row-shape.ts). */
  readonly described: ((shape: string) => void) | null;
  /** Sent in place of the server's error, which pgkv has provoked. */
  readonly insteadOfError: Buffer | null;
  /** The text that was sent is not the client's: places in it have to be told as places in the client's. */
  readonly rewritten: RewrittenText | null;
  /** Names of pgkv's own that stand in what was sent, and what the client called them then; null: none. */
  readonly names: ReadonlyMap<string, string> | null;
  /** What a Query or Execute, or the statement of a Parse, Bind or Describe, does, as far as that bears on what its loss means. */
  readonly does: Deeds;
}

const ANYTHING: Deeds = ['anything'];

const owed = (kind: ReplyKind, swallow = false): Owed => ({
  kind,
  swallow,
  control: null,
  assumption: null,
  bytes: null,
  described: null,
  insteadOfError: null,
  rewritten: null,
  names: null,
  does: ANYTHING,
});

// Entries without particulars are shared constants: the hot path allocates none.
const FORWARDED: readonly Owed[] = Array.from({ length: 12 }, (_, kind) => owed(kind as ReplyKind));
const SWALLOWED: readonly Owed[] = Array.from({ length: 12 }, (_, kind) => owed(kind as ReplyKind, true));

const allDoing = (deed: Deed): readonly Owed[] => FORWARDED.map((entry) => ({ ...entry, does: [deed] }));
/** Nobody knows what it does. */
const UNKNOWN: readonly Owed[] = FORWARDED.map((entry) => ({ ...entry, does: null }));
const DOING: Readonly<Record<Deed, readonly Owed[]>> = {
  anything: FORWARDED,
  reads: allDoing('reads'),
  begins: allDoing('begins'),
  commits: allDoing('commits'),
  'rolls back': allDoing('rolls back'),
  recovers: allDoing('recovers'),
};

export const forwarded = (kind: ReplyKind): Owed => FORWARDED[kind]!;
export const swallowed = (kind: ReplyKind): Owed => SWALLOWED[kind]!;
export const assuming = (kind: ReplyKind, swallow: boolean, assumption: Assumption): Owed => ({
  ...owed(kind, swallow),
  assumption,
});
/** A Parse of a text that may have been rewritten. */
export const parsing = (
  rewritten: RewrittenText | null,
  swallow: boolean,
  assumption: Assumption,
  does: Deeds = ANYTHING,
): Owed => ({
  ...owed(Reply.parse, swallow),
  assumption,
  rewritten,
  does,
});
/** A text of several statements, or one that is not the client's. */
export const queryOf = (rewritten: RewrittenText | null, does: Deeds): Owed => ({
  ...owed(Reply.query),
  rewritten,
  does,
});
/**
 * A Bind of a statement that the client calls otherwise.
 * @param parses the client still has to get the answer to a Parse before this, which was not sent on
 */
export const binding = (names: ReadonlyMap<string, string>, does: Deed | null, parses: boolean): Owed => ({
  ...doing(Reply.bind, does),
  bytes: parses ? PARSE_COMPLETE : null,
  names,
});
/** A message about statements that the client calls otherwise. */
export const naming = (kind: ReplyKind, names: ReadonlyMap<string, string>): Owed => ({ ...owed(kind), names });
/** A text in which the client's names of statements were replaced. */
export const renamedQuery = (names: ReadonlyMap<string, string>, does: Deeds): Owed => ({
  ...owed(Reply.query),
  names,
  does,
});
export const controlled = (kind: ReplyKind, control: ControlQuery): Owed => ({ ...owed(kind, true), control });
export const controlQuery = (control: ControlQuery): Owed => ({ ...owed(Reply.query, true), control });
export const controlSync = (control: ControlQuery): Owed => ({ ...owed(Reply.sync, true), control });
export const localReply = (bytes: Buffer, assumption: Assumption | null = null): Owed => ({
  ...owed(Reply.local),
  assumption,
  bytes,
});
export const describing = (
  swallow: boolean,
  described: (shape: string) => void,
  names: ReadonlyMap<string, string> | null = null,
  does: Deeds = ANYTHING,
): Owed => ({ ...owed(Reply.describeStatement, swallow), described, names, does });
export const provokedError = (kind: ReplyKind, insteadOfError: Buffer, assumption: Assumption | null): Owed => ({
  ...owed(kind),
  insteadOfError,
  assumption,
});
/** @param does what its statement does; null: nobody knows */
export const doing = (kind: ReplyKind, does: Deed | null): Owed => (does === null ? UNKNOWN : DOING[does])[kind]!;

/** What a ReadyForQuery answers. */
const endsBatch = (kind: ReplyKind): boolean =>
  kind === Reply.query || kind === Reply.sync || kind === Reply.functionCall;

/** A later assumption may build on an earlier one (a name closed, then used again). */
function undoLatestFirst(assumptions: Assumption[], isRefused: (assumption: Assumption) => boolean): void {
  for (let index = assumptions.length - 1; index >= 0; index--) {
    const assumption = assumptions[index]!;
    assumption.undo(isRefused(assumption));
  }
}

/** A growing ring of entries; its bound is the session's pipeline limit. */
export class ReplyQueue {
  #ring: (Owed | null)[] = new Array(16).fill(null);
  #head = 0;
  length = 0;
  /** What is answered of the batch that is being answered. */
  readonly done = new DoneSoFar();
  /** After an error: everything up to the next Sync is skipped by the server, also what is sent from now on. */
  #skipping = false;
  /** Messages of the extended protocol were sent behind the last Sync: their transaction is open, answered or not. */
  #batchOpen = false;
  /** Entries that have left the queue: an entry's place, counted from the first ever, tells whether it is among them. */
  #gone = 0;
  /** Place of the last entry that ends a batch. */
  #batchEnd = -1;
  /**
   * Place of the last Query or FunctionCall behind messages of its batch, up to what starts a transaction command behind it, to
   * the Sync, or to the server's word that it is outside a transaction; -1: none. See `isStopped`.
   */
  #stopped = -1;

  /** The place that the next entry gets. */
  get nextPlace(): number {
    return this.#gone + this.length;
  }

  /** Whether the entry at `place` has left the queue. */
  isGone(place: number): boolean {
    return place < this.#gone;
  }

  /** Whether the entry at `place` is still owed, and belongs to a batch before the one that is being sent now. */
  owesEarlierBatch(place: number): boolean {
    return place >= this.#gone && place <= this.#batchEnd;
  }

  /** The place of `head`. */
  get headPlace(): number {
    return this.#gone;
  }

  get head(): Owed | null {
    return this.length === 0 ? null : this.#ring[this.#head]!;
  }

  get skipping(): boolean {
    return this.#skipping;
  }

  push(entry: Owed): void {
    if (this.#skipping) {
      if (entry.kind !== Reply.sync) {
        entry.assumption?.undo(false);
        return;
      }
      this.#skipping = false;
    }
    this.#follow(entry.kind);
    if (this.length === this.#ring.length) this.#grow();
    this.#ring[(this.#head + this.length) & (this.#ring.length - 1)] = entry;
    this.length++;
  }

  /** What is sent opens a batch, goes on with it or ends it. */
  #follow(kind: ReplyKind): void {
    if (kind === Reply.local || kind === Reply.copyEnd) return;
    if (!endsBatch(kind)) {
      this.#batchOpen = true;
      if (kind !== Reply.close) this.#stopped = -1;
      return;
    }
    const isStopped = kind !== Reply.sync && (this.#batchOpen || this.isStopped);
    this.#batchEnd = this.nextPlace;
    this.#stopped = isStopped ? this.#batchEnd : -1;
    this.#batchOpen = false;
  }

  /**
   * A batch's transaction may be open whose last command a Query or FunctionCall has ended, and none was started behind it: Close
   * starts none, nor does what is answered here. A Sync does not commit that (PostgreSQL to 18.4): the next statement on the
   * connection is an error (XX000), and undoes what the batch wrote.
   */
  get isStopped(): boolean {
    return this.#stopped >= 0;
  }

  /** The same, and the message that stopped it has not been answered. */
  get stopIsOwed(): boolean {
    return this.#stopped >= this.#gone;
  }

  /** The server, with what it has just answered, says that it is outside a transaction. */
  idle(): void {
    if (this.#stopped < this.#gone) this.#stopped = -1;
  }

  /** The head has been answered. */
  pop(): void {
    const { kind, does } = this.#ring[this.#head]!;
    if (endsBatch(kind)) this.done.clear();
    else if (kind === Reply.execute) this.done.answered(does, 0);
    this.#remove();
  }

  /** A statement of the simple query at the head has been answered; its ReadyForQuery has not. */
  answeredInQuery({ swallow, does }: Owed): void {
    if (!swallow) this.done.answered(does, this.done.statements);
  }

  /** The head failed in the extended protocol: drops it and all behind it up to the next Sync, which stays. */
  failExtended(): void {
    const dropped: Assumption[] = [];
    const refused = this.head?.assumption ?? null;
    while (this.length > 0 && this.#ring[this.#head]!.kind !== Reply.sync) this.#drop(dropped);
    if (this.length === 0) this.#skipping = true;
    undoLatestFirst(dropped, (assumption) => assumption === refused);
  }

  /**
   * The head went into COPY FROM STDIN: the server ignores the Syncs it reads until the copy ends. Returns whether the
   * end of the copy has been sent already.
   */
  enterCopyIn(): boolean {
    let ended = false;
    while (!ended && this.length > 1) {
      const { kind } = this.#at(1);
      if (kind !== Reply.sync && kind !== Reply.copyEnd) break;
      ended = kind === Reply.copyEnd;
      // Remove the second entry by moving the head over it.
      this.#ring[(this.#head + 1) & (this.#ring.length - 1)] = this.#ring[this.#head]!;
      this.#remove();
    }
    let last = this.length - 1;
    while (this.#at(last).kind === Reply.local || this.#at(last).kind === Reply.copyEnd) last--;
    this.#batchOpen = !endsBatch(this.#at(last).kind);
    return ended;
  }

  /** How many ReadyForQuery the client (not pgkv itself) still waits for. */
  owedReadies(): number {
    let count = 0;
    for (let index = 0; index < this.length; index++) {
      const { kind, swallow } = this.#at(index);
      if (!swallow && endsBatch(kind)) count++;
    }
    return count;
  }

  /** What the client (not pgkv itself) still waits for, in order. */
  owedToClient(): Owed[] {
    const found: Owed[] = [];
    for (let index = 0; index < this.length; index++) {
      const entry = this.#at(index);
      if (!entry.swallow && entry.kind !== Reply.copyEnd) found.push(entry);
    }
    return found;
  }

  /** Whether messages of the extended protocol were sent, answered or not, and no Sync behind them yet. */
  unsynced(): boolean {
    if (this.#skipping || this.#batchOpen) return true;
    return this.length > 0 && this.#at(this.length - 1).kind === Reply.local;
  }

  /**
   * The connection is gone: undoes every assumption, as if what is owed first of each batch had been refused and the rest of it
   * skipped, which is what the client will be told.
   */
  clear(): void {
    const dropped: Assumption[] = [];
    const refused = new Set<Assumption>();
    let isFirst = true;
    while (this.length > 0) {
      const { kind, swallow, assumption } = this.head!;
      if (!swallow && kind !== Reply.copyEnd) {
        if (isFirst && assumption !== null) refused.add(assumption);
        isFirst = endsBatch(kind);
      }
      this.#drop(dropped);
    }
    this.done.clear();
    this.#skipping = this.#batchOpen = false;
    this.#stopped = -1;
    undoLatestFirst(dropped, (assumption) => refused.has(assumption));
  }

  #at(index: number): Owed {
    return this.#ring[(this.#head + index) & (this.#ring.length - 1)]!;
  }

  #drop(assumptions: Assumption[]): void {
    const { assumption } = this.#ring[this.#head]!;
    if (assumption !== null) assumptions.push(assumption);
    this.#remove();
  }

  #remove(): void {
    this.#ring[this.#head] = null;
    this.#head = (this.#head + 1) & (this.#ring.length - 1);
    this.length--;
    this.#gone++;
  }

  #grow(): void {
    const larger: (Owed | null)[] = new Array(this.#ring.length * 2).fill(null);
    for (let index = 0; index < this.length; index++) {
      larger[index] = this.#ring[(this.#head + index) & (this.#ring.length - 1)]!;
    }
    this.#ring = larger;
    this.#head = 0;
  }
}
