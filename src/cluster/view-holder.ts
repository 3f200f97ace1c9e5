// The one place where a view is replaced by the next (D5). Readers take `current` once for each statement and keep it.
import { assert } from '../base/assert.js';
import type { ClusterView } from './cluster-view.js';

export type ViewListener = (next: ClusterView, previous: ClusterView) => void;

export class ViewHolder {
  #current: ClusterView;
  readonly #listeners = new Set<ViewListener>();

  constructor(first: ClusterView) {
    this.#current = first;
  }

  get current(): ClusterView {
    return this.#current;
  }

  /** Makes `next` the current view, then tells the listeners, in the order they came. Its epoch has to be a later one. */
  swap(next: ClusterView): void {
    const previous = this.#current;
    assert(next.epoch > previous.epoch, `view of epoch ${next.epoch} cannot follow epoch ${previous.epoch}`);
    this.#current = next;
    for (const listener of [...this.#listeners]) listener(next, previous);
  }

  /** Calls `listener` after each swap until the returned function is called. */
  onChange(listener: ViewListener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }
}
