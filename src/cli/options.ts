// The options of each command as the program hands them over, and the checks on their texts.
import { InvalidArgumentError } from 'commander';
import type { KvTable, ValueType } from '../cluster/kv-table.js';

export interface DevOptions {
  readonly shards: number;
  /** 0 takes a free one. */
  readonly port: number;
  readonly httpPort: number;
  readonly dataDir: string;
  readonly ephemeral: boolean;
  /** Undefined: that of the table there is, else jsonb. */
  readonly value?: ValueType;
}

/** One of the first two says which cluster. */
export interface ClusterOptions {
  readonly configFile?: string;
  /** Of a running `pgkv dev`. */
  readonly dataDir?: string;
  /** Default: the service role. */
  readonly user?: string;
}

/** What is undefined is as the catalogue says; where there is none yet: a table kv of jsonb in the database kv. */
export interface InitOptions extends ClusterOptions {
  readonly database?: string;
  /** Null: none. */
  readonly table?: Pick<KvTable, 'schema' | 'name'> | null;
  readonly valueType?: ValueType;
  readonly dryRun: boolean;
  readonly json: boolean;
}

export interface TableListOptions extends ClusterOptions {
  readonly json: boolean;
}

export interface TableCreateOptions extends ClusterOptions {
  readonly table: KvTable;
  readonly json: boolean;
}

export interface TableDropOptions extends ClusterOptions, Pick<KvTable, 'schema' | 'name'> {
  readonly yes: boolean;
  readonly json: boolean;
}

export interface DoctorOptions extends ClusterOptions {
  /** Default: that of the catalogue. */
  readonly database?: string;
  readonly json: boolean;
}

export interface StartOptions {
  readonly configFile: string;
}

export interface CheckConfigOptions {
  readonly configFile: string;
  readonly json: boolean;
}

/** Where to connect; what is absent comes from the PG… variables, then from pgkv's defaults. */
export interface ConnectionOptions {
  readonly url?: string;
  readonly host?: string;
  readonly port?: number;
  readonly user?: string;
  readonly dbname?: string;
}

/** Or the router of a `pgkv dev`, by its data folder. */
export interface RouterOptions extends ConnectionOptions {
  readonly dataDir?: string;
}

/** `-c` and `-f` in the order they were given. */
export type SqlAction =
  | { readonly kind: 'command'; readonly sql: string }
  | { readonly kind: 'file'; readonly path: string };

export interface SqlOptions extends RouterOptions {
  readonly actions: readonly SqlAction[];
  readonly format: 'aligned' | 'csv' | 'json';
  readonly expanded: boolean;
  readonly verbose: boolean;
  readonly onErrorStop: boolean;
}

export interface StatusOptions extends RouterOptions {
  readonly json: boolean;
}

/** Of any table into a key-value table; columns are SQL expressions over the source's. */
export interface ImportOptions {
  /** URL of the source. */
  readonly from: string;
  readonly table: { readonly schema: string | null; readonly name: string };
  readonly tenant: string;
  readonly key: string;
  readonly value: string;
  readonly ttl?: string;
  readonly where?: string;
  /** URL of the router; default: as with `pgkv sql`. */
  readonly to?: string;
  readonly into: Pick<KvTable, 'schema' | 'name'>;
  /** The file that says how far it has come. */
  readonly state?: string;
  /** Of each transaction. */
  readonly chunkRows: number;
  readonly onConflict: 'stop' | 'keep';
  readonly onUnfit: 'stop' | 'skip';
  readonly dryRun: boolean;
  readonly json: boolean;
}

/** Of key-value tables, where none is named. */
export const DEFAULT_SCHEMA = 'public';
/** Of a cluster, where none is named. */
export const DEFAULT_DATABASE = 'kv';
export const SHARDS_MAX = 64;
export const PORT_MAX = 65_535;

/** A commander argument parser for whole numbers from `min` to `max`. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** A port to listen on: 0 means a free one. */
export const listenPort = wholeNumber(0, PORT_MAX);
/** A port to connect to. */
export const serverPort = wholeNumber(1, PORT_MAX);
