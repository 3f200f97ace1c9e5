// A statement on a key as the model's clients ask it, and how its answer becomes events of the key's history.
import { type DeleteEvent, type KeyEvent, NEVER, type Span, type WriteEvent } from './key-events.js';
import type { Answer, Parameter, Statement } from './wire-forms.js';

export interface Key {
  readonly tenant: string;
  readonly name: string;
}

/** What is wrong with this one on purpose: no JSON, against the CHECK, no key, a division by zero or a version that is no number. */
export type Mishap = 'cast' | 'check' | 'null' | 'other';

export interface Draw {
  readonly key: Key;
  /** Keys of one {tag}, `key` among them. */
  readonly group: readonly Key[];
  /** Unique, and part of every value written. */
  readonly nonce: string;
  readonly mishap: Mishap | null;
  /** The version of `key` that this client met last; 1 where it met none. */
  readonly version: number;
  readonly client: number;
  random(below: number): number;
}

export type KeyedEvent = readonly [Key, KeyEvent];

export interface Asked extends Statement {
  readonly kind: string;
  readonly key: Key;
  readonly writes: boolean;
  /** The error that it has to get, or may get instead of no row; its fields name `mention`. */
  readonly mishap: { readonly code: string; readonly mention: string } | null;
  /** What an answer without an error says, or what is wrong with it. */
  judge(rows: Answer['rows'], span: Span, tag: string): readonly KeyedEvent[] | string;
  /** What an error says that is no mishap; null: it is not expected. */
  onError(code: string, span: Span): readonly KeyedEvent[] | null;
  /** What may have happened where no answer came. */
  unanswered(from: number): readonly KeyedEvent[];
}

/** What Date.now() was at moment 0 of performance.now(). */
export const WALL_START = Date.now() - performance.now();

export const CAST_CODE = '22P02';
const DIVISION_CODE = '22012';
export const DUPLICATE_CODE = '23505';
const PADDING_MAX = 600;

export type Build = (draw: Draw) => Asked;

export type Judge = (rows: Answer['rows'], say: Say, tag: string) => readonly KeyedEvent[] | string;

/** Makes events of one statement. */
export class Say {
  readonly #draw: Draw;
  readonly #what: string;
  readonly span: Span;

  constructor(draw: Draw, kind: string, span: Span) {
    this.#draw = draw;
    this.#what = `${kind} ${draw.nonce}`;
    this.span = span;
  }

  get #base() {
    return { ...this.span, client: this.#draw.client, what: this.#what };
  }

  write(event: Pick<WriteEvent, 'makes' | 'value' | 'version'> & Partial<WriteEvent>): KeyedEvent {
    const expiries = { expiryOfBirth: NEVER, expiryOfUpdate: 'kept' as const };
    return [this.#draw.key, { ...this.#base, kind: 'write', sure: true, ...expiries, ...event }];
  }

  gone(version: number | null, sure = true): KeyedEvent {
    const event: DeleteEvent = { ...this.#base, kind: 'delete', version, sure };
    return [this.#draw.key, event];
  }

  seen(version: string | null, value: string | null, expiry?: string | null, key = this.#draw.key): KeyedEvent {
    const told = expiry === undefined ? {} : { expiry: expiry === null ? null : Number(expiry) - WALL_START };
    return [key, { ...this.#base, kind: 'seen', version: Number(version), value: value ?? 'NULL', ...told }];
  }

  claim(claim: 'present' | 'absent' | { not: number }, key = this.#draw.key): KeyedEvent {
    return [key, { ...this.#base, kind: 'claim', claim }];
  }
}

export const text = (value: string | null): Parameter => ({ type: 'text', text: value });
export const int8 = (value: number): Parameter => ({ type: 'int8', text: String(value) });
export const jsonb = (value: string): Parameter => ({ type: 'jsonb', text: value });

/** The value that a statement writes; with its mishap, if any. */
export function writtenValue(draw: Draw): string {
  if (draw.mishap === 'cast') return `no${draw.nonce}`;
  const padding = draw.random(8) === 0 ? 'x'.repeat(draw.random(PADDING_MAX)) : '';
  return `"${draw.mishap === 'check' ? 'forbidden ' : ''}${draw.nonce}${padding}"`;
}

const CODES: Readonly<Record<Mishap, string>> = {
  cast: CAST_CODE,
  check: '23514',
  null: '23502',
  other: DIVISION_CODE,
};

interface Shape {
  readonly sql: string;
  readonly more?: readonly Parameter[];
  readonly columns?: Statement['columns'];
  /** Of draw.mishap, the ones that this kind can have; others are ignored. */
  readonly mishaps?: readonly Mishap[];
  readonly mishapCode?: string;
  readonly writes?: boolean;
  readonly judge: Judge;
  readonly onError?: (code: string, say: Say) => readonly KeyedEvent[] | null;
  readonly unanswered?: (say: Say) => readonly KeyedEvent[];
}

export const ROW: Statement['columns'] = [
  ['version', 'int8'],
  ['value', 'jsonb'],
];

export function asked(kind: string, draw: Draw, shape: Shape): Asked {
  const { mishaps = [], more = [], columns = [], unanswered, onError } = shape;
  const mishap = draw.mishap !== null && mishaps.includes(draw.mishap) ? draw.mishap : null;
  const code = shape.mishapCode ?? (mishap === null ? '' : CODES[mishap]);
  return {
    kind,
    key: draw.key,
    sql: shape.sql,
    parameters: [text(draw.key.tenant), text(mishap === 'null' ? null : draw.key.name), ...more],
    columns,
    writes: shape.writes ?? unanswered !== undefined,
    mishap: mishap === null ? null : { code, mention: code === DIVISION_CODE ? 'zero' : draw.nonce },
    judge: (rows, span, tag) => {
      if (rows.length > 1 && !shape.sql.includes(' key in ') && !shape.sql.includes(' any('))
        return `${rows.length} rows`;
      return shape.judge(rows, new Say(draw, kind, span), tag);
    },
    onError: (its, span) => onError?.(its, new Say(draw, kind, span)) ?? null,
    unanswered: (from) => {
      if (mishap !== null) return [];
      return unanswered?.(new Say(draw, kind, { from, to: Number.POSITIVE_INFINITY })) ?? [];
    },
  };
}
