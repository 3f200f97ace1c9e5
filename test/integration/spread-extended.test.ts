// Writes over several shards by the extended protocol (D14): the same messages to plain Postgres and through pgkv get the same
// answers and leave the same rows; what the Sync of a batch has not committed is nowhere.
import t, { type Test } from 'tap';
import type { FrontendMessage } from '../support/frontend-message.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { type SpreadServers, said, spreadServers, TENANTS } from '../support/spread-servers.js';
import { errorOf, tagsOf } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const STATEMENTS = Number(process.env['PGKV_STATEMENTS'] ?? 60);

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  for (const shards of version === '15' ? [3] : [1, 3, 5])
    t.test(`Postgres ${version}, ${shards} shards`, skip, (t) => extended(t, version, shards));
}

async function extended(t: Test, version: '15' | 'embedded', shards: number): Promise<void> {
  const servers = await spreadServers(t, version, shards);
  const { client, plain, rows, fill, prepared } = servers;

  await t.test(`the same rows and answers as on one server (seed ${SEED})`, async (t) => {
    const random = new SeededRandom(SEED, shards);
    await fill();
    for (let n = 0; n < STATEMENTS; n++) {
      if (random.oneIn(12)) await fill();
      const drawn = draw(random);
      const { text } = drawn;
      for (const messages of batches(random, drawn, n)) {
        const [here, there] = await Promise.all([client, plain].map((of) => said(of, messages, { unordered: true })));
        if (!t.strictSame(here, there, `${text} ${JSON.stringify(messages)}`)) return;
      }
      if (!t.strictSame(await rows(client), await rows(plain), text)) return;
    }
    t.strictSame(await prepared(), []);
  });
  if (shards > 1) await atomicity(t, servers);
}

async function atomicity(t: Test, { client, live, admins, rows, fill, prepared }: SpreadServers): Promise<void> {
  const DELETE: FrontendMessage[] = [{ parse: 'DELETE FROM kv' }, { bind: [] }, { execute: '' }];
  const INSERT = `INSERT INTO kv (tenant_id, key) VALUES ('acme', 'new')`;
  const code = async (messages: readonly FrontendMessage[]) => {
    const error = errorOf(await client.send(messages));
    return `${error?.code} ${error?.fields['D']}`;
  };
  await fill();
  const before = await rows(client);
  const unchanged = async (t: Test) => {
    t.strictSame(await rows(client), before);
    t.strictSame(await prepared(), []);
  };

  t.test('with what is not on keys in its batch it is refused, and nothing of either is done', async (t) => {
    const more: FrontendMessage[][] = [
      [{ parse: 'SELECT 1' }, { bind: [] }],
      [{ query: 'SELECT 1' }],
      [{ query: INSERT }],
      [{ query: 'BEGIN' }],
    ];
    for (const one of more) {
      t.equal(await code([...DELETE, ...one, 'sync']), '0A000 PGKV-085', JSON.stringify(one));
      await unchanged(t);
    }
    // A block that begins between its Bind and its Execute.
    const late: FrontendMessage[] = [{ parse: 'DELETE FROM kv' }, { bind: [], portal: 'd' }];
    const begin: FrontendMessage[] = [{ parse: 'BEGIN' }, { bind: [] }, { execute: '' }, { execute: 'd' }, 'sync'];
    t.match(await code([...late, ...begin]), /^0A000 PGKV-061/);
    await client.run('ROLLBACK');
    await unchanged(t);
  });

  t.test('what fails behind it in its batch takes it back', async (t) => {
    t.equal(await code([...DELETE, { parse: 'nonsense' }, 'sync']), '42601 undefined');
    await unchanged(t);
    t.equal(await code([...DELETE, { execute: '' }, 'sync']), '55000 undefined');
    await unchanged(t);
  });

  t.test('reads in front of it are taken, and a Close and Parse behind it', async (t) => {
    const read: FrontendMessage[] = [{ parse: 'SELECT count(*) FROM kv' }, { bind: [] }, { execute: '' }];
    const named: FrontendMessage[] = [
      { parse: `UPDATE kv SET value = '0' WHERE tenant_id = $1`, name: 'u' },
      { bind: ['none'], statement: 'u' },
      { execute: '' },
    ];
    const behind: FrontendMessage[] = [
      { close: 'statement', name: 'u' },
      { parse: 'SELECT 1', name: 's' },
    ];
    const answers = await client.send([...read, ...named, ...behind, 'flush', 'sync']);
    t.equal(errorOf(answers), null);
    t.strictSame(tagsOf(answers), ['SELECT 1', 'UPDATE 0']);
  });

  t.test('a client that goes before its Sync has done nothing', async (t) => {
    const other = await live.connect({ user: 'app' });
    const waits = await other.send([...DELETE, 'flush'], { type: 'CommandComplete' });
    t.strictSame(tagsOf(waits), ['DELETE 36']);
    other.wire.destroy();
    const open = `SELECT count(*)::int AS n FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`;
    for (const admin of admins) while ((await admin.query(open)).rows[0]['n'] > 0);
    await unchanged(t);
  });

  t.test('an error that comes with the commit is told at the Sync', async (t) => {
    await admins[1]!.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
      CREATE CONSTRAINT TRIGGER late AFTER DELETE ON kv DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`);
    const answers = await client.send([...DELETE, 'sync']);
    t.strictSame(
      answers.map(({ type }) => type),
      ['ParseComplete', 'BindComplete', 'CommandComplete', 'ErrorResponse', 'ReadyForQuery'],
    );
    t.equal(errorOf(answers)?.code, 'P0001');
    await admins[1]!.query('DROP TRIGGER late ON kv; DROP FUNCTION refuse()');
    await unchanged(t);
    t.strictSame(tagsOf(await client.send([...DELETE, 'sync'])), ['DELETE 36']);
  });
}

interface Drawn {
  readonly text: string;
  readonly types: readonly number[];
  readonly values: readonly (string | Buffer | null)[];
  readonly formats: readonly number[];
  readonly columns: number;
}

const INT4 = 23;
const JSONB = 3802;

function draw(random: SeededRandom): Drawn {
  const types: number[] = [];
  const values: (string | Buffer | null)[] = [];
  const isDeclared = random.oneIn(3);
  const parameter = (type: number, text: string | null): string => {
    types.push(isDeclared ? type : 0);
    const isBinary = random.oneIn(3);
    values.push(text === null || !isBinary ? text : binary(type, text));
    return `$${values.length}`;
  };
  const tenant = () => parameter(25, random.pick(TENANTS));
  const key = () => parameter(25, `k${random.integer(14)}`);
  const isUpdate = !random.oneIn(5);
  const number = () => random.integer(50);
  const assigned = isUpdate
    ? random.pick([
        () => `value = ${parameter(JSONB, `{"n": ${number()}}`)}`,
        () => `value = value || ${parameter(JSONB, `{"m": ${number()}}`)}::jsonb`,
        () => `value = jsonb_set(value, '{n}', to_jsonb((value ->> 'n')::int + ${parameter(INT4, `${number()}`)}))`,
        () => `value = ${parameter(JSONB, null)}`,
        () => `value = ${parameter(JSONB, '{"n": ')}`,
        () => `ttl = NULL, value = '{"n": 7}'`,
      ])()
    : '';
  const where = random.pick([
    () => '',
    () => `WHERE tenant_id = ${tenant()}`,
    () => `WHERE tenant_id = ${tenant()} AND key IN (${key()}, ${key()}, ${key()})`,
    () => `WHERE tenant_id = ${tenant()} AND key = ANY(${parameter(1009, `{k1,k2,k${number()}}`)})`,
    () => `WHERE (value ->> 'n')::int % ${parameter(INT4, `${random.between(0, 4)}`)} = 0`,
    () => `WHERE key LIKE ${key()} || '%'`,
    () => `WHERE no_such_column = ${key()}`,
    () => 'WHERE false',
    () => `WHERE updated_at <= now() AND key < ${key()}`,
    () => `WHERE statement_timestamp() >= CURRENT_DATE AND tenant_id = ${tenant()}`,
  ])();
  const columns = random.pick(['', '', 'key', 'tenant_id, key, value', `value ->> 'n' AS n, 1 + 1, key || 'x'`]);
  const returning = columns === '' ? '' : `RETURNING ${columns}`;
  const verb = isUpdate ? `UPDATE kv SET ${assigned}` : 'DELETE FROM kv';
  return {
    text: `${verb} ${where} ${returning}`,
    types: isDeclared ? types : [],
    values,
    formats: values.map((value) => (Buffer.isBuffer(value) ? 1 : 0)),
    columns: columns === '' ? 0 : columns.split(',').length,
  };
}

function binary(type: number, text: string): Buffer | string {
  if (type === INT4) {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(Number(text));
    return bytes;
  }
  if (type === JSONB) return Buffer.concat([Buffer.from([1]), Buffer.from(text)]);
  return type === 25 ? Buffer.from(text) : text;
}

const isMalformed = (value: string | Buffer | null): boolean => value !== null && /: $/.test(value.toString());

/** One statement in the ways in which drivers send it. */
function batches(
  random: SeededRandom,
  { text, types, values, formats, columns }: Drawn,
  n: number,
): FrontendMessage[][] {
  const name = random.oneIn(2) ? `s${n}` : '';
  const portal = random.oneIn(3) ? `p${n}` : '';
  const parse: FrontendMessage = { parse: text, name, types };
  const resultFormats = random.pick([[], [0], [1], Array.from({ length: columns }, () => random.integer(2))]);
  const bind: FrontendMessage = { bind: values, formats, statement: name, portal, resultFormats };
  const execute: FrontendMessage = { execute: portal };
  const describe: FrontendMessage = { describe: 'portal', name: portal };
  const some = (rows: number): FrontendMessage => ({ execute: portal, rows });
  return random.pick([
    [[parse, bind, execute, 'sync']],
    [[parse, bind, describe, execute, 'sync']],
    [
      [parse, { describe: 'statement', name }, 'sync'],
      [bind, describe, execute, 'sync'],
    ],
    [[parse, bind, describe, 'flush', execute, { close: 'portal', name: portal }, 'sync']],
    // What is wrong with a value is told when it is run.
    [[parse, bind, describe, ...(values.some(isMalformed) ? [execute] : []), 'sync']],
    [[parse, bind, some(2), some(3), execute, 'sync']],
    [[parse, bind, describe, some(1), { close: 'statement', name }, 'sync']],
    [[parse, bind, execute, execute, 'sync']],
  ]);
}
