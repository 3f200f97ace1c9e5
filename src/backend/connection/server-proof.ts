// The proof that every connection to one node owes before its first use: asks who is there, keeps what proven connections
// have taught of the node, and the last reason why one was turned away. Invariant: `fault` is null exactly while the last
// connection opened to the node was the server that is expected, or none was asked yet.
import { askIdentity, type ExpectedServer, identityQuestions, mismatch } from './server-identity.js';
import type { ControlSender } from './settings-change.js';

export class ServerProof {
  /** Why the node is not used, in one sentence. */
  fault: string | null = null;
  readonly #expected: () => ExpectedServer;
  readonly #changed: (fault: string | null) => void;
  /** System identifier of a server that has said it is the shard, where the catalogue has none. */
  #learnt: string | null = null;

  /**
   * @param expected by the view in force
   * @param changed hears when the node turns out to be another server, and when the right one is back
   */
  constructor(expected: () => ExpectedServer, changed: (fault: string | null) => void = () => undefined) {
    this.#expected = expected;
    this.#changed = changed;
  }

  /**
   * Asks a connection that has just logged in to `database`.
   * @param done hears null when it may be used, else why not
   * @returns whether there was nothing to ask; `done` is then not called
   */
  ask(connection: ControlSender, database: string, done: (fault: string | null) => void): boolean {
    const questions = identityQuestions(this.#expected(), database);
    if (questions.length === 0) return true;
    askIdentity(connection, questions, (found) => {
      const expected = this.#expected();
      const saysState = expected.database === database;
      const systemIdentifier = expected.systemIdentifier ?? (saysState ? null : this.#learnt);
      const fault =
        typeof found === 'string'
          ? `the server does not tell who it is: ${found}`
          : mismatch({ ...expected, systemIdentifier }, saysState, found);
      if (fault === null && typeof found !== 'string' && found.shard !== null) this.#learnt = found.systemIdentifier;
      this.#turn(fault);
      done(fault);
    });
    return false;
  }

  #turn(fault: string | null): void {
    if (fault === this.fault) return;
    this.fault = fault;
    this.#changed(fault);
  }
}
