// What one client must be answered: its messages are also handled by a mirror, a model session of its own, and what pgkv
// sends has to be the mirror's answer, message by message. Where pgkv reports an error that the mirror cannot know
// (a lost connection, a cancel, a full pool), the error must have had a cause, and the mirror is told of it: from there on
// it expects what a Postgres session expects after that error.
import { tellsLoss } from '../oracle/transaction-told.js';
import { type Fields, type Message, readFields, readRow } from './frames.js';
import { ModelSession } from './model-session.js';
import { ownerOf } from './model-sql.js';
import { ModelDatabase, SqlError, STYLE_SEPARATOR } from './session-engine.js';

/** A message as the client sends it, and what it may do to rows. */
export interface SentMessage {
  readonly message: Message;
  /** Keys it may insert. */
  readonly keys: readonly string[];
  /** It may end a transaction block. */
  readonly endsBlock: boolean;
  /** It may draw from a sequence for all that pgkv can see, and need not. */
  readonly seemsToDraw: boolean;
}

/** What may have gone wrong in a run, at the time of asking. */
export interface Mishaps {
  readonly connectFailures: boolean;
  /** DDL went through a moment ago. */
  readonly schemaJustChanged: boolean;
  /** Waiters may be many, or wait for long. */
  readonly scarcity: boolean;
}

/** Of statements that pgkv can know to be refused before a server has said so. */
const CERTAIN: ReadonlySet<string> = new Set(['08P01', '25P02', '42P05']);
const [STYLE, PID] = [5, 7];
const READY = 'Z';

export class Expectations {
  readonly owner: string;
  readonly mirror: ModelSession;
  readonly database = new ModelDatabase();
  /** Keys of which nothing can be said. */
  readonly uncertainKeys = new Set<string>();
  /** Keys that are there together or not at all. */
  readonly atomicKeys: (readonly string[])[] = [];
  readonly told = new Map<string, string>();
  /** ReadyForQuery messages received. */
  readies = 0;
  cancelsSent = 0;
  /** Server connections that broke while the session was on them. */
  losses = 0;
  /** The client has said goodbye: it still wants to hear all answers. */
  leaving = false;
  /** No further answer comes. */
  over = false;
  readonly #mishaps: Mishaps;
  readonly #violated: (what: string) => void;
  readonly #unanswered: SentMessage[] = [];
  #cancelErrors = 0;
  #current: SentMessage | null = null;
  #expected: Buffer[] = [];
  #at = 0;
  #undo: () => void = () => undefined;
  #failures: { at: number; error: SqlError }[] = [];
  /** Fed messages since the last ReadyForQuery. */
  #unit: SentMessage[] = [];
  readonly #lossesAtSend = new WeakMap<SentMessage, number>();
  /** Takes the mirror back to before them. */
  #undoUnit: () => void = () => undefined;
  #unitErrors: string[] = [];
  #unitIsUncertain = false;
  /** Where rows have to come from while the session is in a transaction or holds state. */
  #pid: string | null = null;
  /** A connection was lost, and the client told. */
  #lossTold = false;
  #seemedToDraw = false;
  readonly #sequence = new Map<string, string>();

  constructor(owner: string, startup: ReadonlyMap<string, string>, mishaps: Mishaps, violated: (what: string) => void) {
    this.owner = owner;
    this.#mishaps = mishaps;
    this.#violated = violated;
    this.mirror = new ModelSession({ database: this.database, pid: 0, startup, isMirror: true });
  }

  /** Whether everything that gets an answer has got it. */
  isAnswered(): boolean {
    this.#advance();
    return this.#unanswered.length === 0 && this.#at === this.#expected.length;
  }

  sent(message: SentMessage): void {
    if (this.over) return;
    this.#unanswered.push(message);
    this.#lossesAtSend.set(message, this.losses);
  }

  received(message: Message): void {
    if (this.over) return this.#violated(`${this.owner} gets "${message.type}" behind the end of its session`);
    if (message.type === 'S') {
      const [name, value] = message.body.toString('utf8').split('\0');
      this.told.set(name!.toLowerCase(), value!);
      return;
    }
    if (message.type === 'A') return this.#notification(message);
    this.#advance();
    const wanted = this.#expected[this.#at];
    if (wanted !== undefined && this.#isSame(wanted, message)) {
      this.#at++;
      if (message.type === READY) this.#unitAnswered();
      // Nobody is told of a block that was lost by the time it is rolled back: the session goes on elsewhere.
      else if (message.type === 'C' && this.losses > 0 && message.body.toString('latin1', 0, 8) === 'ROLLBACK') {
        this.#lossTold = true;
        this.#pid = null;
      } else if (message.type === 'E') this.#unitErrors.push(readFields(message.body)['C']!);
      return;
    }
    if ('TD'.includes(message.type) && this.#seesForeignSequence(wanted)) return this.received(message);
    if (message.type === 'E') return this.#deviates(message);
    if (message.type === READY && wanted !== undefined && this.#isLostStatus(wanted, message.bytes)) {
      this.#at++;
      return this.#unitAnswered();
    }
    this.#violated(`${this.owner} gets ${show(message.bytes)}, expected ${wanted ? show(wanted) : 'nothing'}`);
  }

  /** The log-in failed: no answers will follow. */
  refused(message: Message): void {
    const { connectFailures, scarcity } = this.#mishaps;
    if (!connectFailures && !scarcity) this.#violated(`${this.owner} is refused: ${show(message.bytes)}`);
    this.over = true;
  }

  /** The connection is over: what has not been answered may have been done all the same. */
  closed(): void {
    if (this.over) return;
    const isExpected = this.leaving && this.isAnswered();
    // In the middle of a row nothing can be said.
    if (!isExpected && this.losses === 0) this.#violated(`${this.owner} is cut off without a word`);
    this.settle();
  }

  /** Lets the mirror handle what needs no answer, and the next message that does. */
  #advance(): void {
    while (this.#at === this.#expected.length) {
      const next = this.#unanswered.shift();
      if (next === undefined) return;
      if (this.#unit.length === 0 && this.mirror.status === 'I' && this.mirror.pins().length === 0) this.#pid = null;
      // A failed transaction that was lost goes on, on no connection.
      if (this.mirror.status === 'E' && this.losses > 0) this.#pid = null;
      if (this.#unit.length === 0) this.#undoUnit = this.mirror.save();
      this.#unit.push(next);
      if (this.#unitIsUncertain) this.#makeUncertain(next.keys);
      if (next.seemsToDraw) this.#seemedToDraw = true;
      this.#current = next;
      this.#failures = [];
      this.#undo = this.mirror.save();
      this.#expect(this.mirror.handle(next.message));
    }
  }

  #expect(answer: readonly Buffer[]): void {
    // ParameterStatus comes when it likes: what counts is what the client knows at ReadyForQuery.
    this.#expected = answer.filter((bytes) => bytes[0] !== 0x53);
    this.#at = 0;
  }

  #unitAnswered(): void {
    this.readies++;
    this.#unit = [];
    this.#unitErrors = [];
    this.#unitIsUncertain = false;
    for (const [name, value] of this.mirror.state.reported) {
      const told = this.told.get(name);
      if (told !== value) this.#violated(`${this.owner} believes that ${name} is '${told}', but it is '${value}'`);
    }
  }

  #isSame(wanted: Buffer, { type, bytes, body }: Message): boolean {
    if (wanted.equals(bytes)) return true;
    if (type === 'E' && wanted[0] === 0x45) return isSameButForName(readFields(wanted.subarray(5)), readFields(body));
    if (type !== 'D' || wanted[0] !== 0x44) return false;
    const expected = readRow(wanted.subarray(5));
    const row = readRow(body);
    if (expected.length !== row.length) return false;
    if (row.length === 1) return this.#isSameSequenceValue(expected[0] ?? '', row[0] ?? '');
    return expected.every((value, column) => this.#isSameValue(column, value, row[column] ?? null));
  }

  #isSameValue(column: number, expected: string | null, value: string | null): boolean {
    switch (column) {
      case STYLE:
        // A statement is read under the settings of its Parse or, where it had to be parsed anew, of a later Bind.
        return value !== null && (expected ?? '').split(STYLE_SEPARATOR).includes(value);
      case PID: {
        if (value === null || !value.startsWith('pid:')) return false;
        if (this.#pid !== null && this.#pid !== value) {
          this.#violated(`${this.owner} is on ${value} in a transaction, or with state, that is on ${this.#pid}`);
        }
        this.#pid = value;
        return true;
      }
      default:
        // A setting made in a block that was lost with its connection was never named where the session goes on.
        return value === expected || (value === null && expected === '' && this.#lossTold);
    }
  }

  /** Sequences are the server's: the mirror's numbers stand for those the client has seen. */
  #isSameSequenceValue(expected: string, value: string): boolean {
    if (!expected.startsWith('seq:') || !value.startsWith('seq:')) return false;
    const known = this.#sequence.get(expected);
    if (known === undefined) this.#sequence.set(expected, value);
    return known === undefined || known === value;
  }

  /**
   * lastval() shows what another session drew, where this one has run something since that might have drawn and did
   * not: nobody can tell that from outside (R4). The mirror then takes the number for its own.
   */
  #seesForeignSequence(wanted: Buffer | undefined): boolean {
    if (!this.#seemedToDraw || wanted === undefined || wanted[0] !== 0x45) return false;
    if (readFields(wanted.subarray(5))['C'] !== '55000') return false;
    const at = this.#at;
    this.#undo();
    this.mirror.state.lastValue = 'seq:foreign';
    this.#sequence.delete('seq:foreign');
    this.#undo = this.mirror.save();
    this.#expect(this.mirror.handle(this.#current!.message));
    this.#at = at;
    return true;
  }

  /**
   * Transaction status where a connection was lost within a batch that began or ended a block: pgkv knows the status of
   * the last ReadyForQuery only. A block of which the client had heard that it failed is just over; one that was said
   * to be lost, and had ended before, has to be ended again.
   */
  #isLostStatus(wanted: Buffer, actual: Buffer): boolean {
    if (this.losses === 0 || wanted[0] !== actual[0]) return false;
    const statuses = [wanted, actual].map((bytes) => bytes.toString('latin1', 5));
    if (statuses.join() === 'E,I' && this.#unitErrors.length > 0 && this.#wouldEnd()) {
      this.mirror.abandonBlock();
      return true;
    }
    if (statuses.join() !== 'I,E' || this.#unitErrors.length === 0) return false;
    this.mirror.enterLostBlock();
    return true;
  }

  /** Had nothing been lost that the client could not know of, there would, for all pgkv can know, be no block behind the unit. */
  #wouldEnd(): boolean {
    const goOn = this.mirror.save();
    this.#undoUnit();
    if (this.#lossesAtSend.get(this.#unit[0]!)! < this.losses) this.mirror.recoverLostBlock();
    let mayEnd = false;
    for (const { message, endsBlock } of this.#unit) {
      const undo = this.mirror.save();
      const error = this.mirror.handle(message).find((bytes) => bytes[0] === 0x45);
      if (error === undefined || CERTAIN.has(readFields(error.subarray(5))['C']!)) continue;
      if (message.type === 'Q') mayEnd ||= endsBlock;
      undo();
    }
    mayEnd ||= this.mirror.status === 'I';
    goOn();
    return mayEnd;
  }

  #notification({ body }: Message): void {
    const [channel, payload] = body.toString('utf8', 4).split('\0');
    if (ownerOf(`${channel!.replace('_', '.')}`) !== this.owner) {
      this.#violated(`${this.owner} is notified of ${channel}: ${payload}`);
    }
  }

  /** An error the mirror did not expect: it must have a cause, and the mirror goes on from it. */
  #deviates(message: Message): void {
    const fields = readFields(message.body);
    const isPending = this.#at < this.#expected.length;
    if (isPending) this.#undo();
    const objection = this.#objection(fields);
    if (objection !== null) {
      const wanted = this.#expected[this.#at];
      return this.#violated(
        `${this.owner} gets ${show(message.bytes)}, expected ${wanted ? show(wanted) : 'nothing'}: ${objection}`,
      );
    }
    if (fields['V'] === 'FATAL') return this.settle();
    const code = fields['C']!;
    this.#unitErrors.push(code);
    const isLoss = tellsLoss(code);
    const error = new SqlError(code, fields['M']!, 'pgkv', message.bytes);
    if (isLoss) {
      this.#lossTold = true;
      this.#pid = null;
    }
    if (!isPending) {
      const { unsynced, copy, skipping } = this.mirror.state;
      if ((!unsynced && copy === null) || skipping) {
        return this.#violated(`${this.owner} gets ${show(message.bytes)} while nothing is owed`);
      }
      if (code === '08007') this.#unitBecomesUncertain();
      this.#failures = [];
      this.#undo = this.mirror.save();
      this.#expect(this.mirror.failNow(error));
      this.#at = 1;
      return;
    }
    if (code === '08007') this.#unitBecomesUncertain();
    const at = this.#at;
    this.#failures.push({ at, error });
    this.#expect(this.mirror.handle(this.#current!.message, this.#failures));
    if (this.#expected[at]?.equals(message.bytes) !== true) this.#violated('the mirror did not fail as it was told');
    this.#at = at + 1;
  }

  #unitBecomesUncertain(): void {
    this.#unitIsUncertain = true;
    const open = this.mirror.state.transaction?.keys ?? [];
    const isOnlyCommit = this.#unit.every(({ keys }) => keys.length === 0);
    if (isOnlyCommit && open.length > 1 && this.mirror.status === 'T') this.atomicKeys.push([...open]);
    this.#makeUncertain(open);
    for (const { keys } of this.#unit) this.#makeUncertain(keys);
  }

  #makeUncertain(keys: readonly string[]): void {
    for (const key of keys) this.uncertainKeys.add(key);
  }

  /** Why there should not be this error, null where there may be. */
  #objection(fields: Fields): string | null {
    if (fields['V'] === 'FATAL') return this.losses > 0 ? null : 'the session was not harmed';
    switch (fields['C']) {
      case '57014':
        if (this.#cancelErrors >= this.cancelsSent) return 'there was no cancel, or it was used up';
        this.#cancelErrors++;
        return null;
      case '08006':
        return this.losses > 0 || this.#mishaps.connectFailures ? null : 'no connection was lost, none failed';
      case '08007':
      case '40001':
        return this.losses > 0 ? null : 'no connection was lost';
      case '53300':
        return this.#mishaps.scarcity ? null : 'there are connections enough';
      case '0A000':
        if (fields['R'] !== 'RevalidateCachedQuery') return 'not a stale plan';
        return this.#mishaps.schemaJustChanged ? null : 'no schema has changed';
      case '25P02':
        // Describing or binding one's own statement may take a Parse, which a failed transaction refuses.
        if (this.mirror.status === 'E' && 'DB'.includes(this.#current?.message.type ?? '-')) return null;
        // Of a failed transaction that was lost nobody has to be told: pgkv stands in for the server without a word.
        return this.mirror.lostBlock || (this.mirror.status === 'E' && this.losses > 0) ? null : 'nothing has failed';
      case '26000':
        // The same there, without the places in Postgres's source.
        return this.mirror.status === 'E' && this.losses > 0 ? null : 'no transaction was lost';
      case '55000':
        return null; // lastval: the connection on which it was drawn is in other hands (R4)
      default:
        return 'nothing explains it';
    }
  }

  /** The session is over. What was under way may have been done; what was in a block without COMMIT cannot have been. */
  settle(): void {
    this.over = true;
    const openKeys = (): readonly string[] => {
      const { transaction, copy } = this.mirror.state;
      return [...(transaction?.keys ?? []), ...(copy?.keys ?? [])];
    };
    let open = openKeys();
    const pending = [...this.#unanswered];
    if (this.#at < this.#expected.length && this.#current !== null) {
      this.#undo();
      open = [...open, ...openKeys()];
      pending.unshift(this.#current);
    }
    this.#unanswered.length = 0;
    this.#expected = [];
    this.#at = 0;
    const inBlock = this.mirror.status !== 'I';
    const mayEnd = pending.some(({ message, endsBlock }) => endsBlock || (!inBlock && 'SQc'.includes(message.type)));
    if (!mayEnd) return;
    this.#makeUncertain(open);
    for (const { keys } of pending) this.#makeUncertain(keys);
  }
}

/** Where a batch drops a statement and then names it, the server's error names it as pgkv does. */
const isSameButForName = (expected: Fields, actual: Fields): boolean =>
  expected['C'] === '26000' && actual['C'] === '26000' && /"pgkv_\d+"/.test(actual['M'] ?? '');

export function show(bytes: Buffer): string {
  const type = String.fromCharCode(bytes[0]!);
  if (type === 'D') return `row ${JSON.stringify(readRow(bytes.subarray(5)))}`;
  if (type === 'E') {
    const fields = readFields(bytes.subarray(5));
    return `${fields['V']} ${fields['C']} "${fields['M']}"${fields['D'] === undefined ? '' : ` (${fields['D']})`}`;
  }
  return `${type} ${bytes
    .toString('latin1', 5)
    .replaceAll(/[^ -~]+/g, ' ')
    .slice(0, 80)}`;
}
