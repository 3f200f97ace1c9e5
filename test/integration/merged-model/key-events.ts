// What can be said of a key: that it was written, deleted, seen, or found to be there or not, and in which span of time.

/** Milliseconds as of performance.now(). `to` is Infinity where no answer came. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** When a row expires: between these moments. */
export interface Expiry {
  readonly low: number;
  readonly high: number;
}

export const NEVER: Expiry = { low: Number.POSITIVE_INFINITY, high: Number.POSITIVE_INFINITY };

interface EventBase extends Span {
  readonly client: number;
  /** For messages. */
  readonly what: string;
}

export interface WriteEvent extends EventBase {
  readonly kind: 'write';
  /** What it can do: make the key, change it, or either. */
  readonly makes: 'birth' | 'update' | 'any';
  /** `kept`: the one before; `unknown`: anything. */
  readonly value: { readonly text: string } | 'kept' | 'unknown';
  /** null: it was not told, or nothing was. */
  readonly version: number | null;
  readonly expiryOfBirth: Expiry;
  readonly expiryOfUpdate: Expiry | 'kept';
  /** False: nobody knows whether it happened. */
  readonly sure: boolean;
}

export interface DeleteEvent extends EventBase {
  readonly kind: 'delete';
  readonly version: number | null;
  readonly sure: boolean;
}

export interface SeenEvent extends EventBase {
  readonly kind: 'seen';
  readonly version: number;
  readonly value: string;
  /** Milliseconds as of performance.now(), null: never; undefined: not asked for. */
  readonly expiry?: number | null;
}

/** At some moment of the span the key was there, was not, or had not that version. */
export interface ClaimEvent extends EventBase {
  readonly kind: 'claim';
  readonly claim: 'present' | 'absent' | { readonly not: number };
}

export type KeyEvent = WriteEvent | DeleteEvent | SeenEvent | ClaimEvent;
