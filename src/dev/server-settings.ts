// The configuration file of one embedded server, as text. Pure. It is written anew at every start and lies outside the
// data directory: root writes it, and the servers' user, as whom a superuser's programs run, must not be able to turn it
// into a link to a file of root's.

export interface ServerSettings {
  readonly name: string;
  readonly dataDir: string;
  readonly port: number;
  readonly socketDir: string;
  /** Who may log in from where: the text of `accessRules`, beside the settings. */
  readonly accessFile: string;
  /** Commits need not survive a crash of the machine. */
  readonly ephemeral: boolean;
  /** Win over ours. */
  readonly parameters: Readonly<Record<string, string>>;
}

/** postgresql.conf of initdb (time zone, locale, sizes) first, then ours; ALTER SYSTEM still comes last and wins. */
export function renderSettings(settings: ServerSettings): string {
  const parameters: Record<string, string> = {
    cluster_name: `pgkv ${settings.name}`,
    listen_addresses: '127.0.0.1',
    port: String(settings.port),
    unix_socket_directories: settings.socketDir,
    hba_file: settings.accessFile,
    max_connections: '200',
    shared_buffers: '64MB',
    wal_level: 'logical',
    max_prepared_transactions: '100',
    logging_collector: 'off',
    ...(settings.ephemeral ? { fsync: 'off', full_page_writes: 'off' } : {}),
    ...settings.parameters,
  };
  const lines = Object.entries(parameters).map(([name, value]) => `${checkedName(name)} = ${quoted(value)}`);
  return [
    '# Written by pgkv at every start; changes made here are lost. Use ALTER SYSTEM, or postgresql.conf where not set here.',
    `include = ${quoted(`${settings.dataDir}/postgresql.conf`)}`,
    ...lines,
    '',
  ].join('\n');
}

/** Reached through the socket only, whose folder is closed to others: a superuser runs programs as the servers' user. */
export const SUPERUSER = 'postgres';

/** pg_hba.conf: everybody on this machine gets in without a password, but nobody over TCP as the superuser. */
export const ACCESS_RULES = `# Written by pgkv at every start.
local all all trust
local replication all trust
host all "${SUPERUSER}" 127.0.0.1/32 reject
host all all 127.0.0.1/32 trust
`;

function checkedName(name: string): string {
  if (!/^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$/i.test(name)) throw new TypeError(`not a Postgres setting: ${name}`);
  return name;
}

/** https://www.postgresql.org/docs/18/config-setting.html : quotes are doubled, backslashes escape, no line breaks. */
function quoted(value: string): string {
  if (/[\n\r\0]/.test(value))
    throw new TypeError(`a Postgres setting cannot hold a line break: ${JSON.stringify(value)}`);
  return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
}
