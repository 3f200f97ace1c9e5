// Reading the file of a catalogue.
import type { BigIntStats } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { messageOf } from '../base/errors.js';
import { CatalogError } from './catalog-error.js';
import { type CatalogState, parseCatalog } from './catalog-state.js';
import { errnoOf } from './errno.js';

/** Null where there is no file. @throws CatalogError */
export async function readState(place: string): Promise<CatalogState | null> {
  const found = await readContent(place);
  return found === null ? null : parseCatalog(found.text, place);
}

export interface Content {
  readonly text: string;
  readonly signature: string;
}

/** Null where there is no file. */
export async function readContent(place: string): Promise<Content | null> {
  try {
    const file = await open(place, 'r');
    try {
      const signature = signatureFrom(await file.stat({ bigint: true }));
      return { signature, text: await file.readFile('utf8') };
    } finally {
      await file.close();
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw new CatalogError(`the catalogue ${place} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** Equal for equal content: a state is never changed in place. `ENOENT` where there is no file. */
export async function signatureOf(place: string): Promise<string> {
  try {
    return signatureFrom(await stat(place, { bigint: true }));
  } catch (error) {
    return `${errnoOf(error)}`;
  }
}

function signatureFrom({ ino, size, mtimeNs }: BigIntStats): string {
  return `${ino} ${size} ${mtimeNs}`;
}
