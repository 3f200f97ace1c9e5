// COPY … FROM STDIN into key-value tables: generated data in every format and of every kind of fault, cut anywhere, to plain
// Postgres and through pgkv: the same answers, and the same rows afterwards, each on the shard of its key; all of them, or none.
// PGKV_SEED=n plays that seed, PGKV_RUNS=n so many copies.
import t, { type Test } from 'tap';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { KV, kvRouter, kvServers, prepareShard } from '../support/kv-cluster.js';
import { findPostgres, PLAYED_VERSIONS, type PostgresVersion } from '../support/postgres-binaries.js';
import { startPostgres } from '../support/postgres-server.js';
import { SeededRandom } from '../support/seeded-random.js';
import { GRANTS } from '../support/spread-servers.js';
import { SqlClient } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const RUNS = Number(process.env['PGKV_RUNS'] ?? (process.env['PGKV_LONG'] === '1' ? 3_000 : 150));
t.comment(`PGKV_SEED=${SEED}`);
await loadKeyHash();

const WORDS = [
  '',
  '\\N',
  '\\.',
  '"',
  'a,b',
  'tab\there',
  'line\nend',
  'cr\rhere',
  'ü😀',
  "it's",
  'x',
  'NULL',
  '\\',
  '\x01',
  '{t}a',
  '7',
];

type Kind = 'text' | 'csv' | 'binary';

interface Options {
  readonly kind: Kind;
  readonly sql: string;
  readonly delimiter: string;
  readonly none: string;
  readonly quote: string;
  readonly escaper: string;
  readonly header: boolean;
}

const pick = (random: SeededRandom, ...choices: readonly string[]): string => random.pick(choices);
const literal = (text: string): string => `E'${text.replace(/[\\']/g, '\\$&').replaceAll('\t', '\\t')}'`;

function shuffled<Item>(random: SeededRandom, items: readonly Item[]): Item[] {
  const left = [...items];
  return items.map(() => left.splice(random.integer(left.length), 1)[0]!);
}

function drawnOptions(random: SeededRandom, columns: readonly string[]): Options {
  const kind = random.pick<Kind>(['text', 'text', 'csv', 'csv', 'binary']);
  if (kind === 'binary') {
    return {
      kind,
      sql: pick(random, '(format binary)', 'binary', 'with binary'),
      delimiter: '',
      none: '',
      quote: '',
      escaper: '',
      header: false,
    };
  }
  const delimiter = random.oneIn(2)
    ? kind === 'csv'
      ? ','
      : '\t'
    : pick(random, '|', ';', '\t', ',', '\x02', ...(kind === 'csv' ? [] : ['A', 'F']));
  const none = random.oneIn(2) ? (kind === 'csv' ? '' : '\\N') : pick(random, 'NULL', '-', '', 'x');
  const header = random.oneIn(3);
  const parts = [`format ${kind}`, `delimiter ${literal(delimiter)}`, `null ${literal(none)}`];
  if (header) parts.push(`header ${pick(random, 'true', 'on', 'match')}`);
  let quote = '"';
  let escaper = '"';
  if (kind === 'csv') {
    if (random.oneIn(3)) quote = pick(random, "'", '!');
    escaper = quote;
    if (random.oneIn(3)) escaper = pick(random, '\\', '^');
    parts.push(`quote ${literal(quote)}`, `escape ${literal(escaper)}`);
    const listed = columns.filter(() => random.oneIn(3));
    if (listed.length > 0) parts.push(`${pick(random, 'force_not_null', 'force_null')} (${listed.join(', ')})`);
  }
  return { kind, sql: `with (${shuffled(random, parts).join(', ')})`, delimiter, none, quote, escaper, header };
}

/** A value as it stands in the data. */
function written(random: SeededRandom, value: string | null, options: Options): string {
  const { kind, delimiter, none, quote, escaper } = options;
  if (value === null) return none;
  if (kind === 'csv') {
    const needs =
      value === none || value === '' || /[\n\r]/.test(value) || value.includes(delimiter) || value.includes(quote);
    if (!needs && value !== '\\.' && random.oneIn(2)) return value;
    const inside = [...value].map((sign) => (sign === quote || sign === escaper ? escaper + sign : sign)).join('');
    return `${quote}${inside}${quote}`;
  }
  return [...value]
    .map((sign) => {
      if (sign === '\n') return pick(random, '\\n', '\\\n', '\\012', '\\x0a');
      if (sign === '\r') return pick(random, '\\r', '\\015', '\\xd');
      if (sign === '\t') return pick(random, '\\t', '\\\t', '\\x9');
      if (sign === '\\') return pick(random, '\\\\', '\\x5c', '\\134');
      if (sign === delimiter) return `\\${sign}`;
      return sign.length === 1 && /[g-wyzA-Z]/.test(sign) && !/[bfnrtv]/.test(sign) && random.oneIn(12)
        ? `\\${sign}`
        : sign;
    })
    .join('')
    .replace(/^(?=-$|NULL$|x$)/, (empty) => (value === none ? '\\' : empty));
}

const FAULTS = [
  'a field too many',
  'a field too few',
  'no number',
  'no JSON',
  'a key twice',
  'no key',
  'another line end',
  'end mark',
  'end mark behind data',
  'half an end mark',
  'no UTF-8',
  'an open quote',
  'an empty line',
  'a backslash at the end',
  'CopyFail',
] as const;
type Fault = (typeof FAULTS)[number];

interface Drawn {
  readonly sql: string;
  readonly data: Buffer;
  readonly fails: boolean;
}

function rowsOf(random: SeededRandom, columns: readonly string[], fault: Fault | null): (string | null)[][] {
  const count = random.pick([0, 1, 2, 5, 20, 60]);
  const seen = new Set<string>();
  const rows: (string | null)[][] = [];
  for (let n = 0; n < count; n++) {
    const tenant = random.pick(WORDS);
    const key = random.pick(WORDS) + (random.oneIn(3) ? '' : String(n));
    if (seen.has(`${tenant}\0${key}`)) continue;
    seen.add(`${tenant}\0${key}`);
    const slot = random.oneIn(2) ? String(hashSlotOf(tenant, key)) : null;
    const values: Readonly<Record<string, string | null>> = {
      tenant_id: tenant,
      key,
      value: random.pick([null, '1', '"x"', '{"a": [1, 2]}', `"${n}"`]),
      ttl: random.pick([null, '2099-01-01 00:00:00+00']),
      version: String(random.integer(1_000_000)),
      updated_at: '2020-02-02 02:02:02+00',
      slot,
    };
    rows.push(columns.map((column) => values[column]!));
  }
  const at = random.integer(Math.max(1, rows.length));
  if (rows.length > 0) spoil(rows, at, columns, fault);
  return rows;
}

function spoil(rows: (string | null)[][], at: number, columns: readonly string[], fault: Fault | null): void {
  const row = rows[at]!;
  if (fault === 'a field too many') row.push('more');
  else if (fault === 'a field too few') row.pop();
  else if (fault === 'no number' && columns.includes('version')) row[columns.indexOf('version')] = 'many';
  else if (fault === 'no JSON' && columns.includes('value')) row[columns.indexOf('value')] = '{bad';
  else if (fault === 'a key twice') rows.push([...row]);
  else if (fault === 'no key') row[columns.indexOf('key')] = null;
}

const BINARY_HEADER = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1');

function binaryOf(rows: readonly (readonly (string | null)[])[], columns: readonly string[]): Buffer {
  const parts: Buffer[] = [BINARY_HEADER];
  for (const row of rows) {
    const count = Buffer.alloc(2);
    count.writeInt16BE(row.length);
    parts.push(count);
    for (const [index, value] of row.entries()) parts.push(...binaryField(columns[index] ?? '', value));
  }
  return Buffer.concat([...parts, Buffer.from([0xff, 0xff])]);
}

function binaryField(column: string, value: string | null): Buffer[] {
  const length = Buffer.alloc(4);
  if (value === null) {
    length.writeInt32BE(-1);
    return [length];
  }
  let bytes = Buffer.from(value);
  if (column === 'value') bytes = Buffer.concat([Buffer.from([1]), bytes]);
  else if (column === 'version' || column === 'ttl' || column === 'updated_at') {
    bytes = Buffer.alloc(8);
    bytes.writeBigInt64BE(column === 'version' ? BigInt(Number.parseInt(value, 10) || 0) : 3_000_000_000_000_000n);
  } else if (column === 'slot') {
    bytes = Buffer.alloc(4);
    bytes.writeInt32BE(Number(value));
  }
  length.writeInt32BE(bytes.length);
  return [length, bytes];
}

function drawn(random: SeededRandom): Drawn {
  const others = ['value', 'ttl', 'version', 'slot', 'updated_at'].filter(() => random.oneIn(2));
  const isWhole = random.oneIn(6);
  const all = ['tenant_id', 'key', 'version', 'value', 'ttl', 'updated_at', 'slot'];
  const columns = isWhole ? all : shuffled(random, ['tenant_id', 'key', ...others]);
  const options = drawnOptions(random, columns);
  const fault = random.oneIn(2) ? random.pick(FAULTS) : null;
  const rows = rowsOf(random, columns, fault);
  const list = isWhole ? '' : ` (${columns.join(', ')})`;
  const sql = `copy ${pick(random, 'kv', 'public.kv', '"kv"')}${list} from ${pick(random, 'stdin', 'STDIN')} ${options.sql}`;
  if (options.kind === 'binary') {
    let data = binaryOf(rows, columns);
    if (fault === 'half an end mark') data = data.subarray(0, random.integer(data.length));
    return { sql, data, fails: fault === 'CopyFail' };
  }
  return { sql, data: linesOf(random, rows, columns, options, fault), fails: fault === 'CopyFail' };
}

function linesOf(
  random: SeededRandom,
  rows: readonly (readonly (string | null)[])[],
  columns: readonly string[],
  options: Options,
  fault: Fault | null,
): Buffer {
  const lineEnd = pick(random, '\n', '\n', '\n', '\r\n', '\r');
  const lines = rows.map((row) => row.map((value) => written(random, value, options)).join(options.delimiter));
  const at = random.integer(lines.length + 1);
  if (fault === 'an empty line') lines.splice(at, 0, '');
  else if (fault === 'end mark') lines.splice(at, 0, '\\.');
  else if (fault === 'end mark behind data' && lines.length > 0) lines[lines.length - 1] += '\\.';
  else if (fault === 'half an end mark') lines.splice(at, 0, '\\.x');
  else if (fault === 'an open quote' && at < lines.length) lines[at] += options.quote;
  if (options.header) {
    const names = random.oneIn(4) ? otherNames(random, columns, options) : columns;
    lines.unshift(names.join(options.delimiter));
  }
  let data = lines.join(lineEnd);
  if (fault === 'a backslash at the end') data += '\\';
  else if (!random.oneIn(4)) data += lineEnd;
  if (fault === 'another line end' && lines.length > 2) {
    const place = data.indexOf(lineEnd, data.length >> 1);
    const other = pick(random, ...['\n', '\r\n', '\r'].filter((one) => one !== lineEnd));
    if (place > 0) data = data.slice(0, place) + other + data.slice(place + lineEnd.length);
  }
  const bytes = Buffer.from(data);
  if (fault === 'no UTF-8' && bytes.length > 4) bytes[random.integer(bytes.length)] = 0xff;
  return bytes;
}

/** A line of names that HEADER MATCH does not let pass, or only by chance. */
function otherNames(random: SeededRandom, columns: readonly string[], options: Options): readonly string[] {
  const names = [...columns];
  const at = random.integer(names.length);
  const other = pick(random, 'slot', options.none, 'field 7', '"key"', '', 'wrong number 3', names[0]!);
  names.splice(at, random.integer(2), ...(random.oneIn(3) ? [] : [other]));
  return random.oneIn(3) ? shuffled(random, names) : names;
}

/** The data in messages of any length. */
function messagesOf(random: SeededRandom, { sql, data, fails }: Drawn): FrontendMessage[] {
  const messages: FrontendMessage[] = [{ query: sql }];
  const longest = random.pick([1, 7, 100, 100_000]);
  for (let at = 0; at < data.length; ) {
    const end = Math.min(data.length, at + 1 + random.integer(longest));
    messages.push({ copyData: data.subarray(at, end) });
    at = end;
    if (random.oneIn(200)) messages.push('flush');
  }
  messages.push(fails ? { copyFail: 'so it is' } : 'copyDone');
  return messages;
}

function told(messages: readonly BackendMessage[]): string[] {
  const shown: string[] = [];
  for (const message of messages) {
    if (message.type === 'CopyInResponse') shown.push(`in ${message.format} ${message.columnFormats.join()}`);
    else if (message.type === 'CommandComplete') shown.push(message.tag);
    else if (message.type === 'ReadyForQuery') shown.push(`ready ${message.status}`);
    else if (message.type === 'ErrorResponse') {
      const { C, M, D, H, W } = message.fields;
      // The line of bytes that are no text depends on how the data is cut into buffers.
      shown.push([C, M, C === '23502' ? '' : D, H, C === '22021' ? '' : whereOf(W)].join(' / '));
    } else if (message.type !== 'ParameterStatus') shown.push(message.type);
  }
  return shown;
}

/** Of a long line a server shows so many bytes, the slot in front among them. */
const whereOf = (where = ''): string => where.replace(/.{0,24}\.\.\."$/s, '..."');

/**
 * Differences that are listed in DIFFERENCES: a slot that is not the key's is refused by pgkv, not by the trigger; Postgres looks
 * at the bytes of a whole buffer before it looks for lines in it. Null: none of them.
 */
function listed(found: readonly string[], wanted: readonly string[]): true | null {
  const failed = (answers: readonly string[]): string => answers.find((answer) => answer.includes(' / ')) ?? '';
  if (failed(wanted) === '' || failed(found) === '') return null;
  return failed(found).includes('PGKV-072') || failed(wanted).startsWith('22021') ? true : null;
}

const CONTENT = 'select tenant_id, key, value, ttl, slot from kv order by tenant_id, key';

async function compare(t: Test, version: PostgresVersion, shards: number): Promise<void> {
  const plain = await startPostgres({ version });
  t.teardown(() => plain.stop());
  await prepareShard(plain, [KV]);
  const login = { user: 'app', database: 'postgres' };
  const cluster = await kvServers(t, shards, { tables: [KV], version, stated: true });
  for (const server of [plain, ...cluster.servers]) {
    const admin = await SqlClient.connect(server, { ...login, user: server.superuser });
    await admin.run(GRANTS);
    await admin.end();
  }
  const here = await SqlClient.connect(plain, login);
  const router = await kvRouter(t, cluster);
  const there = await SqlClient.connect(router, login);
  const counts = new Map<string, number>();
  for (let run = 0; run < RUNS; run++) {
    const random = new SeededRandom(SEED, run);
    const copy = drawn(random);
    const messages = messagesOf(random, copy);
    if (process.env['SHOW']) console.log('#', run, copy.sql, JSON.stringify(copy.data.toString('latin1')), copy.fails);
    const wanted = told(await here.send(messages));
    const found = told(await there.send(messages));
    const seed = `PGKV_SEED=${SEED}, run ${run}: ${copy.sql} ${JSON.stringify(copy.data.toString('latin1')).slice(0, 600)}`;
    const asPostgres = listed(found, wanted) ?? t.strictSame(found, wanted, seed);
    if (!asPostgres) continue;
    t.strictSame(await there.rows(CONTENT), await here.rows(CONTENT), seed);
    const how = wanted.at(-2)?.startsWith('COPY') ? 'copied' : (wanted.at(-2)?.slice(0, 5) ?? '');
    counts.set(how, (counts.get(how) ?? 0) + 1);
    if (random.oneIn(3)) {
      await here.run('delete from kv');
      for (const server of cluster.servers) {
        const client = await SqlClient.connect(server, { ...login, user: server.superuser });
        await client.run('delete from kv');
        await client.end();
      }
    }
  }
  t.comment(JSON.stringify([...counts]));
  t.ok((counts.get('copied') ?? 0) > RUNS / 4, 'many succeed');
  await here.end();
  await there.end();
}

for (const version of PLAYED_VERSIONS) {
  for (const shards of version === 'embedded' ? [1, 3] : [3]) {
    const isThere = findPostgres(version) !== undefined;
    t.test(`${shards} shards, ${version}`, { skip: !isThere && `no ${version}` }, (t) => compare(t, version, shards));
  }
}
