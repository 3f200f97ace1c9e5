// A Template as caches keep it: copied, so that it holds nothing but itself, and weighed on the way. What it is made from is full
// of slices that would keep whole texts alive (a megabyte of values for the sake of a column's name), of arrays with room to
// grow, and of the same string several times.
import type { KvPlan } from './plan/kv-plan.js';
import type { Template } from './plan/template.js';
import { isLatin1, stringBytes } from './text-budget.js';

/** V8's header of an object, and of an array with its elements; a field or an element is a pointer. */
const OBJECT_BYTES = 24;
/** A copied object has room for so many fields, and the others in an array of their own, which grows by three. */
const INLINE_FIELDS = 4;
const MORE_FIELDS_BYTES = 16;
const MORE_FIELDS_STEP = 3;
const ARRAY_BYTES = 48;
const POINTER_BYTES = 8;
const TEMPLATE_FIELDS = 26;
/** Shorter strings are never slices of others. */
const SLICE_MIN = 13;
/** A plan that is run leaves a MergedStatement on each lane, and a count of its parameters: 260 bytes, seen over 3,000. */
const RUN_BYTES = 260;
/** Fields that hold words of pgkv's own, which all templates share, and a table, which is the view's. */
const SHARED: ReadonlySet<string> = new Set(['kind', 'verb', 'role', 'code', 'function', 'table']);

const NONE: readonly never[] = [];

/** @returns the same template, with `bytes` */
export function compactTemplate(template: Template): Template {
  const copier = new Copier();
  copier.bytes = OBJECT_BYTES + TEMPLATE_FIELDS * POINTER_BYTES;
  const { kinds, kv } = template;
  // Written out, so that all templates have the one layout.
  const compact = {
    kind: template.kind,
    effects: template.effects,
    settingNames: copier.copy(template.settingNames),
    statementNames: copier.copy(template.statementNames),
    // Those of a single statement are one array for all templates.
    kinds: kinds.length === 1 ? kinds : copier.copy(kinds),
    endsFailure: template.endsFailure,
    readOnly: template.readOnly,
    showName: copier.copy(template.showName),
    leavesBlock: template.leavesBlock,
    textDependent: template.textDependent,
    beginsBy: template.beginsBy,
    setsOtherIsolation: template.setsOtherIsolation,
    kv: copier.copy(kv),
    neutral: template.neutral,
    readsCatalogue: template.readsCatalogue,
    releases: template.releases,
    releasesUntilEnd: template.releasesUntilEnd,
    takesSnapshot: template.takesSnapshot,
    movable: template.movable,
    saidAgain: copier.copy(template.saidAgain),
    backendCall: copier.copy(template.backendCall),
    copyOut: copier.copy(template.copyOut),
    copyIn: copier.copy(template.copyIn),
    explainsRoute: template.explainsRoute,
    notice: copier.copy(template.notice),
    bytes: 0,
  };
  compact.bytes = copier.bytes + (kv?.kind === 'kv' ? bytesOfRuns(kv) : 0);
  return compact;
}

/** What is kept of a plan once it is run. */
function bytesOfRuns({ scatter }: KvPlan): number {
  let bytes = RUN_BYTES;
  // What is combined is kept twice more, as it was sent last (combine-statement.ts).
  if (scatter.kind === 'combine') for (const part of scatter.finalText) bytes += 2 * String(part).length;
  return bytes;
}

class Copier {
  bytes = 0;
  readonly #strings = new Map<string, string>();

  /** What is frozen is shared by all (refusals.ts), and stays as it is. */
  copy<Value>(value: Value): Value {
    return this.#copy(value) as Value;
  }

  #copy(value: unknown): unknown {
    if (typeof value === 'string') return this.#string(value);
    if (typeof value !== 'object' || value === null) return value;
    if (Array.isArray(value)) return this.#array(value);
    if (Object.isFrozen(value)) return value;
    // Field by field: a spread of unlike objects makes V8 keep a layout for each copy (390 bytes a plan).
    const copy: Record<string, unknown> = {};
    const names = Object.keys(value);
    this.bytes += objectBytes(names.length);
    for (const name of names) {
      const field = (value as Record<string, unknown>)[name];
      copy[name] = SHARED.has(name) ? field : this.#copy(field);
    }
    return copy;
  }

  #array(value: readonly unknown[]): readonly unknown[] {
    if (value.length === 0) return NONE;
    const copy = value.slice();
    this.bytes += ARRAY_BYTES + copy.length * POINTER_BYTES;
    for (let index = 0; index < copy.length; index++) copy[index] = this.#copy(copy[index]);
    return copy;
  }

  #string(value: string): string {
    const known = this.#strings.get(value);
    if (known !== undefined) return known;
    const copy = value.length < SLICE_MIN ? value : flat(value);
    this.#strings.set(value, copy);
    this.bytes += stringBytes(copy);
    return copy;
  }
}

function objectBytes(fields: number): number {
  const more = Math.ceil(Math.max(0, fields - INLINE_FIELDS) / MORE_FIELDS_STEP) * MORE_FIELDS_STEP;
  return OBJECT_BYTES + (INLINE_FIELDS + more) * POINTER_BYTES + (more > 0 ? MORE_FIELDS_BYTES : 0);
}

/** The same string, in memory of its own. */
export function flat(text: string): string {
  const encoding = isLatin1(text) ? 'latin1' : 'utf16le';
  return Buffer.from(text, encoding).toString(encoding);
}
