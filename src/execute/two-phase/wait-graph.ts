// Who waits for whom over all shards, by what their servers say, and which of them can never go on (R66). A transaction over
// several shards is one vertex, by its mark; any other session of a server is one of its own. Pure.
// Invariants: a circle within one server is left to that server, which ends it by itself; the work is linear in the blockers, of
// which a queue for one lock has half the square of its length: each stands in front of all behind it.
import { Links } from './links.js';
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

/** Of what waits in circles, by what tells one wait from another. Most that wait do in a queue, and are not in it. */
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
  const links = new Links<Vertex>();
  const servers = shards.map(({ shardName, marks, waits }) => {
    const vertexOf = vertices(shardName, marks);
    const circling = ownCircles(waits);
    const counted = waits.filter(({ pid, since }) => since !== '' && !circling.has(pid));
    for (const { pid, blockers } of counted) {
      const from = vertexOf(pid);
      for (const blocker of blockers) links.add(from, vertexOf(blocker));
    }
    return { shardName, vertexOf, waits: counted };
  });
  const knotOf = byMember(links.knots());
  const edges = new Map<string, Edge>();
  for (const { shardName, vertexOf, waits } of servers) {
    for (const { pid, since, blockers } of waits) {
      const from = vertexOf(pid);
      const knot = knotOf.get(from);
      if (knot === undefined) continue;
      for (const blocker of blockers) {
        const to = vertexOf(blocker);
        if (from === to || knotOf.get(to) !== knot) continue;
        edges.set(`${shardName} ${pid} ${since} ${blocker} ${from} ${to}`, { shardName, pid, from, to });
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
  const links = new Links<Vertex>();
  for (const { from, to } of graph.values()) links.add(from, to);
  const knots = links.knots();
  const knotOf = byMember(knots);
  const inside = new Map<readonly Vertex[], Edge[]>(knots.map((knot) => [knot, []]));
  for (const edge of graph.values()) {
    const knot = knotOf.get(edge.from);
    if (knot !== undefined && knotOf.get(edge.to) === knot) inside.get(knot)!.push(edge);
  }
  return [...inside].flatMap(([knot, edges]) => victimOf(knot, edges));
}

function victimOf(knot: readonly Vertex[], inside: readonly Edge[]): Victim[] {
  const [first, ...more] = knot.filter(isMark).sort();
  if (first === undefined) return [];
  const mark = more.reduce((youngest, one) => (isYounger(one, youngest) ? one : youngest), first);
  const waits = new Map(
    inside.filter(({ from }) => from === mark).map((edge) => [`${edge.shardName} ${edge.pid}`, edge]),
  );
  const shardNames = [...new Set(inside.map(({ shardName }) => shardName))].sort();
  return [{ mark, waits: [...waits.values()], count: knot.length, shardNames }];
}

const byMember = <Name>(knots: readonly (readonly Name[])[]): ReadonlyMap<Name, readonly Name[]> =>
  new Map(knots.flatMap((knot) => knot.map((name) => [name, knot])));

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
  const known = new Map<number, Vertex>();
  return (pid) => {
    let vertex = known.get(pid);
    if (vertex === undefined) {
      const mark = byPid.get(pid);
      vertex = mark !== undefined && counts.get(mark) === 1 ? mark : `${shardName} ${pid}`;
      known.set(pid, vertex);
    }
    return vertex;
  };
}

/** Sessions of one server that wait for each other there. */
function ownCircles(waits: readonly LockWait[]): ReadonlySet<number> {
  const links = new Links<number>();
  const found = new Set<number>();
  for (const { pid, blockers } of waits) {
    for (const blocker of blockers) {
      if (blocker === pid) found.add(pid);
      else links.add(pid, blocker);
    }
  }
  for (const pid of links.knots().flat()) found.add(pid);
  return found;
}
