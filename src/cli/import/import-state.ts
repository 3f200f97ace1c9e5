// How far an import has come, in a file beside it: replaced as a whole, and on disk before anything goes on. It is written behind
// the commit of each chunk; so the first chunk of an import that goes on may be there already, which is looked up.
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { messageOf } from '../../base/errors.js';
import { CommandFailure, unreadable } from '../command-failure.js';

export interface ImportCounts {
  /** Rows of the source that were looked at. */
  read: number;
  written: number;
  /** They were there, with that value and ttl. */
  present: number;
  /** Their ttl was over before they were written: they are no rows. */
  expired: number;
  /** What was there under their key was left as it is. */
  kept: number;
  /** The target did not take them. */
  unfit: number;
  /** Read back, they were not there, or otherwise. */
  different: number;
}

export interface ImportState {
  /** What is imported, and how: another import does not go on from here. */
  readonly what: string;
  /** The key of the last row that is done, in the source's order; null: none is. */
  readonly position: readonly string[] | null;
  readonly counts: ImportCounts;
  /** Of the rows that are there now, as read from the source and as read back. */
  readonly sourceSum: string;
  readonly targetSum: string;
}

export const noCounts = (): ImportCounts => ({
  read: 0,
  written: 0,
  present: 0,
  expired: 0,
  kept: 0,
  unfit: 0,
  different: 0,
});

export class StateFile {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** @returns null: there is none. @throws CommandFailure for one that is no state, or of another import */
  read(what: string): ImportState | null {
    let text: string;
    try {
      text = readFileSync(this.path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw unreadable(1, this.path, error);
    }
    let state: ImportState;
    try {
      state = JSON.parse(text) as ImportState;
    } catch (error) {
      throw new CommandFailure(1, `${this.path} is not the state of an import`, 'Name another file by --state.', error);
    }
    if (state.what === what) return state;
    throw new CommandFailure(
      1,
      `${this.path} is the state of another import: ${state.what}`,
      `This one is ${what}. Name another file by --state, or remove that one to begin anew.`,
    );
  }

  write(state: ImportState): void {
    const next = `${this.path}.next`;
    try {
      withFile(next, 'w', (file) => {
        writeSync(file, `${JSON.stringify(state)}\n`);
        fsyncSync(file);
      });
      renameSync(next, this.path);
      withFile(dirname(this.path), 'r', fsyncSync);
    } catch (error) {
      throw new CommandFailure(1, `cannot write the state of the import: ${messageOf(error)}`, undefined, error);
    }
  }

  remove(): void {
    rmSync(this.path, { force: true });
  }
}

function withFile(path: string, flags: string, act: (file: number) => void): void {
  const file = openSync(path, flags, 0o600);
  try {
    act(file);
  } finally {
    closeSync(file);
  }
}
