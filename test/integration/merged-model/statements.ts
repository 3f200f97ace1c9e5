// The kinds of statements that the model's clients draw from, and what the answer to each says of its keys.
import {
  asked,
  type Build,
  CAST_CODE,
  type Draw,
  DUPLICATE_CODE,
  int8,
  jsonb,
  type KeyedEvent,
  type Mishap,
  ROW,
  type Say,
  WALL_START,
  writtenValue,
} from './asked.js';
import { type Expiry, NEVER, type Span, type WriteEvent } from './key-events.js';
import { ALL_COLUMNS, KEYED, listing, readDivided, reading } from './reading.js';
import type { Parameter, Statement } from './wire-forms.js';

const EXPIRY_MS_MAX = 120;

interface Writing {
  readonly kind: string;
  readonly sql: string;
  readonly makes: WriteEvent['makes'];
  readonly more?: (draw: Draw, value: string) => readonly Parameter[];
  /** Columns; none: told by the tag. */
  readonly columns?: Statement['columns'];
  /** No row: what that says. */
  readonly otherwise: (draw: Draw) => readonly ('present' | 'absent' | { not: number })[];
  readonly expiry?: (draw: Draw) => number;
  readonly mishaps?: readonly Mishap[];
  readonly mishapCode?: string;
  /** The version that it changed has to be this one. */
  readonly follows?: (draw: Draw) => number;
  /** Whether the version told makes it a birth, of a statement that may be either. */
  readonly isBirth?: (draw: Draw, version: number) => boolean;
}

const writing =
  (w: Writing): Build =>
  (draw) => {
    const value = writtenValue(w.mishaps?.includes(draw.mishap!) ? draw : { ...draw, mishap: null });
    const { columns = ROW } = w;
    const at = w.expiry?.(draw);
    const written = { text: value };
    const expiries = (): Pick<WriteEvent, 'expiryOfBirth' | 'expiryOfUpdate'> => {
      const own = at === undefined ? NEVER : { low: at - WALL_START, high: at - WALL_START };
      return { expiryOfBirth: own, expiryOfUpdate: at === undefined ? 'kept' : own };
    };
    const ttl: Parameter[] = at === undefined ? [] : [{ type: 'timestamptz', text: new Date(at).toISOString() }];
    return asked(w.kind, draw, {
      sql: w.sql,
      more: [...(w.more?.(draw, value) ?? [jsonb(value)]), ...ttl],
      columns,
      ...(w.mishaps === undefined ? {} : { mishaps: w.mishaps }),
      ...(w.mishapCode === undefined ? {} : { mishapCode: w.mishapCode }),
      judge: ([row], say, tag) => {
        const { makes } = w;
        if (columns.length === 0 && !tag.endsWith(' 0')) {
          return [say.write({ makes, value: written, version: null, ...expiries() })];
        }
        if (row === undefined) return w.otherwise(draw).map((claim) => say.claim(claim));
        if (columns.length > 1 && row[1] !== value) return `value ${row[1]} instead of ${value}`;
        const version = Number(row[0]);
        const before = w.follows?.(draw);
        if (before !== undefined && version !== before + 1) return `version ${version} behind ${before}`;
        const born = w.isBirth?.(draw, version);
        const made = born === undefined ? makes : born ? 'birth' : 'update';
        return [say.write({ makes: made, value: written, version, ...expiries() })];
      },
      onError: (code, say) => (code === DUPLICATE_CODE && w.makes === 'birth' ? [say.claim('present')] : null),
      unanswered: (say) => [say.write({ makes: w.makes, value: written, version: null, sure: false, ...expiries() })],
    });
  };

const INSERT = 'insert into kv (tenant_id, key, value) values ($1, $2, $3)';
const INSERT_EXPIRING = 'insert into kv (tenant_id, key, value, ttl) values ($1, $2, $3, $4)';
const UPSERT = 'on conflict (tenant_id, key) do update set value = excluded.value';
const ON_VALUES: readonly Mishap[] = ['cast', 'check'];
const ON_INSERTS: readonly Mishap[] = ['cast', 'check', 'null'];
const soon = (draw: Draw): number => Date.now() + 3 + draw.random(EXPIRY_MS_MAX);
const absent = () => ['absent'] as const;
const present = () => ['present'] as const;
const notThatVersion = ({ version }: Draw) => [{ not: version }] as const;
const withVersion = (draw: Draw, value: string): readonly Parameter[] => [jsonb(value), versionOf(draw)];
const asNumber = (draw: Draw): boolean => draw.mishap !== 'other';
/** Sent as text where it is no number. */
const versionOf = (draw: Draw): Parameter =>
  asNumber(draw) ? int8(draw.version) : { type: 'interval', text: `v${draw.nonce}` };

const deleting =
  (
    kind: string,
    where: string,
    more: (draw: Draw) => readonly Parameter[],
    otherwise: Writing['otherwise'],
    isTold = true,
  ): Build =>
  (draw) =>
    asked(kind, draw, {
      sql: `delete from kv where ${KEYED}${where}${isTold ? ' returning version, value' : ''}`,
      more: more(draw),
      columns: isTold ? ROW : [],
      judge: ([row], say, tag) => {
        if (!isTold && !tag.endsWith(' 0')) return [say.gone(null)];
        if (row === undefined) return otherwise(draw).map((claim) => say.claim(claim));
        return [say.seen(row[0]!, row[1]!), say.gone(Number(row[0]))];
      },
      unanswered: (say) => [say.gone(null, false)],
    });

/** A function that answers true or false. */
const calling =
  (
    kind: string,
    name: string,
    more: (draw: Draw) => readonly Parameter[],
    onTrue: (say: Say, draw: Draw) => KeyedEvent,
    onFalse: Writing['otherwise'],
    unanswered: (say: Say) => KeyedEvent,
  ): Build =>
  (draw) => {
    const values = more(draw);
    const places = ['$1', '$2', ...values.map((_, index) => `$${index + 3}`)].join(', ');
    return asked(kind, draw, {
      sql: `select ${name}(${places})`,
      more: values,
      columns: [[name, 'bool']],
      judge: ([row], say) => {
        if (row === undefined || row[0] === null) return 'no answer';
        return row[0] === 't' ? [onTrue(say, draw)] : onFalse(draw).map((claim) => say.claim(claim));
      },
      unanswered: (say) => [unanswered(say)],
    });
  };

const putting =
  (kind: string, expires: boolean): Build =>
  (draw) => {
    const value = writtenValue(ON_VALUES.includes(draw.mishap!) ? draw : { ...draw, mishap: null });
    const ms = 3 + draw.random(EXPIRY_MS_MAX);
    const expiry = ({ from, to }: Span): Expiry => (expires ? { low: from + ms, high: to + ms } : NEVER);
    const write = (say: Say, version: number | null, sure: boolean): KeyedEvent => {
      const own = expiry(say.span);
      return say.write({
        makes: 'any',
        value: { text: value },
        version,
        sure,
        expiryOfBirth: own,
        expiryOfUpdate: own,
      });
    };
    return asked(kind, draw, {
      sql: `select kv_put($1, $2, $3${expires ? ', $4' : ''})`,
      more: [jsonb(value), ...(expires ? [{ type: 'interval', text: `${ms} ms` } as const] : [])],
      columns: [['kv_put', 'int8']],
      mishaps: ON_VALUES,
      judge: ([row], say) => (row?.[0] ? [write(say, Number(row[0]), true)] : 'no version'),
      unanswered: (say) => [write(say, null, false)],
    });
  };

const cas: Build = (draw) => {
  const value = writtenValue(ON_VALUES.includes(draw.mishap!) ? draw : { ...draw, mishap: null });
  const expected = draw.random(3) === 0 ? 0 : draw.version;
  const makes = expected === 0 ? 'birth' : 'update';
  const own = { value: { text: value }, makes, expiryOfUpdate: NEVER } as const;
  return asked('kvCas', draw, {
    sql: 'select applied, version, value from kv_cas($1, $2, $3, $4)',
    more: [int8(expected), jsonb(value)],
    columns: [['applied', 'bool'], ...ROW],
    mishaps: ON_VALUES,
    judge: ([row], say) => {
      if (row === undefined) return 'no row';
      const [applied, version, its] = row;
      if (applied === 't') {
        if (its !== value) return `value ${its} instead of ${value}`;
        if (expected !== 0 && Number(version) !== expected + 1) return `version ${version} behind ${expected}`;
        return [say.write({ ...own, version: Number(version) })];
      }
      if (version !== null)
        return Number(version) === expected ? 'not applied to what was expected' : [say.seen(version!, its!)];
      return expected === 0 ? 'not applied, though nothing was there' : [say.claim('absent')];
    },
    unanswered: (say) => [say.write({ ...own, version: null, sure: false })],
  });
};

const counting =
  (kind: string, more: readonly Parameter[]): Build =>
  (draw) =>
    asked(kind, draw, {
      sql: `select kv_incr($1, $2${more.length > 0 ? ', $3' : ''})`,
      more,
      columns: [['kv_incr', 'numeric']],
      judge: ([row], say) =>
        row?.[0] ? [say.write({ makes: 'any', value: { text: row[0] }, version: Number(row[0]) })] : 'no sum',
      unanswered: (say) => [say.write({ makes: 'any', value: 'unknown', version: null, sure: false })],
    });

/** A counter's versions and sums go up together; its history is told by its sums. */
const countsRead: Build = (draw) =>
  asked('countsRead', draw, {
    sql: `select value, version from kv where ${KEYED}`,
    columns: [ROW[1]!, ROW[0]!],
    judge: ([row], say) => (row === undefined ? [say.claim('absent')] : [say.seen(row[0]!, row[0]!)]),
  });

const read: Build = reading('read', 'version, value', ROW);

const upsert: Build = writing({
  kind: 'upsert',
  sql: `${INSERT} ${UPSERT} returning version, value`,
  makes: 'any',
  otherwise: () => [],
  mishaps: ON_INSERTS,
});

const insert: Build = writing({
  kind: 'insert',
  sql: `${INSERT} returning version`,
  makes: 'birth',
  columns: [ROW[0]!],
  otherwise: () => [],
  mishaps: ON_INSERTS,
});

const update: Build = writing({
  kind: 'update',
  sql: `update kv set value = $3 where ${KEYED} returning version, value`,
  makes: 'update',
  otherwise: absent,
  mishaps: ON_VALUES,
});

const updateCas: Build = writing({
  kind: 'updateCas',
  sql: `update kv set value = $3 where ${KEYED} and version = $4 returning version, value`,
  makes: 'update',
  more: withVersion,
  otherwise: notThatVersion,
  follows: ({ version }) => version,
  mishaps: ['other'],
  mishapCode: CAST_CODE,
});

const remove: Build = deleting('delete', '', () => [], absent);

const COMMON: readonly Build[] = [
  read,
  reading('readAll', '*', ALL_COLUMNS),
  reading('readFew', 'length(key) as letters, value, version, jsonb_typeof(value) as sort', [
    ['letters', 'int4'],
    ['value', 'jsonb'],
    ['version', 'int8'],
    ['sort', 'text'],
  ]),
  reading('readTtl', 'ttl, version, key, value', [['ttl', 'timestamptz'], ROW[0]!, ['key', 'text'], ROW[1]!]),
  reading('kvGet', 'value, version, ttl', [ROW[1]!, ROW[0]!, ['ttl', 'timestamptz']], 'kv_get($1, $2)'),
  readDivided,
  upsert,
  writing({
    kind: 'upsertGuarded',
    sql: `${INSERT} ${UPSERT} where kv.version = $4 returning version, value`,
    makes: 'any',
    more: (draw, value) => [jsonb(value), int8(draw.version)],
    otherwise: (draw) => ['present', { not: draw.version }],
    isBirth: (draw, version) => version !== draw.version + 1,
    mishaps: ON_INSERTS,
  }),
  insert,
  writing({
    kind: 'insertNothing',
    sql: `${INSERT} on conflict do nothing returning version, value`,
    makes: 'birth',
    otherwise: present,
    mishaps: ON_INSERTS,
  }),
  update,
  writing({
    kind: 'updateDivided',
    sql: `update kv set value = $3 where ${KEYED} and 100 / $4::int4 > 1 returning version, value`,
    makes: 'update',
    more: (draw, value) => [jsonb(value), { type: 'int4', text: draw.mishap === 'other' ? '0' : '7' }],
    otherwise: absent,
    mishaps: ['other'],
  }),
  updateCas,
  remove,
  deleting('deleteCas', ' and version = $3', ({ version }) => [int8(version)], notThatVersion),
  putting('kvPut', false),
  cas,
  calling(
    'kvDeleteCas',
    'kv_delete',
    ({ version }) => [int8(version)],
    (say, { version }) => say.gone(version),
    notThatVersion,
    (say) => say.gone(null, false),
  ),
];

const EXPIRING: readonly Build[] = [
  writing({
    kind: 'upsertTtl',
    sql: `${INSERT_EXPIRING} ${UPSERT}, ttl = excluded.ttl returning version, value`,
    makes: 'any',
    expiry: soon,
    otherwise: () => [],
    mishaps: ON_INSERTS,
  }),
  writing({
    kind: 'insertTtl',
    sql: `${INSERT_EXPIRING} returning version, value`,
    makes: 'birth',
    expiry: soon,
    otherwise: () => [],
    mishaps: ON_INSERTS,
  }),
  writing({
    kind: 'updateTtl',
    sql: `update kv set value = $3, ttl = $4 where ${KEYED} returning version, value`,
    makes: 'update',
    expiry: soon,
    otherwise: absent,
    mishaps: ON_VALUES,
  }),
  putting('kvPutTtl', true),
];

/** Not told which version they deleted: somebody has to be found who ended each life. */
const UNTOLD: readonly Build[] = [
  deleting('deleteTag', '', () => [], absent, false),
  calling(
    'kvDelete',
    'kv_delete',
    () => [],
    (say) => say.gone(null),
    absent,
    (say) => say.gone(null, false),
  ),
];

const kept = { makes: 'update', value: 'kept', version: null } as const;

const OWNED: readonly Build[] = [
  writing({
    kind: 'updateTag',
    sql: `update kv set value = $3 where ${KEYED}`,
    makes: 'update',
    columns: [],
    otherwise: absent,
    mishaps: ON_VALUES,
  }),
  writing({
    kind: 'upsertTag',
    sql: `${INSERT} ${UPSERT}`,
    makes: 'any',
    columns: [],
    otherwise: () => [],
    mishaps: ON_INSERTS,
  }),
  writing({ kind: 'insertTag', sql: INSERT, makes: 'birth', columns: [], otherwise: () => [], mishaps: ON_INSERTS }),
  calling(
    'kvTouch',
    'kv_touch',
    () => [],
    (say) => say.write(kept),
    absent,
    (say) => say.write({ ...kept, sure: false }),
  ),
  (draw) => {
    const ms = 5 + draw.random(EXPIRY_MS_MAX);
    const write = (say: Say, sure: boolean): KeyedEvent =>
      say.write({ ...kept, sure, expiryOfUpdate: { low: say.span.from + ms, high: say.span.to + ms } });
    const parameter: Parameter = { type: 'interval', text: `${ms} ms` };
    return calling(
      'kvExpire',
      'kv_expire',
      () => [parameter],
      (say) => write(say, true),
      absent,
      (say) => write(say, false),
    )(draw);
  },
];

/** By the sort of key: what may be asked of it (see `World.keys` for why). */
export const KINDS = {
  plain: [...COMMON, ...UNTOLD],
  expiring: [...COMMON, ...EXPIRING],
  fragile: COMMON,
  tagged: [...COMMON, listing('inList'), listing('anyList'), listing('inList')],
  owned: [...COMMON, ...OWNED],
  counter: [counting('kvIncr', []), counting('kvIncrBy', [{ type: 'numeric', text: '1' } as Parameter]), countsRead],
  /** Inside transactions and pipelines of one Sync. */
  block: [read, upsert, insert, update, updateCas, remove],
  blockReads: [...COMMON.slice(0, 5), listing('inList'), listing('anyList')],
} as const satisfies Record<string, readonly Build[]>;

export { countsRead as COUNTS_READ, read as READ };
