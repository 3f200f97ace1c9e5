// What a client knows of its transaction from what it was told: tags and errors. Every ReadyForQuery has to agree with it.
// A tag does not tell everything (ROLLBACK TO and ROLLBACK have the same), so a set of statuses is kept that are possible.

/** What a text may hold beyond what its tag says; more than it does hold only makes the check weaker. */
export const TEXT = { chain: 1, rollbackTo: 2, ends: 4, begins: 8 } as const;

const CHAIN = /\bchain\b/i;
const ROLLBACK_TO = /\b(?:rollback|abort)\b[\s\S]*\bto\b/i;
const BEGINS = /\b(?:begin|start)\b/i;
const ENDS = /\b(?:commit|end|rollback|abort|prepare)\b/i;

export function traitsOf(text: string): number {
  const begins = BEGINS.test(text) ? TEXT.begins : 0;
  if (!ENDS.test(text)) return begins;
  return begins | TEXT.ends | (CHAIN.test(text) ? TEXT.chain : 0) | (ROLLBACK_TO.test(text) ? TEXT.rollbackTo : 0);
}

/** Connection exceptions (08P01 is one of the client's making), and blocks that are rolled back with their connection. */
export const tellsLoss = (sqlstate: string): boolean =>
  sqlstate === '40001' || (sqlstate.startsWith('08') && sqlstate !== '08P01');

const IDLE = 1;
const OPEN = 2;
const FAILED = 4;
const BITS: Readonly<Record<string, number>> = { I: IDLE, T: OPEN, E: FAILED };

export class TransactionTold {
  #possible = IDLE;

  /** A statement has succeeded. Returns what is wrong about that, or null. */
  completed(tag: string, traits: number): string | null {
    const before = this.#possible;
    switch (tag) {
      case 'ROLLBACK':
        this.#possible = IDLE | (traits & (TEXT.chain | TEXT.rollbackTo) ? OPEN : 0);
        return null;
      case 'COMMIT':
      case 'PREPARE TRANSACTION':
        this.#possible = IDLE | (traits & TEXT.chain ? OPEN : 0);
        break;
      case 'BEGIN':
      case 'START TRANSACTION':
        this.#possible = OPEN;
        break;
      case 'SAVEPOINT':
      case 'RELEASE':
        this.#possible = OPEN;
        if ((before & OPEN) === 0) return `${tag} succeeded outside a transaction block that is in order`;
        break;
      default:
        this.#possible = before & ~FAILED;
    }
    if (before === FAILED) {
      this.#possible = before;
      return `${tag} succeeded in a transaction that has failed`;
    }
    return null;
  }

  /** @param traits of the text that failed where it was being run, else 0 */
  failed(traits: number): void {
    const inBlock = this.#possible & (OPEN | FAILED);
    const idle = this.#possible & IDLE || (inBlock && traits & TEXT.ends) ? IDLE : 0;
    // A BEGIN that is lost fails the block: what is pipelined behind it must not run by itself (D27).
    const hasFailed = inBlock || traits & TEXT.begins;
    this.#possible = idle | (hasFailed ? FAILED : 0);
  }

  /**
   * Returns what is wrong about the status, or null.
   * @param inBatch of a simple query or FunctionCall behind something executed in a batch: what is open may be the batch's transaction alone
   */
  ready(status: string, inBatch = false): string | null {
    const bit = BITS[status];
    if (bit === undefined) return `ReadyForQuery has the status ${JSON.stringify(status)}`;
    const possible = this.#possible;
    this.#possible = bit;
    if (inBatch && possible & IDLE && bit === OPEN) {
      // Its Sync will end it.
      this.#possible = IDLE | OPEN;
      return null;
    }
    if (bit & possible) return null;
    const expected = Object.keys(BITS).filter((letter) => BITS[letter]! & possible);
    return `ReadyForQuery says ${status} where the client was told what means ${expected.join(' or ')}`;
  }
}
