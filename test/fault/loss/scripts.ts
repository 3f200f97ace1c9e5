// All scripts of the loss tests: a state that a session is brought into, and the packet that the loss strikes, made of every
// kind of statement in every shape. Generated: a new state, shape or kind is met by all the others.
import {
  boundTo,
  copyIn,
  extended,
  isEnd,
  KINDS,
  MESSAGES_EACH,
  NAMED,
  noteAt,
  OLDER_VALUE,
  type Place,
  plain,
  readAt,
  type Statement,
  simple,
  type Unit,
  writeAt,
} from './statements.js';

export interface Script {
  /** Answered before the loss. */
  readonly setup: readonly Unit[];
  /** Sent in one packet. */
  readonly struck: readonly Unit[];
  /** So many messages of the first struck unit were sent, and answered, before. */
  readonly open: number;
}

export interface ScriptName {
  readonly state: string;
  readonly shape: string;
  readonly kind: string;
}

export const scriptText = ({ state, shape, kind }: ScriptName): string => `${state}/${shape}/${kind}`;

const begin = plain('BEGIN', { kind: 'begin' });
const commit = plain('COMMIT', { kind: 'commit' });
const rollback = plain('ROLLBACK', { kind: 'rollback' });
const savepoint = plain('SAVEPOINT early', { kind: 'savepoint', name: 'early' });
const neutral = (place: Place): Statement => KINDS['neutral']!(place);
const failing = (place: Place): Statement => KINDS['fails']!(place);
const older = (place: Place, name: string): Statement => writeAt(place, place.here, name, OLDER_VALUE);
const refused = (place: Place): Statement => KINDS['refused']!(place);

/** What was said in a block so far; empty: there is none. */
const STATES: Readonly<Record<string, (place: Place) => readonly Statement[]>> = {
  idle: () => [],
  held: () => [begin],
  'held with savepoint': () => [begin, savepoint],
  'neutral at home': (place) => [begin, neutral(place)],
  'neutral with savepoint': (place) => [begin, neutral(place), savepoint, neutral(place)],
  read: (place) => [begin, readAt(place, place.here)],
  written: (place) => [begin, older(place, 'w')],
  moved: (place) => [begin, neutral(place), older(place, 'w')],
  'home table': (place) => [begin, noteAt(place, 's')],
  savepoint: (place) => [begin, older(place, 'w'), savepoint, older(place, 'v')],
  failed: (place) => [begin, older(place, 'w'), failing(place)],
  'failed with savepoint': (place) => [begin, older(place, 'w'), savepoint, older(place, 'v'), failing(place)],
  'failed nowhere': (place) => [begin, refused(place)],
};

type Shape = (
  kind: Statement,
  place: Place,
  inBlock: boolean,
) => Pick<Script, 'struck'> & { readonly open?: number; readonly before?: readonly Unit[] };

const one = (...struck: Unit[]): { readonly struck: readonly Unit[] } => ({ struck });

/** How what is struck is sent. `kind` is the statement whose kind the script is about. */
const SHAPES: Readonly<Record<string, Shape>> = {
  simple: (kind) => one(simple(kind)),
  extended: (kind) => one(extended(kind)),
  'open parse': (kind) => ({ ...one(extended(kind)), open: 1 }),
  'open bind': (kind) => ({ ...one(extended(kind)), open: 2 }),
  'open execute': (kind, place) => ({
    ...one(extended(writeAt(place, place.here, 'o'), kind)),
    open: MESSAGES_EACH,
  }),
  'open read': (kind, place) => ({ ...one(extended(readAt(place, place.here), kind)), open: MESSAGES_EACH }),
  'behind a read': (kind, place) => one(extended(readAt(place, place.here), kind)),
  'before a read': (kind, place) => one(extended(kind, readAt(place, place.here))),
  'between shards': (kind, place) => one(extended(readAt(place, place.here), kind, readAt(place, place.there))),
  'behind a write': (kind, place) => one(extended(writeAt(place, place.here, 'o'), kind)),
  'two batches': (kind, place) => one(extended(readAt(place, place.here)), extended(kind)),
  'two batches, last': (kind, place) => one(extended(kind), extended(readAt(place, place.here))),
  'two texts': (kind, place) => one(simple(kind), simple(writeAt(place, place.here, 'o'))),
  'with COMMIT': (kind) => one(simple(kind), simple(commit)),
  'batch with COMMIT': (kind) => one(extended(kind, commit)),
  'batches with COMMIT': (kind) => one(extended(kind), extended(commit)),
  'behind COMMIT': (kind) => one(simple(commit), simple(kind)),
  'behind ROLLBACK': (kind) => one(simple(rollback), simple(kind)),
  'batch behind ROLLBACK': (kind) => one(extended(rollback), extended(kind)),
  'text with COMMIT': (kind) => one(simple(kind, commit)),
  'text behind COMMIT': (kind) => one(simple(commit, kind)),
  'text behind ROLLBACK': (kind) => one(simple(rollback, kind)),
  'whole block': (kind, place) =>
    one(...[begin, writeAt(place, place.here, 'o'), kind, commit].map((each) => simple(each))),
  'whole block, batches': (kind, place) =>
    one(...[begin, writeAt(place, place.here, 'o'), kind, commit].map((each) => extended(each))),
  'begin in batch': (kind) => one(extended(begin, kind)),
  'begin in batch, then COMMIT': (kind) => one(extended(begin, kind), extended(commit)),
  'block in a text': (kind) => one(simple(begin, kind, commit)),
  'bound before': (kind) => ({
    ...one(extended({ ...kind, runs: EARLY })),
    before: [extended(boundTo(EARLY, kind))],
  }),
  'bound before a write': (kind, place) => ({
    ...one(extended(writeAt(place, place.here, 'o')), extended({ ...kind, runs: EARLY })),
    before: [extended(boundTo(EARLY, kind))],
  }),
};

/** A portal of the block, which is executed in a later batch. */
const EARLY = 'early';
const BOUND = /^bound before/;
/** A block with a portal under a name stays on its shard. */
const BOUND_STATES: Readonly<Record<string, ReadonlySet<string>>> = {
  'bound before': new Set(['held', 'neutral at home', 'read', 'written', 'savepoint']),
  'bound before a write': new Set(['read', 'written', 'savepoint']),
};
const BOUND_KINDS = new Set(['commit', 'rollback', 'write here', 'put here']);

const SIMPLE_SHAPES = /simple|text|copy|^with COMMIT$|^behind (COMMIT|ROLLBACK)$|^whole block$/;

/** COPY stands for itself: the whole of it in a packet, or begun before. */
const COPIES: Readonly<Record<string, number>> = { copy: 0, 'open copy': 2 };

const MOVED_STATES = new Set(['idle', 'held', 'neutral at home', 'written', 'failed', 'savepoint']);
const PLAIN_SHAPES = new Set(['simple', 'extended']);
/** A shape that begins a block is for sessions outside of one, one that ends it for sessions in one. */
const BEGINS = /begin|block/;
const ENDS = /COMMIT|ROLLBACK/;
/** Meaningless, or the same as another script. */
const LONE_KINDS = new Set(['begin', 'commit', 'rollback', 'savepoint', 'rollback to', 'copy out', 'named read']);

function isPlayed({ state, shape, kind }: ScriptName): boolean {
  if (BOUND.test(shape)) return BOUND_STATES[shape]!.has(state) && BOUND_KINDS.has(kind);
  if (PLAIN_SHAPES.has(shape)) return kind !== 'named read' || shape === 'extended';
  if (!MOVED_STATES.has(state) || LONE_KINDS.has(kind)) return false;
  if (BEGINS.test(shape)) return state === 'idle';
  return !(ENDS.test(shape) && state === 'idle');
}

export const ALL_SCRIPTS: readonly ScriptName[] = Object.keys(STATES).flatMap((state) => [
  ...Object.keys(SHAPES).flatMap((shape) =>
    Object.keys(KINDS)
      .map((kind) => ({ state, shape, kind }))
      .filter(isPlayed),
  ),
  ...Object.keys(COPIES).map((shape) => ({ state, shape, kind: 'copy in' })),
]);

/** Marks what the client means to be part of a block. */
function markBlocks(units: readonly Unit[], inBlock: boolean): Unit[] {
  let open = inBlock;
  return units.map((unit) => ({
    ...unit,
    statements: unit.statements.map((each) => {
      const marked = { ...each, inBlock: open };
      if (each.effect.kind === 'begin') open = true;
      else if (isEnd(each)) open = false;
      return marked;
    }),
  }));
}

export function buildScript({ state, shape, kind }: ScriptName, place: Place): Script {
  const said = STATES[state]!(place);
  const isSimple = SIMPLE_SHAPES.test(shape);
  // The session has one older statement with a name, and one without.
  const setup: Unit[] = [
    extended({ ...readAt(place, place.here), prepares: NAMED }),
    extended(older(place, 'u')),
    ...said.map((each) => (isSimple ? simple(each) : extended(each))),
  ];
  const inBlock = said.length > 0;
  const open = COPIES[shape];
  if (open !== undefined) {
    return { setup: markBlocks(setup, false), struck: [copyIn(place, inBlock)], open };
  }
  const made = SHAPES[shape]!(KINDS[kind]!(place), place, inBlock);
  setup.push(...(made.before ?? []));
  return { setup: markBlocks(setup, false), struck: markBlocks(made.struck, inBlock), open: made.open ?? 0 };
}
