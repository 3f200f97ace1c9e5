// A folder with a configuration for given servers and the place of its catalogue; gone at the end of the test.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { Test } from 'tap';
import type { CatalogState } from '../../src/catalog/catalog-state.js';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface ClusterFolder {
  readonly configFile: string;
  readonly catalogFile: string;
  catalog(): CatalogState;
  /** Writes the configuration anew. */
  configure(shards: readonly NamedServer[], more?: string): void;
}

export interface NamedServer extends Address {
  readonly name: string;
  readonly slots?: string;
}

export function clusterFolder(t: Test, shards: readonly NamedServer[], more = ''): ClusterFolder {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-cluster-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const configFile = join(folder, 'pgkv.toml');
  const catalogFile = join(folder, 'catalog.json');
  const configure: ClusterFolder['configure'] = (servers, lines = more) => {
    const blocks = servers.map(
      ({ name, host, port, slots }) =>
        `[[shards]]\nname = "${name}"\n${slots === undefined ? '' : `slots = ${slots}\n`}` +
        `[[shards.nodes]]\nhost = "${host}"\nport = ${port}\n`,
    );
    writeFileSync(configFile, `${blocks.join('')}[catalog]\npath = "catalog.json"\n${lines}`);
  };
  configure(shards);
  return { configFile, catalogFile, configure, catalog: () => JSON.parse(readFileSync(catalogFile, 'utf8')) };
}

/** Rows of one query, as the superuser. */
export async function ask<Row extends pg.QueryResultRow>(
  { host, port, superuser }: Address & { readonly superuser: string },
  database: string,
  sql: string,
): Promise<Row[]> {
  const client = new pg.Client({ host, port, user: superuser, database });
  await client.connect();
  try {
    return (await client.query<Row>(sql)).rows;
  } finally {
    await client.end();
  }
}
