// Statements of the extended protocol as the merged lane knows them: which of them are one to it (texts that differ in nothing
// but the literals of their keys), and what is constant in each, read once. A `BoundStatement` belongs to a StatementSource,
// a `SharedStatement` to all sources that are run together; the latter are kept within a bound, and one that is pushed out
// is merely no longer shared with new sources.
import { LRUCache } from 'lru-cache';
import type { StatementSource } from '../../backend/replies/statement-source.js';
import { type KeyPlaces, keyPlaces } from '../../route/bound-slot.js';
import { StatementValues } from '../../route/key-values.js';
import {
  type LiftedText,
  type LiteralRef,
  liftKeys,
  ofLifted,
  type SingleStatement,
} from '../../sql/batch/batch-statement.js';
import type { KvPlan } from '../../sql/plan/kv-plan.js';
import type { Template } from '../../sql/plan/template.js';
import { UTF8 } from '../../sql/text/client-encoding.js';
import { stringBytes } from '../../sql/text-budget.js';

/** Of shared statements: about what they hold, the client's text and literals included until they are proven. */
const SHARED_BYTES_MAX = 2 * 1024 * 1024;
const ENTRY_BYTES = 1024;
const BEYOND_ASCII = /[\u0080-\uffff]/;

/** What sources have in common that are run together. */
export class SharedStatement {
  /** Of the source that came first. */
  readonly template: Template;
  /** Literals that are no keys are in it: other texts of the shape are other statements. */
  readonly keepsLiterals: boolean;
  /** It was offered before: one with literals of its own may never come again, and is not worth asking a server about. */
  wasSeen = false;
  #make: (() => SingleStatement | null) | null;
  #single: SingleStatement | null = null;

  constructor(template: Template, keepsLiterals: boolean, make: () => SingleStatement | null) {
    this.template = template;
    this.keepsLiterals = keepsLiterals;
    this.#make = make;
  }

  /** Null where it cannot be run for many. */
  get single(): SingleStatement | null {
    if (this.#make !== null) this.#single = this.#make();
    this.#make = null;
    return this.#single;
  }
}

/** The values of literals that stand behind those of a Bind. */
export interface Constants {
  readonly bytes: Buffer;
  /** Start and length of each. */
  readonly offsets: readonly number[];
}

export interface BoundStatement {
  readonly shared: SharedStatement;
  readonly constants: Constants;
  /** Null where `route` has to say where a Bind goes. */
  readonly places: KeyPlaces | null;
}

export class BoundStatements {
  readonly #bySource = new WeakMap<StatementSource, BoundStatement | null>();
  readonly #shared = new LRUCache<string, SharedStatement>({
    maxSize: SHARED_BYTES_MAX,
    sizeCalculation: (_, key) => 3 * stringBytes(key) + ENTRY_BYTES,
  });

  /** Null where what its text says cannot be read with certainty. */
  of(source: StatementSource, plan: KvPlan): BoundStatement | null {
    let bound = this.#bySource.get(source);
    if (bound === undefined) {
      bound = this.#read(source, plan);
      this.#bySource.set(source, bound);
    }
    return bound;
  }

  #read(source: StatementSource, plan: KvPlan): BoundStatement | null {
    const { text, rewritten, parameterTypes } = source;
    const literals = rewritten?.literals ?? [];
    const values = new StatementValues(text, literals, null, rewritten?.encoding ?? UTF8);
    const lifted = liftKeys(plan, text, literals);
    const constants = constantsOf(lifted.lifted, values, rewritten?.encoding.isUtf8 ?? true);
    if (constants === null) return null;
    return {
      shared: this.#sharedOf(source, plan, lifted),
      constants,
      places: keyPlaces(plan, parameterTypes, values),
    };
  }

  #sharedOf(source: StatementSource, plan: KvPlan, lifted: LiftedText): SharedStatement {
    const { text, rewritten, parameterTypes, scope } = source;
    // No text has a NUL in it.
    const key = [scope.key, rewritten?.encoding.name ?? '', parameterTypes.join(), lifted.text].join('\0');
    let shared = this.#shared.get(key);
    if (shared === undefined) {
      const literals = rewritten?.literals ?? [];
      const make = (): SingleStatement | null => ofLifted(plan, text, literals, lifted, parameterTypes);
      shared = new SharedStatement(source.template, lifted.keepsLiterals, make);
      this.#shared.set(key, shared);
    }
    return shared;
  }
}

const NO_CONSTANTS: Constants = { bytes: Buffer.alloc(0), offsets: [] };

function constantsOf(refs: readonly LiteralRef[], values: StatementValues, isUtf8: boolean): Constants | null {
  if (refs.length === 0) return NO_CONSTANTS;
  const parts: Buffer[] = [];
  const offsets: number[] = [];
  let at = 0;
  for (const ref of refs) {
    const value = values.text(ref);
    // In another encoding it would have to be said in its characters.
    if (typeof value !== 'string' || (!isUtf8 && BEYOND_ASCII.test(value))) return null;
    const bytes = Buffer.from(value);
    parts.push(bytes);
    offsets.push(at, bytes.length);
    at += bytes.length;
  }
  return { bytes: Buffer.concat(parts), offsets };
}
