// `pgkv status` against what answers `SHOW pgkv.status`: a real server whose setting of that name plays the router.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import pg from 'pg';
import t from 'tap';
import { runProgram } from '../../src/cli/program.js';
import { runCli } from '../support/cli-run.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { freePort, startPostgres } from '../support/postgres-server.js';

const version = findPostgres('15') ? '15' : 'embedded';
const server = await startPostgres({ version });
const folder = mkdtempSync(join(tmpdir(), 'pgkv-cli-status-'));
t.teardown(async () => {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

const STATUS = {
  epoch: 7,
  version: '0.1.0',
  shards: [
    {
      id: 0,
      name: 'shard-1',
      primary: { host: '127.0.0.1', port: 5001 },
      replicas: [
        { host: '127.0.0.1', port: 5003 },
        { host: '::1', port: 5004 },
      ],
      slots: [
        [0, 8190],
        [8191, 8191],
      ],
      healthy: true,
    },
    {
      id: 1,
      name: 'shard-2',
      primary: { host: '127.0.0.1', port: 5002 },
      replicas: [],
      slots: [[8192, 16383]],
      healthy: false,
    },
  ],
  unknownToThisProgram: true,
};

async function answerStatusWith(text: string): Promise<void> {
  const client = new pg.Client({ host: server.host, port: server.port, user: server.superuser, database: 'postgres' });
  await client.connect();
  await client.query(`ALTER DATABASE kv SET pgkv.status = ${client.escapeLiteral(text)}`);
  await client.end();
}

class Collected extends Writable {
  text = '';
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString('utf8');
    done();
  }
}

async function status(args: string[], env: Record<string, string> = {}) {
  const output = new Collected();
  const errors = new Collected();
  const input = Readable.from([]);
  const exitCode = await runProgram(['status', ...args], {
    input,
    output,
    errors,
    env,
    onInterrupt: () => () => undefined,
  });
  return { exitCode, output: output.text, errors: errors.text };
}

const byPort = ['--port', String(server.port)];

t.before(async () => {
  const client = new pg.Client({ host: server.host, port: server.port, user: server.superuser, database: 'postgres' });
  await client.connect();
  await client.query('CREATE ROLE pgkv LOGIN');
  await client.query('CREATE DATABASE kv');
  await client.end();
});

t.test('what answers without the setting is no router', async (t) => {
  const { exitCode, errors } = await status(byPort);
  t.equal(exitCode, 2);
  t.equal(errors, `pgkv: error: what answers at "127.0.0.1", port ${server.port} is not a pgkv router\n`);
});

t.test('--json prints exactly what the router gave', async (t) => {
  await answerStatusWith(JSON.stringify(STATUS));
  t.strictSame(await status([...byPort, '--json']), { exitCode: 0, output: `${JSON.stringify(STATUS)}\n`, errors: '' });
});

t.test('people get a table', async (t) => {
  const { output, exitCode } = await status(byPort);
  t.equal(exitCode, 0);
  t.equal(
    output,
    `pgkv 0.1.0 at 127.0.0.1:${server.port}, epoch 7

 id |  shard  |    primary     |    replicas    |    slots     | health 
----+---------+----------------+----------------+--------------+--------
  0 | shard-1 | 127.0.0.1:5001 | 127.0.0.1:5003+| 0-8190, 8191 | ok
    |         |                | [::1]:5004     |              | 
  1 | shard-2 | 127.0.0.1:5002 |                | 8192-16383   | down
`,
  );
});

t.test('a data folder leads to its router', async (t) => {
  const run = { pid: 1, host: server.host, port: server.port, httpPort: 1, user: server.superuser, database: 'kv' };
  const shards = [{ name: 'shard-0', host: '127.0.0.1', port: 5432, socketDir: '/tmp/pgkv-sock-x' }];
  writeFileSync(join(folder, 'run.json'), JSON.stringify({ ...run, shards, startedAt: new Date().toISOString() }));
  const { exitCode, output } = await status(['--data-dir', folder, '--json'], { PGPORT: '1' });
  t.equal(exitCode, 0);
  t.match(JSON.parse(output), { epoch: 7 });
  const told = await status(['--data-dir', folder], { PGPORT: '1' });
  t.match(
    told.output,
    '\n  shard-0: psql -h /tmp/pgkv-sock-x -p 5432 -U postgres kv\n',
    'and names the way in for a superuser',
  );
});

t.test(
  'sql finds the router the same way; an address in the environment goes before a folder nobody named',
  async (t) => {
    const where = process.cwd();
    t.teardown(() => process.chdir(where));
    mkdirSync(join(folder, 'project', '.pgkv'), { recursive: true });
    const run = { pid: 1, host: server.host, port: server.port, httpPort: 1, user: server.superuser, database: 'kv' };
    writeFileSync(join(folder, 'project', '.pgkv', 'run.json'), JSON.stringify(run));
    const sql = ['sql', '-c', 'SELECT current_user, current_database()', '--csv'];
    const found = { exitCode: 0, output: `current_user,current_database\n${server.superuser},kv\n`, errors: '' };
    t.strictSame(await runCli([...sql, '--data-dir', join(folder, 'project', '.pgkv')]), found);
    process.chdir(join(folder, 'project'));
    t.strictSame(await runCli(sql), found);
    t.match((await runCli(sql, { PGUSER: 'pgkv' })).output, '\npgkv,kv\n', 'another user of the same router');
    const port = await freePort();
    const elsewhere = await runCli(sql, { PGPORT: String(port) });
    t.equal(elsewhere.exitCode, 2);
    t.match(elsewhere.errors, `port ${port} failed: Connection refused\n\tIs pgkv running there?\n`);
    t.notMatch(elsewhere.errors, 'pgkv dev', 'which would start one at another port');
    t.match((await runCli(['status', '--json'])).output, '"epoch":7');
  },
);

t.test('without a router, the message says where it was looked for', async (t) => {
  const absent = await status(['--data-dir', join(folder, 'absent')]);
  t.equal(absent.exitCode, 2);
  t.match(absent.errors, `there is no ${join(folder, 'absent', 'run.json')}\n\tStart one with`);

  writeFileSync(join(folder, 'run.json'), '{"pid": 1, "ho');
  const torn = await status(['--data-dir', folder]);
  t.equal(torn.exitCode, 2);
  t.match(torn.errors, `cannot read ${join(folder, 'run.json')}`);

  const port = await freePort();
  const refused = await status(['--port', String(port), '--json']);
  t.equal(refused.exitCode, 2);
  t.equal(refused.output, '');
  t.match(refused.errors, `port ${port} failed: Connection refused`);
});

t.test('an answer that is no status is shown as it is', async (t) => {
  await answerStatusWith('{"epoch": "none"}');
  const { exitCode, errors } = await status([...byPort, '--json']);
  t.equal(exitCode, 2);
  t.match(errors, 'gave a status this program cannot read: {"epoch": "none"}');
});
