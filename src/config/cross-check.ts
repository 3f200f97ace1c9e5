// Rules that no single field can state: names that must differ, ports that must not meet, a slot map without holes,
// limits that contradict one another. Gives every fault, not the first, each with the key that should change.
import { isIP } from 'node:net';
import type { Fault } from './problems.js';
import type { FileSettings } from './settings.js';
import { type CoverageFault, coverageFaults, HASH_SLOT_COUNT, type OwnedRange, type SlotRange } from './slot-ranges.js';

type Section = keyof FileSettings;
type Sections<Read extends Section> = Pick<FileSettings, Read>;

interface Rule {
  readonly reads: readonly Section[];
  readonly faults: (file: FileSettings) => Fault[];
}

/** The types hold a rule to the sections it says it reads. */
function rule<Read extends Section>(reads: readonly Read[], faults: (file: Sections<Read>) => Fault[]): Rule {
  return { reads, faults };
}

const RULES: readonly Rule[] = [
  rule(['listen'], listenFaults),
  rule(['http'], httpFaults),
  rule(['listen', 'http'], portFaults),
  rule(['shards'], shardFaults),
  rule(['shards'], slotFaults),
  rule(['tls'], tlsFaults),
  rule(['servers'], serverFaults),
  rule(['auth', 'listen'], trustFaults),
  rule(['auth'], authFaults),
  rule(['clients'], clientFaults),
  rule(['pool'], poolFaults),
];

/** @param file the sections that are sound by themselves; a rule that reads another one is left out */
export function crossCheck(file: Partial<FileSettings>): Fault[] {
  return RULES.flatMap(({ reads, faults }) =>
    reads.every((section) => file[section] !== undefined) ? faults(file as FileSettings) : [],
  );
}

/** Loopback by name or address; any other name is taken as reachable from elsewhere. */
export function isLoopback(host: string): boolean {
  return host.toLowerCase() === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** `host:port`, or the folder of a Unix socket with its port. */
export function nodeAddress(node: { readonly host: string; readonly port: number }): string {
  const host = node.host.toLowerCase();
  if (node.host.startsWith('/')) return `${node.host.replace(/\/+$/, '')}/.s.PGSQL.${node.port}`;
  return isIP(host) === 6 ? `[${host}]:${node.port}` : `${host}:${node.port}`;
}

function portFaults({ listen, http }: Sections<'listen' | 'http'>): Fault[] {
  if (http.disabled || http.port === 0 || http.port !== listen.port || http.host !== listen.host) return [];
  return [{ path: ['http', 'port'], message: `is the port of [listen] too: ${listen.port}` }];
}

function httpFaults({ http }: Sections<'http'>): Fault[] {
  const message = hostFault(http.host) ?? (http.host.startsWith('/') ? 'is not an address' : null);
  return message === null ? [] : [{ path: ['http', 'host'], message }];
}

function listenFaults({ listen }: Sections<'listen'>): Fault[] {
  const faults: Fault[] = [];
  const isPath = listen.host.startsWith('/');
  const message = hostFault(listen.host) ?? (isPath ? 'is not an address: use listen.socket_dir' : null);
  if (message !== null) faults.push({ path: ['listen', 'host'], message });
  // The kernel's sun_path holds 107 bytes and a NUL.
  if (listen.socket_dir !== null && Buffer.byteLength(nodeAddress({ host: listen.socket_dir, port: 65535 })) > 107) {
    faults.push({ path: ['listen', 'socket_dir'], message: 'is too long for a Unix socket (107 bytes with its name)' });
  }
  return faults;
}

function hostFault(host: string): string | null {
  if (host.includes('://')) return 'expected a host, found a URL: give host and port separately';
  if (!host.startsWith('/') && /^[^:\s]+:\d+$/.test(host)) return 'expected a host alone: the port has its own key';
  return /\s/.test(host) ? 'contains white space' : null;
}

function shardFaults({ shards }: Sections<'shards'>): Fault[] {
  const faults: Fault[] = [];
  const shardOfName = new Map<string, number>();
  const shardOfAddress = new Map<string, string>();
  shards.forEach((shard, index) => {
    const twin = shardOfName.get(shard.name);
    if (twin === undefined) shardOfName.set(shard.name, index);
    else
      faults.push({ path: ['shards', index, 'name'], message: `"${shard.name}" is the name of shards[${twin}] too` });

    shard.nodes.forEach((node, nodeIndex) => {
      const path = ['shards', index, 'nodes', nodeIndex, 'host'];
      const message = hostFault(node.host);
      if (message !== null) faults.push({ path, message });
      const address = nodeAddress(node);
      const owner = shardOfAddress.get(address);
      if (owner !== undefined) faults.push({ path, message: `${address} is already a node of shard "${owner}"` });
      else shardOfAddress.set(address, shard.name);
    });

    const primaries = shard.nodes.flatMap((node, nodeIndex) => (node.role === 'primary' ? [nodeIndex] : []));
    for (const extra of primaries.slice(1)) {
      const message = `shard "${shard.name}" has a second primary: one at most, or "auto"`;
      faults.push({ path: ['shards', index, 'nodes', extra, 'role'], message });
    }
    if (primaries.length === 0 && shard.nodes.every((node) => node.role === 'replica')) {
      const message = `shard "${shard.name}" has no primary: give one node role "primary" or "auto"`;
      faults.push({ path: ['shards', index, 'nodes'], message });
    }
  });
  return faults;
}

function slotFaults({ shards }: Sections<'shards'>): Fault[] {
  const withSlots = shards.filter((shard) => shard.slots !== undefined);
  if (withSlots.length === 0) return [];
  if (withSlots.length < shards.length) {
    return shards.flatMap((shard, index): Fault[] => {
      if (shard.slots !== undefined) return [];
      const message = `shard "${shard.name}" states no slots, but others do: all shards state theirs, or none`;
      return [{ path: ['shards', index], message }];
    });
  }
  const owned = shards.flatMap((shard, owner): OwnedRange[] =>
    (shard.slots ?? []).map((range) => ({ owner, range: range as SlotRange })),
  );
  return coverageFaults(owned).map((fault) => describeCoverage(fault, shards));
}

function describeCoverage(fault: CoverageFault, shards: FileSettings['shards']): Fault {
  const [first, last] = fault.range;
  switch (fault.kind) {
    case 'gap':
      return { path: ['shards'], message: `no shard holds slots ${first} to ${last} (of 0 to ${HASH_SLOT_COUNT - 1})` };
    case 'overlap': {
      const other = shards[fault.other]?.name;
      return { path: ['shards', fault.owner, 'slots'], message: `slots ${first} to ${last} belong to "${other}" too` };
    }
    case 'reversed':
      return { path: ['shards', fault.owner, 'slots'], message: `range [${first}, ${last}] ends before it begins` };
  }
}

function tlsFaults({ tls }: Sections<'tls'>): Fault[] {
  const faults: Fault[] = [];
  if (tls.cert_file !== null && tls.key_file === null) {
    faults.push({ path: ['tls', 'cert_file'], message: 'needs tls.key_file' });
  }
  if (tls.key_file !== null && tls.cert_file === null) {
    faults.push({ path: ['tls', 'key_file'], message: 'needs tls.cert_file' });
  }
  if (tls.required && tls.cert_file === null) {
    faults.push({ path: ['tls', 'required'], message: 'needs tls.cert_file and tls.key_file' });
  }
  return faults;
}

function serverFaults({ servers }: Sections<'servers'>): Fault[] {
  if (servers.tls_ca_file === null || servers.tls.startsWith('verify-')) return [];
  const message = `has no effect with servers.tls = "${servers.tls}": use "verify-ca" or "verify-full"`;
  return [{ path: ['servers', 'tls_ca_file'], message }];
}

function trustFaults({ auth, listen }: Sections<'auth' | 'listen'>): Fault[] {
  if (auth.method !== 'trust' || isLoopback(listen.host)) return [];
  const message = `"trust" is for loopback and Unix sockets only, but listen.host is "${listen.host}"`;
  return [{ path: ['auth', 'method'], message }];
}

function authFaults({ auth }: Sections<'auth'>): Fault[] {
  if (auth.service.query.includes('$1')) return [];
  return [{ path: ['auth', 'service', 'query'], message: 'must name the role as $1' }];
}

function clientFaults({ clients }: Sections<'clients'>): Fault[] {
  if (clients.query_bytes_max <= clients.message_bytes_max) return [];
  const message = `is more than clients.message_bytes_max (${clients.message_bytes_max}), which cuts it first`;
  return [{ path: ['clients', 'query_bytes_max'], message }];
}

function poolFaults({ pool }: Sections<'pool'>): Fault[] {
  if (pool.idle_timeout_ms <= pool.lifetime_max_ms || pool.lifetime_max_ms === 0) return [];
  const message = `is more than pool.lifetime_max_ms (${pool.lifetime_max_ms}), which ends connections first`;
  return [{ path: ['pool', 'idle_timeout_ms'], message }];
}
