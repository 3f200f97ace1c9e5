// The settings of a router: one zod schema in TOML's snake_case with defaults, units, ranges and descriptions, and
// the types of the program that follow from it. Units stand last in names. An empty text means "none", as in
// postgresql.conf, so that every option has a default that can be written down (config/pgkv.toml does).
// Rules across fields live in cross-check.ts; reading a file in load.ts.
import { isIP } from 'node:net';
import { z } from 'zod';
import type { CamelKeys } from './camel-keys.js';
import type { Secret } from './secrets.js';
import { HASH_SLOT_COUNT, type SlotRange } from './slot-ranges.js';

/** setTimeout fires at once beyond this, so that a larger time-out would mean none at all. */
const TIMER_MS_MAX = 2 ** 31 - 1;
/** Postgres refuses longer messages (MaxAllocSize - 1). */
const POSTGRES_MESSAGE_BYTES_MAX = 2 ** 30 - 2;
const MIB = 2 ** 20;

const milliseconds = (min: number, byDefault: number, description: string) =>
  z.int().min(min).max(TIMER_MS_MAX).default(byDefault).describe(description);
const count = (min: number, max: number, byDefault: number, description: string) =>
  z.int().min(min).max(max).default(byDefault).describe(description);
const flag = (byDefault: boolean, description: string) => z.boolean().default(byDefault).describe(description);
const optionalText = (description: string) =>
  z
    .string()
    .default('')
    .transform((text) => (text === '' ? null : text))
    .describe(`${description} Empty: none.`);
const host = (description: string) => z.string().min(1).describe(description);
const hashSlot = z
  .int()
  .min(0)
  .max(HASH_SLOT_COUNT - 1);

const names = (description: string) => z.array(z.string().min(1)).min(1).default(['all']).describe(description);

const ORIGINS =
  'is neither an address, nor a network in CIDR notation (an address, "/", and how many of its first bits count: 0 to 32, ' +
  'for IPv6 to 128, as in 10.0.0.0/8), nor "local", nor "all"';

/** An address, a network in CIDR notation, "local" or "all". */
function isOrigin(text: string): boolean {
  if (text === 'all' || text === 'local') return true;
  const [address = '', bits, ...rest] = text.split('/');
  const family = isIP(address);
  if (family === 0 || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 6 ? 128 : 32));
}

const node = z.strictObject({
  host: host('Host name or address; a path that begins with / is the folder of a Unix socket.'),
  port: count(1, 65535, 5432, 'TCP port, also part of the Unix socket name.'),
  role: z
    .enum(['auto', 'primary', 'replica'])
    .default('auto')
    .describe('"auto" asks the server; a stated role is verified, and a node that does not match is not used.'),
});

const shard = z.strictObject({
  name: z.string().min(1).max(63).describe('Name in messages and metrics; unique.'),
  slots: z
    .array(z.tuple([hashSlot, hashSlot]))
    .min(1)
    .optional()
    .describe('Inclusive ranges of the 16,384 hash slots. All shards state theirs, or none: an even spread.'),
  nodes: z.array(node).min(1).describe('The servers of this shard: one primary and its replicas.'),
});

const listen = z
  .strictObject({
    host: host('Address for Postgres clients.').default('127.0.0.1'),
    port: count(0, 65535, 7432, 'TCP port for Postgres clients; 0 takes a free one.'),
    backlog: count(1, 65535, 1024, 'Connections the kernel may hold before they are accepted.'),
    socket_dir: optionalText('Folder for a Unix socket named .s.PGSQL.<port>, as psql looks for it.'),
  })
  .prefault({});

const http = z
  .strictObject({
    disabled: flag(false, 'No HTTP listener at all.'),
    host: host('Address of the HTTP listener.').default('127.0.0.1'),
    port: count(0, 65535, 7433, 'Port for /live, /ready and /metrics; 0 takes a free one.'),
  })
  .prefault({});

const catalog = z
  .strictObject({
    driver: z.enum(['file']).default('file').describe('"file": for one router, on a local file system.'),
    path: optionalText('The file; "pgkv init" makes it. Without it there are no key-value tables.'),
  })
  .prefault({});

const merged = z
  .strictObject({
    disabled: flag(false, 'Run every statement on a key by itself instead of many together.'),
    deadline_ms: milliseconds(
      50,
      10_000,
      'How long a server may take over statements run together; then reads get 08006, writes 08007.',
    ),
    share_across_workers: z
      .enum(['auto', 'on', 'off'])
      .default('auto')
      .describe(
        '"auto": from four workers on, while it saves CPU, one worker merges what all have for a shard. "on": always.',
      ),
  })
  .prefault({});

const servers = z
  .strictObject({
    tls: z
      .enum(['disable', 'prefer', 'require', 'verify-ca', 'verify-full'])
      .default('prefer')
      .describe("TLS towards servers, as libpq's sslmode; never used on a Unix socket."),
    tls_ca_file: optionalText('Authorities for verify-ca and verify-full (PEM); none: those of the system.'),
    connect_timeout_ms: milliseconds(1, 5000, 'From the first byte to a usable server connection, login included.'),
    answer_timeout_ms: milliseconds(
      1,
      10000,
      "For pgkv's own questions (settings, state, look-ups); a connection without an answer is closed.",
    ),
    keepalive_ms: milliseconds(0, 30000, 'Idle time before TCP keepalive probes on server connections; 0 = off.'),
  })
  .prefault({});

const pool = z
  .strictObject({
    size_max: count(1, 10000, 20, 'Server connections to one node, all roles and databases together, per worker.'),
    role_share: z
      .number()
      .gt(0)
      .max(1)
      .default(0.8)
      .describe('Part of the connections for transactions that one role in one database gets while others wait.'),
    queue_max: count(0, 1_000_000, 10000, 'Statements that may wait for a server connection of one node.'),
    wait_timeout_ms: milliseconds(1, 15000, 'How long a statement waits for a server connection before 53300.'),
    idle_timeout_ms: milliseconds(0, 600000, 'An unused server connection is closed after this; 0 = never.'),
    lifetime_max_ms: milliseconds(0, 3600000, 'A server connection is replaced after this when free; 0 = never.'),
    prepared_statements_max: count(1, 100000, 500, 'Prepared statements kept on one server connection (LRU).'),
  })
  .prefault({});

const clients = z
  .strictObject({
    connections_max: count(1, 1_000_000, 10000, 'Client connections per worker; more get 53300.'),
    startup_timeout_ms: milliseconds(1, 15000, 'From the first byte to a finished login.'),
    startup_pending_max: count(1, 1_000_000, 2000, 'Connections that may be in start-up at one time.'),
    startup_pending_per_address_max: count(1, 1_000_000, 1000, 'The same of one address; an IPv6 network of 64 bits.'),
    idle_timeout_ms: milliseconds(0, 0, 'A client without a statement for this long gets 57P05; 0 = off.'),
    idle_in_transaction_timeout_ms: milliseconds(0, 0, 'The same inside a transaction, which is lost; 0 = off.'),
    keepalive_ms: milliseconds(0, 60000, 'Idle time before TCP keepalive probes on client connections; 0 = off.'),
    message_bytes_max: count(1024, POSTGRES_MESSAGE_BYTES_MAX, 256 * MIB, 'Largest message of a client.'),
    query_bytes_max: count(1024, POSTGRES_MESSAGE_BYTES_MAX, 12 * MIB, 'Largest SQL text of one Query or Parse.'),
    buffer_bytes_max: count(16384, 1024 * MIB, MIB / 4, 'Bytes held for one slow client before its server waits.'),
  })
  .prefault({});

const service = z
  .strictObject({
    user: z.string().min(1).default('pgkv_service').describe('Role for health checks and verifier look-ups.'),
    database: z.string().min(1).default('postgres').describe('Database in which config/auth.sql was run.'),
    password_env: optionalText('Environment variable that holds its password.'),
    password_file: optionalText('File that holds its password; a line end behind it is dropped.'),
    query: z
      .string()
      .min(1)
      .default('SELECT * FROM pgkv.role_login($1)')
      .describe(
        'Gives name, SCRAM verifier, expiry and rights of the role named $1, or no row; three columns will do.',
      ),
  })
  .prefault({});

const recover = z
  .strictObject({
    password_env: optionalText('Environment variable that holds the password of the role pgkv_recover.'),
    password_file: optionalText('File that holds its password; a line end behind it is dropped.'),
  })
  .prefault({});

const allowEntry = z.strictObject({
  roles: names('Names of roles, or "all".'),
  databases: names('Names of databases, or "all".'),
  hosts: z
    .array(z.string().refine(isOrigin, ORIGINS))
    .min(1)
    .default(['all'])
    .describe('Addresses or networks (CIDR) of clients, "local" for Unix sockets, "all" for both.'),
  refuse: flag(false, 'Whoever fits is refused.'),
  superusers: flag(false, 'Superusers are let in, too.'),
});

const auth = z
  .strictObject({
    method: z
      .enum(['scram-sha-256', 'trust'])
      .default('scram-sha-256')
      .describe('"trust" lets loopback and Unix socket clients in without a password, and nobody else.'),
    cache_ms: milliseconds(0, 2000, 'How long what servers say of a role is kept; 0 = they are asked at every login.'),
    failure_delay_ms: milliseconds(0, 500, 'Pause before a failed login is answered.'),
    allow: z
      .array(allowEntry)
      .max(1024)
      .default([])
      .describe('Who may log in from where: the first entry that fits decides. None: all roles but superusers.'),
    service,
    recover,
  })
  .prefault({});

const admin = z
  .strictObject({
    roles: z.array(z.string().min(1)).default([]).describe('Roles that may ask SHOW pgkv.status, as pgkv status does.'),
  })
  .prefault({});

const tls = z
  .strictObject({
    cert_file: optionalText('Certificate chain for clients (PEM); reloaded on SIGHUP.'),
    key_file: optionalText('Private key of the certificate (PEM).'),
    required: flag(false, 'Refuses clients that do not use TLS; Unix sockets are exempt.'),
    min_version: z.enum(['TLSv1.2', 'TLSv1.3']).default('TLSv1.2').describe('Oldest TLS version accepted.'),
  })
  .prefault({});

const log = z
  .strictObject({
    level: z
      .enum(['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'])
      .default('info')
      .describe('Threshold.'),
    format: z.enum(['auto', 'json', 'line']).default('auto').describe('"auto": "line" on a terminal, else "json".'),
    values: flag(false, 'Shows SQL literals, parameters and row values in logs and traces; otherwise masked.'),
    trace_sessions: z
      .array(z.string().min(1))
      .default([])
      .describe('Sessions whose protocol messages are logged, by role or application_name; "*" = all.'),
  })
  .prefault({});

const drain = z
  .strictObject({
    timeout_ms: milliseconds(0, 30000, 'After SIGTERM open transactions may end for this long, then are cut.'),
  })
  .prefault({});

const limits = z
  .strictObject({
    template_cache_bytes: count(
      MIB,
      4096 * MIB,
      64 * MIB,
      'Memory for texts and parsed statements kept (LRU), for all clients together.',
    ),
    statement_tokens: count(
      1024,
      2 ** 20,
      16384,
      'Words, values and symbols of a text on key-value tables; longer ones get 54000. Reading takes some 3 µs for each.',
    ),
    session_statement_bytes: count(
      65536,
      1024 * MIB,
      16 * MIB,
      'Memory for prepared statements of one client, with what pgkv knows of them; some 1 to 3 KB each.',
    ),
  })
  .prefault({});

/** What stands in the file: snake_case, defaults filled in, rules across fields not yet checked. */
export const settingsSchema = z.strictObject({
  workers: count(1, 64, 1, 'Data processes, each with its own pools.'),
  listen,
  http,
  shards: z.array(shard).max(1024).default([]).describe('At least one; the first is the home shard.'),
  catalog,
  merged,
  servers,
  pool,
  clients,
  auth,
  admin,
  tls,
  log,
  drain,
  limits,
});

export type FileSettings = z.output<typeof settingsSchema>;
type CamelSettings = CamelKeys<FileSettings>;

/** Every field optional, camelCase, not yet checked: what `defaultSettings` takes. */
export type SettingsOverrides = CamelKeys<z.input<typeof settingsSchema>>;

export type NodeSettings = CamelSettings['shards'][number]['nodes'][number];

export type AllowEntry = CamelSettings['auth']['allow'][number];

export interface ShardSettings {
  readonly name: string;
  /** Inclusive hash slot ranges; over all shards they cover 0 to 16383 exactly once. */
  readonly slots: readonly SlotRange[];
  readonly nodes: readonly NodeSettings[];
}

/** Resolved from `passwordEnv` or `passwordFile`; null where neither is given. */
interface Password {
  readonly password: Secret | null;
}

export interface AuthSettings extends Omit<CamelSettings['auth'], 'service' | 'recover'> {
  readonly service: CamelSettings['auth']['service'] & Password;
  readonly recover: CamelSettings['auth']['recover'] & Password;
}

/** What the program works with: camelCase, complete, checked, paths absolute, secrets resolved. */
export interface Settings extends Omit<CamelSettings, 'shards' | 'auth'> {
  readonly shards: readonly ShardSettings[];
  readonly auth: AuthSettings;
}

/** JSON Schema (2020-12) of the file, for editors and for the documentation. */
export function settingsJsonSchema(): Record<string, unknown> {
  return z.toJSONSchema(settingsSchema, { io: 'input' });
}
