// What the model's clients share during one round: the keys, what was seen of each of them, what is in fashion. Statements
// of the same text are merged only if they meet, so most clients draw from the same few kinds for a while.
import { writeFileSync } from 'node:fs';
import { SeededRandom } from '../../support/seeded-random.js';
import type { Asked, Build, Key, KeyedEvent } from './asked.js';
import type { KeyEvent } from './key-events.js';
import { KINDS } from './statements.js';
import { judge } from './verdict.js';
import type { Answer, Form } from './wire-forms.js';

/**
 * plain     shared by all; some DELETEs are not told what they have deleted
 * expiring  with short ttls; all that happens to them is told
 * fragile   clients vanish in the middle of statements on them
 * tagged    in transactions too; of the last tags, clients vanish in the middle of those
 * owned     written by one client only, who looks behind each write, so that nothing has to be told
 * counter   kv_incr only
 */
export type KeySort = 'plain' | 'expiring' | 'fragile' | 'tagged' | 'owned' | 'counter';

export type Random = (below: number) => number;

/** Whole numbers below the one given: the same for the same seeds. */
export function seeded(...seeds: readonly number[]): Random {
  let mixed = 0;
  for (const seed of seeds) mixed = Math.imul(mixed ^ seed, 0x9e3779b1) + 0x7f4a7c15;
  const random = new SeededRandom(mixed >>> 0);
  return (below) => random.integer(below);
}

const NAMES: Readonly<Record<'plain' | 'expiring' | 'fragile' | 'counter', number>> = {
  plain: 8,
  expiring: 4,
  fragile: 4,
  counter: 3,
};
/** Names are the same for all of them, so that statements meet whose keys differ by the tenant alone. */
const TENANTS = 4;
const TAGS = 6;
const FRAGILE_TAGS = 2;
const NAMES_OF_TAG = ['a', 'b', 'c', 'd', 'e'];
/** Of a hundred statements. */
const SHARES: readonly (readonly [KeySort, number])[] = [
  ['plain', 40],
  ['expiring', 12],
  ['fragile', 8],
  ['tagged', 15],
  ['owned', 10],
  ['counter', 15],
];
const FASHION_STATEMENTS = 400;
const PROBLEMS_MAX = 20;
/** Counted: keys with a life that began behind one of a higher version. */
export const BORN_LATE = 'born late';

/** How many draws of a hundred follow the fashion. */
const FOLLOWERS = { sort: 60, kind: 85, form: 90 } as const;

interface Fashion {
  readonly sort: KeySort;
  readonly kinds: Readonly<Record<string, Build>>;
  readonly form: Form;
}

const idOf = ({ tenant, name }: Key): string => `${tenant}/${name}`;

export class World {
  readonly seed: number;
  readonly round: number;
  readonly problems: string[] = [];
  /** How many statements of each kind were answered, and errors by code. */
  readonly counts = new Map<string, number>();
  /** Changes answers before they are judged: to see that it is noticed. */
  readonly tamper: (asked: Asked, answer: Answer) => Answer;
  readonly #tenants: readonly string[];
  readonly #histories = new Map<string, KeyEvent[]>();
  readonly #statements: number;
  #taken = 0;
  #fashion: Fashion | null = null;
  #lastMoment = 0;

  constructor(seed: number, round: number, statements: number, tamper: World['tamper'] = (_, answer) => answer) {
    this.seed = seed;
    this.round = round;
    this.#statements = statements;
    this.tamper = tamper;
    this.#tenants = Array.from({ length: TENANTS }, (_, number) => `r${round}t${number}`);
  }

  /** Never the same twice, so that what happens in one turn has an order too. */
  now(): number {
    this.#lastMoment = Math.max(performance.now(), this.#lastMoment + 1e-6);
    return this.#lastMoment;
  }

  /** Whether so many statements more are to be asked. */
  take(count = 1): boolean {
    if (this.#taken >= this.#statements || this.problems.length >= PROBLEMS_MAX) return false;
    const era = Math.floor(this.#taken / FASHION_STATEMENTS);
    this.#taken += count;
    if (this.#fashion === null || Math.floor(this.#taken / FASHION_STATEMENTS) !== era)
      this.#fashion = this.#newFashion();
    return true;
  }

  get taken(): number {
    return this.#taken;
  }

  #newFashion(): Fashion {
    const random = seeded(this.seed, this.round, Math.floor(this.#taken / FASHION_STATEMENTS));
    const kinds = Object.fromEntries(Object.entries(KINDS).map(([sort, all]) => [sort, all[random(all.length)]!]));
    return { sort: sortOf(random), kinds, form: formOf(random) };
  }

  kind(sort: keyof typeof KINDS, random: Random): Build {
    if (random(100) < FOLLOWERS.kind) return this.#fashion!.kinds[sort]!;
    const kinds = KINDS[sort];
    return kinds[random(kinds.length)]!;
  }

  form(random: Random): Form {
    return random(100) < FOLLOWERS.form ? this.#fashion!.form : formOf(random);
  }

  sort(random: Random): KeySort {
    return random(100) < FOLLOWERS.sort ? this.#fashion!.sort : sortOf(random);
  }

  /** The keys of one tag, for tagged ones; else one key. */
  keys(sort: KeySort, client: number, random: Random): readonly Key[] {
    const tenant = this.#tenants[random(this.#tenants.length)]!;
    if (sort === 'owned') return [{ tenant: this.#tenants[0]!, name: `own${client}-${random(2)}` }];
    if (sort === 'tagged') return this.tag(zipf(TAGS, random), random);
    return [{ tenant, name: `${sort}${zipf(NAMES[sort], random)}` }];
  }

  /** Keys of one of the tags, in a random order. */
  tag(number: number, random: Random): readonly Key[] {
    const tenant = this.#tenants[random(this.#tenants.length)]!;
    const keys = NAMES_OF_TAG.map((name) => ({ tenant, name: `{tag${number}}${name}` }));
    for (let last = keys.length - 1; last > 0; last--) {
      const other = random(last + 1);
      [keys[last], keys[other]] = [keys[other]!, keys[last]!];
    }
    return keys;
  }

  fragileTag(random: Random): readonly Key[] {
    return this.tag(TAGS - 1 - random(FRAGILE_TAGS), random);
  }

  record(events: readonly KeyedEvent[]): void {
    for (const [key, event] of events) {
      const id = idOf(key);
      const history = this.#histories.get(id);
      if (history === undefined) this.#histories.set(id, [event]);
      else history.push(event);
    }
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  wrong(problem: string): void {
    if (this.problems.length < PROBLEMS_MAX) this.problems.push(problem);
  }

  /** What anybody has asked for. */
  get known(): Key[] {
    return [...this.#histories.keys()].map((id) => {
      const [tenant, name] = id.split('/') as [string, string];
      return { tenant, name };
    });
  }

  judge(): void {
    for (const [id, events] of this.#histories) {
      const { problems, isBornLate } = judge(events);
      if (isBornLate) this.count(BORN_LATE);
      for (const problem of problems) this.wrong(`${id}: ${problem}`);
      const kept = process.env['PGKV_KEEP'];
      if (problems.length > 0 && kept !== undefined)
        writeFileSync(`${kept}/${id.replaceAll('/', '-')}.json`, JSON.stringify(events));
    }
  }
}

function sortOf(random: Random): KeySort {
  let left = random(100);
  for (const [sort, share] of SHARES) {
    left -= share;
    if (left < 0) return sort;
  }
  return 'plain';
}

function formOf(random: Random): Form {
  const protocol = (['simple', 'unnamed', 'named', 'named'] as const)[random(4)]!;
  const isSimple = protocol === 'simple';
  return {
    protocol,
    describes: !isSimple && random(2) === 0,
    binaryParameters: !isSimple && random(3) === 0,
    binaryResult: !isSimple && random(2) === 0,
  };
}

/** The first of them is drawn most often, the n-th one n times less. */
function zipf(count: number, random: Random): number {
  let sum = 0;
  for (let rank = 1; rank <= count; rank++) sum += 1 / rank;
  let left = (random(1e6) / 1e6) * sum;
  for (let rank = 1; rank < count; rank++) {
    left -= 1 / rank;
    if (left < 0) return rank - 1;
  }
  return count - 1;
}
