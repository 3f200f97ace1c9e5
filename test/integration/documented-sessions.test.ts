// What the documents show is what happens: each session with pgkv that they print is played, and each program is run, in the
// order of the page, on a cluster as `npm start` makes it. Numbers that come from the time, and ports, may differ.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { FileCatalog } from '../../src/catalog/file-catalog.js';
import { devSettings } from '../../src/cli/cluster/cluster-access.js';
import { prepareDevTables } from '../../src/cli/cluster/dev-tables.js';
import { runProgram } from '../../src/cli/program.js';
import { catalogPath, startEmbeddedCluster } from '../../src/dev/embedded-cluster.js';
import { startRouter } from '../../src/main.js';
import { createLogger } from '../../src/telemetry/log.js';
import { findPostgres } from '../support/postgres-binaries.js';

if (!findPostgres('embedded')) {
  t.plan(0, 'no embedded Postgres');
  process.exit(0);
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const AS = { user: 'pgkv', database: 'kv' };
const PROMPT = 'kv=> ';

interface Shown {
  readonly statement: string;
  readonly answer: string;
}

/** Blocks of code of a document, by the word behind their fence. */
function blocksOf(document: string): { readonly language: string; readonly code: string }[] {
  const found = readFileSync(join(ROOT, document), 'utf8').matchAll(/^```(\w*)\n([\s\S]*?)^```/gm);
  return [...found].map((match) => ({ language: match[1]!, code: match[2]! }));
}

/** What a block shows of a session; what psql does by itself, without pgkv, is left out. */
function sessionIn(code: string): Shown[] {
  if (!code.startsWith(PROMPT)) return [];
  const parts = code.split(new RegExp(`^${PROMPT}`, 'm')).slice(1);
  const shown = parts.map((part) => {
    const end = part.indexOf('\n');
    return { statement: part.slice(0, end), answer: part.slice(end + 1) };
  });
  return shown.filter(({ statement }) => !statement.startsWith('\\'));
}

/** Without what differs from run to run. */
const comparable = (answer: string): string =>
  answer
    .replace(/\d{13,}/g, (digits) => '9'.repeat(digits.length))
    .replace(/127\.0\.0\.1:\d+/g, '127.0.0.1:PORT')
    .replace(/\bshard-\d\b/g, 'shard-N')
    .replace(/\n{2,}/g, '\n');

async function startCluster(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-documents-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const dataDir = join(folder, 'data');
  const cluster = await startEmbeddedCluster({ shards: 2, dataDir, ephemeral: false, log: () => undefined });
  t.teardown(() => cluster.stop());
  const catalog = new FileCatalog(catalogPath(cluster.dataDir));
  const settings = devSettings({ ...AS, shards: cluster.shards, catalog: catalog.place });
  await prepareDevTables(settings, catalog, { ...AS, value: undefined });
  const router = await startRouter({
    settings: { ...settings, listen: { ...settings.listen, port: 0 }, http: { ...settings.http, disabled: true } },
    log: createLogger({ level: 'silent', format: 'json', values: false }),
    version: '0.0.0-test',
    probeAs: AS,
    catalog,
  });
  t.teardown(() => router.stop());
  return router.port;
}

/** Plays statements in one session of `pgkv sql`. @returns what stands on the screen in the end */
async function play(statements: readonly string[], port: number): Promise<string> {
  let screen = '';
  const display = new Writable({
    write(chunk: Buffer, _encoding, done) {
      screen += chunk.toString('utf8');
      done();
    },
  });
  const input = Readable.from([statements.map((statement) => `${statement}\n`).join('')]);
  const env = { PGHOST: '127.0.0.1', PGPORT: String(port), PGUSER: AS.user, PGDATABASE: AS.database };
  await runProgram(['sql'], { input, output: display, errors: display, env, onInterrupt: () => () => undefined });
  return screen;
}

/** Runs a program with the packages of this project. @returns what it prints, and its exit code where it failed */
async function run(program: string): Promise<string> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { cwd: ROOT });
  const printed = Promise.all([text(child.stdout), text(child.stderr)]);
  const exitCode = await new Promise((resolve) => child.once('close', resolve));
  const [output, errors] = await printed;
  return exitCode === 0 ? output : `${output}${errors}exit code ${exitCode}`;
}

const port = await startCluster();

for (const document of ['README.md', 'docs/LOADING.md']) {
  t.test(`${document}: what is shown of a session is what a session shows`, async (t) => {
    const session = blocksOf(document).flatMap(({ code }) => sessionIn(code));
    t.ok(session.length >= 5, `${session.length} statements`);
    const statements = session.map(({ statement }) => statement);
    const screen = comparable(await play(statements, port));
    t.equal(screen, comparable(session.map(({ answer }) => answer).join('')));
  });

  t.test(`${document}: its programs run, and print what is said`, async (t) => {
    const blocks = blocksOf(document);
    const programs = blocks.flatMap(({ language, code }, index) =>
      language === 'js' ? [{ code, output: blocks[index + 1]!.code }] : [],
    );
    t.ok(programs.length > 0);
    for (const { code, output } of programs) {
      // As many rows as the page says would take a while.
      const printed = await run(code.replaceAll('7432', String(port)).replaceAll('20_000', '200'));
      if (/console\.log/.test(code)) t.equal(printed, output);
      else t.equal(printed, '');
    }
  });
}
