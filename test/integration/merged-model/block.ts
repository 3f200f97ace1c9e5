// What happens within one transaction: others see its writes at its COMMIT or never, itself sees them at once.
import type { KeyedEvent } from './asked.js';
import type { Span } from './key-events.js';
import type { World } from './world.js';

export class Block {
  readonly #world: World;
  readonly #writes: KeyedEvent[] = [];
  /** What it has made of a key: a version and value, or null where it is deleted. */
  readonly #own = new Map<string, { readonly version: number; readonly value: string } | null>();

  constructor(world: World) {
    this.#world = world;
  }

  /** Events of one statement; of each key there is one write at most. */
  add(events: readonly KeyedEvent[]): void {
    const seen: KeyedEvent[] = [];
    for (const [key, event] of events) {
      const id = `${key.tenant}/${key.name}`;
      const own = this.#own.get(id);
      if (event.kind === 'write' || event.kind === 'delete') {
        if (own !== undefined) throw new Error(`${event.what} is the second write of ${id} in a transaction`);
        this.#writes.push([key, event]);
        if (event.kind === 'delete') this.#own.set(id, null);
        else if (event.version !== null && typeof event.value === 'object') {
          this.#own.set(id, { version: event.version, value: event.value.text });
        }
      } else if (own === undefined) seen.push([key, event]);
      else if (event.kind === 'seen') {
        const isRight = own?.version === event.version && own.value === event.value;
        if (!isRight) this.#world.wrong(`${id}: ${event.what} sees ${event.version} ${event.value}, not its own write`);
      } else if (event.claim === (own === null ? 'present' : 'absent')) {
        this.#world.wrong(`${id}: ${event.what} is told that the key is ${event.claim} against its own write`);
      }
    }
    this.#world.record(seen);
  }

  /** @param at from when COMMIT was sent to when it was answered */
  committed(at: Span): readonly KeyedEvent[] {
    const events = this.#writes.map(([key, event]): KeyedEvent => [key, { ...event, ...at }]);
    this.#world.record(events);
    return events;
  }

  /** The client is gone, and nobody knows whether its COMMIT was done. */
  left(from: number): void {
    const unknown = { from, to: Number.POSITIVE_INFINITY, version: null, sure: false };
    this.#world.record(this.#writes.map(([key, event]): KeyedEvent => [key, { ...event, ...unknown } as typeof event]));
  }
}
