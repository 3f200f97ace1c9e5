import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import t from 'tap';
import { runProgram } from '../../../src/cli/program.js';
import { packageVersion } from '../../../src/cli/version.js';

class Collected extends Writable {
  text = '';
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString('utf8');
    done();
  }
}

async function run(...args: string[]): Promise<{ exitCode: number; output: string; errors: string }> {
  const output = new Collected();
  const errors = new Collected();
  const exitCode = await runProgram(args, {
    input: Readable.from([]),
    output,
    errors,
    env: {},
    onInterrupt: () => () => undefined,
  });
  return { exitCode, output: output.text, errors: errors.text };
}

t.test('every command has a help text with an example', async (t) => {
  const { output } = await run('--help');
  const commands = [...output.matchAll(/^ {2}([a-z][a-z-]*) \[options\]/gm)].map((match) => match[1]!);
  t.strictSame(
    commands.filter((name) => ['dev', 'start', 'check-config', 'sql', 'status'].includes(name)),
    ['dev', 'start', 'check-config', 'sql', 'status'],
  );
  for (const name of commands) {
    const help = await run(name, '--help');
    t.equal(help.exitCode, 0);
    t.match(help.output, new RegExp(`\\nExample:\\n  pgkv ${name}`), name);
  }
});

t.test('--version is that of package.json', async (t) => {
  t.strictSame(await run('--version'), { exitCode: 0, output: `${packageVersion()}\n`, errors: '' });
});

t.test('wrong input ends with exit code 1 and says what would be right', async (t) => {
  const table: [string[], string][] = [
    [['dev', '--shards', '0'], 'It must be a whole number from 1 to 64.'],
    [['dev', '--shards', '65'], 'It must be a whole number from 1 to 64.'],
    [['dev', '--shards', '2.5'], 'It must be a whole number from 1 to 64.'],
    [['dev', '--port', '65536'], 'It must be a whole number from 0 to 65535.'],
    [['dev', '--http-port', 'x'], 'It must be a whole number from 0 to 65535.'],
    [['dev', '--value', 'text'], 'Allowed choices are jsonb, bytea.'],
    [['sql', '--port', '0'], 'It must be a whole number from 1 to 65535.'],
    [['sql', '--json', '--csv'], "option '--json' cannot be used with option '--csv'"],
    [
      ['sql', '--url', 'postgres://h', '--host', 'h'],
      "option '--url <url>' cannot be used with option '--host <host>'",
    ],
    [['sql', '-v', 'AUTOCOMMIT=off'], 'Write ON_ERROR_STOP=1 or ON_ERROR_STOP=0.'],
    [['start'], "required option '--config <file>' not specified"],
    [['check-config'], 'name the file to check'],
    [['nonsense'], "unknown command 'nonsense'"],
    [['sql', 'stray'], 'too many arguments'],
  ];
  for (const [args, message] of table) {
    const { exitCode, errors } = await run(...args);
    t.equal(exitCode, 1, args.join(' '));
    t.match(errors, /^pgkv: error: /);
    t.match(errors, message);
  }
});

t.test('check-config', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-cli-program-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'pgkv.toml');

  writeFileSync(file, '[listen]\nport = "x"\n[pool]\nnonsense = 1\n');
  const wrong = await run('check-config', file);
  t.equal(wrong.exitCode, 1);
  t.equal(wrong.output, '');
  const places = wrong.errors.trimEnd().split('\n');
  t.match(places[0], `${file}:1: shards: no shard`);
  t.match(places[1], `${file}:2: listen.port: `);
  t.match(wrong.errors, new RegExp(`^${file}:4: pool\\.nonsense: `, 'm'), 'all problems at once');
  const json = await run('check-config', '--config', file, '--json');
  t.equal(json.exitCode, 1);
  t.match(JSON.parse(json.output), { ok: false, problems: [{ line: 1 }, { line: 2, key: 'listen.port' }] });

  writeFileSync(file, '[[shards]]\nname = "a"\n[[shards.nodes]]\nhost = "127.0.0.1"\n');
  const right = await run('check-config', file);
  t.equal(right.exitCode, 0, right.errors);
  t.match(right.output, `${file} is sound.\n`);
  t.strictSame(JSON.parse((await run('check-config', file, '--json')).output), { ok: true, problems: [] });

  const absent = await run('check-config', join(folder, 'absent.toml'));
  t.equal(absent.exitCode, 1);
  const path = join(folder, 'absent.toml');
  t.equal(absent.errors, `pgkv: error: cannot read ${path}: ENOENT: no such file or directory\n`, 'the path once');
});

t.test('start names the key at fault, and takes its hands off the signals', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-cli-program-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'bad.toml');
  writeFileSync(file, 'workers = 0\n');
  const before = process.listenerCount('SIGTERM');
  const { exitCode, errors } = await run('start', '--config', file);
  t.equal(exitCode, 1);
  t.match(errors, `${file}:1: workers: expected a whole number from 1 to 64, found 0`);
  t.equal(process.listenerCount('SIGTERM'), before);
});

t.test('help is a command, too, and what psql calls otherwise is named', async (t) => {
  t.strictSame(await run('help'), await run('--help'));
  t.match((await run('help', 'sql')).output, 'Usage: pgkv sql');
  for (const [option, long] of [
    ['-U', '--user'],
    ['-d', '--dbname'],
    ['-p', '--port'],
  ] as const) {
    const { exitCode, errors } = await run('sql', option, 'x');
    t.equal(exitCode, 1);
    t.match(errors, `pgkv: error: unknown option '${option}' (write ${long})\n`);
  }
});
