// The oracle of the loss tests: what a client may be answered when a connection to a server is lost (D26, D27, R5), and
// what it may then believe of its rows. Knows the client's side only: what was said, what each statement does, what was
// answered. One Ledger a session; `fates` says at its end what has to be found in the database.
//
//   status I → a block begins → T → an error → E → the client ends it → I
//
// A loss is told as 08006 (nothing was done), 40001 (a block that cannot have been committed; E until the client ends it)
// or 08007 (a COMMIT, or a write outside a block, was sent); a ROLLBACK succeeds; nothing of a block is done alone.
import { type Answer, codeOf, errorCode, isCompletion, lineOf, statusOf, tagsOf } from './answer.js';
import { isEnd, messagesOf, type Row, type Statement, type Unit } from './statements.js';

/** Rows that are there together or not at all; `open` while nobody has said how it ended. */
class Group {
  rows: Row[] = [];
  undone: Row[] = [];
  fate: 'open' | Fate['fate'] = 'open';
  /** Shards on which something was done that cannot be done again elsewhere. */
  readonly bound = new Set<number>();
  savepoints: { readonly name: string; readonly at: number }[] = [];

  rollBackTo(name: string): void {
    const savepoint = this.savepoints.findLast((each) => each.name === name);
    if (savepoint !== undefined) this.undone.push(...this.rows.splice(savepoint.at));
  }
}

export interface Fate {
  readonly rows: readonly Row[];
  /** `maybe`: each may be there, as it is said to be. */
  readonly fate: 'there' | 'absent' | 'unknown' | 'maybe';
}

/** What is known of the answer to come. */
export interface Circumstances {
  /** The same unit's answer in a run without a loss, and the status it began with. */
  readonly undisturbed: { readonly answer: Answer; readonly before: string; readonly id: string } | null;
  /** A connection has been, or may be, lost that the client has not heard of. */
  readonly lossPossible: boolean;
  /** The shard whose connection is lost. */
  readonly lostShard: number;
  /** What the client has sent behind this unit in the same packet. */
  readonly rest: readonly Unit[];
  readonly id: string;
}

const LOSSES = new Set(['08006', '08007', '40001']);
/** Of a session that ends with its connection; it need not say what has become of a block. */
const FATAL = LOSSES;
const SYNTAX = '42601';
const REFUSED = '0A000';
const FAILED_BLOCK = '25P02';

export class Ledger {
  readonly violations: string[] = [];
  /** As the client was told last. */
  status = 'I';
  /** The client has been told of the loss. */
  isLossTold = false;
  readonly #groups: Group[] = [];
  #block: Group | null = null;
  /** Nothing but its end, or a savepoint, is taken. */
  #isFailed = false;
  /** The block is over for the server: only the client's end of it is missing. */
  #isBlockLost = false;
  /** Something was said that may keep the session on its connection. */
  #mayPin = false;
  /** The session can say nothing more. */
  isOver = false;

  get fates(): Fate[] {
    return this.#groups.flatMap(({ rows, undone, fate }): Fate[] => [
      { rows, fate: fate === 'open' ? 'absent' : fate },
      ...(undone.length === 0 ? [] : [{ rows: undone, fate: 'absent' } as const]),
    ]);
  }

  /** Rows of the block that are in effect for it. */
  get blockRows(): readonly Row[] {
    return this.#block?.rows ?? [];
  }

  /** What ran is not known, only with which row. */
  mayWrite(row: Row): void {
    const group = this.#group();
    group.rows.push(row);
    group.fate = 'maybe';
  }

  take(unit: Unit, answer: Answer, circumstances: Circumstances): void {
    if (this.isOver) return;
    if (answer.ended !== 'ready') return this.#cutOff(unit, answer, circumstances);
    if (!this.#isWellFormed(unit, answer)) this.#wrong('shape', 'the answer does not fit what was asked');
    if (unit.statements.some(({ mayPin }) => mayPin)) this.#mayPin = true;
    const before = this.status;
    const code = errorCode(answer);
    const completed = answer.messages.slice(0, indexOfError(answer)).filter(isCompletion).length;
    const implicit = this.#group();
    const tags = tagsOf(answer);
    for (let index = 0; index < completed; index++) {
      const statement = unit.statements[index];
      if (statement === undefined) {
        this.#wrong('unasked', `tag ${tags[index]} is of no statement`);
        break;
      }
      this.#completed(statement, tags[index] ?? '', implicit, before, code === '');
    }
    if (code === '') {
      if (implicit.rows.length > 0) implicit.fate = 'there';
    } else if (LOSSES.has(code)) this.#lossTold(code, unit, completed, implicit, circumstances);
    else this.#failed(code, unit, completed, implicit, circumstances);
    this.#compare(answer, before, code, circumstances);
    this.#becomes(statusOf(answer), code, unit, completed);
  }

  #group(): Group {
    const group = new Group();
    this.#groups.push(group);
    return group;
  }

  #wrong(rule: string, what: string): void {
    this.violations.push(`[${rule}] ${what}`);
  }

  /** Nothing more can be said in the middle of a message; else the client has to hear what has become of its statements. */
  #cutOff(unit: Unit, answer: Answer, { rest, lossPossible }: Circumstances): void {
    this.isOver = true;
    const units = [unit, ...rest];
    const mayPin = this.#mayPin || units.some(({ statements }) => statements.some((each) => each.mayPin));
    const isExcused = answer.isInMessage || (mayPin && answer.messages.some((each) => FATAL.has(codeOf(each))));
    if (answer.ended === 'silence') this.#wrong('silence', 'the client hears no ReadyForQuery');
    else if (!lossPossible || !isExcused) this.#wrong('closed', 'the client is cut off without a word');
    let block = this.#block;
    for (const { statements } of units) {
      let implicit = this.#group();
      implicit.fate = 'unknown';
      for (const { effect } of statements) {
        if (effect.kind === 'begin') block ??= this.#group();
        else if (effect.kind === 'write') (block ?? implicit).rows.push(effect.row);
        else if (effect.kind === 'rollback to') block?.rollBackTo(effect.name);
        else if (effect.kind === 'commit' || effect.kind === 'rollback') {
          if (block !== null && effect.kind === 'commit') block.fate = 'unknown';
          block = null;
          implicit = this.#group();
          implicit.fate = 'unknown';
        }
      }
    }
  }

  /** One error at most and nothing behind it; without one, an answer to every message. */
  #isWellFormed(unit: Unit, answer: Answer): boolean {
    const { messages } = answer;
    const errorAt = indexOfError(answer);
    if (errorAt < messages.length) {
      const behind = messages.slice(errorAt + 1);
      if (behind.length !== 1) this.#wrong('two errors', `${behind.length - 1} messages behind an error`);
    } else if (messages.filter(isCompletion).length !== unit.statements.filter(isExecuted).length) {
      this.#wrong('missing', 'no error, and not an answer to every statement');
    }
    const types = messages.slice(0, errorAt).map(({ type }) => type);
    return fits(unit, types.at(-1) === 'ReadyForQuery' ? types.slice(0, -1) : types);
  }

  #completed(
    { effect, inBlock, shards, isNeutral }: Statement,
    tag: string,
    implicit: Group,
    before: string,
    isAnswered: boolean,
  ): void {
    const failed = before === 'E' && this.#block !== null && this.#isFailed;
    if (failed && !['rollback', 'commit', 'rollback to'].includes(effect.kind)) {
      this.#wrong('failed block', `${tag} in a failed block`);
    }
    const group = this.#block ?? implicit;
    if (isNeutral !== true) for (const shard of shards) group.bound.add(shard);
    switch (effect.kind) {
      case 'begin':
        if (this.#block === null) {
          this.#block = this.#group();
          this.#isFailed = this.#isBlockLost = false;
        }
        return;
      case 'commit':
      case 'rollback':
        return this.#ended(effect.kind, tag);
      case 'savepoint':
        this.#block?.savepoints.push({ name: effect.name, at: this.#block.rows.length });
        return;
      case 'rollback to':
        if (this.#isBlockLost) this.#wrong('lost block', 'a block that was said to be lost goes on');
        this.#block?.rollBackTo(effect.name);
        this.#isFailed = false;
        return;
      case 'write':
        if (this.#block !== null) this.#block.rows.push(effect.row);
        else {
          implicit.rows.push(effect.row);
          if (inBlock && isAnswered) this.#wrong('alone', 'a write of a lost block is done by itself');
        }
    }
  }

  #ended(kind: 'commit' | 'rollback', tag: string): void {
    const block = this.#block;
    this.#block = null;
    if (kind === 'commit' && tag === 'COMMIT' && block !== null) {
      if (this.#isBlockLost) this.#wrong('lost block', 'COMMIT of a block that was said to be lost');
      if (block.fate === 'open') block.fate = 'there';
    } else if (block?.fate === 'open') block.fate = 'absent';
    this.#isBlockLost = this.#isFailed = false;
  }

  #lossTold(code: string, unit: Unit, completed: number, implicit: Group, about: Circumstances): void {
    const wasTold = this.isLossTold;
    this.isLossTold = true;
    if (!about.lossPossible) this.#wrong('no loss', `${code} where nothing was lost`);
    const remaining = unit.statements.slice(completed);
    const sent = [...remaining, ...about.rest.flatMap(({ statements }) => statements)];
    const inBlock = this.#block !== null;
    const fate = code === '08007' ? 'unknown' : 'absent';
    // In the order in which they were sent, until the block at hand ends: all of that is one group.
    let group = this.#block ?? implicit;
    group.fate = group.fate === 'unknown' ? 'unknown' : fate;
    for (const { effect } of remaining) {
      if (effect.kind === 'write') group.rows.push(effect.row);
      else if (effect.kind === 'rollback to') group.rollBackTo(effect.name);
      else if (effect.kind === 'commit' || effect.kind === 'rollback' || effect.kind === 'begin') {
        if (effect.kind === 'begin' && this.#block !== null) continue;
        group = this.#group();
        group.fate = fate;
      }
    }
    if (unit.form === 'simple' && unit.statements.length === 1 && remaining[0]?.effect.kind === 'rollback' && inBlock) {
      this.#wrong('rollback', `a ROLLBACK is told ${code}`);
    }
    const writes = remaining.some(({ effect }) => effect.kind === 'write');
    const recovers = !this.#isFailed || sent.some(({ effect }) => effect.kind === 'rollback to');
    const ends = recovers && sent.some(({ effect }) => effect.kind === 'commit');
    // Its tag has come, and not the end of the answer.
    const isCommitted = unit.statements.slice(0, completed).some(({ effect }) => effect.kind === 'commit');
    const begins = unit.statements.some(({ effect }) => effect.kind === 'begin');
    if (code === '08007') {
      const mayHaveCommitted = inBlock
        ? ends || isWrittenBehindEnd(remaining)
        : isCommitted || writes || implicit.rows.length > 0 || ends;
      if (!mayHaveCommitted && !wasTold) this.#wrong('08007', 'nothing of it can have been committed');
    } else if (code === '40001') {
      if (!inBlock && !begins && !ends && implicit.rows.length === 0 && !writes) {
        this.#wrong('40001', 'outside of a block, and nothing was written');
      }
    } else if (this.#block?.bound.has(about.lostShard) === true) {
      this.#wrong('08006', 'in a block, which had something done on that connection');
    }
    if (inBlock) this.#isBlockLost = true;
  }

  /** An error that is not about a loss. */
  #failed(code: string, unit: Unit, completed: number, implicit: Group, about: Circumstances): void {
    const remaining = unit.statements.slice(completed);
    const [failing] = remaining;
    const inFailed = this.status === 'E';
    // Of a block that may have been committed these are part, if it was.
    if (this.#isBlockLost) {
      for (const { effect } of remaining) if (effect.kind === 'write') this.#block?.rows.push(effect.row);
    }
    // A text is read as a whole before any of it runs.
    const read = unit.form === 'simple' ? unit.statements : remaining.slice(0, 1);
    const own: string[] = read.flatMap(({ mayFailWith = [] }) =>
      mayFailWith.filter((each) => each === SYNTAX || each === REFUSED),
    );
    own.push(...(failing?.mayFailWith ?? []));
    if (own.includes(code)) return;
    const usual = about.undisturbed === null ? '' : errorCode(about.undisturbed.answer);
    if (code === usual && about.undisturbed!.before === this.status) return;
    if (code === REFUSED && unit.form === 'simple' && isRefusedAsText(unit)) return;
    if (code === REFUSED && failing !== undefined && leaves(failing, (this.#block ?? implicit).bound)) return;
    if (inFailed && (code === FAILED_BLOCK || (failing?.effect.kind === 'rollback to' && code === '3B001'))) return;
    this.#wrong('error', `${code} has no cause`);
  }

  /** As long as nothing has been lost for the client, its answers are those it gets when nothing is lost at all. */
  #compare(answer: Answer, before: string, code: string, { undisturbed, lossPossible, id }: Circumstances): void {
    if (undisturbed === null || undisturbed.before !== before || this.#isBlockLost) return;
    // Deliberate: of a failed block that was lost at rest, pgkv knows that it has failed and not which savepoints it had. That
    // it has to be rolled back is true of both.
    if (code === FAILED_BLOCK && before === 'E' && lossPossible) return;
    const usual = undisturbed.answer.messages.map((message) => lineOf(message, undisturbed.id));
    const actual = answer.messages.map((message) => lineOf(message, id));
    const upTo = LOSSES.has(code) ? indexOfError(answer) : actual.length;
    if (!LOSSES.has(code) && usual.length !== actual.length) {
      return this.#wrong('differs', `not as without a loss: ${usual.join(', ')}`);
    }
    for (let index = 0; index < upTo; index++) {
      if (usual[index] !== actual[index]) return this.#wrong('differs', `not as without a loss: ${usual.join(', ')}`);
    }
  }

  #becomes(status: string, code: string, unit: Unit, completed: number): void {
    const remaining = unit.statements.slice(completed);
    const ended = remaining.some(isEnd);
    const begun = remaining.some(({ effect }) => effect.kind === 'begin');
    let allowed: string;
    if (code === '') allowed = this.#block === null ? 'I' : this.#isFailed || this.#isBlockLost ? 'E' : 'T';
    else if (LOSSES.has(code)) allowed = this.#block !== null ? (ended ? 'EI' : 'E') : begun ? 'EI' : 'I';
    else if (this.#isBlockLost && ended) allowed = 'EI';
    else allowed = this.#block !== null ? 'E' : 'I';
    if (!allowed.includes(status)) {
      const rule = status === 'I' ? 'I in a block' : 'status';
      this.#wrong(rule, `status ${status}, expected ${allowed.split('').join(' or ')}`);
    }
    this.status = status;
    if (status === 'I') {
      if (this.#block?.fate === 'open') this.#block.fate = 'absent';
      this.#block = null;
      this.#isBlockLost = this.#isFailed = false;
      return;
    }
    this.#block ??= this.#group();
    if (status === 'E') this.#isFailed = true;
    if (status === 'E' && LOSSES.has(code)) {
      this.#isBlockLost = true;
      if (this.#block.fate === 'open') this.#block.fate = code === '08007' ? 'unknown' : 'absent';
    }
  }
}

/** It cannot be said where it is said, as long as a transaction has one shard only. */
const leaves = ({ shards, mayFailWith = [] }: Statement, branches: ReadonlySet<number>): boolean =>
  branches.size > 0 &&
  !mayFailWith.includes(SYNTAX) &&
  !(shards.length > 0 && shards.every((each) => branches.has(each)));

function isWrittenBehindEnd(statements: readonly Statement[]): boolean {
  const end = statements.findIndex(isEnd);
  return end >= 0 && statements.slice(end).some(({ effect }) => effect.kind === 'write');
}

/** Several statements in one text, one of which reads several shards. */
const isRefusedAsText = ({ statements }: Unit): boolean =>
  statements.length > 1 &&
  statements.some(
    ({ text, shards, effect }) => effect.kind === 'none' && shards.length === 0 && text.includes('FROM kv'),
  );

const isExecuted = ({ prepares, binds }: Statement): boolean => prepares === undefined && binds === undefined;

function indexOfError({ messages }: Answer): number {
  const at = messages.findIndex(({ type }) => type === 'ErrorResponse');
  return at < 0 ? messages.length : at;
}

const OF_ROWS = new Set(['DataRow', 'RowDescription', 'CopyOutResponse', 'CopyData', 'CopyDone', 'CopyInResponse']);

/** Whether the answers, up to an error, come in the order of what was sent. */
function fits(unit: Unit, types: readonly string[]): boolean {
  if (unit.form !== 'extended') {
    return types.every((type) => OF_ROWS.has(type) || type === 'CommandComplete' || type === 'EmptyQueryResponse');
  }
  let at = 0;
  for (const message of messagesOf(unit)) {
    if (at >= types.length || message === 'sync' || typeof message === 'string') break;
    if ('parse' in message) {
      if (types[at++] !== 'ParseComplete') return false;
    } else if ('bind' in message) {
      if (types[at++] !== 'BindComplete') return false;
    } else if ('describe' in message) {
      if (types[at] !== 'RowDescription' && types[at] !== 'NoData') return false;
      at++;
    } else {
      while (at < types.length && OF_ROWS.has(types[at]!)) at++;
      if (at < types.length && types[at++] !== 'CommandComplete') return false;
    }
  }
  return at === types.length;
}
