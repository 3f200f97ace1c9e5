// What the code of the database may do to the session that is about to run some: what was read of it (routine-lookup.ts), and what
// the session's own DDL has brought since, which nobody has read yet: in the transaction that is open, nobody else can.
// Invariant: where DDL of anybody has gone through that neither covers, the worst is assumed.
import { customNamesIn } from '../../backend/pool/made-up-settings.js';
import type { NodePool } from '../../backend/pool/node-pool.js';
import type { PoolGroup } from '../../backend/pool/pool-group.js';
import { mayBringState, mayHideSettings, mayHideSettingsItself, type Routines } from '../../backend/pool/routines.js';
import { Effect, type EffectBits, type StatementKind, type Template } from '../../sql/plan/template.js';

/** What runs no code. The end of a transaction may: deferred triggers, held cursors. */
const WITHOUT_CODE: ReadonlySet<StatementKind> = new Set(['empty', 'show', 'set', 'begin', 'rollback', 'savepoint']);
/** Custom settings that own code names. Beyond, any may be meant. */
const NAMES_MAX = 1_000;
/** Texts of code that are longer, in UTF-16 units, are not searched for names of settings. */
export const SEARCHED_MAX = 1024 * 1024;

/** What code may do to its session: leave nothing; leave what can be asked for; or set something under a name nobody knows. */
export type CodeReach = 'nothing' | 'leaves' | 'hides';

export class CodeAtHand {
  /** What the statement taken last may run of the session's own making. */
  runs: CodeReach = 'nothing';
  readonly #pool: NodePool;
  readonly #group: PoolGroup;
  /** What the session's own DDL has brought that may not have been read. */
  #brought: CodeReach = 'nothing';
  readonly #names = new Set<string>();
  /** Those routines hold up to this epoch of the schema: all DDL since they were read is the session's own. */
  #own: { readonly routines: Routines; readonly epoch: number } | null = null;

  constructor(pool: NodePool, group: PoolGroup) {
    this.#pool = pool;
    this.#group = group;
  }

  /** Custom settings that own code names. */
  get names(): ReadonlySet<string> {
    return this.#names;
  }

  get broughtNothing(): boolean {
    return this.#brought === 'nothing';
  }

  /** What holds at this moment for what others have made; null where nothing was ever read. */
  get routines(): Routines | null {
    const { routines } = this.#group;
    const epoch = this.#pool.schemaEpoch;
    if (routines === null || routines.epoch === epoch) return routines;
    if (this.#pool.adoptRoutines(this.#group)) return this.#group.routines;
    if (this.#own !== null && this.#own.epoch === epoch) return this.#own.routines;
    this.#pool.refreshRoutines(this.#group);
    return this.#group.routines;
  }

  /**
   * A statement is about to be sent. Returns what it may leave: whatever the triggers and views of its database may do, a write
   * or a read may do.
   * @param isClean nothing that was sent before has left anything, or may have changed the schema
   */
  take({ effects, kind, readOnly }: Template, text: string, isClean: boolean): EffectBits {
    this.runs = 'nothing';
    if (WITHOUT_CODE.has(kind)) return effects;
    const { routines } = this;
    if (routines === null) return effects;
    if (isClean && this.#brought !== 'nothing' && routines.epoch === this.#pool.schemaEpoch) this.forget();
    const isDdl = (effects & Effect.schema) !== 0;
    // In one text, what stands behind the DDL runs what it has brought.
    if (isDdl && kind === 'multi') this.#bring(text, routines);
    this.runs = this.#brought;
    if (isDdl && kind !== 'multi') this.#bring(text, routines);
    const hidden = routines.readsLeaveState || (!readOnly && routines.writesLeaveState) || this.runs !== 'nothing';
    return hidden ? effects | Effect.unknown : effects;
  }

  /** DDL of the session has gone through: tells everybody. */
  announce(): void {
    const { routines } = this;
    const { schemaEpoch } = this.#pool;
    const isSound = routines !== null && (routines.epoch === schemaEpoch || this.#own?.epoch === schemaEpoch);
    this.#pool.schemaChanged();
    this.#own = isSound ? { routines, epoch: this.#pool.schemaEpoch } : null;
  }

  /** The connection has gone to somebody else: who gets the next one waits until all is read. */
  forget(): void {
    this.#brought = 'nothing';
    this.#own = null;
    this.#names.clear();
  }

  #bring(text: string, routines: Routines): void {
    // To search a long one would keep others waiting.
    if (text.length > SEARCHED_MAX) {
      this.#brought = 'hides';
      return;
    }
    // What others may have brought is judged when it is known (hidden-settings.ts).
    const hides = routines.isAssumed ? mayHideSettingsItself(text) : mayHideSettings(text, routines);
    if (hides) this.#brought = 'hides';
    else if (this.#brought === 'nothing' && mayBringState(text, routines)) this.#brought = 'leaves';
    if (this.#brought === 'nothing') return;
    for (const name of customNamesIn(text)) this.#names.add(name);
    if (this.#names.size > NAMES_MAX) this.#brought = 'hides';
  }
}
