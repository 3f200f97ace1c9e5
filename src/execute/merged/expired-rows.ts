// Whether INSERTs of one statement reap the rows that have expired and stand in their way (D9) in the same statement, or
// run by themselves where one does (R46). The first costs each member a quarter more, the second those few three times as
// much: it pays up to one in twelve. So the level rises by twelve for each that met an expired row and falls by one for
// each member; from the top of it the next members reap, twice as many each time that it gets there again at once.

const WEIGHT = 12;
const LEVEL_MAX = 96;
/** Behind members that reaped: some more expired rows, and it is full again. */
const LEVEL_AFTER = LEVEL_MAX - 2 * WEIGHT;
const REAPING_MIN = 256;
const REAPING_MAX = 65_536;

export class ExpiredRows {
  #level = 0;
  /** Members that are still to reap. */
  #reaping = 0;
  #next = REAPING_MIN;

  /** Whether the next batch reaps. */
  takeReaping(members: number): boolean {
    if (this.#reaping <= 0) return false;
    this.#reaping -= members;
    return true;
  }

  /** A batch that did not reap has ended. */
  met(expired: number, members: number): void {
    this.#level = Math.max(0, this.#level + WEIGHT * expired - members);
    if (this.#level === 0) this.#next = REAPING_MIN;
    if (this.#level <= LEVEL_MAX) return;
    this.#level = LEVEL_AFTER;
    this.#reaping = this.#next;
    this.#next = Math.min(REAPING_MAX, 2 * this.#next);
  }
}
