// Where a command connects to and with which protection: options, then the PG… variables of libpq, then the defaults of
// `pgkv dev`. TLS modes mean what they mean to libpq, except that without one there is no TLS.
import { readFileSync } from 'node:fs';
import type { ConnectionOptions as TlsOptions } from 'node:tls';
import { CommandFailure, unreadable } from './command-failure.js';
import { type ConnectionOptions, PORT_MAX } from './options.js';

export const DEFAULT_HOST = '127.0.0.1';
export const DEFAULT_PORT = 7432;
const DEFAULT_USER = 'pgkv';
const DEFAULT_DATABASE = 'kv';

/** What may stand behind `?` in a connection URL; the names are libpq's. */
const URL_PARAMETERS = [
  'host',
  'port',
  'user',
  'dbname',
  'password',
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'application_name',
  'options',
] as const;
const NO_HOST = 'no-host.invalid';
type UrlParameter = (typeof URL_PARAMETERS)[number];

const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
export type SslMode = (typeof SSL_MODES)[number];

export interface ConnectionTarget {
  /** A host name or address, or the folder of a Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly password: string | undefined;
  readonly sslMode: SslMode;
  readonly sslRootCert: string | undefined;
  readonly sslCert: string | undefined;
  readonly sslKey: string | undefined;
  readonly applicationName: string;
  /** Settings as libpq's `options` gives them (`-c name=value`). */
  readonly serverOptions: string | undefined;
  /** Without one, the system's. */
  readonly connectTimeoutMs?: number;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** @throws CommandFailure for a URL, port or TLS mode that cannot be read. */
export function connectionTarget(options: ConnectionOptions, env: Environment): ConnectionTarget {
  const url = options.url === undefined ? new Map<UrlParameter, string>() : urlParameters(options.url);
  const pick = (parameter: UrlParameter, variable: string) => url.get(parameter) || env[variable] || undefined;
  const portText = pick('port', 'PGPORT');
  return {
    host: options.host ?? pick('host', 'PGHOST') ?? DEFAULT_HOST,
    port: options.port ?? (portText === undefined ? DEFAULT_PORT : parsePort(portText)),
    user: options.user ?? pick('user', 'PGUSER') ?? DEFAULT_USER,
    database: options.dbname ?? pick('dbname', 'PGDATABASE') ?? DEFAULT_DATABASE,
    password: pick('password', 'PGPASSWORD'),
    sslMode: parseSslMode(pick('sslmode', 'PGSSLMODE') ?? 'disable'),
    sslRootCert: pick('sslrootcert', 'PGSSLROOTCERT'),
    sslCert: pick('sslcert', 'PGSSLCERT'),
    sslKey: pick('sslkey', 'PGSSLKEY'),
    applicationName: pick('application_name', 'PGAPPNAME') ?? 'pgkv',
    serverOptions: pick('options', 'PGOPTIONS'),
  };
}

function urlParameters(text: string): Map<UrlParameter, string> {
  // libpq allows a user without a host (`postgres://me@/db`), the URL standard does not.
  const hosted = text.replace(/^(postgres(?:ql)?:\/\/[^/?]*@)(?=[/?]|$)/, `$1${NO_HOST}`);
  const url = URL.canParse(hosted) ? new URL(hosted) : undefined;
  if (url?.protocol !== 'postgres:' && url?.protocol !== 'postgresql:') {
    throw new CommandFailure(
      1,
      `"${text.replace(/:[^:@/]*@/, ':…@')}" is not a connection URL`,
      `Write postgres://user@host:port/database, for example postgres://${DEFAULT_USER}@${DEFAULT_HOST}:${DEFAULT_PORT}/${DEFAULT_DATABASE}.`,
    );
  }
  const found = new Map<UrlParameter, string>([
    ['host', url.hostname === NO_HOST ? '' : decodeURIComponent(url.hostname).replace(/^\[(.*)\]$/, '$1')],
    ['port', url.port],
    ['user', decodeURIComponent(url.username)],
    ['password', decodeURIComponent(url.password)],
    ['dbname', decodeURIComponent(url.pathname.slice(1))],
  ]);
  for (const [name, value] of url.searchParams) {
    const parameter = URL_PARAMETERS.find((known) => known === name);
    if (!parameter) {
      throw new CommandFailure(1, `unknown parameter "${name}" in the URL`, `Known are ${URL_PARAMETERS.join(', ')}.`);
    }
    found.set(parameter, value);
  }
  return found;
}

function parsePort(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port >= 1 && port <= PORT_MAX) return port;
  throw new CommandFailure(1, `"${text}" is not a port`, `Ports are whole numbers from 1 to ${PORT_MAX}.`);
}

function parseSslMode(text: string): SslMode {
  const mode = SSL_MODES.find((known) => known === text);
  if (mode) return mode;
  throw new CommandFailure(1, `"${text}" is not an sslmode`, `The modes are ${SSL_MODES.join(', ')}.`);
}

/** TLS settings for the driver; false is no TLS. Certificate files are read here. */
export function tlsSettings(target: ConnectionTarget): TlsOptions | false {
  const { sslMode } = target;
  if (sslMode === 'disable') return false;
  const read = (path: string | undefined) => {
    try {
      return path === undefined ? undefined : readFileSync(path);
    } catch (error) {
      throw unreadable(2, String(path), error);
    }
  };
  const ca = read(target.sslRootCert);
  const cert = read(target.sslCert);
  const key = read(target.sslKey);
  const files = { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) };
  if (sslMode === 'verify-full') return files;
  const ignoreName = { checkServerIdentity: () => undefined };
  // As libpq: a root certificate makes `require` check the chain, as verify-ca does.
  if (sslMode === 'verify-ca' || (sslMode === 'require' && ca)) return { ...files, ...ignoreName };
  return { ...files, ...ignoreName, rejectUnauthorized: false };
}

/** Where a target is, as error messages and the shell name it. */
export function placeOf({ host, port }: ConnectionTarget): string {
  return host.startsWith('/') ? `socket "${host}/.s.PGSQL.${port}"` : `"${host}", port ${port}`;
}
