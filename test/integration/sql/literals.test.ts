// Where literals end, by the word of real servers: libpg-query's scanner differs from Postgres's in one place (a string
// continued behind a comment) and knows no standard_conforming_strings = off.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import pg from 'pg';
import t from 'tap';
import { LITERAL_STRIDE, lexShape } from '../../../src/sql/text/shape-lexer.js';
import { toStandardStrings } from '../../../src/sql/text/source-text.js';
import { findPostgres, PLAYED_VERSIONS } from '../../support/postgres-binaries.js';
import { startPostgres } from '../../support/postgres-server.js';

/** Fits between the quotes whatever the setting, runs into its neighbours otherwise. */
const inner = fc
  .array(fc.constantFrom('a', "''", '\\\\', "\\''", '\\n', '\\x41', '\\101', '--', '/*', '$$', '"', ' ', '😀', 'é'))
  .map((pieces) => pieces.join(''));
const literal = fc.oneof(
  inner.map((value) => `'${value}'`),
  inner.map((value) => `E'${value}'`),
  inner.map((value) => `$q$${value}$q$`),
  fc
    .tuple(inner, fc.constantFrom('\n', " -- it's\n", '\n--\n\n', '\r', '\t\n -- a\n --b\n'), inner)
    .map(([one, gap, other]) => `'${one}'${gap}'${other}'`),
  fc.constantFrom("B'01'", "X'ff'", "B'0'\n'1'", '12', '1.5', '.5e2', '99999999999', "N'n'", "U&'\\0061'"),
);

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  t.test(`Postgres ${version} reads literals as they are lexed`, skip, async (t) => {
    const server = await startPostgres({ version });
    t.teardown(() => server.stop());
    const client = new pg.Client({
      host: server.host,
      port: server.port,
      user: server.superuser,
      database: 'postgres',
    });
    await client.connect();
    t.teardown(() => client.end());
    client.on('notice', () => undefined); // escape_string_warning

    /** The columns of SELECT, null where the server refuses it. */
    const select = async (text: string): Promise<unknown[] | null> => {
      try {
        return ((await client.query({ text, rowMode: 'array' })).rows as unknown[][])[0] ?? [];
      } catch (error) {
        if (error instanceof pg.DatabaseError) return null;
        throw error;
      }
    };

    for (const setting of ['on', 'off']) {
      await client.query(`SET standard_conforming_strings = ${setting}`);
      let compared = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(literal, { minLength: 1, maxLength: 4 }), async (literals) => {
          const text = `SELECT ${literals.join(' , ')}`;
          const values = await select(text);
          if (values === null) return;
          const shape = lexShape(text, setting === 'on');
          assert.ok(shape, text);
          // As many literals as columns, and each of them alone has the value of its column.
          assert.equal(shape.literals.length / LITERAL_STRIDE, values.length, text);
          for (const [index, value] of values.entries()) {
            const at = index * LITERAL_STRIDE;
            const alone: string = `SELECT ${text.slice(shape.literals[at], shape.literals[at + 1])}`;
            assert.deepEqual(await select(alone), [value], text);
          }
          compared++;
          if (setting === 'on') return;
          const source = toStandardStrings(text, shape.literals);
          if (source === null) return;
          await client.query('SET standard_conforming_strings = on');
          const rewritten = await select(source.text);
          await client.query('SET standard_conforming_strings = off');
          assert.deepEqual(rewritten, values, source.text);
        }),
        { numRuns: 400 },
      );
      t.ok(compared > 100, `${compared} texts with the setting ${setting}`);
    }
  });
}
