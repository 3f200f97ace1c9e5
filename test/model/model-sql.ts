// The tiny language of the simulation: valid SQL, so that pgkv's own parser classifies it, of which the model server
// understands just these forms. Texts are written here and read here. A nonce names its client and its place among the
// client's statements ("c2.17"), so that whatever answer or state shows one tells whose it is.

import { ROUTINES_SQL } from '../../src/backend/pool/routines-sql.js';

/** What every probe answers behind its tag and nonce: the state of its session, as far as a client can see it. */
const COLUMNS = [
  `current_setting('work_mem')`,
  `current_setting('app.x', true)`,
  `current_setting('app.hidden', true)`,
  // The style under which the text was read, as Postgres would show by a literal.
  `'1/2/2003'::date`,
  `current_setting('DateStyle')`,
  'pg_backend_pid()',
].join(', ');

export const PROBE_COLUMNS = [
  'tag',
  'nonce',
  'work_mem',
  'app.x',
  'app.hidden',
  'read as',
  'datestyle',
  'pid',
] as const;

/** Row sources of probes: a temporary table's name, rows of a length, or the table whose columns DDL changes. */
export type Source =
  | { readonly kind: 'rows'; readonly count: number }
  | { readonly kind: 'table'; readonly name: string };

export interface Probe {
  readonly kind: 'select' | 'insert';
  readonly tag: string;
  /** Null: the first parameter. */
  readonly nonce: string | null;
  readonly source: Source | null;
  readonly sleeps: boolean;
}

export type Statement =
  | Probe
  | { readonly kind: 'begin' | 'commit' | 'rollback' }
  | { readonly kind: 'savepoint' | 'rollback to' | 'release'; readonly name: string }
  | { readonly kind: 'set'; readonly name: string; readonly value: string; readonly isLocal: boolean }
  | { readonly kind: 'reset'; readonly name: string }
  | {
      readonly kind: 'set_config';
      readonly calls: readonly (readonly [name: string, value: string | null, isLocal: boolean])[];
    }
  | { readonly kind: 'fails' | 'unknown column' | 'duplicate' }
  | { readonly kind: 'prepare'; readonly name: string; readonly text: string }
  | { readonly kind: 'execute' | 'deallocate'; readonly name: string }
  | { readonly kind: 'discard'; readonly what: 'ALL' | 'SEQUENCES' }
  | { readonly kind: 'create temp' | 'drop' | 'listen' | 'unlisten' | 'declare' | 'close'; readonly name: string }
  | { readonly kind: 'notify'; readonly channel: string; readonly payload: string }
  | { readonly kind: 'lock' | 'unlock'; readonly id: string }
  | { readonly kind: 'nextval' | 'lastval' | 'alter' | 'copy in' | 'copy out' }
  | { readonly kind: 'opaque'; readonly value: string }
  | { readonly kind: 'routines' }
  | { readonly kind: 'state check'; readonly names: readonly string[]; readonly pins: readonly string[] };

export interface StatementText {
  readonly statement: Statement;
  readonly text: string;
  /** The client whose nonce stands in the text, null where none does. */
  readonly owner: string | null;
}

export const ownerOf = (text: string): string | null => /\b(c\d+)\.\d+/.exec(text)?.[1] ?? null;

const literal = (text: string): string => `'${text}'`;

export function probeText(probe: Probe): string {
  const nonce = probe.nonce === null ? '$1::text' : literal(probe.nonce);
  const { source } = probe;
  const from =
    source === null ? '' : ` FROM ${source.kind === 'rows' ? `generate_series(1, ${source.count})` : source.name}`;
  const columns = `${literal(probe.tag)}, ${nonce}, ${COLUMNS}${probe.sleeps ? ', pg_sleep(0.05)' : ''}`;
  return probe.kind === 'select' ? `SELECT ${columns}${from}` : `INSERT INTO kv VALUES (${nonce}) RETURNING ${columns}`;
}

const PROBE = new RegExp(
  `^(?:SELECT|INSERT INTO kv VALUES \\((?:'[^']*'|\\$1::text)\\) RETURNING) '(t\\d+)', ('[^']*'|\\$1::text), ${COLUMNS.replaceAll(/[()$.]/g, '\\$&')}(, pg_sleep\\(0\\.05\\))?(?: FROM (?:generate_series\\(1, (\\d+)\\)|(\\w+)))?$`,
);

type Reader = readonly [RegExp, (match: RegExpExecArray) => Statement];

const named = (kind: 'savepoint' | 'rollback to' | 'release' | 'execute' | 'deallocate') => (match: RegExpExecArray) =>
  ({ kind, name: match[1]! }) as Statement;
const on = (kind: 'create temp' | 'drop' | 'listen' | 'unlisten' | 'declare' | 'close') => (match: RegExpExecArray) =>
  ({ kind, name: match[1]! }) as Statement;
const plain = (kind: 'begin' | 'commit' | 'rollback' | 'fails' | 'unknown column' | 'duplicate') => () =>
  ({ kind }) as Statement;
const only = (kind: 'nextval' | 'lastval' | 'alter' | 'copy in' | 'copy out') => () => ({ kind }) as Statement;

const READERS: readonly Reader[] = [
  [PROBE, readProbe],
  [/^BEGIN$/, plain('begin')],
  [/^COMMIT$/, plain('commit')],
  [/^ROLLBACK$/, plain('rollback')],
  [/^SAVEPOINT (\w+)$/, named('savepoint')],
  [/^ROLLBACK TO (\w+)$/, named('rollback to')],
  [/^RELEASE (\w+)$/, named('release')],
  [
    /^SET (LOCAL )?([\w.]+) = '([^']*)'$/,
    (match) => ({ kind: 'set', name: match[2]!.toLowerCase(), value: match[3]!, isLocal: match[1] !== undefined }),
  ],
  [/^RESET ([\w.]+)$/, (match) => ({ kind: 'reset', name: match[1]!.toLowerCase() })],
  [/^SELECT (?:pg_catalog\.)?set_config\(/, readSetConfig],
  [/^SELECT 1\/0$/, plain('fails')],
  [/^SELECT no_such_column$/, plain('unknown column')],
  [/^INSERT INTO kv VALUES \('duplicate'\)$/, plain('duplicate')],
  [/^PREPARE (\w+) AS (.*)$/, (match) => ({ kind: 'prepare', name: match[1]!, text: match[2]! })],
  [/^EXECUTE (\w+)$/, named('execute')],
  // What pgkv sends to be refused: there is no such column.
  [/^SELECT "pgkv \w+"$/, plain('unknown column')],
  [/^DEALLOCATE (\w+)$/, named('deallocate')],
  [/^DISCARD (ALL|SEQUENCES)$/, (match) => ({ kind: 'discard', what: match[1] as 'ALL' | 'SEQUENCES' })],
  [/^CREATE TEMP TABLE (\w+) \(a int\)$/, on('create temp')],
  [/^DROP TABLE (\w+)$/, on('drop')],
  [/^LISTEN (\w+)$/, on('listen')],
  [/^UNLISTEN (\w+)$/, on('unlisten')],
  [/^NOTIFY (\w+), '([^']*)'$/, (match) => ({ kind: 'notify', channel: match[1]!, payload: match[2]! })],
  [/^DECLARE (\w+) CURSOR WITH HOLD FOR SELECT 1$/, on('declare')],
  [/^CLOSE (\w+)$/, on('close')],
  [/^SELECT pg_try_advisory_lock\((\d+)\)$/, (match) => ({ kind: 'lock', id: match[1]! })],
  [/^SELECT pg_advisory_unlock\((\d+)\)$/, (match) => ({ kind: 'unlock', id: match[1]! })],
  [/^SELECT nextval\('s'\)$/, only('nextval')],
  [/^SELECT lastval\(\)$/, only('lastval')],
  [/^SELECT opaque\('([^']*)'\)$/, (match) => ({ kind: 'opaque', value: match[1]! })],
  [/^ALTER TABLE shape ADD COLUMN IF NOT EXISTS (\w+) int$/, only('alter')],
  [/^COPY kv FROM STDIN$/, only('copy in')],
  [/^COPY kv TO STDOUT$/, only('copy out')],
  [/^SELECT (?:'s', name, |'p', 'temporary objects', )/, readStateCheck],
];

function readProbe(match: RegExpExecArray): Statement {
  const [text, tag, nonce, sleep, count, table] = match;
  let source: Source | null = null;
  if (count !== undefined) source = { kind: 'rows', count: Number(count) };
  else if (table !== undefined) source = { kind: 'table', name: table };
  return {
    kind: text.startsWith('SELECT') ? 'select' : 'insert',
    tag: tag!,
    nonce: nonce!.startsWith("'") ? nonce!.slice(1, -1) : null,
    source,
    sleeps: sleep !== undefined,
  };
}

function readSetConfig({ input }: RegExpExecArray): Statement {
  const calls = [...input.matchAll(/set_config\('([^']*)', (NULL|'[^']*'), (true|false)\)/g)].map(
    ([, name, value, local]) =>
      [name!.toLowerCase(), value === 'NULL' ? null : value!.slice(1, -1), local === 'true'] as const,
  );
  return { kind: 'set_config', calls };
}

/** pgkv's question what is left in a session: see src/execute/leased/state-check.ts. */
function readStateCheck({ input }: RegExpExecArray): Statement {
  const names = /unnest\(ARRAY\[([^\]]*)\]\)/.exec(input)?.[1] ?? '';
  return {
    kind: 'state check',
    names: [...names.matchAll(/'([^']*)'/g)].map((match) => match[1]!),
    pins: [...input.matchAll(/SELECT 'p', '([^']*)'/g)].map((match) => match[1]!),
  };
}

const SYNTAX_ERROR = Symbol('syntax error');
const cache = new Map<string, readonly StatementText[] | typeof SYNTAX_ERROR>();
const CACHE_MAX = 20_000;

/** Statements of a simple query, or null where Postgres would find a syntax error. */
export function readStatements(text: string): readonly StatementText[] | null {
  let found = cache.get(text);
  if (found === undefined) {
    found = read(text) ?? SYNTAX_ERROR;
    if (cache.size >= CACHE_MAX) cache.clear();
    cache.set(text, found);
  }
  return found === SYNTAX_ERROR ? null : found;
}

function read(text: string): readonly StatementText[] | null {
  // pgkv's question what the routines of a database do (src/backend/pool/routines.ts); it is full of semicolons.
  if (text === ROUTINES_SQL) return [{ statement: { kind: 'routines' }, text, owner: null }];
  const statements: StatementText[] = [];
  for (const part of text.split(';')) {
    const bare = part.replaceAll(/\/\*.*?\*\//g, '').trim();
    if (bare === '') continue;
    if (bare.startsWith('SELEC ')) return null;
    const reader = READERS.find(([pattern]) => pattern.test(bare));
    if (reader === undefined) throw new Error(`the model server does not know: ${bare}`);
    statements.push({ statement: reader[1](reader[0].exec(bare)!), text: bare, owner: ownerOf(part) });
  }
  return statements;
}
