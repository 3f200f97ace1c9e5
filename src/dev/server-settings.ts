// The configuration file of one embedded server, as text. Pure. It is written anew at every start and lies outside the
// data directory: root writes it, and the servers' user, whom every local client can act as (trust, superuser), must not
// be able to turn it into a link to a file of root's.

export interface ServerSettings {
  readonly name: string;
  readonly dataDir: string;
  readonly port: number;
  readonly socketDir: string;
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
