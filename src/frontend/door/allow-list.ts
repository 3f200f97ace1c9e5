// From where, as whom and to which database clients may come: auth.allow, read like pg_hba.conf, from the top to the first
// entry that fits. Asked before the password is, so that nobody learns from it which roles there are.
import { BlockList, isIP } from 'node:net';
import { PgkvError } from '../../base/errors.js';
import type { AllowEntry } from '../../config/settings.js';

export interface Comer {
  readonly user: string;
  readonly database: string;
  /** Undefined for a Unix socket. */
  readonly address: string | undefined;
}

interface Rule {
  readonly roles: ReadonlySet<string> | null;
  readonly databases: ReadonlySet<string> | null;
  readonly isFrom: (address: string | undefined) => boolean;
  readonly refuse: boolean;
  readonly superusers: boolean;
}

export class AllowList {
  /** Null: everybody but superusers, from everywhere. */
  readonly #rules: readonly Rule[] | null;

  constructor(entries: readonly AllowEntry[]) {
    this.#rules = entries.length === 0 ? null : entries.map(ruleOf);
  }

  /** @throws PgkvError `invalid_authorization` where the list does not let the client in */
  admit(comer: Comer): { readonly superusers: boolean } {
    if (this.#rules === null) return { superusers: false };
    const rule = this.#rules.find((one) => fits(one, comer));
    if (rule !== undefined && !rule.refuse) return rule;
    const from = comer.address === undefined ? 'a Unix socket' : `host "${plainAddress(comer.address)}"`;
    const who = `${from}, user "${comer.user}", database "${comer.database}"`;
    const message = rule === undefined ? `no entry of auth.allow for ${who}` : `auth.allow refuses ${who}`;
    throw new PgkvError('invalid_authorization', { message });
  }
}

function fits({ roles, databases, isFrom }: Rule, { user, database, address }: Comer): boolean {
  return (roles === null || roles.has(user)) && (databases === null || databases.has(database)) && isFrom(address);
}

function ruleOf({ roles, databases, hosts, refuse, superusers }: AllowEntry): Rule {
  return { roles: namesOf(roles), databases: namesOf(databases), isFrom: originOf(hosts), refuse, superusers };
}

/** Null: all. */
const namesOf = (names: readonly string[]): ReadonlySet<string> | null =>
  names.includes('all') ? null : new Set(names);

function originOf(hosts: readonly string[]): (address: string | undefined) => boolean {
  if (hosts.includes('all')) return () => true;
  const isLocal = hosts.includes('local');
  const list = new BlockList();
  for (const host of hosts) {
    if (host === 'local') continue;
    const [address = '', bits] = host.split('/');
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
    list.addSubnet(address, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family);
  }
  return (address) => {
    if (address === undefined) return isLocal;
    const plain = plainAddress(address);
    return list.check(plain, isIP(plain) === 6 ? 'ipv6' : 'ipv4');
  };
}

/** An IPv4 client of a socket that takes both comes as ::ffff:1.2.3.4; a link-local one names its interface. */
function plainAddress(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  return mapped?.[1] ?? address.replace(/%.*$/, '');
}
