// Whether a session has run code that may have set something under a name it made up: no probe can see that, and no statement
// takes it back. What follows from code that has been read is proven; where the database's routines were not known it is
// assumed, and judged anew when they are (R26).
// Invariant: `assumed` holds every word of every text that was noted under an assumption, and is judged by routines that were read
// behind the last of them. (Code of others that has come and gone between is not known then.)
import { mayHideSettings, mayHideSettingsItself, type Routines } from '../../backend/pool/routines.js';

/** What words are kept to be judged anew, in UTF-16 units; beyond, the worst is taken for proven. */
const WORDS_MAX = 65_536;

type State =
  | { readonly kind: 'none' | 'proven' }
  | { readonly kind: 'assumed'; epoch: number; readonly words: Set<string>; length: number };

const NONE: State = { kind: 'none' };
const PROVEN: State = { kind: 'proven' };

export class HiddenSettings {
  #state: State = NONE;

  get kind(): State['kind'] {
    return this.#state.kind;
  }

  prove(): void {
    this.#state = PROVEN;
  }

  clear(): void {
    this.#state = NONE;
  }

  /** The text brings code that others' code may be called by, which is not known yet. */
  assume(text: string, epoch: number): void {
    if (this.#state.kind !== 'proven') this.#addWords(text, epoch);
  }

  /**
   * Code is about to run that `text` brings along or calls, or that nobody sees.
   * @param epoch of the schema: routines of another one cannot tell what ran
   */
  note(text: string, routines: Routines | null, epoch: number): void {
    if (this.#state.kind === 'proven' || !mayHideSettings(text, routines)) return;
    if (routines?.isAssumed !== true || mayHideSettingsItself(text)) return this.prove();
    this.#addWords(text, epoch);
  }

  #addWords(text: string, epoch: number): void {
    const state = this.#state.kind === 'assumed' ? this.#state : this.#assumed(epoch);
    state.epoch = epoch;
    // The name of a routine is looked for in runs of these letters.
    for (const word of text.toLowerCase().match(/[a-z0-9_$]+/g) ?? []) {
      if (state.words.has(word)) continue;
      state.words.add(word);
      state.length += word.length;
    }
    if (state.length > WORDS_MAX) this.prove();
  }

  /** What was assumed can be judged by these. */
  isCoveredBy(routines: Routines): boolean {
    return this.#state.kind === 'assumed' && !routines.isAssumed && routines.epoch >= this.#state.epoch;
  }

  /** The routines are known now. Returns whether something was assumed of them, and is not any more. */
  judge(routines: Routines): boolean {
    const state = this.#state;
    if (state.kind !== 'assumed' || !this.isCoveredBy(routines)) return false;
    const text = [...state.words].join(' ');
    this.#state = routines.makesUpUnseen || routines.mentionsMaker?.test(text) === true ? PROVEN : NONE;
    return true;
  }

  #assumed(epoch: number): State & { kind: 'assumed' } {
    const state: State = { kind: 'assumed', epoch, words: new Set(), length: 0 };
    this.#state = state;
    return state;
  }
}
