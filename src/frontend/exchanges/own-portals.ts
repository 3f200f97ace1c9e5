// Portals of the extended protocol that no server knows: reads over several shards, and what pgkv answers itself. Invariant: a
// name stands for one portal, here or on the server; unnamed ones and those outside a block end with their batch.
import { assert } from '../../base/assert.js';
import type { Handling } from '../../execute/exchange.js';
import { stringEnd } from '../../wire/client-messages.js';
import { encodeErrorResponse } from '../../wire/error-fields.js';
import { Frontend } from '../../wire/protocol.js';
import { BIND_COMPLETE, CLOSE_COMPLETE } from '../../wire/server-messages.js';
import type { Unit } from '../unit/unit.js';
import type { ClientOutput } from './client-output.js';

export interface OwnPortal {
  /** @param executeFollows the Execute of this portal is the next message, and has arrived */
  describe(executeFollows: boolean): void;
  /** @param rowsMax rows after which the portal is suspended; 0: never */
  execute(rowsMax: number): void;
  /** Ends whatever the portal still has under way. */
  close(): void;
}

const PORTAL = 0x50;
export const OWN_PORTALS_MAX = 100;

export class OwnPortals {
  readonly #portals = new Map<string, OwnPortal>();
  readonly #output: ClientOutput;

  constructor(output: ClientOutput) {
    this.#output = output;
  }

  get size(): number {
    return this.#portals.size;
  }

  /** The portal's name in a Bind message, as bytes in latin1. */
  static nameIn({ buffer, start, end }: Unit): string {
    return buffer.toString('latin1', start + 5, Math.max(stringEnd(buffer, start + 5, end), start + 5));
  }

  /** Whether a portal of that name is here and must be closed before another takes the name: those without a name need not. */
  taken(name: string): boolean {
    return name !== '' && this.#portals.has(name);
  }

  /** Answers a Bind. */
  bind(name: string, portal: OwnPortal): void {
    this.#close(name);
    this.#portals.set(name, portal);
    this.#output.send(BIND_COMPLETE);
  }

  /** A Bind goes to a server: the unnamed portal is another one from now on. */
  boundElsewhere(unit: Unit): void {
    if (this.#portals.size > 0 && unit.buffer[unit.start + 5] === 0) this.#close('');
  }

  /** Whether it is a Describe, Execute or Close of a portal that is here. */
  has(unit: Unit): boolean {
    return this.#portals.size > 0 && this.#found(unit) !== undefined;
  }

  /** Takes such a message. */
  take(unit: Unit): Handling {
    const { type, buffer, end } = unit;
    const found = this.#found(unit);
    assert(found !== undefined, 'only what is about a portal here is taken');
    const { name, portal, nameEnd } = found;
    if (type === Frontend.execute) portal.execute(nameEnd + 5 <= end ? buffer.readInt32BE(nameEnd + 1) : 0);
    else if (type === Frontend.describe) portal.describe(buffer[end] === Frontend.execute);
    else {
      this.#close(name);
      this.#output.send(CLOSE_COMPLETE);
    }
    return 'taken';
  }

  #found({ type, buffer, start, end }: Unit): { name: string; portal: OwnPortal; nameEnd: number } | undefined {
    const isExecute = type === Frontend.execute;
    if (!isExecute && type !== Frontend.describe && type !== Frontend.close) return undefined;
    if (!isExecute && buffer[start + 5] !== PORTAL) return undefined;
    const nameStart = isExecute ? start + 5 : start + 6;
    const nameEnd = stringEnd(buffer, nameStart, end);
    if (nameEnd < 0) return undefined;
    const name = buffer.toString('latin1', nameStart, nameEnd);
    const portal = this.#portals.get(name);
    return portal === undefined ? undefined : { name, portal, nameEnd };
  }

  /** A batch has ended outside a block, or a block has. */
  closeAll(): void {
    if (this.#portals.size === 0) return;
    for (const name of [...this.#portals.keys()]) this.#close(name);
  }

  #close(name: string): void {
    const portal = this.#portals.get(name);
    if (portal === undefined) return;
    this.#portals.delete(name);
    portal.close();
  }
}

/** In Postgres's words. */
export const cursorExists = (name: string): Buffer =>
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '42P03', M: `cursor "${name}" already exists` });
