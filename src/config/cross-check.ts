// Rules that no single field can state: names that must differ, ports that must not meet, a slot map without holes,
// limits that contradict one another. Gives every fault, not the first, each with the key that should change.
import { isIP } from 'node:net';
import type { Fault } from './problems.js';
import type { FileSettings } from './settings.js';
import { type CoverageFault, coverageFaults, HASH_SLOT_COUNT, type OwnedRange, type SlotRange } from './slot-ranges.js';

export function crossCheck(file: FileSettings): Fault[] {
  return [
    ...listenFaults(file),
    ...shardFaults(file),
    ...slotFaults(file),
    ...tlsFaults(file),
    ...authFaults(file),
    ...limitFaults(file),
  ];
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

function listenFaults({ listen, http }: FileSettings): Fault[] {
  const faults: Fault[] = [];
  if (!http.disabled && http.port !== 0 && http.port === listen.port && http.host === listen.host) {
    faults.push({ path: ['http', 'port'], message: `is the port of [listen] too: ${listen.port}` });
  }
  for (const [section, host] of [
    ['listen', listen.host],
    ['http', http.host],
  ] as const) {
    const message = hostFault(host);
    if (message !== null) faults.push({ path: [section, 'host'], message });
    else if (host.startsWith('/')) {
      const message = section === 'listen' ? 'is not an address: use listen.socket_dir' : 'is not an address';
      faults.push({ path: [section, 'host'], message });
    }
  }
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

function shardFaults({ shards }: FileSettings): Fault[] {
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

function slotFaults({ shards }: FileSettings): Fault[] {
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

function tlsFaults({ tls, servers }: FileSettings): Fault[] {
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
  if (servers.tls_ca_file !== null && !servers.tls.startsWith('verify-')) {
    const message = `has no effect with servers.tls = "${servers.tls}": use "verify-ca" or "verify-full"`;
    faults.push({ path: ['servers', 'tls_ca_file'], message });
  }
  return faults;
}

function authFaults({ auth, listen }: FileSettings): Fault[] {
  const faults: Fault[] = [];
  if (auth.method === 'trust' && !isLoopback(listen.host)) {
    const message = `"trust" is for loopback and Unix sockets only, but listen.host is "${listen.host}"`;
    faults.push({ path: ['auth', 'method'], message });
  }
  if (!auth.service.query.includes('$1')) {
    faults.push({ path: ['auth', 'service', 'query'], message: 'must name the role as $1' });
  }
  return faults;
}

function limitFaults({ clients, pool }: FileSettings): Fault[] {
  const faults: Fault[] = [];
  if (clients.query_bytes_max > clients.message_bytes_max) {
    const message = `is more than clients.message_bytes_max (${clients.message_bytes_max}), which cuts it first`;
    faults.push({ path: ['clients', 'query_bytes_max'], message });
  }
  if (pool.idle_timeout_ms > pool.lifetime_max_ms && pool.lifetime_max_ms > 0) {
    const message = `is more than pool.lifetime_max_ms (${pool.lifetime_max_ms}), which ends connections first`;
    faults.push({ path: ['pool', 'idle_timeout_ms'], message });
  }
  return faults;
}
