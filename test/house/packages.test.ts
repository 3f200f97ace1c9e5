// What npm installs is what was looked at: every package of the lockfile is named by the hash of its content.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

interface Lockfile {
  readonly packages: Readonly<Record<string, { readonly link?: boolean; readonly integrity?: string }>>;
}

t.test('every package of the lockfile has its hash', async (t) => {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as Lockfile;
  const without = Object.entries(packages).flatMap(([path, { link, integrity }]) =>
    path === '' || link === true || /^sha512-[A-Za-z0-9+/]{86}==$/.test(integrity ?? '') ? [] : [path],
  );
  t.ok(Object.keys(packages).length > 100);
  t.strictSame(without, []);
});
