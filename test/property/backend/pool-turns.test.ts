// Whose turn it is in a pool, in random orders of events (pool-world.ts): nobody starves, nothing lies idle that somebody waits
// for, and what is kept from leases stays kept.
import t from 'tap';
import { playPool } from './pool-world.js';

const RUNS = Number(process.env['PGKV_RUNS'] ?? (process.env['PGKV_LONG'] ? 400 : 30));
const only = process.env['PGKV_SEED'];

t.test('everybody is served in turn, on connections that are never idle meanwhile', async (t) => {
  const seeds = only === undefined ? Array.from({ length: RUNS }, (_, index) => index + 1) : [Number(only)];
  let served = 0;
  let refused = 0;
  const kinds = new Map<string, number>();
  for (const seed of seeds) {
    const outcome = playPool(seed);
    served += outcome.served;
    refused += outcome.refused;
    for (const fault of outcome.faults) {
      const kind = fault.replace(/^.*?: /, '').replace(/\d+/g, 'n');
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
      if (kinds.get(kind) === 1) t.fail(`PGKV_SEED=${seed}: ${fault}`);
    }
  }
  for (const [kind, count] of kinds) t.comment(`${count} × ${kind}`);
  t.ok(served > seeds.length, `${served} served, ${refused} refused in ${seeds.length} runs`);
});
