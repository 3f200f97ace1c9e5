// Is there an order of all operations on one object, each at a moment between the one at which it was called and the one at
// which it returned, in which every result is right? Wing and Gong's search with Lowe's cache of what was tried
// ("Testing for linearizability", 2017). Knows nothing of what an object is: states are strings, operations step from one
// to the next. An operation whose outcome nobody knows returns at no time: it may take place at any moment, or never,
// which is the same as behind all others.

export interface Operation {
  readonly call: number;
  /** Infinity: its outcome is not known. */
  readonly end: number;
  /** The state behind it, or null where its result is not the one it has in `state`. */
  step(state: string): string | null;
  readonly what: string;
}

export interface Verdict {
  /** `undecided`: too much would have to be tried. */
  readonly kind: 'linearizable' | 'impossible' | 'undecided';
  /** The longest order found, as far as it went. */
  readonly order: readonly Operation[];
}

const STEPS_MAX = 2_000_000;

/** A call or an end, in a list from which operations are taken out and put back. */
interface Entry {
  readonly operation: Operation;
  readonly index: number;
  /** Of a call its end; null in an end. */
  readonly match: Entry | null;
  before: Entry | null;
  after: Entry | null;
}

/** The entries in their order of time, behind a head that is none. */
function entriesOf(operations: readonly Operation[]): Entry {
  const all: { readonly at: number; readonly entry: Entry }[] = [];
  for (const [index, operation] of operations.entries()) {
    const end: Entry = { operation, index, match: null, before: null, after: null };
    const call: Entry = { operation, index, match: end, before: null, after: null };
    all.push({ at: operation.call, entry: call }, { at: operation.end, entry: end });
  }
  // What ends at the moment at which another is called may have been behind it.
  all.sort((one, other) =>
    one.at === other.at ? Number(one.entry.match === null) - Number(other.entry.match === null) : one.at - other.at,
  );
  const head: Entry = { operation: operations[0]!, index: -1, match: null, before: null, after: null };
  let last = head;
  for (const { entry } of all) {
    last.after = entry;
    entry.before = last;
    last = entry;
  }
  return head;
}

function takeOut(call: Entry): void {
  for (const entry of [call, call.match!]) {
    entry.before!.after = entry.after;
    if (entry.after !== null) entry.after.before = entry.before;
  }
}

function putBack(call: Entry): void {
  for (const entry of [call.match!, call]) {
    entry.before!.after = entry;
    if (entry.after !== null) entry.after.before = entry;
  }
}

export function linearize(initial: string, operations: readonly Operation[], stepsMax = STEPS_MAX): Verdict {
  if (operations.length === 0) return { kind: 'linearizable', order: [] };
  const head = entriesOf(operations);
  const tried = new Set<string>();
  const placed = Buffer.alloc(operations.length);
  const chosen: { readonly call: Entry; readonly state: string }[] = [];
  let longest: readonly Operation[] = [];
  let state = initial;
  let steps = 0;
  let entry = head.after;
  while (head.after !== null) {
    if (++steps > stepsMax) return { kind: 'undecided', order: longest };
    if (entry !== null && entry.match !== null) {
      const next = entry.operation.step(state);
      placed[entry.index] = 1;
      const key = next === null ? '' : `${placed.toString('latin1')}${next}`;
      if (next !== null && !tried.has(key)) {
        tried.add(key);
        chosen.push({ call: entry, state });
        if (chosen.length > longest.length) longest = chosen.map(({ call }) => call.operation);
        state = next;
        takeOut(entry);
        entry = head.after;
        continue;
      }
      placed[entry.index] = 0;
      entry = entry.after;
      continue;
    }
    // The first to end has no place: what was chosen last was wrong.
    const last = chosen.pop();
    if (last === undefined) return { kind: 'impossible', order: longest };
    state = last.state;
    placed[last.call.index] = 0;
    putBack(last.call);
    entry = last.call.after;
  }
  return { kind: 'linearizable', order: chosen.map(({ call }) => call.operation) };
}
