// The key-value tables of `pgkv dev`: made at the first start, brought to this version of the extension at later ones.
import type { CatalogDriver } from '../../catalog/catalog-driver.js';
import type { CatalogState } from '../../catalog/catalog-state.js';
import type { ValueType } from '../../cluster/kv-table.js';
import type { Settings } from '../../config/settings.js';
import { CommandFailure } from '../command-failure.js';
import type { DriverClient } from '../connect.js';
import { firstState, initShards } from '../init.js';
import { accessFrom, shardPlaces, withShards } from './shard-connection.js';

const FIRST_TABLE = { schema: 'public', name: 'kv' };

/** @param value undefined: what there is, else jsonb. @throws CommandFailure */
export async function prepareDevTables(
  settings: Settings,
  catalog: CatalogDriver,
  {
    user,
    database,
    value,
  }: { readonly user: string; readonly database: string; readonly value: ValueType | undefined },
): Promise<void> {
  const state = await catalog.read();
  if (state !== null) requireValueType(state, value);
  const access = accessFrom(settings, { user, database }, {});
  await withShards(
    shardPlaces(settings),
    access,
    async () => undefined,
    async (shards) => {
      const table = { ...FIRST_TABLE, valueType: value ?? 'jsonb' } as const;
      const wanted = state ?? firstState(settings, { database, table });
      const done = await initShards(shards, wanted, { dryRun: false, isNew: state === null, service: user });
      if (state === null) await Promise.all(shards.map(({ client }) => keepOutOfExtension(client, user, database)));
      // Nobody else writes it: the data folder is locked.
      if (done.state !== state) await catalog.compareAndSet(state?.epoch ?? null, done.state);
    },
  );
}

function requireValueType({ tables }: CatalogState, value: ValueType | undefined): void {
  const present = tables.find(({ schema, name }) => schema === FIRST_TABLE.schema && name === FIRST_TABLE.name);
  if (present === undefined || value === undefined || present.valueType === value) return;
  throw new CommandFailure(
    1,
    `the table kv of this data holds ${present.valueType} values, not ${value}`,
    `Leave --value out, use another --data-dir, or add a table: pgkv table create NAME --value ${value} --data-dir DIR`,
  );
}

/** The role may be called as the extension's schema is: "$user" in its search_path would then mean that one. */
async function keepOutOfExtension(client: DriverClient, user: string, database: string): Promise<void> {
  const [role, name] = [client.escapeIdentifier(user), client.escapeIdentifier(database)];
  await client.query(`ALTER ROLE ${role} IN DATABASE ${name} SET search_path = public`);
}
