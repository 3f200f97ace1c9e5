// Judges what clients saw of one key (D11): is there one order of all that happened to it, each statement at a
// moment between the one at which it was sent and the one at which it was answered, in which every answer is right?
//
// Versions give the order: a key lives from an INSERT to a DELETE or its expiry, and each write of a life adds one to the
// version. So the states of a key are known, and each has earliest and latest moments at which it can have begun: no
// earlier than its writer and the readers of older states were asked, no later than its writer and the readers of newer
// states were answered. A version that nobody made was made by a statement that was told it had failed, or that ran twice.
//
// Lives go by the versions they begin with, but for one case: Postgres takes a row's first version before the statement
// waits for whoever holds the key, so a life can begin behind another that was born, and deleted, during that wait.
//
// Only what cannot be true is reported. Where a client vanished its statement may have happened or not.

import type { DeleteEvent, KeyEvent, Span, WriteEvent } from './key-events.js';
import { CLOCK_MARGIN_MS, chooseMakers, expiryOf, firstToEnd, type Gap, State } from './key-states.js';

/** Versions of one life are not further apart than this; a new life begins 1024 for each millisecond higher (D3). */
const SAME_LIFE_VERSIONS = 64;

/** After that a statement whose client has gone is done, or never will be. */
const VANISHED_MS = 20_000;

const BEGINNING: Span & { readonly what: string } = {
  from: Number.NEGATIVE_INFINITY,
  to: Number.NEGATIVE_INFINITY,
  what: 'the beginning',
};
/** A life, by its place in the order of versions, that began only behind so many of the next ones. */
export interface LateBirth {
  readonly life: number;
  readonly behind: number;
}

export class KeyHistory {
  readonly #events: readonly KeyEvent[];
  readonly #late: LateBirth | null;
  #lives: State[][] = [];
  readonly #problems: string[] = [];
  readonly #byVersion = new Map<number, State>();
  /** Writes whose version nobody was told, as long as no state is known to be theirs. */
  readonly #floating = new Set<WriteEvent>();
  readonly #floatingDeletes = new Set<DeleteEvent>();
  /** Versions that somebody was told to have deleted. */
  readonly #endsTold = new Set<number | null>();
  /** All states in their order, absence included. */
  #states: State[] = [];
  readonly #place = new Map<State, number>();

  constructor(events: readonly KeyEvent[], late: LateBirth | null = null) {
    this.#events = events;
    this.#late = late;
  }

  judge(): string[] {
    this.#collectWrites();
    this.#collectSeen();
    this.#lives = this.#findLives();
    this.#order();
    this.#bound();
    this.#fillGaps();
    this.#bound();
    this.#appendUnseen();
    this.#bound();
    this.#findDeaths();
    this.#bound();
    this.#placeTheRest();
    if (this.#problems.length === 0) this.#checkLives();
    if (this.#problems.length === 0) this.#checkExpiry();
    if (this.#problems.length === 0) this.#checkBounds();
    if (this.#problems.length === 0) this.#checkClaims();
    if (this.#problems.length === 0) this.#checkPrograms();
    return this.#problems;
  }

  #collectWrites(): void {
    for (const event of this.#events) {
      if (event.kind === 'delete') {
        if (event.version === null) this.#floatingDeletes.add(event);
        else this.#endsTold.add(event.version);
      }
      if (event.kind !== 'write') continue;
      if (event.version === null) this.#floating.add(event);
      else {
        const other = this.#byVersion.get(event.version);
        if (other !== undefined)
          this.#wrong(`version ${event.version} was made by ${other.maker.what} and ${event.what}`);
        else this.#add(event.version, event);
      }
    }
  }

  #add(version: number, writer: WriteEvent): State {
    const value = typeof writer.value === 'object' ? writer.value.text : null;
    const state = new State(version, value, writer);
    this.#byVersion.set(version, state);
    return state;
  }

  /** What was seen belongs to a state; one whose writer was not told its version becomes known by its value. */
  #collectSeen(): void {
    const seen = this.#events.filter((event) => event.kind === 'seen').sort((a, b) => a.version - b.version);
    const byValue = new Map<string, WriteEvent>();
    for (const event of this.#events) {
      if (event.kind === 'write' && typeof event.value === 'object') byValue.set(event.value.text, event);
    }
    for (const event of seen) {
      let state = this.#byVersion.get(event.version);
      if (state === undefined) {
        const writer = byValue.get(event.value);
        if (writer !== undefined && this.#floating.delete(writer)) state = this.#add(event.version, writer);
        else if ([...this.#floating].some(({ value }) => typeof value === 'string')) {
          state = new State(event.version, event.value, null);
          this.#byVersion.set(event.version, state);
        } else {
          const whose =
            writer === undefined ? 'nobody wrote here' : `${writer.what} wrote as version ${writer.version}`;
          this.#wrong(`${event.what} saw version ${event.version}, value ${event.value}, which ${whose}`);
          continue;
        }
      }
      state.value ??= event.value;
      if (state.value !== event.value) {
        this.#wrong(
          `${event.what} saw ${event.value} as ${state.name}, which is ${state.value} by ${state.maker.what}`,
        );
      }
      state.seen.push(event);
    }
  }

  /** Runs of versions, with states in the place of those that are missing. */
  #findLives(): State[][] {
    const lives: State[][] = [];
    let life: State[] = [];
    for (const version of [...this.#byVersion.keys()].sort((a, b) => a - b)) {
      const before = life.at(-1)?.version ?? Number.NEGATIVE_INFINITY;
      if (version - before > SAME_LIFE_VERSIONS) {
        life = [];
        lives.push(life);
        // An UPDATE finds a row: somebody made it.
        if (this.#byVersion.get(version)!.writer?.makes === 'update') life.push(new State(version - 1, null, null));
      } else {
        for (let missing = before + 1; missing < version; missing++) life.push(new State(missing, null, null));
      }
      life.push(this.#byVersion.get(version)!);
    }
    return lives;
  }

  /** Behind judge(): the births that were still under way when the next lives began. */
  *lateBirths(): Generator<LateBirth> {
    for (const [index, [born]] of this.#lives.entries()) {
      for (let next = index + 1; this.#lives[next]?.[0] !== undefined; next++) {
        if (this.#lives[next]![0]!.maker.from > born!.maker.to) break;
        yield { life: index, behind: next - index };
      }
    }
  }

  #order(): void {
    const lives = [...this.#lives];
    if (this.#late !== null) lives.splice(this.#late.life + this.#late.behind, 0, ...lives.splice(this.#late.life, 1));
    this.#states = [new State(null, null, null, BEGINNING)];
    for (const life of lives) this.#states.push(...life, new State(null, null, null));
  }

  /** The earliest and latest moments at which each state can have begun. */
  #bound(): void {
    const states = this.#states;
    let earliest = Number.NEGATIVE_INFINITY;
    let by = '';
    const raise = (moment: number, what: string): void => {
      if (moment > earliest) [earliest, by] = [moment, what];
    };
    for (const [index, state] of states.entries()) {
      for (const seen of states[index - 1]?.seen ?? []) raise(seen.from, `${seen.what} saw the one before`);
      raise(state.maker.from, `${state.maker.what} was sent`);
      state.earliest = earliest;
      state.earliestBy = by;
    }
    let latest = Number.POSITIVE_INFINITY;
    const lower = (moment: number, what: string): void => {
      if (moment < latest) [latest, by] = [moment, what];
    };
    for (const [behind, state] of [...states].reverse().entries()) {
      for (const seen of state.seen) lower(seen.to, `${seen.what} saw it, or a later one`);
      lower(state.maker.to, `${state.maker.what} was answered`);
      state.latest = latest;
      state.latestBy = by;
      this.#place.set(state, states.length - 1 - behind);
    }
  }

  /** Finds who made the versions that nobody was told of. */
  #fillGaps(): void {
    const gaps: Gap[] = [];
    for (const [index, state] of this.#states.entries()) {
      const before = this.#states[index - 1]!;
      if (state.version !== null && state.writer === null) gaps.push({ state, isBirth: before.version === null });
    }
    if (gaps.length === 0) return;
    const makers = chooseMakers(gaps, this.#floating, (write) => write.sure && !this.#hasRoom(write));
    for (const gap of gaps) {
      const { state } = gap;
      const before = this.#states[this.#place.get(state)! - 1]!.value;
      const writer = makers.get(gap);
      if (writer === undefined) {
        const value = state.value === null ? '' : `, value ${state.value}`;
        this.#wrong(`${state.name}${value} was made by nobody who was told so`);
        continue;
      }
      this.#floating.delete(writer);
      state.writer = writer;
      state.maker = writer;
      const value = typeof writer.value === 'object' ? writer.value.text : writer.value === 'kept' ? before : null;
      if (state.value !== null && value !== null && value !== state.value) {
        this.#wrong(`${state.name} is ${state.value}, but ${writer.what} made ${value}`);
      }
      state.value ??= value;
    }
  }

  /** Whether it can have been the last of a life that nobody saw: behind what is known, and the end was not told. */
  #hasRoom(write: WriteEvent): boolean {
    return this.#states.some((state, index) => {
      const next = this.#states[index + 1];
      const isLast = state.version !== null && (next === undefined || next.version === null);
      if (!isLast || write.makes === 'birth' || this.#endsTold.has(state.version)) return false;
      return write.from <= (next?.latest ?? Number.POSITIVE_INFINITY) && write.to >= state.earliest;
    });
  }

  /** What set another expiry may have been seen by nobody before the row expired. */
  #appendUnseen(): void {
    const states: State[] = [];
    for (const [index, state] of this.#states.entries()) {
      const last = states.at(-1);
      if (index > 0 && state.version === null && !this.#endsTold.has(last!.version)) {
        const follows = ({ expiryOfUpdate, sure, from, to }: WriteEvent): boolean =>
          sure && expiryOfUpdate !== 'kept' && from <= state.latest && to >= last!.earliest;
        for (const writer of [...this.#floating].filter(follows).sort((a, b) => a.to - b.to)) {
          this.#floating.delete(writer);
          states.push(new State(states.at(-1)!.version! + 1, last!.value, writer));
        }
      }
      states.push(state);
    }
    this.#states = states;
  }

  /** Each life but the last has to have ended. */
  #findDeaths(): void {
    const pinned = new Map<number, DeleteEvent>();
    for (const event of this.#events) {
      if (event.kind !== 'delete' || event.version === null) continue;
      const other = pinned.get(event.version);
      if (other !== undefined) this.#wrong(`version ${event.version} was deleted by ${other.what} and ${event.what}`);
      pinned.set(event.version, event);
    }
    this.#carryExpiry();
    for (const [index, state] of this.#states.entries()) {
      if (index === 0 || state.version !== null) continue;
      const last = this.#states[index - 1]!;
      const isEnd = index === this.#states.length - 1;
      const told = pinned.get(last.version!);
      pinned.delete(last.version!);
      if (told !== undefined) {
        state.maker = told;
      } else if (last.expiry.low !== Number.POSITIVE_INFINITY) state.maker = expiryOf(last);
      else {
        const untold = firstToEnd(
          [...this.#floatingDeletes].filter(({ from, to }) => from <= state.latest && to >= last.earliest),
        );
        if (untold !== null) {
          state.maker = untold;
          this.#floatingDeletes.delete(untold);
        } else if (!isEnd) {
          this.#wrong(
            `nobody ended the life before ${this.#states[index + 1]!.name} by ${this.#states[index + 1]!.maker.what}`,
          );
        } else this.#states.pop();
      }
    }
    for (const [version, event] of pinned) {
      const state = this.#byVersion.get(version);
      const why = state === undefined ? 'nobody made' : 'was changed afterwards';
      this.#wrong(`${event.what} deleted version ${version}, which ${why}`);
    }
  }

  #carryExpiry(): void {
    for (const [index, state] of this.#states.entries()) {
      const { writer } = state;
      if (writer === null) continue;
      const before = this.#states[index - 1]!;
      const isBirth = before.version === null;
      const own = isBirth ? writer.expiryOfBirth : writer.expiryOfUpdate;
      state.expiry = own === 'kept' ? before.expiry : own;
    }
  }

  /** What happened for certain and left no trace has to have had room for it. */
  #placeTheRest(): void {
    for (const write of [...this.#floating].filter(({ sure }) => sure)) {
      if (!this.#hasRoom(write)) this.#wrong(`${write.what} was told that it was done, and made no version`);
    }
    const unsureBirths = [...this.#floating].filter(({ sure, makes }) => !sure && makes !== 'update');
    for (const event of [...this.#floatingDeletes].filter(({ sure }) => sure)) {
      const birth = unsureBirths.findIndex(({ from }) => from <= event.to);
      if (birth >= 0) unsureBirths.splice(birth, 1);
      else this.#wrong(`${event.what} was told that it deleted the key, which was not there`);
    }
  }

  #checkLives(): void {
    for (const [index, state] of this.#states.entries()) {
      if (state.version === null || state.writer === null) continue;
      const before = this.#states[index - 1]!;
      const wrongly = before.version === null ? 'update' : 'birth';
      if (state.writer.makes === wrongly) {
        const found = wrongly === 'birth' ? before.name : 'nothing';
        this.#wrong(`${state.writer.what} made ${state.name} of ${found}`);
      }
    }
  }

  #checkBounds(): void {
    for (const state of this.#states) {
      if (state.earliest <= state.latest) continue;
      const late = (state.earliest - state.latest).toFixed(3);
      this.#wrong(
        `${state.name} (${state.maker.what}) begins behind ${state.earliestBy}, and ${late} ms before that ${state.latestBy}`,
      );
      return;
    }
  }

  #checkExpiry(): void {
    for (const [index, state] of this.#states.entries()) {
      if (state.version === null) continue;
      const { high, low } = state.expiry;
      for (const seen of state.seen) {
        if (seen.from > high + CLOCK_MARGIN_MS) this.#wrong(`${seen.what} saw ${state.name}, which had expired`);
        if (seen.expiry === undefined) continue;
        const told = seen.expiry ?? Number.POSITIVE_INFINITY;
        if (told < low - CLOCK_MARGIN_MS || told > high + CLOCK_MARGIN_MS) {
          this.#wrong(`${seen.what} was told that ${state.name} expires at ${told}, not between ${low} and ${high}`);
        }
      }
      const next = this.#states[index + 1];
      // A row may have expired before it was committed: who was waiting for it then changes it still.
      if (next?.writer && next.maker.from > Math.max(high, state.maker.to) + CLOCK_MARGIN_MS) {
        this.#wrong(`${next.maker.what} changed ${state.name}, which had expired`);
      }
    }
  }

  #checkClaims(): void {
    // Whoever is taken to have filled a gap, any of those that vanished may have been seen for a while.
    const unsure = this.#events.filter((event) => 'sure' in event && !event.sure);
    const untold = [...this.#floating].filter(({ sure }) => sure);
    const mayHaveSeen = (other: Span, { from, to }: Span): boolean =>
      other.from <= to && other.from > from - VANISHED_MS;
    for (const event of this.#events) {
      if (event.kind !== 'claim') continue;
      const { claim, from, to } = event;
      const isTrue = this.#states.some((state, index) => {
        const end = this.#states[index + 1]?.latest ?? Number.POSITIVE_INFINITY;
        if (state.earliest > to || end < from) return false;
        const mayBeGone = state.version === null || state.expiry.low - CLOCK_MARGIN_MS <= to;
        if (claim === 'absent') return mayBeGone;
        if (claim === 'present') return state.version !== null;
        return mayBeGone || state.version !== claim.not;
      });
      if (isTrue || unsure.some((other) => mayHaveSeen(other, event))) continue;
      if (typeof claim === 'object' && untold.some((other) => other.from <= to)) continue;
      const wanted = typeof claim === 'string' ? claim : `not of version ${claim.not}`;
      this.#wrong(`${event.what} was told that the key is ${wanted}, which it never was between ${from} and ${to}`);
    }
  }

  /** What one client saw, one statement behind the other, does not go back. */
  #checkPrograms(): void {
    const reached = new Map<number, { readonly place: number; readonly what: string }>();
    for (const event of this.#events) {
      if (event.kind === 'claim' || event.version === null || event.kind === 'delete') continue;
      const state = this.#byVersion.get(event.version);
      if (state === undefined) continue;
      const place = this.#place.get(state)!;
      const before = reached.get(event.client);
      if (before !== undefined && place < before.place) {
        this.#wrong(`${event.what} met ${state.name} behind ${before.what}, which had met a later one`);
      }
      reached.set(event.client, { place, what: event.what });
    }
  }

  #wrong(problem: string): void {
    this.#problems.push(problem);
  }
}
