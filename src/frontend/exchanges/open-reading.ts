// Whether it is open how texts are to be read: what was sent may change client_encoding or standard_conforming_strings, and
// only its answer tells. Texts behind it wait, except in a batch, which is read as it began: without its Sync there is no answer.
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import { Effect, type Template } from '../../sql/plan/template.js';

/** Whether texts behind it may have to be read in another encoding, or with another meaning of backslashes. */
const mayChangeReading = ({ effects, settingNames }: Template): boolean =>
  (effects & Effect.unknown) !== 0 ||
  settingNames.some((name) => name === '*' || name === 'client_encoding' || name === 'standard_conforming_strings');

/** Open from when such a statement is sent until a connection is seen that owes nothing. */
export class OpenReading {
  #isOpen = false;

  sent(template: Template): void {
    if (mayChangeReading(template)) this.#isOpen = true;
  }

  /** @param connection the current lane's */
  awaited(connection: ServerConnection | null): boolean {
    if (!this.#isOpen) return false;
    // Without a Sync the answers would not come: a batch is read as it began.
    if (connection !== null && connection.replies.length > 0) return !connection.replies.unsynced();
    this.#isOpen = false;
    return false;
  }
}
