// Who waits for whom over all shards, by what their servers say, and which of them can never go on (R66). A transaction over
// several shards is one vertex, by its mark; any other session of a server is one of its own. Pure.
// Invariant: a circle within one server is left to that server, which ends it by itself.
import { isYounger, type LockMark } from './lock-mark.js';

/** A session that waits for a lock. */
export interface LockWait {
  readonly pid: number;
  /** When it began to, by its server: the same wait or another one. Empty: not known yet. */
  readonly since: string;
  /** Who holds it, or stands in front of it. */
  readonly blockers: readonly number[];
}

/** What one server shows. */
export interface ShardLocks {
  readonly shardName: string;
  readonly marks: readonly { readonly pid: number; readonly mark: LockMark }[];
  readonly waits: readonly LockWait[];
}

type Vertex = string;

interface Edge {
  readonly shardName: string;
  readonly pid: number;
  readonly from: Vertex;
  readonly to: Vertex;
}

/** By what tells one wait from another. */
export type WaitGraph = ReadonlyMap<string, Edge>;

/** A transaction that has to end, so that the others of its circle go on. */
export interface Victim {
  readonly mark: LockMark;
  /** Its sessions that wait in the circle. */
  readonly waits: readonly { readonly shardName: string; readonly pid: number }[];
  /** Transactions and sessions that wait for each other, and where. */
  readonly count: number;
  readonly shardNames: readonly string[];
}

export function waitGraph(shards: readonly ShardLocks[]): WaitGraph {
  const edges = new Map<string, Edge>();
  for (const { shardName, marks, waits } of shards) {
    const vertexOf = vertices(shardName, marks);
    const circling = ownCircles(waits);
    for (const { pid, since, blockers } of waits) {
      if (since === '' || circling.has(pid)) continue;
      for (const blocker of blockers) {
        const edge = { shardName, pid, from: vertexOf(pid), to: vertexOf(blocker) };
        if (edge.from !== edge.to) edges.set(`${shardName} ${pid} ${since} ${blocker} ${edge.from} ${edge.to}`, edge);
      }
    }
  }
  return edges;
}

/** What has been so at two looks was so all the time between: circles of it are no trick of looking at one server after the other. */
export function lasting(before: WaitGraph, now: WaitGraph): WaitGraph {
  return new Map([...now].filter(([key]) => before.has(key)));
}

/** One for each knot of circles: the youngest, which has done least. */
export function victims(graph: WaitGraph): Victim[] {
  const forward = neighbours(graph, 'from', 'to');
  const backward = neighbours(graph, 'to', 'from');
  const found: Victim[] = [];
  const seen = new Set<Vertex>();
  for (const start of forward.keys()) {
    if (seen.has(start)) continue;
    const behind = reached(backward, start);
    const knot = new Set([...reached(forward, start)].filter((vertex) => behind.has(vertex)));
    for (const vertex of knot) seen.add(vertex);
    if (knot.size > 1) found.push(...victimOf(knot, graph));
  }
  return found;
}

function victimOf(knot: ReadonlySet<Vertex>, graph: WaitGraph): Victim[] {
  const marks = [...knot].filter(isMark).sort();
  const [first, ...more] = marks;
  if (first === undefined) return [];
  const mark = more.reduce((youngest, one) => (isYounger(one, youngest) ? one : youngest), first);
  const inside = [...graph.values()].filter(({ from, to }) => knot.has(from) && knot.has(to));
  const waits = new Map(
    inside.filter(({ from }) => from === mark).map((edge) => [`${edge.shardName} ${edge.pid}`, edge]),
  );
  const shardNames = [...new Set(inside.map(({ shardName }) => shardName))].sort();
  return [{ mark, waits: [...waits.values()], count: knot.size, shardNames }];
}

const isMark = (vertex: Vertex): boolean => /^\d+$/.test(vertex);

/** Two sessions of one server with the same mark are not what they seem: each is its own. */
function vertices(shardName: string, marks: ShardLocks['marks']): (pid: number) => Vertex {
  const byPid = new Map<number, LockMark>();
  for (const { pid, mark } of marks) {
    // A block that was opened twice has two: its other branches have the later one.
    const other = byPid.get(pid);
    if (other === undefined || isYounger(mark, other)) byPid.set(pid, mark);
  }
  const counts = new Map<LockMark, number>();
  for (const mark of byPid.values()) counts.set(mark, (counts.get(mark) ?? 0) + 1);
  return (pid) => {
    const mark = byPid.get(pid);
    return mark !== undefined && counts.get(mark) === 1 ? mark : `${shardName} ${pid}`;
  };
}

/** Sessions of one server that wait for each other there. */
function ownCircles(waits: readonly LockWait[]): ReadonlySet<number> {
  const forward = new Map(waits.map(({ pid, blockers }) => [pid, blockers]));
  return new Set(waits.filter(({ pid }) => reachedFrom(forward, pid).has(pid)).map(({ pid }) => pid));
}

function neighbours(graph: WaitGraph, from: 'from' | 'to', to: 'from' | 'to'): Map<Vertex, Vertex[]> {
  const found = new Map<Vertex, Vertex[]>();
  for (const edge of graph.values()) {
    const more = found.get(edge[from]);
    if (more === undefined) found.set(edge[from], [edge[to]]);
    else more.push(edge[to]);
  }
  return found;
}

const reached = <Node>(next: ReadonlyMap<Node, readonly Node[]>, start: Node): Set<Node> =>
  reachedFrom(next, start).add(start);

/** `start` itself only where a way leads back to it. */
function reachedFrom<Node>(next: ReadonlyMap<Node, readonly Node[]>, start: Node): Set<Node> {
  const found = new Set<Node>();
  const open = [start];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    for (const one of next.get(node) ?? []) {
      if (found.has(one)) continue;
      found.add(one);
      open.push(one);
    }
  }
  return found;
}
