// What is said on a further shard to open there what a block, bound to another one, has come to (D31): its BEGIN, what it sets,
// its savepoints, in the client's order. Invariant: it is what servers have said is done; where that is not known, as of
// statements that were skipped, nothing is, and the block gets no further branch.
import { NEUTRAL_TEMPLATE, type Template } from '../sql/plan/template.js';
import { PreparedReads } from '../sql/prepared-reads.js';
import { mayNameTransaction, readSavepoint, type SavepointText } from '../sql/text/savepoint-text.js';
import { settingsOf } from './block-settings.js';
import { hasRoom, isRead, type Prologue, type PrologueStatement, type Say, withoutOptions } from './prologue.js';

const CONTROL: ReadonlySet<string> = new Set(['begin', 'commit', 'rollback', 'savepoint', 'set']);
export class BranchScript {
  /** As far as is known, each statement of the block sees what was committed before it. */
  isReadCommitted: boolean;
  /** Null: what was said is not known. */
  #settled: readonly PrologueStatement[] | null;
  /** By SQL, in it. */
  readonly #prepared = new PreparedReads();
  /** Sent, and not answered. */
  #pending: PrologueStatement[] = [];
  /** It has failed where no savepoint is, and so goes on by AND CHAIN alone: without its options, which the error has taken back. */
  #hasLostOptions = false;

  /** @param done how much of what was said servers have said to be done */
  constructor(prologue: Prologue, isReadCommitted: boolean, done: number) {
    this.isReadCommitted = isReadCommitted;
    this.#settled = together([], prologue.slice(0, done));
    this.#pending = prologue.slice(done);
  }

  /** Null: it is not known. */
  get statements(): readonly PrologueStatement[] | null {
    return this.#pending.length > 0 || this.#settled?.length === 0 ? null : this.#settled;
  }

  /** Those whose answers are to come, too. */
  get said(): readonly PrologueStatement[] | null {
    return this.#settled === null ? null : [...this.#settled, ...this.#pending];
  }

  /** A statement of the block is about to be sent on its branch. */
  sent(template: Template, text: string, say: Say): void {
    if (this.#settled === null || template === NEUTRAL_TEMPLATE) return;
    if (template.setsOtherIsolation) this.isReadCommitted = false;
    if (template.movable) {
      if (template.readOnly || template.releases) return;
      const said = say(template, text);
      // Of such a text a part may be done where it fails.
      const isOne = template.kinds.length === 1 || !template.kinds.includes('savepoint');
      if (isOne && hasRoom([...this.#settled, ...this.#pending], said)) this.#pending.push({ template, text, said });
      else this.#settled = null;
    } else if (this.#prepared.takes(text)) return;
    else if (settingsOf(template) !== 'nothing' || template.kinds.some((kind) => CONTROL.has(kind))) {
      this.#settled = null;
    }
  }

  /** All that was sent is done. */
  done(): void {
    if (this.#hasLostOptions) {
      this.#settled = this.#settled === null ? null : [withoutOptions(this.#settled[0]!)];
      this.#hasLostOptions = false;
    }
    if (this.#pending.length === 0) return;
    if (this.#settled !== null) this.#settled = together(this.#settled, this.#pending);
    this.#pending = [];
  }

  /** Something of it has failed. @param alone no more than one statement was under way */
  failed(alone: boolean): void {
    this.#prepared.forget();
    if (this.#pending.length > 0 && !alone) this.#settled = null;
    this.#pending = [];
    const { statements } = this;
    this.#hasLostOptions =
      statements !== null && !statements.some(isSavepoint) && !PLAIN_BEGIN.test(statements[0]!.text);
  }
}

const PLAIN_BEGIN = /^\s*(?:begin|start)(?:\s+(?:work|transaction))?\s*;?\s*$/i;
const isSavepoint = ({ template }: PrologueStatement): boolean => template.kinds.includes('savepoint');

function together(
  script: readonly PrologueStatement[],
  more: readonly PrologueStatement[],
): readonly PrologueStatement[] | null {
  let all: readonly PrologueStatement[] | null = script;
  for (const next of more) if (all !== null && !isRead(next)) all = followedBy(all, next);
  return all;
}

/** What opens a block with the options of one that was opened so; null: they are not told by its BEGIN alone. */
export function beginOf([first, ...more]: readonly PrologueStatement[]): PrologueStatement | null {
  if (first?.template.kind !== 'begin') return null;
  const isOption = ({ template, text }: PrologueStatement): boolean =>
    template.kind === 'begin' || (template.kind !== 'savepoint' && mayNameTransaction(text));
  return more.some(isOption) ? null : first;
}

/** A savepoint that is gone is not said again: a block may make any number, one after the other. Null: it is not known. */
function followedBy(
  script: readonly PrologueStatement[],
  next: PrologueStatement,
): readonly PrologueStatement[] | null {
  const { kind, leavesBlock } = next.template;
  if (leavesBlock !== null && kind !== 'begin') {
    const begin = kind === 'commit' || kind === 'rollback' ? beginOf(script) : null;
    return begin === null ? null : [begin];
  }
  const said = savepointOf(next);
  // One that cannot be told by its text would be missed later.
  if (said === null) return next.template.kinds.includes('savepoint') ? null : [...script, next];
  if (said.verb === 'savepoint') return [...script, next];
  const at = script.findLastIndex((one) => {
    const made = savepointOf(one);
    return made?.verb === 'savepoint' && made.name === said.name;
  });
  if (at < 0) return [...script, next];
  // Those behind it go with it; what was set behind it stays, or is taken back.
  if (said.verb === 'rollback') return script.slice(0, at + 1);
  return [...script.slice(0, at), ...script.slice(at).filter((one) => savepointOf(one) === null)];
}

/** Null: it is none that can be told by its text. */
const savepointOf = ({ template, text }: PrologueStatement): SavepointText | null =>
  template.kind === 'savepoint' && template.kinds.length === 1 ? readSavepoint(text) : null;
