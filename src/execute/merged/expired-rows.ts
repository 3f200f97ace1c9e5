// Whether INSERTs of one statement reap the rows that have expired and stand in their way (D9) in the same statement, or
// run by themselves where one does (R46). The first costs each a quarter more, the second those few three times as much.
// Where too many were met the next members reap, twice as many each time that this happens anew.

const REAPING_MIN = 256;
const REAPING_MAX = 65_536;
/** Of the members of a batch: one in so many. */
const TOO_MANY = 16;

export class ExpiredRows {
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
  met(absent: number, members: number): void {
    if (absent * TOO_MANY > members) {
      this.#reaping = this.#next;
      this.#next = Math.min(REAPING_MAX, 2 * this.#next);
    } else if (absent === 0 && this.#next > REAPING_MIN) this.#next = Math.max(REAPING_MIN, this.#next - members);
  }
}
