// Runs compiled test files for `npm test` and `npm run check` and says what each did, one process more at once than the machine
// has cores, since they wait for servers:
// `node test/run.mjs [--jobs=N] [--timeout=SECONDS] [--output-file=FILE] FOLDER…` (folders of build/test, or files there without
// `.test.js`).
//
// `tap run` starts each file with four loaders, one of them in every child process of it, and reads every assertion again to
// show it: 0.65 s of CPU a file, of 190. Here a file is plain `node`: it passes if it exits with 0 and sums up no failure.
// Short files share a process (TOGETHER below).
// The files that take longest start first, so that none runs by itself at the end. `tap run` goes on working for single files.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const TESTS = join(ROOT, 'build', 'test');
const GRACE_SECONDS = 20;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { jobs: { type: 'string' }, timeout: { type: 'string' }, 'output-file': { type: 'string' } },
});
/** A process ends itself after that time and says what it waited for; a while later it is ended. */
const TIMEOUT_SECONDS = Number(
  values.timeout ?? /^timeout: (\d+)$/m.exec(readFileSync(join(ROOT, '.taprc'), 'utf8'))[1],
);
const jobs = Number(values.jobs ?? availableParallelism() + 1);
if (!(jobs >= 1)) throw new Error(`--jobs=${values.jobs}: a number from 1`);

/**
 * Most files take less than it takes to load what they test, and for V8 to compile it: so many of them share a process.
 */
const TOGETHER = [{ folders: /^(unit|wire|house)\//, max: 12 }];
/** What looks at its process, starts others, or changes what all tests of its process have is by itself. */
const NEEDS_PROCESS = /\bprocess\.(?!env\[)|child_process|allowSilentCloses|^t\.(before|after|setTimeout|plan|jobs)/m;
/** Asks the parser before it is loaded. */
const ALONE = ['unit/sql/parse.test.js'];
/** Helper threads of V8 only get in the way of the other processes, which keep all cores busy. */
const V8_OPTIONS = ['--single-threaded'];

/** The test files in the folders, those of LONGEST first, in its order: lists of those that share a process. */
function testFiles() {
  const files = positionals.flatMap((place) => {
    const file = `${place}.test.js`;
    if (existsSync(join(TESTS, file))) return [file];
    return readdirSync(join(TESTS, place), { recursive: true })
      .filter((name) => name.endsWith('.test.js'))
      .map((name) => join(place, name).replaceAll('\\', '/'));
  });
  const longest = readFileSync(join(ROOT, 'test', 'longest-files.txt'), 'utf8')
    .split('\n')
    .filter(Boolean);
  for (const file of longest) if (!existsSync(join(TESTS, file))) throw new Error(`longest-files.txt: no ${file}`);
  const rank = (file) => (longest.indexOf(file) + longest.length + 1) % (longest.length + 1);
  files.sort((one, other) => rank(one) - rank(other) || (one < other ? -1 : 1));
  const isAlone = (file) => ALONE.includes(file) || NEEDS_PROCESS.test(readFileSync(join(TESTS, file), 'utf8'));
  const [first, rest] = [
    files.filter((file) => longest.includes(file)),
    files.filter((file) => !longest.includes(file)),
  ];
  const groups = TOGETHER.flatMap(({ folders, max }) => {
    const together = rest.filter((file) => folders.test(file) && !isAlone(file));
    return Array.from({ length: Math.ceil(together.length / max) }, (_, n) => together.slice(n * max, (n + 1) * max));
  });
  const single = rest.filter((file) => !groups.some((group) => group.includes(file)));
  return [...first.map((file) => [file]), ...groups, ...single.map((file) => [file])];
}

/** Counts of `# { total: 5, pass: 3, fail: 1, skip: 1 }`, the line a file ends with; null without one. */
function countsOf(output) {
  const found = [...output.matchAll(/^# \{ (total: .*) \}$/gm)].at(-1);
  if (found === undefined) return null;
  const count = (name) => Number(new RegExp(`\\b${name}: (\\d+)`).exec(found[1])?.[1] ?? 0);
  return { total: count('total'), pass: count('pass'), fail: count('fail'), skip: count('skip'), todo: count('todo') };
}

const running = new Set();

/** Runs files in a process: what they printed, how it ended, and in how many seconds. */
function runFiles(files) {
  return new Promise((resolve) => {
    const started = performance.now();
    const paths = files.map((file) => relative(ROOT, join(TESTS, file)));
    const seconds = paths.length > 1 ? 3 * TIMEOUT_SECONDS : TIMEOUT_SECONDS;
    const program = paths.length > 1 ? ['test/in-one-process.mjs', ...paths] : paths;
    const child = spawn(process.execPath, ['--enable-source-maps', ...V8_OPTIONS, ...program], {
      cwd: ROOT,
      env: { ...process.env, TAP_TIMEOUT: String(seconds) },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(child);
    const output = [];
    const errors = [];
    child.stdout.on('data', (chunk) => output.push(chunk));
    child.stderr.on('data', (chunk) => errors.push(chunk));
    const limit = setTimeout(() => child.kill('SIGKILL'), (seconds + GRACE_SECONDS) * 1000);
    // A grandchild that lives on holds the pipes open: the end of the file is the end of its process.
    child.on('exit', () => setTimeout(() => child.stdout.destroy() && child.stderr.destroy(), 2000).unref());
    child.on('close', (code, signal) => {
      clearTimeout(limit);
      running.delete(child);
      resolve({
        file: files.join(', '),
        code,
        signal,
        seconds: (performance.now() - started) / 1000,
        output: Buffer.concat(output).toString(),
        errors: Buffer.concat(errors).toString(),
      });
    });
  });
}

/** Each `not ok` with the lines of its explanation, as far as they matter to a reader. */
function failuresIn(output) {
  const lines = output.split('\n');
  const shown = lines.flatMap((line, at) => (/^ *not ok /.test(line) ? [...lines.slice(at, at + 30), ''] : []));
  return shown
    .slice(0, 300)
    .map((line) => line.slice(0, 2000))
    .join('\n');
}

const sum = { total: 0, pass: 0, fail: 0, skip: 0, todo: 0 };
const failed = [];
const written = ['TAP version 14'];
let number = 0;

function tell(run) {
  const counts = countsOf(run.output);
  const passed = run.code === 0 && counts !== null && counts.fail === 0;
  for (const name of Object.keys(sum)) sum[name] += counts?.[name] ?? 0;
  // A file that was ended, or ended early, has failed, whatever it had told until then.
  if (!passed && (counts?.fail ?? 0) === 0) {
    sum.fail++;
    sum.total++;
  }
  const line = `${passed ? 'ok' : 'not ok'} ${++number} - ${run.file} # time=${Math.round(run.seconds * 1000)}ms`;
  written.push(`# Subtest: ${run.file}`, run.output.replace(/^TAP version 14\n/, '').replace(/^(?=.)/gm, '    '), line);
  console.log(`${line}${counts === null ? '' : `, ${counts.total}`}`);
  if (passed) {
    for (const [skipped] of run.output.matchAll(/^ *ok .*# SKIP.*$/gm)) console.log(`    ${skipped.trim()}`);
    return;
  }
  failed.push(run.file);
  console.log(failuresIn(run.output));
  console.log(run.errors);
  const how = run.signal === null ? `exit code ${run.code}` : `ended by ${run.signal}`;
  console.log(`${run.file}: ${how}${counts === null ? ', without a summary' : ''}`);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    for (const child of running) child.kill(signal);
    process.exit(130);
  });
}

const waiting = testFiles();
if (waiting.length === 0) throw new Error(`no test files in ${positionals.join(', ')}`);
const started = performance.now();
const workers = Array.from({ length: jobs }, async () => {
  for (let files = waiting.shift(); files !== undefined; files = waiting.shift()) tell(await runFiles(files));
});
await Promise.all(workers);

const counts = Object.entries(sum).filter(([name, count]) => count > 0 || name === 'total' || name === 'pass');
const summary = [
  `1..${number}`,
  `# { ${counts.map(([name, count]) => `${name}: ${count}`).join(', ')} }`,
  `# time=${Math.round(performance.now() - started)}ms`,
].join('\n');
if (values['output-file'] !== undefined) writeFileSync(values['output-file'], `${[...written, summary].join('\n')}\n`);
if (failed.length > 0) console.log(`\nfailed: ${failed.join(', ')}`);
console.log(`${number - failed.length} of ${number} processes passed\n${summary}`);
process.exitCode = failed.length > 0 ? 1 : 0;
