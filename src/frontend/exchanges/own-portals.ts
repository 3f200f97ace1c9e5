// Portals of the extended protocol that no server knows: reads over several shards, and what pgkv answers itself; and the names
// of those that servers have, or had when their part of the batch ended (D12), so that what is asked of one that was left is
// refused with the reason. Invariant: a name stands for one portal, here or on a server; unnamed ones and those outside a
// block end with their batch; there are not more than OWN_PORTALS_MAX here, nor more than NAMES_MAX that can be left.
import { assert } from '../../base/assert.js';
import { PgkvError } from '../../base/errors.js';
import { refusalError, refuse } from '../../base/refusals.js';
import type { Handling } from '../../execute/exchange.js';
import { stringEnd } from '../../wire/client-messages.js';
import { encodeErrorResponse } from '../../wire/error-fields.js';
import { Frontend } from '../../wire/protocol.js';
import { BIND_COMPLETE, CLOSE_COMPLETE } from '../../wire/server-messages.js';
import { portalIn } from '../unit/named-statements.js';
import type { Unit } from '../unit/unit.js';
import type { ClientOutput } from './client-output.js';
import { KeptBytes } from './kept-rows.js';

export interface OwnPortal {
  /** Its statement ends a block, which it may though that has failed. */
  readonly endsBlock: boolean;
  /** It has failed with its block: there is none where that goes on. */
  isGone?: boolean;
  /** @param executeFollows the Execute of this portal is the next message, and has arrived */
  describe(executeFollows: boolean): void;
  /** @param rowsMax rows after which the portal is suspended; 0: never */
  execute(rowsMax: number): void;
  /** Ends whatever the portal still has under way. */
  close(): void;
}

const PORTAL = 0x50;
export const OWN_PORTALS_MAX = 100;
/** Names of portals on servers that are kept: with more, a batch stays on its shard. */
export const NAMES_MAX = 1000;

export class OwnPortals {
  /** What all of them keep. */
  readonly kept = new KeptBytes();
  readonly #portals = new Map<string, OwnPortal>();
  /** Those on servers, by whether their server has been left since. */
  readonly #elsewhere = new Map<string, 'there' | 'left'>();
  readonly #output: ClientOutput;

  constructor(output: ClientOutput) {
    this.#output = output;
  }

  /** Why a Bind may not make its portal here; null: it may. */
  obstacle(name: string): Buffer | PgkvError | null {
    // Those without a name give way.
    if (this.#isTaken(name) || this.#elsewhere.has(name)) return name === '' ? null : cursorExists(name);
    if (this.#portals.size < OWN_PORTALS_MAX) return null;
    const message = `a limit of pgkv was exceeded: ${OWN_PORTALS_MAX} portals of pgkv's own are open`;
    return new PgkvError('limit_exceeded', { message });
  }

  #isTaken(name: string): boolean {
    const portal = this.#portals.get(name);
    return portal !== undefined && portal.isGone !== true;
  }

  /** The same for a portal on a server. */
  obstacleElsewhere(unit: Unit): Buffer | null {
    if ((this.#portals.size === 0 && this.#elsewhere.size === 0) || unit.buffer[unit.start + 5] === 0) return null;
    const name = portalIn(unit);
    // Where the server that has one gets the Bind, it says so itself.
    return this.#isTaken(name) || this.#elsewhere.get(name) === 'left' ? cursorExists(name) : null;
  }

  /** Answers a Bind. @param tell by which */
  bind(name: string, portal: OwnPortal, tell = (message: Buffer): void => this.#output.send(message)): void {
    this.close(name);
    this.#portals.set(name, portal);
    tell(BIND_COMPLETE);
  }

  /** A simple query comes that has a statement: it drops the portal without a name. */
  queryComes(): void {
    if (this.#portals.size > 0 || this.#elsewhere.size > 0) this.close('');
  }

  /** A Bind goes to a server: the portal of that name is another one from now on. */
  boundElsewhere(name: string): void {
    if (this.#portals.size > 0) this.close(name);
    if (this.#elsewhere.size <= NAMES_MAX) this.#elsewhere.set(name, 'there');
  }

  /** Portals with names are on the server of the current lane, perhaps: they cannot be made anew on another one. */
  get haveNamesThere(): boolean {
    for (const [name, place] of this.#elsewhere) if (name !== '' && place === 'there') return true;
    return false;
  }

  /** All that the server of the current lane has can be told from what is there later. */
  get mayLeave(): boolean {
    return this.#elsewhere.size <= NAMES_MAX;
  }

  /** Those on the server of the current lane end there, before their batch does. */
  leave(): void {
    for (const name of this.#elsewhere.keys()) this.#elsewhere.set(name, 'left');
  }

  /** Why a Describe or Execute cannot be served, of a portal that was left; null: it is none. */
  leftBehind(unit: Unit): PgkvError | null {
    const named = this.#elsewhere.size === 0 ? null : portalNamed(unit);
    if (named === null) return null;
    if (unit.type === Frontend.close) {
      // Whatever server gets it says that it is closed, whether or not it has one.
      this.#elsewhere.delete(named.name);
      return null;
    }
    const isLeft = this.#elsewhere.get(named.name) === 'left';
    return isLeft ? refusalError(refuse('portal_left', { name: shownName(named.name) })) : null;
  }

  /** The one without a name gives way on the server of the current lane. */
  leaveUnnamed(): void {
    if (this.#elsewhere.has('')) this.#elsewhere.set('', 'left');
  }

  /** Those on servers may be gone: a block has failed, or its connection is lost. */
  forgetElsewhere(): void {
    this.#elsewhere.clear();
  }

  /** Whether it is a Describe, Execute or Close of a portal that is here. */
  has(unit: Unit): boolean {
    return this.#portals.size > 0 && this.#found(unit) !== undefined;
  }

  /** Which one a Describe, Execute or Close names. */
  named(unit: Unit): OwnPortal | null {
    return this.#found(unit)?.portal ?? null;
  }

  /** Whether a block that has failed refuses what such a message asks for. */
  isRefusedInFailed(unit: Unit): boolean {
    return unit.type !== Frontend.close && this.#found(unit)?.portal.endsBlock !== true;
  }

  /** Takes such a message. */
  take(unit: Unit): Handling {
    const { type, buffer, end } = unit;
    const found = this.#found(unit);
    assert(found !== undefined, 'only what is about a portal here is taken');
    const { name, portal, nameEnd } = found;
    // As in Postgres, a negative count is none.
    if (type === Frontend.execute)
      portal.execute(nameEnd + 5 <= end ? Math.max(buffer.readInt32BE(nameEnd + 1), 0) : 0);
    else if (type === Frontend.describe) portal.describe(behindAt(name, buffer, end) === 'execute');
    else {
      this.close(name);
      this.#output.send(CLOSE_COMPLETE);
    }
    return 'taken';
  }

  #found(unit: Unit): { name: string; portal: OwnPortal; nameEnd: number } | undefined {
    const named = portalNamed(unit);
    const portal = named === null ? undefined : this.#portals.get(named.name);
    return portal === undefined ? undefined : { ...named!, portal };
  }

  /** A batch has ended outside a block, or a block has. */
  closeAll(): void {
    if (this.#elsewhere.size > 0) this.#elsewhere.clear();
    if (this.#portals.size === 0) return;
    for (const name of [...this.#portals.keys()]) this.close(name);
  }

  close(name: string): void {
    this.#elsewhere.delete(name);
    const portal = this.#portals.get(name);
    if (portal === undefined) return;
    this.#portals.delete(name);
    portal.close();
  }
}

/** The portal, in latin1, that a Describe, Execute or Close names. */
function portalNamed({ type, buffer, start, end }: Unit): { readonly name: string; readonly nameEnd: number } | null {
  const isExecute = type === Frontend.execute;
  if (!isExecute && type !== Frontend.describe && type !== Frontend.close) return null;
  if (!isExecute && buffer[start + 5] !== PORTAL) return null;
  const nameStart = isExecute ? start + 5 : start + 6;
  const nameEnd = stringEnd(buffer, nameStart, end);
  return nameEnd < 0 ? null : { name: buffer.toString('latin1', nameStart, nameEnd), nameEnd };
}

/** As the client spells it. */
const spelled = (name: string): string => Buffer.from(name, 'latin1').toString('utf8');

const shownName = (name: string): string => (name === '' ? 'the portal without a name' : `portal "${spelled(name)}"`);

/** Whether the portal that a Describe names is executed by the next message, as far as that has arrived. */
export function isRunNext(unit: Unit): boolean {
  const named = portalNamed(unit);
  return named !== null && behindAt(named.name, unit.buffer, unit.end) === 'execute';
}

/** What comes behind a Bind; `unknown`: it has not arrived. */
type Behind = 'execute' | 'other' | 'unknown';

/** Whether an Execute of that portal has begun to arrive at `start`, its name included. */
function behindAt(name: string, buffer: Buffer, start: number): Behind {
  const end = start + 5 + name.length;
  if (start < buffer.length && buffer[start] !== Frontend.execute) return 'other';
  if (end >= buffer.length) return 'unknown';
  return buffer[end] === 0 && buffer.toString('latin1', start + 5, end) === name ? 'execute' : 'other';
}

/** Whether what comes next is the Execute of the portal that the Bind makes, or its Describe and then that. */
export function behindBind({ buffer, start, end }: Unit): Behind {
  const name = portalIn({ buffer, start, end });
  if (buffer[end] !== Frontend.describe) return behindAt(name, buffer, end);
  const nameEnd = end + 6 + name.length;
  if (nameEnd >= buffer.length) return 'unknown';
  const isIts = buffer[end + 5] === PORTAL && buffer[nameEnd] === 0;
  return isIts && buffer.toString('latin1', end + 6, nameEnd) === name ? behindAt(name, buffer, nameEnd + 1) : 'other';
}

/** The same, as far as it has arrived. */
export const isExecutedNext = (unit: Unit): boolean => behindBind(unit) === 'execute';

/** In Postgres's words. */
const cursorExists = (name: string): Buffer =>
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '42P03', M: `cursor "${spelled(name)}" already exists` });

export const noPortal = (name: string): Buffer =>
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '34000', M: `portal "${spelled(name)}" does not exist` });

export const noStatement = (name: string): Buffer => {
  const called = name === '' ? 'unnamed prepared statement' : `prepared statement "${name}"`;
  return encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '26000', M: `${called} does not exist` });
};

/** A portal of what gives no rows can be run once. */
export const cannotBeRun = (name: string): Buffer =>
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '55000', M: `portal "${spelled(name)}" cannot be run` });
