// Judges one connection by the bytes of both directions alone: every message of the client gets the answers it is owed, in
// order and no others; one ReadyForQuery each Sync and Query, one ErrorResponse at most a batch; a status that fits what
// was told; nothing behind FATAL. Pure: bytes in, at most one violation out (what follows a first one proves nothing).
// States: opening -> authenticating -> greeting -> session -> over; from anywhere to `unjudged`, where what the server has
// read cannot be known from outside. Manual: "Message Flow".
import { MessageCutter } from './message-cutter.js';
import { TransactionTold, tellsLoss, traitsOf } from './transaction-told.js';

export type Rule =
  | 'unasked answer'
  | 'missing answer'
  | 'wrong answer'
  | 'second error'
  | 'status'
  | 'rows'
  | 'after FATAL'
  | 'start-up'
  | 'malformed'
  | 'silent close';

export interface Violation {
  readonly rule: Rule;
  readonly text: string;
  /** The last messages of both sides, `>` to the server and `<` from it. */
  readonly recent: readonly string[];
}

type Phase = 'opening' | 'authenticating' | 'greeting' | 'session' | 'cancelling' | 'over' | 'unjudged';

/** A message of the client whose answer is not complete. */
interface Asked {
  readonly tag: string;
  /** Of a Parse, Bind, Describe or Close what it names; of an Execute its portal. */
  readonly name: string;
  /** Of a Bind its statement; of a Describe or Close S or P. */
  readonly other: string;
  readonly traits: number;
  /** Of an Execute; 0 is no limit. */
  readonly rowsMax: number;
}

interface Portal {
  readonly traits: number;
  suspended: boolean;
}

const CODES = { cancel: 80_877_102, ssl: 80_877_103, gssenc: 80_877_104 };
const RECENT_MAX = 60;
const TEXT_SHOWN_MAX = 160;
/** Messages that are answered and still in the list: moving the rest up for each would cost more. */
const ANSWERED_KEPT_MAX = 1_000;
/** Messages that Postgres reads wherever they stand outside COPY, and answers nothing. */
const COPY_TAGS = 'dcf';

export class ProtocolOracle {
  violation: Violation | null = null;
  #phase: Phase = 'opening';
  readonly #client = new MessageCutter('untagged', (tag, body, bytes) => this.#fromClient(tag, body, bytes));
  readonly #server = new MessageCutter('tagged', (tag, body, bytes) => this.#fromServer(tag, body, bytes));
  readonly #told = new TransactionTold();
  readonly #recent: string[] = [];
  readonly #statements = new Map<string, number>();
  readonly #portals = new Map<string, Portal>();
  #clientGone = false;
  /** Oldest first, from `#first` on; what lies before is answered. */
  #asked: Asked[] = [];
  #first = 0;
  /** A message of a batch has been answered, and its Sync has not. */
  #inBatch = false;
  /** Something was executed since the last Sync. */
  #ranInBatch = false;
  /** An error has been told; what comes up to the Sync is not run. */
  #skipping = false;
  /** The message at the front has had its error, and only ReadyForQuery is still owed to it. */
  #failed = false;
  /** Something that ends a statement has been told for the message at the front. */
  #answered = false;
  #copy: 'none' | 'in' | 'out' | 'out done' = 'none';
  /** Columns of the rows that may come, -1 where no description was told. */
  #columns = -1;
  #rows = 0;
  #rowSets = 0;
  #parametersDescribed = false;

  /** Bytes as the client sends them. */
  fromClient(bytes: Buffer): void {
    if (this.#phase === 'unjudged' || this.#phase === 'over') return;
    this.#client.push(bytes);
    if (this.#client.broken) this.#ask('?', 'a length that no message has');
  }

  /** Bytes as the server sends them. */
  fromServer(bytes: Buffer): void {
    if (this.#phase === 'unjudged' || bytes.length === 0) return;
    if (this.#phase === 'over') return this.#violate('after FATAL', `${bytes.length} bytes behind a FATAL error`);
    this.#server.push(bytes);
    if (this.#server.broken) this.#violate('malformed', 'a message of the server has an impossible length');
  }

  /** The client sends nothing more, or is gone. */
  clientEnded(): void {
    this.#clientGone = true;
  }

  /** The server sends nothing more. */
  serverEnded(): void {
    if (this.#phase !== 'session' || this.#clientGone || this.#server.midMessage) return;
    const owed = this.#front();
    if (owed !== undefined && owed.tag !== '?') {
      this.#violate('silent close', `closed without a word, and ${nameOf(owed)} has no whole answer`);
    }
  }

  // The client's side.

  #fromClient(tag: string, body: Buffer, bodyBytes: number): void {
    if (tag === '') return this.#opening(body);
    const text = tag === 'Q' || tag === 'P' ? textOf(body, tag === 'P' ? 1 : 0) : '';
    this.#note('>', tag, text);
    switch (tag) {
      case 'Q':
        return this.#ask(tag, '', '', traitsOf(text));
      case 'P':
        return this.#ask(tag, textOf(body, 0), '', traitsOf(text));
      case 'B':
        return this.#ask(tag, textOf(body, 0), textOf(body, 1));
      case 'D':
      case 'C':
        return this.#ask(tag, textOf(body.subarray(1), 0), String.fromCharCode(body[0] ?? 0));
      case 'E': {
        const name = textOf(body, 0);
        const end = Buffer.byteLength(name, 'latin1') + 1;
        return this.#ask(tag, name, '', 0, body.length >= end + 4 ? body.readInt32BE(end) : 0);
      }
      case 'H':
        // With a body it is refused, and what follows it is skipped.
        if (bodyBytes > 0) this.#ask(tag, '');
        return;
      case 'd':
        if (this.#copy === 'in') return;
        return this.#ask(tag, '');
      case 'X':
        this.#clientGone = true;
        return this.#ask(tag, '');
      case 'S':
      case 'F':
      case 'c':
      case 'f':
        return this.#ask(tag, '');
      case 'p':
        if (this.#phase === 'authenticating') return;
    }
    this.#ask('?', `a message ${JSON.stringify(tag)}`);
  }

  #opening(body: Buffer): void {
    const code = body.length >= 4 ? body.readInt32BE(0) : -1;
    this.#note('>', 'start', String(code));
    if (code === CODES.cancel) this.#phase = 'cancelling';
    else if (code === CODES.ssl || code === CODES.gssenc) this.#server.expectsByte = true;
    else {
      this.#phase = 'authenticating';
      this.#client.framing = 'tagged';
    }
  }

  #ask(tag: string, name: string, other = '', traits = 0, rowsMax = 0): void {
    this.#asked.push({ tag, name, other, traits, rowsMax });
  }

  /** The message whose answer is due, if any. */
  #front(): Asked | undefined {
    for (;;) {
      const front = this.#asked[this.#first];
      if (front === undefined) {
        this.#asked.length = 0;
        this.#first = 0;
        return undefined;
      }
      if (front.tag === 'X') return undefined;
      const isSkipped = this.#skipping && front.tag !== 'S';
      if (!isSkipped && !COPY_TAGS.includes(front.tag)) return front;
      this.#first++;
    }
  }

  #done(): void {
    this.#first++;
    if (this.#first > ANSWERED_KEPT_MAX) {
      this.#asked = this.#asked.slice(this.#first);
      this.#first = 0;
    }
    this.#failed = false;
    this.#answered = false;
    this.#copy = 'none';
    this.#endOfRows();
    this.#parametersDescribed = false;
  }

  #endOfRows(): void {
    this.#columns = -1;
    this.#rows = 0;
    this.#rowSets = 0;
  }

  // The server's side.

  #fromServer(tag: string, body: Buffer, bodyBytes: number): void {
    if (this.violation !== null || this.#phase === 'unjudged') return;
    if (this.#phase === 'over') return this.#violate('after FATAL', `${answerName(tag)} behind a FATAL error`);
    this.#note('<', tag, shown(tag, body));
    if (tag === 'E') return this.#error(body);
    if (this.#phase !== 'session') return this.#greeting(tag, body, bodyBytes);
    if (tag === 'N' || tag === 'S' || tag === 'A') return;
    const front = this.#front();
    if (front === undefined) {
      const behind = this.#skipping ? ' behind an error, before a Sync' : '';
      return this.#violate('unasked answer', `${answerName(tag)} that no message asked for${behind}`);
    }
    this.#answer(front, tag, body);
  }

  #error(body: Buffer): void {
    const severity = fieldOf(body, 'V') || fieldOf(body, 'S');
    if (severity === 'FATAL' || severity === 'PANIC') {
      this.#phase = 'over';
      return;
    }
    if (this.#phase !== 'session') return this.#violate('start-up', 'an ERROR that is not FATAL before the session');
    const front = this.#front();
    if (front === undefined) {
      if (this.#skipping) return this.#violate('second error', 'a second ErrorResponse in one batch');
      if (this.#inBatch) {
        // What was answered is not committed: the batch can still be lost before its Sync comes.
        this.#told.failed(0);
        this.#skipping = true;
        return;
      }
      return this.#violate('unasked answer', 'an ErrorResponse that no message asked for');
    }
    if (this.#failed || (front.tag === 'S' && this.#skipping)) {
      return this.#violate('second error', `a second ErrorResponse for ${nameOf(front)}`);
    }
    if (front.tag === '?') {
      return this.#violate('wrong answer', `an ERROR that is not FATAL for ${front.name}`);
    }
    if (this.#copy === 'in' && !this.#leaveCopy()) return this.#stopJudging();
    this.#told.failed(this.#traitsOfFailed(front, fieldOf(body, 'C')));
    if ('QFS'.includes(front.tag)) {
      this.#failed = true;
      this.#answered = true;
      this.#copy = 'none';
      this.#endOfRows();
    } else {
      this.#done();
      this.#inBatch = true;
      this.#skipping = true;
    }
  }

  /** Of the text that may have been run when the error came. */
  #traitsOfFailed(front: Asked, code: string): number {
    if (front.tag === 'Q') return front.traits;
    if (front.tag === 'E') return this.#portals.get(front.name)?.traits ?? 0;
    // With its connection a server's answers are lost, and the whole batch is told by its first message.
    if (!tellsLoss(code)) return 0;
    let traits = 0;
    for (let at = this.#first; at < this.#asked.length && this.#asked[at]!.tag !== 'S'; at++) {
      const { tag, name, other, traits: own } = this.#asked[at]!;
      traits |= own;
      if (tag === 'B') traits |= this.#statements.get(other) ?? 0;
      if (tag === 'E') traits |= this.#portals.get(name)?.traits ?? 0;
    }
    return traits;
  }

  /** Log-in up to the first ReadyForQuery. */
  #greeting(tag: string, body: Buffer, bodyBytes: number): void {
    if (this.#phase === 'opening' && bodyBytes === 0 && body.length === 0 && 'SNG'.includes(tag)) {
      if (tag !== 'N') this.#stopJudging(); // encrypted from here on
      return;
    }
    if (this.#phase === 'authenticating') {
      if (tag === 'v' || tag === 'N') return;
      if (tag === 'R') {
        if (body.length >= 4 && body.readInt32BE(0) === 0) this.#phase = 'greeting';
        return;
      }
    }
    if (this.#phase === 'greeting') {
      if (tag === 'S' || tag === 'K' || tag === 'N') return;
      if (tag === 'Z') {
        this.#phase = 'session';
        const wrong = this.#told.ready(statusOf(body));
        if (wrong !== null) this.#violate('status', wrong);
        return;
      }
    }
    this.#violate('start-up', `${answerName(tag)} while ${this.#phase}`);
  }

  #answer(front: Asked, tag: string, body: Buffer): void {
    switch (front.tag) {
      case 'Q':
        if (tag === 'Z') return this.#ready(front, body);
        if (!this.#failed && this.#statementAnswer(front, tag, body)) return;
        break;
      case 'E':
        if (this.#statementAnswer(front, tag, body)) return;
        break;
      case 'S':
      case 'F':
        if (tag === 'Z') return this.#ready(front, body);
        if (front.tag === 'F' && tag === 'V' && !this.#answered) {
          this.#answered = true;
          return;
        }
        break;
      default:
        if (this.#preparationAnswer(front, tag)) return;
    }
    if (tag === 'Z' && front.tag !== '?') {
      return this.#violate('missing answer', `ReadyForQuery before the answer to ${nameOf(front)}`);
    }
    this.#violate('wrong answer', `${answerName(tag)} for ${nameOf(front)}`);
  }

  /** Parse, Bind, Describe, Close. */
  #preparationAnswer(front: Asked, tag: string): boolean {
    switch (`${front.tag}${tag}`) {
      case 'P1':
        this.#statements.set(front.name, front.traits);
        break;
      case 'B2':
        this.#portals.set(front.name, { traits: this.#statements.get(front.other) ?? 0, suspended: false });
        break;
      case 'C3':
        (front.other === 'S' ? this.#statements : this.#portals).delete(front.name);
        break;
      case 'Dt':
        if (front.other !== 'S' || this.#parametersDescribed) return false;
        this.#parametersDescribed = true;
        return true;
      case 'DT':
      case 'Dn':
        if (front.other === 'S' && !this.#parametersDescribed) return false;
        break;
      default:
        return false;
    }
    this.#done();
    this.#inBatch = true;
    return true;
  }

  /** What a Query or an Execute is answered with, but for errors and ReadyForQuery. */
  #statementAnswer(front: Asked, tag: string, body: Buffer): boolean {
    if (this.#copy === 'in' || this.#copy === 'out done') {
      return tag === 'C' && this.#completed(front, body);
    }
    if (this.#copy === 'out') {
      if (tag === 'c') this.#copy = 'out done';
      return tag === 'c' || tag === 'd';
    }
    switch (tag) {
      case 'T':
        this.#columns = body.readInt16BE(0);
        this.#rowSets++;
        return front.tag === 'Q';
      case 'D':
        return this.#row(front, body);
      case 'C':
        return this.#completed(front, body);
      case 'I':
        this.#answered = true;
        if (front.tag === 'E') this.#done();
        return true;
      case 's': {
        const portal = this.#portals.get(front.name);
        if (portal !== undefined) portal.suspended = true;
        if (front.tag !== 'E' || front.rowsMax === 0) return false;
        if (this.#rows !== front.rowsMax) {
          this.#violate('rows', `PortalSuspended behind ${this.#rows} rows of ${front.rowsMax} asked for`);
        }
        this.#ranInBatch = true;
        this.#done();
        return true;
      }
      case 'G':
        this.#copy = 'in';
        return true;
      case 'H':
        this.#copy = 'out';
        return true;
      case 'W':
        this.#stopJudging();
        return true;
      default:
        return false;
    }
  }

  #row(front: Asked, body: Buffer): boolean {
    this.#rows++;
    if (front.tag === 'E') return true;
    if (this.#columns < 0) return false;
    const columns = body.readInt16BE(0);
    if (columns !== this.#columns) {
      this.#violate('rows', `a DataRow of ${columns} columns where ${this.#columns} are described`);
    }
    return true;
  }

  #completed(front: Asked, body: Buffer): boolean {
    const tag = textOf(body, 0);
    if (this.#copy === 'in' && !this.#leaveCopy('c')) {
      this.#violate('unasked answer', `${tag} before the client has ended its COPY`);
      return true;
    }
    const portal = front.tag === 'E' ? this.#portals.get(front.name) : undefined;
    const wrong = this.#told.completed(tag, front.tag === 'E' ? (portal?.traits ?? 0) : front.traits);
    if (wrong !== null) this.#violate('status', wrong);
    this.#checkCount(tag, front.rowsMax > 0 || portal?.suspended === true);
    this.#answered = true;
    this.#copy = 'none';
    this.#endOfRows();
    if (front.tag !== 'E') return true;
    this.#ranInBatch = true;
    this.#done();
    return true;
  }

  /** SELECT n comes behind n rows, unless it made a table of them or an Execute has had a part of them before. */
  #checkCount(tag: string, isPart: boolean): void {
    if (!tag.startsWith('SELECT ') || isPart || this.#rowSets > 1) return;
    if (this.#rows === 0 && this.#rowSets === 0) return;
    if (Number(tag.slice(7)) !== this.#rows) this.#violate('rows', `${tag} behind ${this.#rows} rows`);
  }

  #ready(front: Asked, body: Buffer): void {
    if (!this.#answered && front.tag !== 'S') {
      return this.#violate('missing answer', `ReadyForQuery before the answer to ${nameOf(front)}`);
    }
    if (this.#copy !== 'none' || this.#columns >= 0) {
      return this.#violate('missing answer', `ReadyForQuery in the middle of the answer to ${nameOf(front)}`);
    }
    const wrong = this.#told.ready(statusOf(body), front.tag !== 'S' && this.#ranInBatch);
    if (wrong !== null) this.#violate('status', wrong);
    if (front.tag === 'S') this.#skipping = this.#ranInBatch = false;
    this.#done();
    this.#inBatch = this.#skipping;
  }

  /**
   * Takes the messages of the COPY that is over from behind the one at the front. False where what the server has read of
   * them is unknown, or where the client has not ended it with `end`.
   */
  #leaveCopy(end?: 'c'): boolean {
    // A Sync in the middle of a COPY is ignored: but after an error nobody knows whether it came before or behind it.
    const passed = end === undefined ? 'd' : 'dS';
    let next = this.#first + 1;
    while (next < this.#asked.length && passed.includes(this.#asked[next]!.tag)) next++;
    const last = this.#asked[next]?.tag;
    if (end !== undefined && last !== end) return false;
    if (last !== undefined && last !== 'c' && last !== 'f') return false;
    this.#asked.splice(this.#first + 1, next - this.#first - (last === undefined ? 1 : 0));
    return true;
  }

  #stopJudging(): void {
    this.#phase = 'unjudged';
    this.#client.stop();
    this.#server.stop();
  }

  #note(side: '<' | '>', tag: string, text: string): void {
    if (side === '<' && tag === 'D' && this.#recent.at(-1) === '< D') return;
    this.#recent.push(text === '' ? `${side} ${tag}` : `${side} ${tag} ${text.slice(0, TEXT_SHOWN_MAX)}`);
    if (this.#recent.length > RECENT_MAX) this.#recent.shift();
  }

  #violate(rule: Rule, text: string): void {
    this.violation ??= { rule, text, recent: [...this.#recent] };
    this.#stopJudging();
  }
}

/** The n-th string of a body, each ended by a zero; what is not ended is taken whole. */
function textOf(body: Buffer, index: number): string {
  let start = 0;
  for (let before = 0; before < index; before++) {
    const end = body.indexOf(0, start);
    if (end < 0) return '';
    start = end + 1;
  }
  const end = body.indexOf(0, start);
  return body.toString('latin1', start, end < 0 ? body.length : end);
}

/** A field of an ErrorResponse. */
function fieldOf(body: Buffer, code: string): string {
  for (let at = 0; at < body.length && body[at] !== 0; ) {
    const end = body.indexOf(0, at + 1);
    if (end < 0) return '';
    if (body[at] === code.charCodeAt(0)) return body.toString('utf8', at + 1, end);
    at = end + 1;
  }
  return '';
}

const statusOf = (body: Buffer): string => body.toString('latin1', 0, 1);

function shown(tag: string, body: Buffer): string {
  if (tag === 'C' || tag === 'Z') return textOf(body, 0);
  return tag === 'E' ? `${fieldOf(body, 'S')} ${fieldOf(body, 'C')} ${fieldOf(body, 'M')}` : '';
}

const ASKED_NAMES: Readonly<Record<string, string>> = {
  Q: 'a Query',
  P: 'a Parse',
  B: 'a Bind',
  D: 'a Describe',
  E: 'an Execute',
  C: 'a Close',
  S: 'a Sync',
  H: 'a Flush',
  F: 'a FunctionCall',
};

const ANSWER_NAMES: Readonly<Record<string, string>> = {
  1: 'ParseComplete',
  2: 'BindComplete',
  3: 'CloseComplete',
  C: 'CommandComplete',
  D: 'DataRow',
  G: 'CopyInResponse',
  H: 'CopyOutResponse',
  I: 'EmptyQueryResponse',
  K: 'BackendKeyData',
  R: 'Authentication',
  T: 'RowDescription',
  V: 'FunctionCallResponse',
  Z: 'ReadyForQuery',
  c: 'CopyDone',
  d: 'CopyData',
  n: 'NoData',
  s: 'PortalSuspended',
  t: 'ParameterDescription',
};

const nameOf = ({ tag, name }: Asked): string => ASKED_NAMES[tag] ?? name;
const answerName = (tag: string): string => ANSWER_NAMES[tag] ?? `a message ${JSON.stringify(tag)}`;
