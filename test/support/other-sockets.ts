// Who has sockets in a test's process beside the router whose end is looked at: they come and go meanwhile, and are nobody's leftovers.

export interface SocketHolder {
  readonly socketCount: number;
}

const holders = new Set<SocketHolder>();

/** @returns takes it off */
export function holdsSockets(holder: SocketHolder): () => void {
  holders.add(holder);
  return () => holders.delete(holder);
}

/** Of all but that one. */
export function socketsOfOthers(one: SocketHolder | null): number {
  let count = 0;
  for (const holder of holders) if (holder !== one) count += holder.socketCount;
  return count;
}
