// Generated batches, to plain Postgres and through pgkv on one, three and five shards; see batch-scripts.ts. Never an answer that
// Postgres would not give, but for refusals with their reason.
//   PGKV_SEED=7                     scripts of that seed on
//   PGKV_FUZZ_SCRIPTS=500           so many of each kind; 36, or 90 with PGKV_LONG=1
//   PGKV_FUZZ_KIND=BEGIN            only the kinds with that in their name
//   PGKV_FUZZ_SHARDS=3              only behind so many shards
import t from 'tap';
import { findPostgres } from '../../support/postgres-binaries.js';
import { Arena, type Ring } from './arena.js';
import { portalScript, queryScript } from './batch-scripts.js';
import { blockScript } from './block-scripts.js';
import { dropScript } from './drop-scripts.js';
import { edgeScript, savepointScript } from './edge-scripts.js';
import { NAME_SCRIPTS } from './name-scripts.js';
import { noticeScript } from './notice-scripts.js';
import { playScript, type RefusalCounts } from './play-script.js';
import { describePackets, type Script } from './script.js';
import { sequenceScript } from './sequence-scripts.js';
import { valueScript } from './value-scripts.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 2_000_000);
const SCRIPTS = Number(process.env['PGKV_FUZZ_SCRIPTS'] ?? (process.env['PGKV_LONG'] === '1' ? 90 : 36));
const KIND = process.env['PGKV_FUZZ_KIND'] ?? '';
const FAULTS_MAX = Number(process.env['PGKV_FUZZ_FAULTS'] ?? 3);
const SHARDS = process.env['PGKV_FUZZ_SHARDS'] ? [Number(process.env['PGKV_FUZZ_SHARDS'])] : [1, 3, 5];
const skip = findPostgres('embedded') ? false : 'no embedded Postgres';

const KINDS: Readonly<Record<string, (seed: number, shards: number) => Script>> = {
  'portals bound before others are executed': portalScript,
  'simple queries in front of the Sync': queryScript,
  'any order of messages': sequenceScript,
  'what stands around the BEGIN of a block': blockScript,
  'ends of blocks executed out of order': edgeScript,
  'as many values as a statement takes, or not': valueScript,
  'savepoints executed out of order, in blocks that move': savepointScript,
  'notifications around blocks': noticeScript,
  'names made and dropped while answers are owed': dropScript,
};

t.test('batches', { skip, timeout: 3_600_000 }, async (t) => {
  const arena = await Arena.open(SHARDS);
  t.teardown(() => arena.close());
  // Names are a matter of a connection, whatever the number of shards.
  if (KIND === '')
    await t.test('errors that name a statement', async (t) => t.equal(await playNames(t, arena.rings.at(-1)!), 0));
  for (const [name, generate] of Object.entries(KINDS)) {
    if (!name.includes(KIND)) continue;
    await t.test(name, async (t) => {
      const refusals: RefusalCounts = new Map();
      let faults = 0;
      for (let index = 0; index < SCRIPTS && faults < FAULTS_MAX; index++) {
        const ring = arena.rings[index % arena.rings.length]!;
        if (!(await isSame(t, generate(SEED + index, ring.shards), ring, refusals))) faults++;
      }
      for (const [reason, count] of refusals) t.comment(`refused ${count} times: ${reason}`);
      t.equal(faults, 0);
    });
  }
});

/** @returns how many differ */
async function playNames(t: Tap, ring: Ring): Promise<number> {
  let faults = 0;
  for (const [name, packets] of Object.entries(NAME_SCRIPTS)) {
    if (!(await isSame(t, { seed: 0, packets }, ring, new Map()))) {
      t.comment(name);
      faults++;
    }
  }
  return faults;
}

interface Tap {
  comment(text: string): void;
}

async function isSame(t: Tap, script: Script, ring: Ring, refusals: RefusalCounts): Promise<boolean> {
  const fault = await playScript(script, ring, refusals);
  if (fault === null) return true;
  await ring.renew();
  const packets = describePackets(script.packets.slice(0, fault.packet + 1));
  for (const line of [`PGKV_SEED=${script.seed}, ${ring.shards} shards: ${fault.kind}`, ...packets, fault.text])
    t.comment(line);
  return false;
}
