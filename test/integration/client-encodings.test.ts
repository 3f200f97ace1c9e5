// A client may talk in any of Postgres's encodings. The same bytes go to plain Postgres and to pgkv over one and over three
// shards: the answers are equal byte for byte, rows lie on the shard of their UTF-8 key, and what pgkv cannot read exactly it
// refuses and says why. Characters, statements and protocols are generated; the tables behind it are held against servers.
import t, { type Test } from 'tap';
import { clientEncoding, exactText } from '../../src/sql/text/client-encoding.js';
import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { KV, kvRouter, kvServers, prepareShard } from '../support/kv-cluster.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { startPostgres } from '../support/postgres-server.js';
import { SqlClient } from '../support/sql-client.js';

const SINGLE =
  'LATIN1 LATIN2 LATIN3 LATIN4 LATIN5 LATIN6 LATIN7 LATIN8 LATIN9 LATIN10 WIN1250 WIN1251 WIN1252 WIN1253 WIN1254 WIN1255 WIN1256 WIN1257 WIN1258 WIN866 WIN874 KOI8R KOI8U ISO_8859_5 ISO_8859_6 ISO_8859_7 ISO_8859_8'.split(
    ' ',
  );
/** Those of which keys beyond ASCII are read, and those of which only the rest of a statement is. */
const EXACT = 'EUC_JP EUC_CN EUC_KR SJIS BIG5 GBK GB18030'.split(' ');
const STRUCTURE = 'EUC_TW UHC JOHAB EUC_JIS_2004 SHIFT_JIS_2004'.split(' ');
const ALL = [...SINGLE, ...EXACT, ...STRUCTURE];

const CONVERT = `create or replace function said(b bytea, e text) returns text language plpgsql immutable as
  $$ begin return encode(convert_to(convert_from(b, e), 'UTF8'), 'hex'); exception when others then return null; end $$`;
const ONE = `select string_agg(coalesce(said(set_byte('\\x00'::bytea, 0, i), '%'), '-'), ',' order by i) from generate_series(128, 255) i`;
const TWO = `select string_agg(coalesce(said(set_byte(set_byte('\\x0000'::bytea, 0, i), 1, j), '%'), '-'), ',' order by i, j)
  from generate_series(128, 255) i, generate_series(1, 255) j`;

/** By encoding, once they were asked for: asking takes seconds. */
const KNOWN = new Map<string, Map<string, Buffer>>();

/** Characters of one byte, then of two, that a server knows, by their UTF-8 in hex. */
async function knownCharacters(client: SqlClient, name: string): Promise<Map<string, Buffer>> {
  const known = new Map<string, Buffer>();
  const one = (await client.value(ONE.replace('%', name)))!.split(',');
  one.forEach((utf8, index) => {
    if (utf8 !== '-') known.set(String.fromCharCode(128 + index), Buffer.from(utf8, 'hex'));
  });
  if (SINGLE.includes(name)) return known;
  const two = (await client.value(TWO.replace('%', name)))!.split(',');
  two.forEach((utf8, index) => {
    const first = 128 + Math.floor(index / 255);
    const bytes = String.fromCharCode(first, 1 + (index % 255));
    // Two characters, of which the first has one byte.
    if (utf8 !== '-' && !known.has(bytes[0]!)) known.set(bytes, Buffer.from(utf8, 'hex'));
  });
  return known;
}

t.test('what a character says is what servers convert it to, or is not known', async (t) => {
  for (const version of PLAYED_VERSIONS.filter(findPostgres)) {
    const server = await startPostgres({ version });
    t.teardown(() => server.stop());
    const client = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
    await client.run(CONVERT);
    for (const name of ALL) {
      const encoding = clientEncoding(name);
      const characters = await knownCharacters(client, name);
      KNOWN.set(name, characters);
      let exact = 0;
      for (const [latin1, utf8] of characters) {
        const bytes = Buffer.from(latin1, 'latin1');
        const text = encoding.read(bytes);
        if (text === null || !encoding.write(text).equals(bytes))
          throw new Error(`${name} ${bytes.toString('hex')} is changed`);
        const said = exactText(encoding, bytes);
        if (said === null) continue;
        exact++;
        if (!Buffer.from(said).equals(utf8)) throw new Error(`${name} ${bytes.toString('hex')}: ${said}, not ${utf8}`);
      }
      t.ok(characters.size > 80, `${version} ${name}: ${exact} of ${characters.size} characters are known exactly`);
      if (SINGLE.includes(name)) t.equal(exact, characters.size, name);
      else if (EXACT.includes(name)) t.ok(exact > characters.size * 0.9, name);
      else t.equal(exact, 0, name);
    }
    await client.end();
  }
});

let seed = 20_261_130;
function random(below: number): number {
  seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
  return Math.floor((seed / 0x1_0000_0000) * below);
}

/** What one answer says, bytes as they came. */
function told(messages: readonly BackendMessage[]): string[] {
  return messages.flatMap((message) => {
    switch (message.type) {
      case 'DataRow':
        return [`row ${message.values.map((value) => value?.toString('latin1') ?? 'NULL').join('|')}`];
      case 'CommandComplete':
        return [`tag ${message.tag}`];
      case 'ErrorResponse':
        return [`error ${message.fields['C']}`];
      case 'ReadyForQuery':
        return [`ready ${message.status}`];
      default:
        return [];
    }
  });
}

const bytes = (latin1: string): Buffer => Buffer.from(latin1, 'latin1');

/** A text, and where it has keys as parameters its values. */
interface Statement {
  readonly text: string;
  readonly values?: readonly string[];
}

/** @param x some characters of the encoding @param n tells rows apart */
function statements(x: string, n: number): Statement[] {
  const k = `${x}${n}`;
  return [
    { text: `insert into kv (tenant_id, key, value) values ('t${x}', '${k}', '{"a": "${x}"}')` },
    { text: `insert into kv (tenant_id, key, value) values ('t', 'a${n}', '1') -- ${x}` },
    { text: `insert into kv (tenant_id, key, value) values ('t', 'b${n}', '1'), ('t', 'b${n}', '2') /*${x}*/` },
    { text: `select key, value from kv where tenant_id = 't${x}' and key = '${k}'` },
    { text: `select /*${x}*/ count(*), min(key), max(key) from kv` },
    { text: `select key as "${x}" from kv where tenant_id > '' order by key desc limit 7` },
    { text: `select count(*) from kv where key like '${x}%'` },
    { text: `select tenant_id, count(*) from kv group by tenant_id order by tenant_id` },
    { text: `select key from kv where tenant_id = 't${x}' and key in ('${k}', '${x}', 'a${n}') order by key` },
    { text: `update kv set value = '"${x}"' where tenant_id = 't${x}' and key = '${k}' returning value` },
    { text: 'select value from kv where tenant_id = $1 and key = $2', values: [`t${x}`, k] },
    {
      text: `select key from kv where tenant_id = $1 and key = any($2) order by key /*${x}*/`,
      values: [`t${x}`, `{"${k}",a}`],
    },
    {
      text: 'delete from kv where tenant_id = $1 and key = $2 returning key',
      values: [`t${x}`, n % 2 === 0 ? k : 'none'],
    },
    { text: `select '${x}', length('${x}')` },
    { text: `select nothing from kv -- ${x}` },
  ];
}

function messagesOf({ text, values }: Statement, extended: boolean): FrontendMessage[] {
  if (!extended && values === undefined) return [{ query: bytes(text) }];
  const bind = (values ?? []).map(bytes);
  return [{ parse: bytes(text) }, { bind, formats: [0] }, { describe: 'portal' }, { execute: '' }, 'sync'];
}

t.test('statements in every encoding are answered as by plain Postgres', async (t) => {
  const plain = await startPostgres({ version: 'embedded' });
  t.teardown(() => plain.stop());
  await prepareShard(plain, [KV]);
  const login = { user: plain.superuser, database: 'postgres' };
  const direct = await SqlClient.connect(plain, login);
  for (const shards of [1, 3]) {
    const cluster = await kvServers(t, shards, { tables: [KV] });
    const router = await kvRouter(t, cluster);
    const refused: string[] = [];
    const owners = await Promise.all(cluster.servers.map((server) => SqlClient.connect(server, login)));
    for (const name of ALL) {
      const known = [...KNOWN.get(name)!.keys()];
      const here = await SqlClient.connect(plain, { ...login, parameters: { client_encoding: name } });
      const there = await SqlClient.connect(router, { ...login, parameters: { client_encoding: name } });
      for (let round = 0; round < 2; round++) {
        const x = Array.from({ length: 1 + random(3) }, () => known[random(known.length)]!).join('');
        for (const [index, statement] of statements(x, round).entries()) {
          const extended = (index + round) % 2 === 0;
          const messages = messagesOf(statement, extended);
          const found = told(await there.send(messages));
          const isRefused = found.includes('error 0A000');
          // What was refused must not have been done here either.
          if (isRefused) {
            refused.push(name);
            continue;
          }
          const wanted = told(await here.send(messages));
          t.same(
            found,
            wanted,
            `${shards} ${name} ${extended} ${bytes(statement.text).toString('hex')} ${statement.text}`,
          );
        }
      }
      await here.end();
      await there.end();
      await holdsTheSameRows(t, direct, owners, name);
      for (const client of [direct, ...owners]) await client.run('truncate kv');
    }
    for (const owner of owners) await owner.end();
    const counts = new Map(ALL.map((name) => [name, refused.filter((one) => one === name).length]));
    for (const name of [...SINGLE, 'EUC_JP', 'EUC_KR', 'GBK', 'SJIS'])
      t.equal(counts.get(name), 0, `${name} is never refused`);
    for (const name of STRUCTURE)
      t.ok(counts.get(name)! > 0 && counts.get(name)! < 30, `${name}: keys are refused, the rest is not`);
  }
});

async function holdsTheSameRows(t: Test, direct: SqlClient, owners: readonly SqlClient[], name: string): Promise<void> {
  const rows: string[] = [];
  for (const [index, client] of owners.entries()) {
    const misplaced = `select count(*) from kv where slot <> kv_slot(tenant_id, key) or slot * ${owners.length} / 16384 <> ${index}`;
    t.equal(
      await client.value(misplaced),
      '0',
      `${name}: shard ${index + 1} of ${owners.length} has its own rows only`,
    );
    rows.push(...(await client.rows('select tenant_id, key, value from kv')).map((row) => row.join('|')));
  }
  const wanted = (await direct.rows('select tenant_id, key, value from kv')).map((row) => row.join('|'));
  t.same(rows.sort(), wanted.sort(), `${name}: rows on ${owners.length} shards`);
}

t.test(
  'invalid bytes give the error that Postgres has for them; DDL and expired rows are seen through any encoding',
  async (t) => {
    const cluster = await kvServers(t, 3, { tables: [KV] });
    const router = await kvRouter(t, cluster);
    const [server] = cluster.servers;
    const login = { user: server!.superuser, database: 'postgres' };
    const utf8 = await SqlClient.connect(router, login);
    for (let key = 0; key < 30; key++) {
      const ttl = key % 3 === 0 ? `now() - interval '1 s'` : 'null';
      await utf8.run(`insert into kv (tenant_id, key, value, ttl) values ('t', 'k${key}', '1', ${ttl})`);
    }
    for (const name of ['UTF8', 'SQL_ASCII', ...ALL]) {
      const client = await SqlClient.connect(router, { ...login, parameters: { client_encoding: name } });
      const here = await SqlClient.connect(server!, { ...login, parameters: { client_encoding: name } });
      const isUtf8 = clientEncoding(name).isUtf8;
      const readable = ['\xb0\xa1', '\xe0'].find((one) => clientEncoding(name).read(bytes(one)) !== null)!;
      const good = isUtf8 ? 'é' : readable;
      const text = (sql: string): Buffer => (good === 'é' ? Buffer.from(sql) : bytes(sql));
      for (const extended of [false, true]) {
        const send = async (to: SqlClient, query: Buffer): Promise<string[]> =>
          told(await to.send(extended ? [{ parse: query }, { bind: [] }, { execute: '' }, 'sync'] : [{ query }]));
        for (const sql of [
          'truncate kv',
          'drop table kv',
          'create index on kv (key)',
          'lock table kv',
          'alter table kv add x int',
        ]) {
          const [error] = await send(client, text(`${sql} /*${good}*/`));
          t.equal(error, 'error 0A000', `${name} ${sql}`);
        }
        t.same(
          (await send(client, text(`select count(*) from kv /*${good}*/`)))[0],
          'row 20',
          `${name}: expired rows are left out`,
        );
        // A first byte without its second, and bytes that are no character at all.
        for (const bad of ['\xe3', '\xff', '\x80', '\x81']) {
          const query = bytes(`select 1 from kv /*${good === 'é' ? '' : good}*/ where key = 'x' --${bad}`);
          const wanted = await send(here, query);
          if (!wanted[0]!.startsWith('error')) continue;
          t.same(await send(client, query), wanted, `${name} ${extended} ${bytes(bad).toString('hex')}`);
        }
      }
      await client.end();
      await here.end();
    }
    await utf8.end();
  },
);
