// Runs the client programs of this folder against one port and prints TAP. With --against their answers must be those that plain
// Postgres on that port gives. What a program must do is its own business; here stand only running, time limits and comparing.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { clients } from './clients.mjs';
import { serverKinds, startServers } from './servers.mjs';

const CLIENT_TIMEOUT_MS = 120_000;
const SHOWN_MAX = 1500;

const usage = `node test/compat/run.mjs [options]
  --port PORT        where to connect: a router or plain Postgres
  --host HOST        default 127.0.0.1
  --user, --database default pgkv, kv
  --password SECRET  when the server asks for one; the wrong-password checks need it
  --against PORT     plain Postgres with the same database, user, password: answers must be the same
  --servers KIND     start the servers instead of naming ports: "pgkv" (Postgres with SCRAM, pgkv in front, compared),
                     "dev" (pgkv dev, compared with its shard) or "plain" (Postgres alone: tests these programs)
  --only NAMES       comma-separated: ${clients.map(({ name }) => name).join(',')}`;

/** Ends the program with what is wrong with its command line. */
function refuse(message) {
  console.error(`${message}\n${usage}`);
  process.exit(2);
}

function parseCommandLine() {
  const string = { type: 'string' };
  const texts = {
    port: string,
    host: string,
    user: string,
    database: string,
    password: string,
    against: string,
    servers: string,
    only: string,
  };
  try {
    return parseArgs({ options: { ...texts, help: { type: 'boolean' } } }).values;
  } catch (error) {
    return refuse(error.message);
  }
}

function readOptions() {
  const values = parseCommandLine();
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  if ((values.port === undefined) === (values.servers === undefined))
    refuse('either --port or --servers has to be given');
  if (![undefined, ...serverKinds].includes(values.servers))
    refuse(`--servers ${values.servers}: one of ${serverKinds.join(', ')}`);
  const only = values.only?.split(',');
  for (const name of only ?? []) if (!clients.some((client) => client.name === name)) refuse(`no such client: ${name}`);
  return { host: '127.0.0.1', user: 'pgkv', database: 'kv', ...values, only };
}

/** The environment of a client program: the caller's, but every PG… variable decided here. */
function environmentFor({ host, user, database, password }, port) {
  const inherited = Object.entries(process.env).filter(([name]) => !/^PG[A-Z]+$/.test(name));
  const own = {
    PGHOST: host,
    PGPORT: String(port),
    PGUSER: user,
    PGDATABASE: database,
    PGCONNECT_TIMEOUT: '10',
    TZ: 'UTC',
    LC_ALL: 'C.UTF-8',
  };
  return { ...Object.fromEntries(inherited), ...own, ...(password === undefined ? {} : { PGPASSWORD: password }) };
}

/** Runs one client program; gives its checks, and what else went wrong. */
function runProgram([program, ...args], env) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    const checks = [];
    const problems = [];
    let errorOutput = '';
    const timer = setTimeout(() => {
      problems.push(
        `did not end within ${CLIENT_TIMEOUT_MS} ms; the last check that ended: ${checks.at(-1)?.check ?? 'none'}`,
      );
      process.kill(-child.pid, 'SIGKILL'); // its own process group: whatever it started ends with it
    }, CLIENT_TIMEOUT_MS);
    createInterface({ input: child.stdout }).on('line', (line) => {
      try {
        checks.push(JSON.parse(line));
      } catch {
        problems.push(`printed a line that is not JSON: ${line}`);
      }
    });
    child.stderr.on('data', (chunk) => {
      errorOutput = (errorOutput + chunk).slice(-SHOWN_MAX);
    });
    child.once('error', (error) => problems.push(error.message));
    child.once('close', (status, signal) => {
      clearTimeout(timer);
      if (status !== 0 && checks.every(({ ok }) => ok)) problems.push(`ended with ${status ?? signal}: ${errorOutput}`);
      if (checks.length === 0 && problems.length === 0) problems.push('ran no check');
      resolve({ checks, problems });
    });
  });
}

/** TAP 14 lines; counts as it goes. */
class TapReport {
  passed = 0;
  failed = 0;
  skipped = 0;

  constructor() {
    console.log('TAP version 14');
  }
  get #number() {
    return this.passed + this.failed + this.skipped;
  }
  pass(name) {
    this.passed += 1;
    console.log(`ok ${this.#number} - ${name}`);
  }
  skip(name, reason) {
    this.skipped += 1;
    console.log(`ok ${this.#number} - ${name} # SKIP ${reason}`);
  }
  fail(name, details) {
    this.failed += 1;
    console.log(`not ok ${this.#number} - ${name}\n  ---`);
    for (const [key, value] of Object.entries(details)) {
      const text = typeof value === 'string' ? value : JSON.stringify(value);
      // Both ends: a JavaScript stack says what happened first, a Python one last.
      const half = SHOWN_MAX / 2;
      const shown =
        text.length > SHOWN_MAX ? `${text.slice(0, half)}\n… ${text.length} characters …\n${text.slice(-half)}` : text;
      console.log(`  ${key}: |\n${shown.replace(/^/gm, '    ')}`);
    }
    console.log('  ...');
  }
  end() {
    console.log(`1..${this.#number}\n# ${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
    return this.failed === 0;
  }
}

/** Where two answers first part: a path, and both values there. */
function firstDifference(answer, expected, path = 'answer') {
  if (typeof answer === 'string' && typeof expected === 'string' && answer.length + expected.length > 400) {
    let at = 0;
    while (answer[at] === expected[at]) at += 1;
    const around = (text) => text.slice(Math.max(0, at - 150), at + 150);
    return { where: `${path}, character ${at}`, got: around(answer), expected: around(expected) };
  }
  if (answer !== null && expected !== null && typeof answer === 'object' && typeof expected === 'object') {
    for (const key of new Set([...Object.keys(answer), ...Object.keys(expected)])) {
      if (!isDeepStrictEqual(answer[key], expected[key]))
        return firstDifference(answer[key], expected[key], `${path}.${key}`);
    }
  }
  return { where: path, got: String(JSON.stringify(answer)), expected: String(JSON.stringify(expected)) };
}

function reportRun(report, client, { checks, problems }, oracle) {
  for (const { check, ok, answer, skip, error, sqlState } of checks) {
    const name = `${client.name}: ${check}`;
    const reference = oracle?.checks.find((other) => other.check === check);
    if (skip !== undefined) report.skip(name, skip);
    else if (!ok)
      report.fail(name, {
        error,
        ...(sqlState ? { sqlState } : {}),
        plainPostgres: oracle === undefined ? 'not asked' : reference?.ok ? 'passes' : 'fails too',
      });
    else if (oracle !== undefined && !reference?.ok)
      report.fail(name, {
        error: 'passes here, but fails on plain Postgres',
        plainPostgres: reference?.error ?? 'check missing',
      });
    else if (oracle !== undefined && !isDeepStrictEqual(answer, reference.answer))
      report.fail(name, firstDifference(answer, reference.answer));
    else report.pass(name);
  }
  for (const problem of problems) report.fail(client.name, { error: problem });
  for (const problem of oracle?.problems ?? []) report.fail(`${client.name} on plain Postgres`, { error: problem });
}

const options = readOptions();
const servers = options.servers === undefined ? undefined : await startServers(options.servers);
const target = { ...options, ...servers };
const report = new TapReport();
const chosen = clients.filter(({ name }) => options.only === undefined || options.only.includes(name));
const runnable = [];
for (const client of chosen) {
  const reason = client.missing();
  if (reason === undefined) runnable.push(client);
  else {
    console.log(`# skipped: ${client.name}: ${reason}`);
    report.skip(client.name, reason);
  }
}
// Installing waits on the network: all at once, while the first programs already run.
const preparations = new Map(runnable.map((client) => [client, client.prepare().catch((error) => ({ error }))]));
for (const client of runnable) {
  const command = await preparations.get(client);
  if (command.error) {
    console.log(`# skipped: ${client.name}: could not be installed`);
    report.skip(client.name, `could not be installed: ${command.error.message.replaceAll(/\s+/g, ' ').slice(0, 300)}`);
    continue;
  }
  const startedMs = Date.now();
  const oracle =
    target.against === undefined ? undefined : await runProgram(command, environmentFor(target, target.against));
  const result = await runProgram(command, environmentFor(target, target.port));
  reportRun(report, client, result, oracle);
  console.log(`# ${client.name}: ${Date.now() - startedMs} ms`);
}
await servers?.stop();
process.exitCode = report.end() ? 0 : 1;
