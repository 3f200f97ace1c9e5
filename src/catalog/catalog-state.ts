// What a catalogue says: which hash slots each shard holds, which key-value tables there are and in which database, and
// the epoch that orders its states (D5, D6). Nodes are not part of it yet: they stand in the configuration.
import { z } from 'zod';
import type { HashSlotRange } from '../cluster/cluster-view.js';
import type { KvTable } from '../cluster/kv-table.js';
import { coverageFaults, HASH_SLOT_COUNT } from '../config/slot-ranges.js';
import { CatalogError } from './catalog-error.js';

export interface CatalogShard {
  readonly name: string;
  /**
   * Of its servers, as `pg_control_system()` says it, in decimal: a primary and its standbys have one, no other server
   * does (D28). Absent: set up by a pgkv that did not write it.
   */
  readonly systemIdentifier?: string | undefined;
  readonly hashSlots: readonly HashSlotRange[];
}

export interface CatalogState {
  /** Grows by one with each change. */
  readonly epoch: number;
  /** Drawn by init, the same in each shard's `pgkv.shard_state`. Absent: set up by a pgkv that drew none. */
  readonly clusterId?: string | undefined;
  /** The database in which the tables are, on every shard. */
  readonly database: string;
  /** In the order of their ids: the first is the home shard. */
  readonly shards: readonly CatalogShard[];
  readonly tables: readonly KvTable[];
}

/** Raised with each change that an older pgkv would misread. 2 added what shards are known by; 1 is still read. */
const FORMAT = 2;
/** Postgres cuts longer names (NAMEDATALEN - 1). */
const NAME_BYTES_MAX = 63;

const name = z
  .string()
  .min(1)
  .refine((text) => Buffer.byteLength(text) <= NAME_BYTES_MAX, `expected at most ${NAME_BYTES_MAX} bytes`);
const hashSlot = z
  .int()
  .min(0)
  .max(HASH_SLOT_COUNT - 1);

const systemIdentifier = z.string().regex(/^\d{1,20}$/, 'expected a decimal number in quotes');

const fileSchema = z.strictObject({
  format: z.literal([1, FORMAT]),
  epoch: z.int().min(1),
  clusterId: name.optional(),
  database: name,
  shards: z
    .array(
      z.strictObject({
        name,
        systemIdentifier: systemIdentifier.optional(),
        hashSlots: z.array(z.tuple([hashSlot, hashSlot])),
      }),
    )
    .min(1),
  tables: z.array(z.strictObject({ schema: name, name, valueType: z.enum(['jsonb', 'bytea']) })),
});

const formatSchema = z.object({ format: z.int() });

export function renderCatalog(state: CatalogState): string {
  return `${JSON.stringify({ format: FORMAT, ...state }, null, 2)}\n`;
}

/** @throws CatalogError that names `place` and everything that is wrong */
export function parseCatalog(text: string, place: string): CatalogState {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw unusable(place, ['it is not JSON'], cause);
  }
  const version = formatSchema.safeParse(document);
  if (version.success && version.data.format > FORMAT) {
    throw new CatalogError(`the catalogue ${place} has format ${version.data.format}, this pgkv knows ${FORMAT}`, {
      hint: 'Use the version of pgkv that wrote it, or a later one.',
    });
  }
  const checked = fileSchema.safeParse(document);
  if (!checked.success) {
    throw unusable(
      place,
      checked.error.issues.map(({ path, message }) => (path.length > 0 ? `${path.join('.')}: ${message}` : message)),
    );
  }
  const { format: _, ...state } = checked.data;
  const faults = stateFaults(state);
  if (faults.length > 0) throw unusable(place, faults);
  return state;
}

function unusable(place: string, faults: readonly string[], cause?: unknown): CatalogError {
  return new CatalogError(`the catalogue ${place} is not usable: ${faults.join('; ')}`, {
    hint: 'Restore it from a copy; the slots each shard holds are in its table pgkv.shard_state.',
    cause,
  });
}

/** What no single field can state. */
export function stateFaults({ shards, tables }: Pick<CatalogState, 'shards' | 'tables'>): string[] {
  const shardNames = shards.map((shard) => shard.name);
  const tableNames = tables.map((table) => `${table.schema}.${table.name}`);
  const owned = shards.flatMap(({ hashSlots }, owner) => hashSlots.map((range) => ({ owner, range })));
  return [
    ...repeated(shardNames).map((twice) => `shard "${twice}" is there twice`),
    ...repeated(tableNames).map((twice) => `table ${twice} is there twice`),
    ...coverageFaults(owned).map(({ kind, range: [first, last] }) => {
      if (kind === 'gap') return `no shard holds hash slots ${first} to ${last}`;
      return kind === 'overlap'
        ? `hash slots ${first} to ${last} have two shards`
        : `the range [${first}, ${last}] ends before it begins`;
    }),
  ];
}

function repeated(names: readonly string[]): string[] {
  return [...new Set(names.filter((name, index) => names.indexOf(name) !== index))];
}
