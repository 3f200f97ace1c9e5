// A connection to a server is lost at any byte of any message, in any state of a session, under any statement (generated:
// loss/scripts.ts), and what the client is told of it is held against loss/ledger.ts and against what the servers hold.
//   PGKV_LONG=1      every byte, hours; without it a sample by seed
//   PGKV_SCRIPT_COUNT=n  a larger sample
//   PGKV_SEED=n      another sample
//   PGKV_SCRIPTS=re  only scripts whose name, "state/shape/kind", matches
//   PGKV_CUT='1 answer 20 end'   one cut: shard, side (request, answer, idle), byte, how (end, reset, swallow)
import t, { type Test } from 'tap';
import { takeViolations } from '../oracle/watch.js';
import { SeededRandom } from '../support/seeded-random.js';
import { type Cut, LossBench, type Run } from './loss/loss-bench.js';
import { ALL_SCRIPTS, type ScriptName, scriptText } from './loss/scripts.js';

// This test judges by itself what the loss of a connection may look like; PGKV_ORACLE=1: the protocol oracle does as well.
if (process.env['PGKV_ORACLE'] !== '1') process.prependOnceListener('exit', takeViolations);

const { env } = process;
const LONG = env['PGKV_LONG'] === '1';
const SEED = Number(env['PGKV_SEED'] ?? 1);
const CHOSEN = new RegExp(env['PGKV_SCRIPTS'] ?? '');
const ONE_CUT = env['PGKV_CUT'];
/** Scripts and cuts of each in a short run. */
const SCRIPTS = Number(env['PGKV_SCRIPT_COUNT'] ?? 100);
const CUTS = 4;
/** Rows are looked up for so many runs at a time. */
const CHECKED_TOGETHER = 40;
/** Scripts named of one kind of fault. */
const PLACES_MAX = 12;
const WARM_UPS = 2;

interface Played {
  readonly what: string;
  readonly run: Run;
}

function parseCut(text: string): Cut {
  const [shard, side, after, how] = text.split(' ');
  return { shard: Number(shard), side, after: Number(after), how } as Cut;
}

const cutText = ({ shard, side, after, how }: Cut): string => `${shard} ${side} ${after} ${how}`;

/** Every byte that passed, both ways, or some of them: the ends of the packet and of its answer are always among them. */
function cutsOf(usual: Run, random: SeededRandom): { readonly chosen: readonly Cut[]; readonly all: number } {
  if (ONE_CUT !== undefined) return { chosen: [parseCut(ONE_CUT)], all: 1 };
  const how = (): Cut['how'] => random.pick(['end', 'end', 'end', 'reset', 'reset', 'swallow']);
  const all: Cut[] = [];
  for (const [shard, passed] of usual.passed.entries()) {
    for (const side of ['request', 'answer'] as const) {
      for (let after = 0; passed[side] > 0 && after <= passed[side]; after++)
        all.push({ shard, side, after, how: how() });
    }
    if (passed.request > 0) all.push({ shard, side: 'idle', after: random.pick([0, 5]), how: 'end' });
  }
  if (LONG || all.length <= CUTS) return { chosen: all, all: all.length };
  // Done by the server, and nothing heard of it.
  const telling = all.filter(({ side, after }) => side === 'answer' && after === 0);
  const chosen = new Set(telling.length === 0 ? [] : [random.pick(telling)]);
  while (chosen.size < CUTS) chosen.add(random.pick(all));
  return { chosen: [...chosen], all: all.length };
}

function chooseScripts(random: SeededRandom, count: number): ScriptName[] {
  const found = ALL_SCRIPTS.filter((name) => CHOSEN.test(scriptText(name)));
  if (LONG || found.length <= count) return found;
  const chosen = new Set<ScriptName>();
  while (chosen.size < count) chosen.add(random.pick(found));
  return [...chosen];
}

class Report {
  readonly #t: Test;
  readonly #bench: LossBench;
  #unchecked: Played[] = [];
  readonly #kinds = new Map<string, { readonly first: string; readonly places: Map<string, number> }>();
  cuts = 0;
  struck = 0;
  /** Cuts that the long form would make in the same scripts. */
  all = 0;

  constructor(t: Test, bench: LossBench) {
    this.#t = t;
    this.#bench = bench;
  }

  async add(played: Played): Promise<void> {
    this.#unchecked.push(played);
    if (this.#unchecked.length >= CHECKED_TOGETHER || ONE_CUT !== undefined) await this.check();
  }

  async check(): Promise<void> {
    const played = this.#unchecked;
    this.#unchecked = [];
    if (played.length === 0) return;
    const found = await this.#bench.check(played.map(({ run }) => run));
    for (const [index, { what, run }] of played.entries()) {
      const wrong = [...run.violations, ...found[index]!];
      if (ONE_CUT !== undefined) for (const line of run.log) this.#t.comment(line);
      if (wrong.length > 0) this.#found(what, wrong, run);
    }
  }

  /** One of a kind is shown, and where the others are. */
  #found(what: string, wrong: readonly string[], run: Run): void {
    const kind = [...new Set(wrong.map((each) => /\[(.*?)\]/.exec(each)![1]!))].sort().join(' + ');
    const first = [what, ...wrong, ...run.log].join('\n    ');
    const known = this.#kinds.get(kind) ?? { first, places: new Map<string, number>() };
    this.#kinds.set(kind, known);
    const place = what.split(' : ')[0]!;
    known.places.set(place, (known.places.get(place) ?? 0) + 1);
  }

  end(): void {
    this.#t.comment(`${this.cuts} runs, ${this.struck} of them struck; every byte would be ${this.all}`);
    for (const [kind, { first, places }] of this.#kinds) {
      const where = [...places.keys()].slice(0, PLACES_MAX).join(', ');
      this.#t.fail(`${kind}: ${places.size} scripts, ${where}; the first:\n    ${first}`);
    }
    if (this.#kinds.size === 0) this.#t.pass('every answer is true');
  }
}

async function playAll(t: Test, bench: LossBench, places: readonly (readonly [number, number])[], count: number) {
  const random = new SeededRandom(SEED, bench.shards);
  const report = new Report(t, bench);
  for (const name of chooseScripts(random, count)) {
    const [here, there] = random.pick(places);
    const what = `${scriptText(name)} : here ${here}`;
    let usual: Run | null = null;
    for (let round = 0; round < WARM_UPS; round++) {
      usual = await bench.play(name, here, there, null, null);
      await report.add({ what: `${what}, no loss`, run: usual });
    }
    // What is wrong without a loss is not looked at with one.
    if (usual!.violations.length > 0) continue;
    const { chosen, all } = cutsOf(usual!, random);
    report.all += all;
    for (const cut of chosen) {
      const run = await bench.play(name, here, there, cut, usual);
      report.cuts++;
      if (run.struck) report.struck++;
      await report.add({ what: `${what}, cut '${cutText(cut)}'`, run });
    }
  }
  await report.check();
  report.end();
}

t.test('three shards', async (t) => {
  const bench = await LossBench.start(t, 3);
  await playAll(
    t,
    bench,
    [
      [1, 2],
      [1, 2],
      [0, 1],
      [2, 0],
    ],
    SCRIPTS,
  );
});

t.test('one shard', async (t) => {
  const bench = await LossBench.start(t, 1);
  await playAll(t, bench, [[0, 0]], Math.ceil(SCRIPTS / 4));
});
