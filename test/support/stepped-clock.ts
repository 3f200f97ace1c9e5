// Servers whose clock tests set forwards and back. With libfaketime it is the real clock of the server's processes; where
// that is not installed, the extension's only look at the clock, pgkv.clock(), is replaced by one that adds a table's value.
import { chmodSync, existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { connectTo, EXTENSION_SQL } from './kv-extension.js';
import type { PostgresVersion } from './postgres-binaries.js';
import { type PostgresServer, startPostgres } from './postgres-server.js';

export interface SteppedServer {
  readonly server: PostgresServer;
  /** Sets the clock to `ms` from the true time, from now on. */
  step(ms: number): Promise<void>;
}

const LIBRARIES = ['x86_64', 'aarch64'].map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketime.so.1`);
export const FAKETIME = LIBRARIES.find((path) => existsSync(path));

/** With the extension in database `postgres`. */
export async function steppedServer(
  t: Test,
  version: PostgresVersion,
  by: 'faketime' | 'function',
): Promise<SteppedServer> {
  return by === 'faketime' ? withFaketime(t, version) : withFunction(t, version);
}

async function withFaketime(t: Test, version: PostgresVersion): Promise<SteppedServer> {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-clock-'));
  chmodSync(folder, 0o755);
  const file = join(folder, 'offset');
  const step = async (ms: number): Promise<void> => {
    // Replaced as a whole: the servers read it at each look at the clock.
    writeFileSync(`${file}.new`, `${ms < 0 ? '-' : '+'}${(Math.abs(ms) / 1000).toFixed(3)}s\n`, { mode: 0o644 });
    renameSync(`${file}.new`, file);
  };
  await step(0);
  const environment = {
    LD_PRELOAD: FAKETIME!,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  };
  const server = await startPostgres({ version, environment });
  t.teardown(async () => {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  await (await connectTo(t, server)).query(EXTENSION_SQL);
  return { server, step };
}

async function withFunction(t: Test, version: PostgresVersion): Promise<SteppedServer> {
  const server = await startPostgres({ version });
  t.teardown(() => server.stop());
  const client = await connectTo(t, server);
  await client.query(EXTENSION_SQL);
  await client.query(`CREATE TABLE clock_offset AS SELECT 0::bigint AS ms; GRANT SELECT ON clock_offset TO PUBLIC`);
  await client.query(`CREATE OR REPLACE FUNCTION pgkv.clock() RETURNS bigint LANGUAGE sql VOLATILE
    RETURN floor(date_part('epoch', clock_timestamp()) * 1024000)::bigint + (SELECT ms * 1024 FROM clock_offset)`);
  const step = async (ms: number): Promise<void> => {
    await client.query(`UPDATE clock_offset SET ms = $1`, [ms]);
  };
  return { server, step };
}
