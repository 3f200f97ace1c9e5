// The statements that pgkv has prepared on one server connection: each StatementSource under one name of pgkv's own, kept
// from session to session. Invariant: an entry stands for a statement that the server has, or will have once it has read
// what was sent; what is assumed of a Parse or Close is undone when the server refuses or skips it.
// A statement is used again only under settings and a schema that give its text the same meaning.
import { encodeNamed, encodeParse } from '../../wire/client-messages.js';
import type { Output } from '../../wire/output.js';
import { Frontend } from '../../wire/protocol.js';
import type { Deeds } from './deeds.js';
import { type Assumption, assuming, parsing, Reply, type ReplyQueue } from './reply-queue.js';
import { bytesOfSource, isForsaken, type StatementSource } from './statement-source.js';

/** Names of prepared statements on servers begin with this. */
export const STATEMENT_NAME_PREFIX = 'pgkv_';

/** What the statements of one connection may hold here, as if nobody else had them. Servers hold some ten times as much. */
export const PREPARED_BYTES_MAX = 4 * 2 ** 20;
/** A map entry, its name and a PreparedOnServer. */
const ENTRY_BYTES = 160;
/** How many are looked at, for such as nobody can name any more, when one is added. */
const LOOKS = 8;

/** The name of a statement of pgkv's own in an error message; undefined where there is none. */
export const serverNameIn = (message: string): string | undefined =>
  message.includes(STATEMENT_NAME_PREFIX) ? /"(pgkv_\d+)"/.exec(message)?.[1] : undefined;

/** A statement as prepared on one connection. */
export interface PreparedOnServer {
  readonly name: string;
  /** Of the settings it was parsed under (see SettingsGroup.semantics). */
  readonly semantics: string;
  readonly schemaEpoch: number;
  /** How often its source had been given a name by a client: whoever gave one later has to get it parsed anew. */
  readonly since: number;
  /** The server has refused or skipped its Parse. */
  missing: boolean;
  /** Where the answer to its Parse stands in the reply queue. */
  readonly place: number;
}

export class PreparedStatements {
  /** In the order of their Parse; when half of a bound is reached also of their last use. The first is evicted. */
  readonly #bySource = new Map<StatementSource, PreparedOnServer>();
  #bytes = 0;
  /** Whose Close the server skipped when their source had been prepared anew already: closed ahead of the next Parse. */
  readonly orphans = new Map<PreparedOnServer, StatementSource>();
  readonly #replies: ReplyQueue;
  readonly #output: Output;
  readonly #statementsMax: number;
  #nameCounter = 0;
  /** Place of the last Parse of ours. */
  #lastParse = -1;
  #schemaEpoch = 0;
  /** Stands for the settings in force while they are not known to be those of the session. */
  #unsettled: string | null = null;
  #unsettledCount = 0;

  constructor(replies: ReplyQueue, output: Output, statementsMax: number) {
    this.#replies = replies;
    this.#output = output;
    this.#statementsMax = statementsMax;
  }

  get bySource(): ReadonlyMap<StatementSource, PreparedOnServer> {
    return this.#bySource;
  }

  /** What they hold, as if nobody else had them. */
  get bytes(): number {
    return this.#bytes;
  }

  /** A statement is sent that may change settings: what is parsed from now on means something to this session only. */
  unsettle(): void {
    this.#unsettled ??= `unsettled ${++this.#unsettledCount}`;
  }

  /** The settings are what the session's group says. */
  settled(): void {
    this.#unsettled = null;
  }

  /** Statements prepared before this are prepared anew before their next use. */
  schemaChanged(epoch: number): void {
    this.#schemaEpoch = epoch;
  }

  /** Whether some statement's Parse is not answered yet. */
  get parsing(): boolean {
    return !this.#replies.isGone(this.#lastParse);
  }

  /** Whether an earlier batch prepares `source`, and may yet be skipped. */
  dependsOnParse(source: StatementSource): boolean {
    const known = this.#bySource.get(source);
    return known !== undefined && this.#replies.owesEarlierBatch(known.place);
  }

  /** Whether `prepare` would find the statement ready. */
  isPrepared(source: StatementSource, semantics: string): boolean {
    const known = this.#bySource.get(source);
    return known !== undefined && this.#fits(known, semantics);
  }

  /**
   * The name under which `source` is prepared here, preparing it first where it is not; answers to that are swallowed.
   * `semantics` is that of the session's settings: a text prepared under others may mean something else.
   * @param since see PreparedOnServer
   */
  prepare(source: StatementSource, semantics: string, since = 0): string {
    const known = this.#bySource.get(source);
    if (known !== undefined && known.since >= since && this.#fits(known, semantics)) {
      if (this.#bySource.size * 2 > this.#statementsMax || this.#bytes * 2 > PREPARED_BYTES_MAX) {
        this.#bySource.delete(source);
        this.#bySource.set(source, known);
      }
      return known.name;
    }
    return this.parse(source, semantics, true);
  }

  /**
   * Sends a Parse under a fresh name in place of any earlier one.
   * @param swallow keep ParseComplete from the client
   * @param assumed by whoever sends it
   * @param does what the statement does
   */
  parse(source: StatementSource, semantics: string, swallow: boolean, assumed?: Assumption, does?: Deeds): string {
    this.forget(source);
    // A copy: where the server is skipping they are back at once.
    if (this.orphans.size > 0) for (const [orphan, its] of [...this.orphans]) this.#close(its, orphan);
    const name = `${STATEMENT_NAME_PREFIX}${++this.#nameCounter}`;
    const entry: PreparedOnServer = {
      name,
      semantics: this.#unsettled ?? semantics,
      schemaEpoch: this.#schemaEpoch,
      since: source.namesEver,
      missing: false,
      place: this.#replies.nextPlace,
    };
    this.#lastParse = entry.place;
    // Its Close is skipped already: the server is skipping.
    const kept = this.drop(source);
    if (kept !== undefined) this.orphans.set(kept, source);
    this.putBack(source, entry);
    const undo = (refused: boolean): void => {
      entry.missing = true;
      if (this.#bySource.get(source) === entry) this.drop(source);
      assumed?.undo(refused);
    };
    const redo = (): void => assumed?.redo?.();
    this.#replies.push(parsing(source.rewritten, swallow, { undo, redo }, does));
    this.#output.push(encodeParse(name, source.parseTail));
    this.#makeRoom(source);
    return name;
  }

  /** Closes the statement on the server, if it is prepared here. */
  forget(source: StatementSource): void {
    const known = this.drop(source);
    if (known === undefined) return;
    this.#close(source, known);
  }

  /** The server has it no longer. */
  drop(source: StatementSource): PreparedOnServer | undefined {
    const known = this.#bySource.get(source);
    if (known === undefined) return undefined;
    this.#bySource.delete(source);
    this.#bytes -= ENTRY_BYTES + bytesOfSource(source);
    return known;
  }

  /** The server has it, if it ever had, unless another one has been prepared in its place. */
  putBack(source: StatementSource, known: PreparedOnServer): void {
    if (known.missing || this.#bySource.has(source)) return;
    this.#bySource.set(source, known);
    this.#bytes += ENTRY_BYTES + bytesOfSource(source);
  }

  /** DEALLOCATE ALL or DISCARD ALL took effect. (To close an orphan that is gone does no harm.) */
  forgetAll(): void {
    this.#bySource.clear();
    this.#bytes = 0;
  }

  /** Closes, on the server too, what nobody can name any more. Returns whether there was any. */
  closeForsaken(): boolean {
    const forsaken = [...this.#bySource.keys()].filter(isForsaken);
    for (const source of forsaken) this.forget(source);
    return forsaken.length > 0;
  }

  /** A function has deallocated the statement that an error message names: it is prepared anew before its next use. */
  deallocated(message: string): void {
    const name = serverNameIn(message);
    const source = name === undefined ? null : this.sourceOf(name);
    if (source !== null) this.drop(source);
  }

  /** What is prepared under a name of pgkv's own; null if nothing is. */
  sourceOf(serverName: string): StatementSource | null {
    for (const [source, { name }] of this.#bySource) {
      if (name === serverName) return source;
    }
    return null;
  }

  #close(source: StatementSource, known: PreparedOnServer): void {
    this.orphans.delete(known);
    // Skipped after an error: the server still has it, if it ever had, so it is ours again.
    const undo = (): void => {
      if (known.missing) return;
      if (this.#bySource.has(source)) this.orphans.set(known, source);
      else this.putBack(source, known);
    };
    this.#replies.push(assuming(Reply.close, true, { undo }));
    this.#output.push(encodeNamed(Frontend.close, 'S', known.name));
  }

  #fits(known: PreparedOnServer, semantics: string): boolean {
    const sameMeaning = known.semantics === semantics || known.semantics === this.#unsettled;
    return sameMeaning && known.schemaEpoch === this.#schemaEpoch;
  }

  /** Closes the least recently used where a bound is passed, and such as nobody can name any more: those come first in time. */
  #makeRoom(keep: StatementSource): void {
    let { size } = this.#bySource;
    let bytes = this.#bytes;
    let looks = LOOKS;
    const closed: StatementSource[] = [];
    for (const source of this.#bySource.keys()) {
      const isFull = size > this.#statementsMax || bytes > PREPARED_BYTES_MAX;
      if (!isFull && looks-- <= 0) break;
      if (source === keep || !(isFull || isForsaken(source))) continue;
      closed.push(source);
      size--;
      bytes -= ENTRY_BYTES + bytesOfSource(source);
    }
    // Behind the walk: where the server is skipping they are put back at once.
    for (const source of closed) this.forget(source);
  }
}
