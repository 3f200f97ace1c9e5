// Who leads to whom, and the knots of it: the largest sets of which each leads to each other (strongly connected components, by
// Tarjan's algorithm). Work: each link once, however long its chains are. Pure.

/** Of things known by name. */
export class Links<Name> {
  readonly #names: Name[] = [];
  readonly #numbers = new Map<Name, number>();
  readonly #next: number[][] = [];

  add(from: Name, to: Name): void {
    const next = this.#next[this.#numberOf(from)]!;
    next.push(this.#numberOf(to));
  }

  /** Those of several. */
  knots(): Name[][] {
    return knotsOf(this.#next).map((knot) => knot.map((node) => this.#names[node]!));
  }

  #numberOf(name: Name): number {
    let number = this.#numbers.get(name);
    if (number === undefined) {
      number = this.#names.push(name) - 1;
      this.#numbers.set(name, number);
      this.#next.push([]);
    }
    return number;
  }
}

/** @param next of each node those that it leads to */
export function knotsOf(next: readonly (readonly number[])[]): number[][] {
  const found: number[][] = [];
  /** In which order nodes were come to, from 1; the first of those, still open, that a way from here leads back to. */
  const order = new Int32Array(next.length);
  const earliest = new Int32Array(next.length);
  const followed = new Int32Array(next.length);
  const isOpen = new Uint8Array(next.length);
  const open: number[] = [];
  const path: number[] = [];
  let count = 0;
  const enter = (node: number): void => {
    order[node] = earliest[node] = ++count;
    isOpen[node] = 1;
    open.push(node);
    path.push(node);
  };
  const leave = (node: number): void => {
    path.pop();
    const before = path.at(-1);
    if (before !== undefined) earliest[before] = Math.min(earliest[before]!, earliest[node]!);
    if (earliest[node] !== order[node]) return;
    const knot = open.splice(open.lastIndexOf(node));
    for (const one of knot) isOpen[one] = 0;
    if (knot.length > 1) found.push(knot);
  };
  for (let start = 0; start < next.length; start++) {
    if (order[start] === 0) enter(start);
    for (let node = path.at(-1); node !== undefined; node = path.at(-1)) {
      const to = next[node]![followed[node]!++];
      if (to === undefined) leave(node);
      else if (order[to] === 0) enter(to);
      else if (isOpen[to] === 1) earliest[node] = Math.min(earliest[node]!, order[to]!);
    }
  }
  return found;
}
