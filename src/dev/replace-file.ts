// Writes small files of a data folder so that a crash leaves the old content or the new, and so that who owns the folder
// can replace what root wrote there.
import { randomBytes } from 'node:crypto';
import { chmodSync, renameSync, writeFileSync } from 'node:fs';

/** Readable for all, whatever the umask: the servers' user reads them too. */
export function replaceFile(path: string, content: string): void {
  const draft = `${path}.${randomBytes(4).toString('hex')}`;
  writeFileSync(draft, content, { flag: 'wx' });
  chmodSync(draft, 0o644);
  renameSync(draft, path);
}
