// As whom the servers run. Postgres refuses root; root therefore hands them to an unprivileged user of /etc/passwd,
// everyone else runs them as themselves. Also owns the question whether that user can reach a path.
import { execFile } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf } from '../catalog/errno.js';
import { EmbeddedClusterError } from './embedded-cluster-error.js';

/** Undefined stands for "as ourselves". */
export interface ServerUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

const CANDIDATES = ['postgres', 'nobody'] as const;

/** Whom root lets its servers run as. The owner of data that is already there stays, so that it fits either way. */
export function chooseServerUser(existingShardDir: string | undefined): ServerUser | undefined {
  if (process.geteuid?.() !== 0) return undefined;
  const accounts = readAccounts();
  if (existingShardDir !== undefined) {
    const { uid, gid } = statSync(existingShardDir);
    if (uid !== 0) return { name: accounts.find((account) => account.uid === uid)?.name ?? `uid ${uid}`, uid, gid };
  }
  for (const name of CANDIDATES) {
    const found = accounts.find((account) => account.name === name && account.uid !== 0);
    if (found !== undefined) return found;
  }
  throw new EmbeddedClusterError(
    'Postgres does not run as root, and there is no user postgres or nobody to run it as',
    {
      hint: 'Add a user postgres, or start pgkv as an ordinary user.',
    },
  );
}

/** What to add to `spawn` options. Supplementary groups are dropped by Node when a uid is given. */
export function spawnAs(user: ServerUser | undefined): { uid?: number; gid?: number } {
  return user === undefined ? {} : { uid: user.uid, gid: user.gid };
}

/**
 * The first folder on the way to `path`, itself included, that `user` may not enter; undefined when all are open.
 * The kernel is asked, as that user, because mode bits alone do not tell (ACLs, mount options).
 */
export async function firstClosedFolder(path: string, user: ServerUser | undefined): Promise<string | undefined> {
  if (user === undefined) return undefined;
  const folders = [path];
  for (let folder = dirname(path); folders[0] !== folder; folder = dirname(folder)) folders.unshift(folder);
  const script = 'for folder; do [ -x "$folder" ] || { printf %s "$folder"; exit; }; done';
  const closed = await outputOf('/bin/sh', ['-c', script, 'sh', ...folders], user);
  return closed === '' ? undefined : closed;
}

function outputOf(file: string, args: readonly string[], user: ServerUser): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(file, args, { cwd: '/', ...spawnAs(user) }, (error, stdout) => (error ? reject(error) : resolve(stdout)));
  });
}

function readAccounts(): ServerUser[] {
  let text: string;
  try {
    text = readFileSync('/etc/passwd', 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
  return text.split('\n').flatMap((line) => {
    const [name, , uid, gid] = line.split(':');
    return name && uid && gid ? [{ name, uid: Number(uid), gid: Number(gid) }] : [];
  });
}
