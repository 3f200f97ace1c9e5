// Whether it is open how texts are to be read: what was sent may change client_encoding or standard_conforming_strings, and
// only its answer tells; and where they were changed in a block, the answer to anything in it that may fail, or end it. Texts
// behind that wait, except in a batch, which is read as it began: without its Sync there is no answer.
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import type { TextReading } from '../../backend/replies/statement-source.js';
import type { Session } from '../../session/session.js';
import { Effect, type Template } from '../../sql/plan/template.js';

/** Whether texts behind it may have to be read in another encoding, or with another meaning of backslashes. */
const mayChangeReading = ({ effects, settingNames }: Template): boolean =>
  (effects & Effect.unknown) !== 0 ||
  settingNames.some((name) => name === '*' || name === 'client_encoding' || name === 'standard_conforming_strings');

/**
 * `settled`; `open` from when such a statement is sent until a connection is seen that owes nothing; from then on, where its
 * block goes on in which the reading has become another one, `undoable` until that has ended.
 */
export class OpenReading {
  #state: 'settled' | 'open' | 'undoable' = 'settled';
  /** As texts were read before that. */
  #before: TextReading | null = null;
  readonly #session: Session;

  constructor(session: Session) {
    this.#session = session;
  }

  sent(template: Template): void {
    if (this.#state !== 'settled' || !mayChangeReading(template)) return;
    this.#state = 'open';
    this.#before = this.#session.textReading;
  }

  /** @param connection the current lane's */
  awaited(connection: ServerConnection | null, inBlock: boolean): boolean {
    if (this.#state === 'settled') return false;
    // Without a Sync the answers would not come: a batch is read as it began.
    if (connection !== null && connection.replies.length > 0) return !connection.replies.unsynced();
    const isUndoable = inBlock && (this.#state === 'undoable' || this.#session.textReading !== this.#before);
    this.#state = isUndoable ? 'undoable' : 'settled';
    return false;
  }
}
