// One script of the fuzzer, played and judged: what fails is cut down and printed, so that it can be played again.
import { appendFileSync } from 'node:fs';
import type t from 'tap';
import type { Ring } from './arena.js';
import { type Fault, playScript, type RefusalCounts } from './play-script.js';
import { describePackets, type Script } from './script.js';
import { type Shrunk, shrink } from './shrink.js';

const REPORT = process.env['PGKV_FUZZ_REPORT'];
export const SHARDS = process.env['PGKV_FUZZ_SHARDS'] ? [Number(process.env['PGKV_FUZZ_SHARDS'])] : [1, 3, 5];

/** As `report` writes them. */
export function scriptsIn(reported: string): { readonly shards: number; readonly script: Script }[] {
  return [...reported.matchAll(/PGKV_FUZZ_SHARDS=(\d+) PGKV_FUZZ_SCRIPT='(.*)'$/gm)].map(([, shards, script]) => ({
    shards: Number(shards),
    script: JSON.parse(script!.replaceAll("'\\''", "'")),
  }));
}

/** Plays it; what fails is cut down and printed. */
export async function check(
  t: Tap,
  script: Script,
  ring: Ring,
  refusals: RefusalCounts,
  name?: string,
): Promise<boolean> {
  const fault = await playScript(script, ring, refusals);
  if (fault === null) return true;
  const fresh = async (smaller: Script): Promise<Fault | null> => {
    await ring.renew();
    return playScript(smaller, ring);
  };
  const again = await fresh(script);
  const isReproduced = again !== null && again.kind === fault.kind;
  const shrunk: Shrunk = isReproduced ? await shrink({ script, fault: again }, fresh) : { script, fault };
  await ring.renew();
  const title = name ?? `seed ${script.seed}`;
  const lines = report(title, shrunk, ring, isReproduced);
  for (const line of lines) t.comment(line);
  if (REPORT !== undefined) appendFileSync(REPORT, `${lines.join('\n')}\n\n`);
  t.fail(`${shrunk.fault.kind}, ${title}, ${ring.shards} shards`);
  return false;
}

type Tap = Pick<typeof t, 'fail' | 'comment'>;

function report(title: string, { script, fault }: Shrunk, { shards }: Ring, isReproduced: boolean): string[] {
  return [
    `${fault.kind}, ${title}, on ${shards} shard${shards === 1 ? '' : 's'}`,
    ...(isReproduced ? [] : ['NOT seen again with a new router: it may need what came before']),
    ...describePackets(script.packets),
    ...fault.text.split('\n'),
    `PGKV_FUZZ_SHARDS=${shards} PGKV_FUZZ_SCRIPT='${JSON.stringify(script).replaceAll("'", "'\\''")}'`,
  ];
}
