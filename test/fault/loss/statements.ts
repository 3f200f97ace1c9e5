// What clients say in the loss tests, in both protocols, and what each of it does: the oracle (ledger.ts) reads effects,
// never SQL. Every script has keys of its own, so that what has become of them can be looked up when all is over.
import type { FrontendMessage } from '../../support/frontend-message.js';

/** A row that a script writes: of table kv on a shard, or of the ordinary table of the home shard. */
export interface Row {
  readonly table: 'kv' | 'plain';
  readonly shard: number;
  readonly key: string;
  readonly value: string;
}

export type Effect =
  | { readonly kind: 'none' | 'begin' | 'commit' | 'rollback' }
  | { readonly kind: 'savepoint' | 'rollback to'; readonly name: string }
  | { readonly kind: 'write'; readonly row: Row };

export interface Statement {
  /** With its values in it. */
  readonly simple: string;
  readonly text: string;
  readonly values: readonly string[];
  /** Parses it by this name, or executes what was. */
  readonly prepares?: string;
  readonly named?: string;
  /** Binds it to this portal and leaves it there, or executes what was bound to it. */
  readonly binds?: string;
  readonly runs?: string;
  readonly effect: Effect;
  /** Errors of its own, wherever it is said. */
  readonly mayFailWith?: readonly string[];
  /** Shards on which it has something done, those of reads of several shards left out: they may run beside a block. */
  readonly shards: readonly number[];
  /** Names no table: a block goes on to another shard behind it. */
  readonly isNeutral?: boolean;
  /** pgkv cannot know that it leaves nothing behind, so that the session may have to end with its connection (R5). */
  readonly mayPin?: boolean;
  /** Belongs to a block of the client's: it must never take effect without that. */
  readonly inBlock: boolean;
}

/** The Bind of it, which does nothing yet. */
export const boundTo = (portal: string, statement: Statement): Statement => ({
  ...statement,
  binds: portal,
  effect: NONE,
});

/** What is answered by one ReadyForQuery. */
export interface Unit {
  readonly form: 'simple' | 'extended' | 'copy in';
  readonly statements: readonly Statement[];
}

export const OLDER_VALUE = '"older"';
export const NEW_VALUE = '"new"';
/** Parsed by name at the beginning of each session. */
export const NAMED = 'mine';

/** Where a script's statements go. */
export interface Place {
  /** As many digits in each script, so that all cuts of a kind meet the same bytes. */
  readonly id: string;
  /** The shard of the block, and another one. */
  readonly here: number;
  readonly there: number;
  /** A part of keys that has the shard's slot. */
  readonly tags: readonly string[];
}

export const keyOn = (place: Place, shard: number, name: string): string => `{${place.tags[shard]}}${place.id}${name}`;
export const fixedKey = (place: Place, shard: number): string => `{${place.tags[shard]}}fixed`;

const NONE: Effect = { kind: 'none' };
const quoted = (text: string): string => `'${text}'`;

function statement(
  text: string,
  values: readonly string[] = [],
  effect: Effect = NONE,
  {
    mayFailWith = [],
    shards = [],
    mayPin = false,
    isNeutral = false,
  }: Partial<Pick<Statement, 'mayFailWith' | 'shards' | 'mayPin' | 'isNeutral'>> = {},
): Statement {
  const simple = text.replaceAll(/\$(\d)/g, (_, digit) => quoted(values[Number(digit) - 1]!));
  return { simple, text, values, effect, mayFailWith, shards, mayPin, isNeutral, inBlock: false };
}

export const plain = (text: string, effect: Effect = NONE): Statement => statement(text, [], effect);

const READ = 'SELECT value FROM kv WHERE tenant_id = $1 AND key = $2';
const insert = (value: string): string =>
  `INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, '${value}') RETURNING value`;

export const readAt = (place: Place, shard: number): Statement =>
  statement(READ, ['t', fixedKey(place, shard)], NONE, { shards: [shard] });

export const readRow = ({ key, shard }: Row): Statement => statement(READ, ['t', key], NONE, { shards: [shard] });

export function writeAt(place: Place, shard: number, name: string, value = NEW_VALUE): Statement {
  const row: Row = { table: 'kv', shard, key: keyOn(place, shard, name), value };
  return statement(insert(value), ['t', row.key], { kind: 'write', row }, { shards: [shard] });
}

function putAt(place: Place, shard: number, name: string): Statement {
  const row: Row = { table: 'kv', shard, key: keyOn(place, shard, name), value: NEW_VALUE };
  return statement(
    `SELECT kv_put($1, $2, '${NEW_VALUE}') > 0 AS stored`,
    ['t', row.key],
    { kind: 'write', row },
    { shards: [shard] },
  );
}

export function noteAt(place: Place, name: string): Statement {
  const row: Row = { table: 'plain', shard: 0, key: `${place.id}${name}`, value: '' };
  return statement(
    'INSERT INTO plain (note) VALUES ($1 || $2) RETURNING 7',
    [place.id, name],
    { kind: 'write', row },
    { shards: [0] },
  );
}

/** What a client may say at any moment, by name. */
export const KINDS: Readonly<Record<string, (place: Place) => Statement>> = {
  'read here': (place) => readAt(place, place.here),
  'write here': (place) => writeAt(place, place.here, 'k'),
  'put here': (place) => putAt(place, place.here, 'k'),
  'read there': (place) => readAt(place, place.there),
  'write there': (place) => writeAt(place, place.there, 'k'),
  scattered: () => statement('SELECT key, value FROM kv WHERE tenant_id = $1 AND key > $2 ORDER BY key', ['f', '!']),
  counted: () => statement('SELECT count(*) FROM kv WHERE tenant_id = $1 AND key > $2', ['f', '!']),
  'home read': () =>
    statement('SELECT note FROM plain WHERE note = $1 OR note = $2', ['fixed', 'fixed'], NONE, { shards: [0] }),
  'home write': (place) => noteAt(place, 'h'),
  catalogue: () =>
    statement('SELECT relname FROM pg_class WHERE relname = $1 OR relname = $2', ['plain', 'plain'], NONE, {
      shards: [0],
    }),
  neutral: () =>
    statement('SELECT length($1::text) + length($2::text)', ['a', 'bc'], NONE, { shards: [0], isNeutral: true }),
  begin: () => plain('BEGIN', { kind: 'begin' }),
  commit: () => plain('COMMIT', { kind: 'commit' }),
  rollback: () => plain('ROLLBACK', { kind: 'rollback' }),
  savepoint: () => statement('SAVEPOINT late', [], { kind: 'savepoint', name: 'late' }, { mayFailWith: ['25P01'] }),
  'rollback to': () =>
    statement('ROLLBACK TO early', [], { kind: 'rollback to', name: 'early' }, { mayFailWith: ['3B001', '25P01'] }),
  deallocate: () => statement(`DEALLOCATE ${NAMED}`, [], NONE, { mayPin: true, shards: [0], isNeutral: true }),
  'deallocate all': () => statement('DEALLOCATE ALL', [], NONE, { mayPin: true, shards: [0], isNeutral: true }),
  'named read': (place) => ({ ...readAt(place, place.here), named: NAMED }),
  refused: (place) =>
    statement(
      "UPDATE kv SET key = 'other' WHERE tenant_id = $1 AND key = $2",
      ['t', fixedKey(place, place.here)],
      NONE,
      { mayFailWith: ['0A000'] },
    ),
  syntax: () => statement('SELEC 1', [], NONE, { mayFailWith: ['42601'], mayPin: true, shards: [0] }),
  fails: () => statement('SELECT 1/0', [], NONE, { mayFailWith: ['22012'], shards: [0], isNeutral: true }),
  'copy out': () =>
    statement("COPY (SELECT note FROM plain WHERE note = 'fixed') TO STDOUT", [], NONE, { shards: [0] }),
};

export const isEnd = ({ effect }: Statement): boolean => effect.kind === 'commit' || effect.kind === 'rollback';

export function simple(...statements: readonly Statement[]): Unit {
  return { form: 'simple', statements };
}

export function extended(...statements: readonly Statement[]): Unit {
  return { form: 'extended', statements };
}

/** Rows of the ordinary table, by COPY: a single statement for the client. */
export function copyIn(place: Place, inBlock: boolean): Unit {
  const row: Row = { table: 'plain', shard: 0, key: `${place.id}c`, value: '' };
  const copy = statement('COPY plain (note) FROM STDIN', [], { kind: 'write', row }, { shards: [0] });
  return { form: 'copy in', statements: [{ ...copy, inBlock }] };
}

/** Messages of one statement in the extended protocol. */
export const MESSAGES_EACH = 4;

export function messagesOf({ form, statements }: Unit): FrontendMessage[] {
  if (form === 'simple') return [{ query: statements.map((each) => each.simple).join('; ') }];
  if (form === 'copy in') {
    const { text, effect } = statements[0]!;
    const line = effect.kind === 'write' ? `${effect.row.key}\n` : '';
    return [{ query: text }, { copyData: line }, 'copyDone'];
  }
  const messages = statements.flatMap(({ text, values, prepares, named, binds, runs }): FrontendMessage[] => {
    if (prepares !== undefined) return [{ parse: text, name: prepares }];
    if (binds !== undefined) return [{ parse: text }, { bind: values, portal: binds }];
    if (runs !== undefined) return [{ execute: runs }];
    const run: FrontendMessage[] = [{ bind: values, statement: named ?? '' }, { describe: 'portal' }, { execute: '' }];
    return named === undefined ? [{ parse: text }, ...run] : run;
  });
  return [...messages, 'sync'];
}
