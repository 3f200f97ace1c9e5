// What npm installs is what was looked at: every package of the lockfile is named by the hash of its content.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { PROJECT_ROOT } from '../support/project-root.js';

const ROOT = PROJECT_ROOT;

interface Package {
  readonly link?: boolean;
  readonly integrity?: string;
  readonly hasInstallScript?: boolean;
  readonly deprecated?: string;
  readonly engines?: { readonly node?: string };
}

interface Lockfile {
  readonly packages: Readonly<Record<string, Package>>;
}

t.test('every package of the lockfile has its hash', async (t) => {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as Lockfile;
  const without = Object.entries(packages).flatMap(([path, { link, integrity }]) =>
    path === '' || link === true || /^sha512-[A-Za-z0-9+/]{86}==$/.test(integrity ?? '') ? [] : [path],
  );
  t.ok(Object.keys(packages).length > 100);
  t.strictSame(without, []);
});

t.test('npm ci has nothing to warn of', async (t) => {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as Lockfile;
  const { allowScripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    allowScripts: Record<string, boolean>;
  };
  const entries = Object.entries(packages).filter(([path]) => path !== '');
  // Nothing of ours needs an install script: each is denied by name, which npm 11 and newer ask for.
  const undecided = entries.flatMap(([path, { hasInstallScript }]) => {
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    return hasInstallScript === true && allowScripts[name] !== false ? [name] : [];
  });
  t.strictSame(undecided, []);
  const tooNew = entries.flatMap(([path, { engines, deprecated }]) =>
    /^\s*>=?\s*(2[1-9]|[3-9]\d)/.test(engines?.node ?? '') || deprecated !== undefined ? [path] : [],
  );
  t.strictSame(tooNew, [], 'all run on Node 20');
});
