// Rows of portals over several shards that are read in portions are kept in the router: at most 16 MiB of all portals of a session, in a
// block and in a batch; what has been read, or closed, counts no more.
import t from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import type { FrontendMessage } from '../support/frontend-message.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { spreadServers } from '../support/spread-servers.js';
import { errorOf } from '../support/sql-client.js';

const SHARDS = 3;
const ROWS = 10;
const MIB = 1024 * 1024;

const read = 'SELECT value FROM kv ORDER BY key';
const write = 'UPDATE kv SET ttl = NULL RETURNING value';
const portion = (name: string, parse: string): FrontendMessage[] => [
  { parse },
  { bind: [], portal: name },
  { execute: name, rows: 1 },
];
const rowsIn = (answers: readonly BackendMessage[]): number => answers.filter(({ type }) => type === 'DataRow').length;

const skip = findPostgres('embedded') === undefined ? { skip: 'embedded Postgres is not installed' } : {};
t.test('ten rows of a mebibyte', { ...skip, timeout: 240_000 }, async (t) => {
  const { client, admins } = await spreadServers(t, 'embedded', SHARDS);
  for (let n = 0; n < ROWS; n++) {
    await client.run(`INSERT INTO kv (tenant_id, key, value) VALUES ('t${n}', 'k', to_jsonb(repeat('x', ${MIB})))`);
  }
  const counts = await Promise.all(admins.map((admin) => admin.query('SELECT FROM kv')));
  t.ok(counts.filter(({ rowCount }) => rowCount! > 0).length > 1, 'on several shards');

  for (const [kind, begins] of [
    ['block', true],
    ['batch', false],
  ] as const) {
    for (const [what, text] of [
      ['reads', read],
      ['writes', write],
    ] as const) {
      // Outside a block a read is suspended on its shards.
      if (!begins && what === 'reads') continue;
      t.test(`two portals of a ${kind} that ${what} are too much, one behind the other is not`, async (t) => {
        const begin = begins ? ['BEGIN', "UPDATE kv SET ttl = NULL WHERE key = 'nobody'"] : [];
        if (begins) await client.run(...begin);
        const both = await client.send([...portion('a', text), ...portion('b', text), 'sync']);
        t.equal(errorOf(both)?.code, '54000');
        t.equal(rowsIn(both), 1);
        if (begins) await client.run('ROLLBACK', ...begin);
        const turns = Array.from({ length: 3 }, (_, n): FrontendMessage[] => [
          ...portion(`p${n}`, text),
          n % 2 === 0 ? { execute: `p${n}` } : { close: 'portal', name: `p${n}` },
        ]);
        const answers = await client.send([...turns.flat(), 'sync']);
        t.equal(errorOf(answers), null);
        t.equal(rowsIn(answers), 2 * ROWS + 1);
        if (begins) await client.run('ROLLBACK');
      });
    }
  }
});
