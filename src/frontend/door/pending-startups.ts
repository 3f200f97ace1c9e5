// How many connections of each address are in start-up: connections that never log in cost one address's share, not
// everybody's. An IPv6 client is counted by its network of 64 bits, which is what one host has; Unix sockets as one.
import { isIPv6 } from 'node:net';

export class PendingStartups {
  readonly #counts = new Map<string, number>();

  of(address: string | undefined): number {
    return this.#counts.get(originOf(address)) ?? 0;
  }

  entered(address: string | undefined): void {
    this.#counts.set(originOf(address), this.of(address) + 1);
  }

  left(address: string | undefined): void {
    const origin = originOf(address);
    const count = (this.#counts.get(origin) ?? 0) - 1;
    if (count > 0) this.#counts.set(origin, count);
    else this.#counts.delete(origin);
  }
}

function originOf(address: string | undefined): string {
  if (address === undefined) return '';
  if (!isIPv6(address) || /^::ffff:/i.test(address)) return address;
  const [head = '', tail] = address.replace(/%.*$/, '').split('::');
  const groups = head === '' ? [] : head.split(':');
  if (tail !== undefined) {
    const behind = tail === '' ? [] : tail.split(':');
    while (groups.length + behind.length < 8) groups.push('0');
    groups.push(...behind);
  }
  return `${groups.slice(0, 4).join(':')}/64`;
}
