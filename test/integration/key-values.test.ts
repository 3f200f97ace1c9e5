// What the router reads in literals and arrays, and the slots it finds, against what servers say: random texts, one
// query for hundreds of them.
import fc from 'fast-check';
import t from 'tap';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { StatementValues, Unreadable } from '../../src/route/key-values.js';
import { arrayElements, binaryArrayElements } from '../../src/route/text-array.js';
import { LITERAL_STRIDE, lexShape } from '../../src/sql/text/shape-lexer.js';
import { KV, prepareShard } from '../support/kv-cluster.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { startPostgres } from '../support/postgres-server.js';
import { SqlClient } from '../support/sql-client.js';

await loadKeyHash();

const CASES = 600;
const seeds = (count: number): readonly number[] => Array.from({ length: count }, (_, n) => 1000 + n);

const character = fc.oneof(
  fc.constantFrom(
    "'",
    '\\',
    '"',
    '$',
    '{',
    '}',
    ',',
    ' ',
    '\n',
    '\t',
    '-',
    '/',
    '*',
    'N',
    'U',
    'L',
    'E',
    '&',
    '7',
    '%',
  ),
  fc.constantFrom(
    'v',
    'n',
    'x',
    'u',
    'b',
    '\v',
    '\f',
    '\r',
    '\u0001',
    '\u00a0',
    '\u2019',
    'é',
    '漢',
    '🔑',
    '\u0301',
    '\ufeff',
  ),
);
const text = fc.string({ unit: character, maxLength: 8 });

/** All ways to write a literal that means something, not only the one that quotes right. */
const literal = fc.oneof(
  text.map((value) => `'${value.replaceAll("'", "''")}'`),
  text.map((value) => `E'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`),
  text.map((value) => `E'${value.replaceAll("'", "''")}'`),
  text.map((value) => `e'${value.replaceAll("'", "\\'")}'`),
  text.map((value) => `$$${value}$$`),
  fc.tuple(fc.constantFrom('a', 'é', '_1', 'q$'), text).map(([tag, value]) => `$${tag}$${value}$${tag}$`),
  fc
    .tuple(text, fc.constantFrom('\n', ' \t\r\n ', '\r', ' ', '\n--c\n', '\v\n'), text)
    .map(([one, gap, other]) => `'${one.replaceAll("'", "''")}'${gap}'${other.replaceAll("'", "''")}'`),
  fc.tuple(text, text).map(([one, other]) => `E'${one.replaceAll("'", "''")}'\n'${other.replaceAll("'", "''")}'`),
);

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  t.test(`Postgres ${version}`, skip, async (t) => {
    const server = await startPostgres({ version });
    t.teardown(() => server.stop());
    const client = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
    t.teardown(() => client.end());
    await prepareShard(server, [KV]);

    for (const standard of [true, false]) {
      t.test(`literals, standard_conforming_strings ${standard ? 'on' : 'off'}`, async (t) => {
        await client.run(
          `set standard_conforming_strings = ${standard ? 'on' : 'off'}`,
          'set escape_string_warning = off',
        );
        let read = 0;
        for (const source of [
          "E'\\v'",
          "E'a\\'\n'\\v'",
          ...fc.sample(literal, { numRuns: CASES, seed: standard ? 1 : 2 }),
        ]) {
          const sql = `select ${source}`;
          const shape = lexShape(sql, standard);
          if (shape === null || shape.literals.length !== LITERAL_STRIDE) continue;
          const mine = new StatementValues(sql, shape.literals, null).text({ kind: 'literal', index: 0 });
          if (mine instanceof Unreadable) continue;
          const row = (await client.answers(sql)).find((message) => message.type === 'DataRow');
          // What the server rejects, it rejects on every shard.
          if (row?.type !== 'DataRow') continue;
          const value = row.values[0]?.toString() ?? null;
          read++;
          if (mine !== value)
            t.fail(`${JSON.stringify(source)}: ${JSON.stringify(mine)}, not ${JSON.stringify(value)}`);
        }
        t.comment(`${read} literals compared`);
        t.ok(read > CASES / 3, `${read}`);
      });
    }

    t.test('arrays as the server writes them, as text and in binary', async (t) => {
      const element = fc.option(fc.oneof(text, fc.constantFrom('NULL', 'null', '', '{}', ' ', '\\', '"', '\\N')), {
        freq: 6,
      });
      const arrays = fc.sample(fc.array(element, { maxLength: 6 }), { numRuns: CASES, seed: 3 });
      const written = (value: string | null): string =>
        value === null ? 'NULL' : `E'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
      const rows = arrays.map((one) => `(array[${one.map(written).join()}]::text[])`).join();
      const asText = await client.rows(`select a from (values ${rows}) v(a)`);
      t.equal(asText.length, CASES);
      for (const [index, [output]] of asText.entries()) {
        const mine = arrayElements(output!);
        if (JSON.stringify(mine) !== JSON.stringify(arrays[index])) t.same(mine, arrays[index], output!);
      }
      const binary = await client.rows(`select array_send(a) from (values ${rows}) v(a)`);
      for (const [index, [output]] of binary.entries()) {
        const mine = binaryArrayElements(Buffer.from(output!.slice(2), 'hex'));
        if (JSON.stringify(mine) !== JSON.stringify(arrays[index])) t.same(mine, arrays[index], output!);
      }
    });

    t.test('array literals that people write', async (t) => {
      const unit = fc.constantFrom(
        '{',
        '}',
        '"',
        '\\',
        ',',
        ' ',
        '\t',
        'a',
        'NULL',
        'null',
        'é',
        '\u00a0',
        "'",
        '🔑',
        '\v',
      );
      const literals = fc.sample(fc.string({ unit, maxLength: 8 }), { numRuns: 4 * CASES, seed: 4 });
      const more = [
        '\\NULL',
        'NU\\LL',
        '"a"b',
        'a"b"',
        '\\',
        '"\\"',
        ' ',
        ',',
        'a,,b',
        '{a}',
        '{}',
        'NULL ',
        ' null',
        '\\ NULL',
      ];
      let accepted = 0;
      const bounded = [
        '[1:1]={a}',
        '[0:1]={a,b}',
        '[-3:-2]= {a,NULL}',
        ' [2]={a,b} ',
        '[1:2]={a}',
        '[2:1]={}',
        '[+1:1]={a}',
      ];
      for (const output of [...bounded, ...[...more, ...literals].map((inner) => `{${inner}}`)]) {
        const mine = arrayElements(output);
        if (mine === null) continue;
        accepted++;
        // What is not one for the server fails on whichever shard is asked.
        const answers = await client.send([
          { parse: 'select array_to_json($1::text[])' },
          { bind: [output] },
          { execute: '' },
          'sync',
        ]);
        const row = answers.find((message) => message.type === 'DataRow');
        if (row?.type !== 'DataRow') continue;
        const theirs = JSON.parse(row.values[0]!.toString()).flat(6);
        if (JSON.stringify(mine) !== JSON.stringify(theirs)) t.same(mine, theirs, JSON.stringify(output));
      }
      t.comment(`${accepted} arrays`);
      t.ok(accepted > CASES / 2);
    });

    t.test('slots of any keys', async (t) => {
      const unicode = fc.oneof(
        text,
        fc.string({ unit: 'binary', maxLength: 60 }).map((one) => one.replaceAll('\0', '')),
        fc.string({ unit: fc.constantFrom('{', '}', 'a', 'é', '🔑'), maxLength: 12 }),
        fc.constantFrom(
          '',
          '{}',
          '{a}',
          '{{a}}',
          'x'.repeat(1024),
          'é'.repeat(512),
          '🔑'.repeat(256),
          `{${'t'.repeat(1022)}}`,
        ),
      );
      const pairs = seeds(2).flatMap((seed) => fc.sample(fc.tuple(unicode, unicode), { numRuns: CASES, seed }));
      const column = (at: 0 | 1): string =>
        `{${pairs.map((pair) => `"${pair[at].replace(/[\\"]/g, '\\$&')}"`).join(',')}}`;
      const wanted = pairs.map(([tenant, key]) => [
        hashSlotOf(tenant, key),
        Buffer.byteLength(tenant),
        Buffer.byteLength(key),
      ]);
      for (const standard of ['on', 'off']) {
        // A session of its own: functions keep what they were compiled to under the first setting.
        const session = await SqlClient.connect(server, { user: server.superuser, database: 'postgres' });
        await session.run(`set standard_conforming_strings = ${standard}`);
        const rows = await session.extended(
          `select kv_slot(tenant, key), octet_length(tenant), octet_length(key)
           from unnest($1::text[], $2::text[]) with ordinality u(tenant, key, n) order by n`,
          [column(0), column(1)],
        );
        t.same(
          rows.map((row) => row.map(Number)),
          wanted,
          `standard_conforming_strings ${standard}`,
        );
        await session.end();
      }
    });
  });
}
