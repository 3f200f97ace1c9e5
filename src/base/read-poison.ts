// Tests only: memory that sockets read into again is spoilt as soon as it is said to be free, so that whoever has kept a view of it
// is found out by what his peer gets to see, however seldom two reads meet in the same memory otherwise.

const POISON = 0xaa;

let isOn = false;

/** From now on, for the whole process. */
export function poisonReads(): void {
  isOn = true;
}

/** The first bytes of `buffer` are nobody's any more. */
export function nobodyKeeps(buffer: Buffer, bytes: number): void {
  if (isOn) buffer.fill(POISON, 0, bytes);
}
