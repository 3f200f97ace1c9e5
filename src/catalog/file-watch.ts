// Tells of later states of a catalogue's file, by the system's notices and by looking.
import { type FSWatcher, watch as watchFolder } from 'node:fs';
import { basename, dirname } from 'node:path';
import { messageOf } from '../base/errors.js';
import { CatalogError } from './catalog-error.js';
import { type CatalogState, parseCatalog, renderCatalog } from './catalog-state.js';
import { readContent, signatureOf } from './state-file.js';

export interface FileWatchOptions {
  readonly place: string;
  readonly pollMs: number;
  /** What is known already. */
  readonly state: CatalogState | null;
  readonly changed: (state: CatalogState) => void;
  /** Called once for each content that is no later state. */
  readonly failed: (error: Error) => void;
}

/** Tells of each later state until it is stopped. One reading at a time; a change meanwhile leads to another one. */
export class FileWatch {
  readonly #options: FileWatchOptions;
  readonly #timer: NodeJS.Timeout;
  #watcher: FSWatcher | null;
  #state: CatalogState | null;
  /** Of the file that was last read: unequal means read again. */
  #signature = '';
  #checking = false;
  #stopped = false;

  constructor(options: FileWatchOptions) {
    this.#options = options;
    this.#state = options.state;
    this.#watcher = this.#watchFolder();
    this.#timer = setInterval(() => void this.#check(), options.pollMs);
    this.#timer.unref();
    void this.#check();
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
    this.#closeWatcher();
  }

  /** The folder, not the file: a rename replaces the file that would be watched. */
  #watchFolder(): FSWatcher | null {
    const name = basename(this.#options.place);
    try {
      const watcher = watchFolder(dirname(this.#options.place), { persistent: false }, (_event, file) => {
        if (file === name || file === null) void this.#check();
      });
      // From here on polling alone does it.
      return watcher.on('error', () => this.#closeWatcher());
    } catch {
      // No such folder, or no watches left on this machine: the same.
      return null;
    }
  }

  #closeWatcher(): void {
    this.#watcher?.close();
    this.#watcher = null;
  }

  async #check(): Promise<void> {
    if (this.#checking) return;
    this.#checking = true;
    try {
      for (;;) {
        const signature = await signatureOf(this.#options.place);
        if (this.#stopped || signature === this.#signature) return;
        // Holds where it cannot be opened; else that of the content counts, which may be a later one already.
        this.#signature = signature;
        const found = await readContent(this.#options.place);
        if (this.#stopped) return;
        if (found !== null) this.#signature = found.signature;
        this.#take(found === null ? null : parseCatalog(found.text, this.#options.place));
      }
    } catch (error) {
      if (!this.#stopped) this.#options.failed(error instanceof Error ? error : new Error(messageOf(error)));
    } finally {
      this.#checking = false;
    }
  }

  #take(next: CatalogState | null): void {
    const previous = this.#state;
    const fault = previous === null ? null : this.#faultOf(next, previous);
    if (fault !== null) {
      this.#options.failed(
        new CatalogError(fault, { hint: 'What was in force stays in force until the router is restarted.' }),
      );
    } else if (next !== null && next.epoch !== previous?.epoch) {
      this.#state = next;
      this.#options.changed(next);
    }
  }

  #faultOf(next: CatalogState | null, previous: CatalogState): string | null {
    if (next === null) return `the catalogue ${this.#options.place} is gone`;
    if (next.epoch < previous.epoch) {
      return `the catalogue ${this.#options.place} went back from epoch ${previous.epoch} to ${next.epoch}`;
    }
    const isEdited = next.epoch === previous.epoch && renderCatalog(next) !== renderCatalog(previous);
    return isEdited
      ? `the catalogue ${this.#options.place} was changed without a later epoch than ${next.epoch}`
      : null;
  }
}
