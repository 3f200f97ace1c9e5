// Runs compiled test files under another version of Node than the one at hand, which is fetched as a package into a folder that is
// removed again: `node test/under-node.mjs VERSION [options of run.mjs] [FOLDER…]`. Without folders: what depends on Node most, which
// is sockets, TLS, child processes and timers. `PGKV_NODE` may name the executable instead. Linux only.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DEPENDENT = [
  'wire',
  'unit/frontend',
  ...[
    'cancel',
    'hostile-client',
    'instant-loss',
    'server-restart',
    'session-signals',
    'silent-server',
    'vanishing-client',
  ].map((name) => `fault/${name}`),
  ...['merged-alone', 'merged-answers', 'merged-pipelines', 'refused-clients', 'scram', 'start-up-strings'].map(
    (name) => `integration/${name}`,
  ),
  ...['users-and-tls', 'workers', 'workers-life'].map((name) => `integration/${name}`),
];

const [version, ...rest] = process.argv.slice(2);
if (!/^\d+(\.\d+)*$/.test(version ?? '')) throw new Error('usage: node test/under-node.mjs VERSION [FOLDER…]');

const folder = mkdtempSync(join(tmpdir(), 'pgkv-node-'));
try {
  const node = process.env.PGKV_NODE ?? fetched(version, folder);
  if (node === null) leaveOut(rest);
  else runUnder(node, rest);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

function runUnder(node, rest) {
  console.log(`Node ${execFileSync(node, ['--version'], { encoding: 'utf8' }).trim()}`);
  const places = rest.some((argument) => !argument.startsWith('--')) ? [] : DEPENDENT;
  const { status } = spawnSync(node, [join(ROOT, 'test', 'run.mjs'), ...rest, ...places], {
    cwd: ROOT,
    stdio: 'inherit',
  });
  process.exitCode = status ?? 1;
}

/** As a test file says that it is left out: `.ci/run` counts it. */
function leaveOut(rest) {
  const told = `ok 1 - Node ${version} # SKIP could not be fetched\n1..1\n# { total: 1, pass: 0, skip: 1 }\n`;
  const file = rest.map((argument) => /^--output-file=(.*)$/.exec(argument)?.[1]).find((path) => path !== undefined);
  if (file !== undefined) writeFileSync(file, told);
  process.stdout.write(told);
}

/** The executable, as the packages that Node itself is published in have it; null where the registry has none. */
function fetched(version, folder) {
  const name = `node-linux-${process.arch}`;
  const options = ['--no-save', '--no-audit', '--no-fund', '--loglevel=error', '--prefix', folder];
  if (spawnSync('npm', ['install', ...options, `${name}@${version}`], { stdio: 'inherit' }).status !== 0) return null;
  return join(folder, 'node_modules', name, 'bin', 'node');
}
