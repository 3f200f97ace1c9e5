// Why pgkv parses with libpg-query and not with pg-query-emscripten, which the project's first plan named: the latter dies in a
// process that parses many statements. This installs it into a temporary folder (it is no dependency), gives each statement over
// and over to a child process of its own, and prints at which call that one died; then the same statements through libpg-query.
// `node bench/pg-query-emscripten-crash.mjs [--calls 10000]`

import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const SUSPECT = 'pg-query-emscripten';
const SUSPECT_VERSION = '5.1.0';
/** A parse takes microseconds: a child silent for this long is in an endless loop. */
const SILENCE_MS = 10_000;

const statements = [
  'SELECT value, version FROM kv WHERE tenant_id = $1 AND key = $2',
  'BEGIN',
  'INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value',
];

/** Runs in the child: names each call before it is made, and ends at the first answer that is not a parse tree. */
const childSource = `
import { writeSync } from 'node:fs';
const [name, moduleUrl, sql, calls] = process.argv.slice(2);
const module = await import(moduleUrl);
const suspect = name === '${SUSPECT}' ? await new module.default() : undefined;
const parse = suspect ? (text) => suspect.parse(text) : module.parse;
for (let call = 1; call <= Number(calls); call++) {
  writeSync(1, call + '\\n'); // at once: what a stream still holds is lost when the process dies
  const tree = await parse(sql);
  if ((tree?.parse_tree?.stmts ?? tree?.stmts)?.[0] === undefined) throw new Error('no parse tree: ' + JSON.stringify(tree).slice(0, 120));
}
writeSync(1, 'survived\\n');
`;

/** Gives the statement to a child over and over; tells how that ended. */
function runChild(script, name, moduleUrl, sql, calls) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [script, name, moduleUrl, sql, String(calls)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const killNow = () => child.kill('SIGKILL');
    process.on('exit', killNow);
    let progress = '';
    let errors = '';
    let isSilent = false;
    const startTimer = () =>
      setTimeout(() => {
        isSilent = true;
        killNow();
      }, SILENCE_MS);
    let timer = startTimer();
    child.stderr.on('data', (chunk) => {
      errors = (errors + chunk).slice(-4000);
    });
    child.stdout.on('data', (chunk) => {
      progress = (progress + chunk).slice(-200);
      clearTimeout(timer);
      timer = startTimer();
    });
    child.once('close', (status, signal) => {
      clearTimeout(timer);
      process.off('exit', killNow);
      const lines = progress.trim().split('\n');
      const last = lines.findLast((line) => /^(\d+|survived)$/.test(line));
      const reason = errors.match(/^.*Error:.*$/m)?.[0] ?? lines.at(-1);
      if (last === 'survived') resolve({ survived: true, text: `survived ${calls} calls` });
      else if (isSilent) resolve({ survived: false, text: `hangs in call ${last}: silent for ${SILENCE_MS / 1000} s` });
      else
        resolve({ survived: false, text: `died in call ${last}, exit ${status ?? signal}: ${reason.slice(0, 160)}` });
    });
  });
}

const { values } = parseArgs({ options: { calls: { type: 'string' } } });
const calls = Number(values.calls ?? 10_000);
const folder = mkdtempSync(join(tmpdir(), 'pgkv-parser-crash-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
writeFileSync(join(folder, 'package.json'), '{"private": true, "type": "module"}\n');
const installed = spawnSync(
  'npm',
  ['install', '--no-audit', '--no-fund', '--ignore-scripts', `${SUSPECT}@${SUSPECT_VERSION}`],
  { cwd: folder, encoding: 'utf8' },
);
if (installed.status !== 0) {
  console.error(`npm could not install ${SUSPECT}@${SUSPECT_VERSION}: ${installed.stderr}`);
  process.exit(2);
}
const script = join(folder, 'child.mjs');
writeFileSync(script, childSource);
const parsers = [
  [SUSPECT, pathToFileURL(join(folder, 'node_modules', SUSPECT, 'pg_query.js')).href],
  ['libpg-query', import.meta.resolve('libpg-query')],
];
let keptDeaths = 0;
for (const [name, moduleUrl] of parsers) {
  console.log(`${name} (${fileURLToPath(moduleUrl).includes(folder) ? SUSPECT_VERSION : 'the dependency of pgkv'})`);
  for (const sql of statements) {
    const { survived, text } = await runChild(script, name, moduleUrl, sql, calls);
    if (!survived && name !== SUSPECT) keptDeaths += 1;
    console.log(`  ${text}\n    ${sql}`);
  }
}
process.exitCode = keptDeaths === 0 ? 0 : 1;
