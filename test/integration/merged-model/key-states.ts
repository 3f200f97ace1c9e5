// The states of a key, and who can have made those that nobody was told to have made.
import { type Expiry, NEVER, type SeenEvent, type Span, type WriteEvent } from './key-events.js';

const ANY_TIME: Span & { readonly what: string } = {
  from: Number.NEGATIVE_INFINITY,
  to: Number.POSITIVE_INFINITY,
  what: 'somebody',
};

/** Clocks of Postgres and of this process are one; Date.now() leaves out what is below a millisecond. */
export const CLOCK_MARGIN_MS = 10;

export type Maker = Span & { readonly what: string };

export class State {
  /** null: the key is absent. */
  readonly version: number | null;
  value: string | null;
  /** The statement that made it; null where none is known yet. */
  writer: WriteEvent | null;
  /** Of states nobody made: expiry, the beginning. */
  maker: Maker;
  expiry: Expiry = NEVER;
  readonly seen: SeenEvent[] = [];
  earliest = Number.NEGATIVE_INFINITY;
  latest = Number.POSITIVE_INFINITY;
  earliestBy = '';
  latestBy = '';

  constructor(version: number | null, value: string | null, writer: WriteEvent | null, maker: Maker = ANY_TIME) {
    this.version = version;
    this.value = value;
    this.writer = writer;
    this.maker = writer ?? maker;
  }

  get name(): string {
    return this.version === null ? 'absent' : `version ${this.version}`;
  }
}

/** A state that nobody was told to have made. */
export interface Gap {
  readonly state: State;
  readonly isBirth: boolean;
}

const fits = (write: WriteEvent, { state, isBirth }: Gap): boolean =>
  write.makes !== (isBirth ? 'update' : 'birth') && write.from <= state.latest && write.to >= state.earliest;

/** Who filled the gaps, as many as that is possible for; writes that `must` have are placed before others. */
export function chooseMakers(
  gaps: readonly Gap[],
  writes: Iterable<WriteEvent>,
  must: (write: WriteEvent) => boolean,
): ReadonlyMap<Gap, WriteEvent> {
  const all = [...writes];
  const gapOf = new Map<WriteEvent, Gap>();
  const writeOf = new Map<Gap, WriteEvent>();
  // Augmenting paths: what has a place keeps one, so whatever is placed first stays placed.
  const place = (write: WriteEvent, tried: Set<Gap>): boolean => {
    for (const gap of gaps) {
      if (tried.has(gap) || !fits(write, gap)) continue;
      tried.add(gap);
      const other = writeOf.get(gap);
      if (other !== undefined && !place(other, tried)) continue;
      gapOf.set(write, gap);
      writeOf.set(gap, write);
      return true;
    }
    return false;
  };
  for (const write of all.filter(must)) place(write, new Set());
  for (const write of all.filter(({ sure }) => sure)) if (!gapOf.has(write)) place(write, new Set());
  for (const write of all) if (!gapOf.has(write)) place(write, new Set());
  // Those that were answered go by the order of that: no two can then be the wrong way round.
  for (const isBirth of [true, false]) {
    const answered = gaps.filter((gap) => gap.isBirth === isBirth && writeOf.get(gap)?.sure === true);
    const inOrder = answered.map((gap) => writeOf.get(gap)!).sort((a, b) => a.to - b.to);
    for (const [index, gap] of answered.entries()) writeOf.set(gap, inOrder[index]!);
  }
  return writeOf;
}

export function firstToEnd<Event extends Span>(candidates: readonly Event[]): Event | null {
  let first: Event | null = null;
  for (const candidate of candidates) if (first === null || candidate.to < first.to) first = candidate;
  return first;
}

export function expiryOf({ expiry, maker }: State): Maker {
  // A write that had to wait may be done only when its row has expired already.
  const to = Math.max(expiry.high, maker.to) + CLOCK_MARGIN_MS;
  return { from: expiry.low - CLOCK_MARGIN_MS, to, what: 'expiry' };
}
