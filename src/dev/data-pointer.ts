// The two files that tie an asked-for data directory to a home elsewhere: a pointer in the first, the owner's path in
// the second. Invariant: a home is used by the one directory that its owner file names and that points back, so that a
// moved project keeps its data, a copied one does not share them, and a removed one releases them.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { errnoOf } from '../catalog/errno.js';
import { EmbeddedClusterError } from './embedded-cluster-error.js';
import { replaceFile } from './replace-file.js';

const POINTER_FILE = 'location.json';
const OWNER_FILE = 'owner.json';

/** The home that `asked` points to and may use; undefined if it has none. */
export function pointedHome(asked: string, stateRoot: string): string | undefined {
  const home = readPointer(asked, stateRoot);
  return home === undefined || isAnothers(home, asked, stateRoot) ? undefined : home;
}

/** A name for the home of `asked` that no other directory uses. It may exist: then `asked` was removed and made again. */
export function chooseHome(asked: string, stateRoot: string): string {
  const name = createHash('sha256').update(asked).digest('hex').slice(0, 16);
  for (let copy = 1; ; copy++) {
    const home = join(resolve(stateRoot), copy === 1 ? name : `${name}-${copy}`);
    if (!existsSync(home) || !isAnothers(home, asked, stateRoot)) return home;
  }
}

export function writePointer(asked: string, home: string): void {
  replaceFile(join(asked, POINTER_FILE), `${JSON.stringify({ dataDir: home })}\n`);
}

export function writeOwner(home: string, asked: string): void {
  replaceFile(join(home, OWNER_FILE), `${JSON.stringify({ askedFor: asked })}\n`);
}

function isAnothers(home: string, asked: string, stateRoot: string): boolean {
  const owner = readField(join(home, OWNER_FILE), 'askedFor');
  return owner !== undefined && owner !== asked && readPointer(owner, stateRoot) === home;
}

function readPointer(asked: string, stateRoot: string): string | undefined {
  const path = join(asked, POINTER_FILE);
  const home = readField(path, 'dataDir');
  // Root follows it, so it may lead nowhere else.
  if (home === undefined || dirname(resolve(home)) === resolve(stateRoot)) return home;
  throw new EmbeddedClusterError(`${path} does not name a folder in ${stateRoot}`, {
    hint: `Remove ${asked} to start with an empty data directory.`,
  });
}

function readField(path: string, field: string): string | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))[field];
    return typeof value === 'string' ? value : undefined;
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw new EmbeddedClusterError(`${path} cannot be read`, {
      hint: 'Restore it, or remove its folder to start with an empty data directory.',
      cause: error,
    });
  }
}
