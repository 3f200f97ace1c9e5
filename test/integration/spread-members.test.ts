// Plural functions over several shards: the same calls to one Postgres with the extension and through pgkv, with arrays in every form
// and what may be wrong with them, get the same answers in the same order, and leave the same rows.
import t, { type Test } from 'tap';
import { KV, prepareShard } from '../support/kv-cluster.js';
import { connectTo } from '../support/kv-extension.js';
import {
  ArrayWriter,
  drawKeys,
  type Fault,
  type GivenArray,
  type MemberStatement,
  messagesOf,
} from '../support/member-statements.js';
import { findPostgres } from '../support/postgres-binaries.js';
import { SeededRandom } from '../support/seeded-random.js';
import { said, spreadServers } from '../support/spread-servers.js';
import { errorOf, SqlClient, tagsOf } from '../support/sql-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const STATEMENTS = Number(process.env['PGKV_STATEMENTS'] ?? 120);
const ROWS = 'SELECT tenant_id, key, version, value, ttl IS NULL FROM kv ORDER BY tenant_id, key';

for (const version of ['15', 'embedded'] as const) {
  const skip = findPostgres(version) === undefined ? { skip: `Postgres ${version} is not installed` } : {};
  for (const shards of version === '15' ? [3] : [1, 3, 5])
    t.test(`Postgres ${version}, ${shards} shards`, skip, (t) => calls(t, version, shards));
}

async function calls(t: Test, version: '15' | 'embedded', shards: number): Promise<void> {
  const { cluster, admins, client, prepared, decisions } = await spreadServers(t, version, shards);
  await admins[0]!.query('CREATE DATABASE whole');
  await prepareShard(cluster.servers[0]!, [KV], 'whole');
  await (await connectTo(t, cluster.servers[0]!, { database: 'whole' })).query('GRANT ALL ON kv TO app');
  const whole = await SqlClient.connect(cluster.servers[0]!, { user: 'app', database: 'whole' });
  t.teardown(() => whole.end());

  await t.test(`the same answers as by one server (seed ${SEED})`, async (t) => {
    const random = new SeededRandom(SEED, shards);
    let block = false;
    const end = async (how: string) => {
      for (const one of [client, whole]) await one.run(how);
      block = false;
    };
    for (let n = 0; n < STATEMENTS; n++) {
      if (!block && random.oneIn(5)) {
        for (const one of [client, whole]) await one.run('BEGIN');
        block = true;
      }
      const { text, batches } = statement(random);
      let failed = false;
      for (const batch of batches) {
        const [here, there] = await Promise.all([client, whole].map((of) => said(of, batch)));
        failed ||= typeof there![0] === 'string';
        if (!t.strictSame(told(here!), told(there!), `${n}: ${text} ${JSON.stringify(batch)}`)) return;
      }
      if (block && (failed || random.oneIn(3))) await end(failed || random.oneIn(2) ? 'ROLLBACK' : 'COMMIT');
      if (!block && !t.strictSame(await client.rows(ROWS), await whole.rows(ROWS), `${n}: ${text}`)) return;
    }
    if (block) await end('COMMIT');
    t.strictSame(await prepared(), []);
    if (shards > 1) t.ok((await decisions()) > STATEMENTS / 20, 'they were over several shards');
  });
  if (shards > 1) await more(t, client, whole);
}

async function more(t: Test, client: SqlClient, whole: SqlClient): Promise<void> {
  const keys = Array.from({ length: 9 }, (_, n) => `k${n}`);
  const given = `array_fill('acme'::text, '{9}')`;

  t.test('what fails on one shard is nowhere', async (t) => {
    await client.run('DELETE FROM kv', `INSERT INTO kv (tenant_id, key, value) VALUES ('acme', 'k4', '{}')`);
    const call = `SELECT * FROM kv_incr_many('{${keys.map(() => 'acme')}}', '{${keys}}', '{${keys.map(() => 1)}}')`;
    t.equal(await client.fails(call), '22023');
    t.strictSame(await client.rows('SELECT key FROM kv'), [['k4']]);
  });

  t.test('what cannot be put together is refused', async (t) => {
    const many = `kv_delete_many('{${keys.map(() => 'acme')}}', '{${keys}}')`;
    for (const sql of [
      `SELECT count(*) FROM ${many}`,
      `SELECT ${many}, 1`,
      `SELECT (${many}).*`,
      `SELECT * FROM ${many} LIMIT 2`,
      `SELECT * FROM ${many} AS m (n, gone)`,
      `SELECT * FROM ${many} WITH ORDINALITY`,
      `SELECT * FROM ${many} ORDER BY deleted`,
      `SELECT DISTINCT deleted FROM ${many}`,
      `SELECT now(), * FROM ${many}`,
      `SELECT * FROM ${many} a, ${many} b`,
      `SELECT * FROM kv_delete_many(${given}, '{${keys}}')`,
    ])
      t.equal(await client.fails(sql), '0A000', sql);
  });

  t.test('in a batch, with others, and with a place in an error', async (t) => {
    for (const one of [client, whole]) await one.run('DELETE FROM kv');
    const call = {
      parse: 'SELECT ord, version FROM kv_put_many($1, $2, $3)',
    };
    const bind = { bind: [`{${keys.map(() => 'acme')}}`, `{${keys}}`, `{${keys.map((_, n) => n)}}`] };
    const gone = {
      parse: 'SELECT ord FROM kv_delete_many($1, $2) WHERE deleted',
    };
    const answers = await client.send([
      call,
      bind,
      { execute: '' },
      gone,
      { bind: bind.bind.slice(0, 2) },
      { execute: '' },
      'sync',
    ]);
    t.equal(errorOf(answers), null);
    t.strictSame(tagsOf(answers), ['SELECT 9', 'SELECT 9']);
    t.equal(await client.value('SELECT count(*) FROM kv'), '0');
    const wrong = `SELECT ord FROM kv_touch_many('{${keys.map(() => 'acme')}}', '{${keys}}') WHERE nonsense`;
    const listed = `SELECT kv_ttl_many('{${keys.map(() => 'acme')}}', '{${keys}}') AS rest`;
    for (const query of [wrong, listed]) {
      const [here, there] = await Promise.all([client, whole].map((of) => said(of, [{ query }])));
      t.strictSame(here, there, query);
    }
  });
}

/** Of errors that shards may word in their own order only the code. */
function told(answer: readonly unknown[]): readonly unknown[] {
  const [code, message, ...rest] = answer;
  if (typeof code !== 'string') return answer;
  return /of a batch|batch is null|more than once|internal error/.test(String(message)) || code === '0A000'
    ? answer
    : [code, rest.at(-1)];
}

interface Call {
  readonly name: string;
  readonly arrays: readonly GivenArray[];
  readonly columns: readonly string[];
  readonly reads: boolean;
}

function statement(random: SeededRandom): MemberStatement {
  const fault = random.pick<Fault>(['none', 'none', 'none', 'none', 'length', 'null array', 'null key', 'twice']);
  const drawn = call(random, fault);
  // A value that is there may be no number and no object: that is one error already.
  const isSecond = fault === 'null key' && /incr|merge/.test(drawn.name);
  const { name, arrays, columns, reads } = isSecond ? call(random, 'none') : drawn;
  const writer = new ArrayWriter(random, random.oneIn(2));
  const isSimple = random.oneIn(2);
  const own = isSimple ? new ArrayWriter(random, true) : writer;
  // By itself it looks members that it could not settle up in the arrays, and finds none in others.
  own.isPlain = name === 'kv_cas_many';
  const alias = random.oneIn(4) ? random.pick([' m', ' AS "m n"']) : '';
  const list = random.pick([columns.join(', '), [...columns].reverse().join(), `${columns[0]}, 1 + 1 AS two`]);
  const where = random.pick(['', '', ' WHERE ord % 2 = 0', ' WHERE ord > 1']);
  const order = random.pick(['', '', ' ORDER BY ord', ' ORDER BY ord DESC']);
  const limit = reads ? random.pick(['', '', ' LIMIT 3', ' LIMIT 2 OFFSET 1']) : '';
  // Of arrays that say which keys either both are ARRAY[…], of one length, or none is.
  const areListed = random.oneIn(4) && fault !== 'length' && fault !== 'null array';
  const written = arrays.map((array, index) => own.write(array, true, index < 2 ? areListed : null)).join(', ');
  const isCounted = reads && random.oneIn(5);
  // Those that read have times in their rows.
  const isValue = !reads && random.oneIn(8);
  const text = isValue
    ? `SELECT ${name}(${written})${random.pick(['', ' AS done'])}`
    : isCounted
      ? `SELECT count(*), sum(ord) FROM ${name}(${written})${alias}${where}`
      : `SELECT ${list} FROM ${name}(${written})${alias}${where}${order}${limit}`;
  return { text, batches: messagesOf(random, text, isSimple ? null : own) };
}

function call(random: SeededRandom, fault: Fault): Call {
  const { tenants, keys } = drawKeys(random, fault);
  const each = (draw: () => string | null): (string | null)[] => keys.map(draw);
  const maybe = (value: () => string): string | null => (random.oneIn(6) ? null : value());
  const json = () => random.pick(['1', '{"a": [1, "x,y"]}', '"{\\"q\\"}"', 'null', '-2.5']);
  const ttls = (): GivenArray => ({ element: 'interval', members: each(() => maybe(() => '1 hour')) });
  const value: GivenArray = { element: 'jsonb', members: each(() => maybe(json)) };
  const applied = ['ord', 'applied'];
  const operation = random.pick<Omit<Call, 'arrays'> & { readonly arrays: readonly GivenArray[] }>([
    { name: 'get', arrays: [], columns: ['ord', 'tenant_id', 'key', 'value', 'version', 'ttl IS NULL'], reads: true },
    { name: 'put', arrays: random.oneIn(2) ? [value] : [value, ttls()], columns: ['ord', 'version'], reads: false },
    { name: 'put', arrays: [value, { element: 'interval', members: null }], columns: ['ord', 'version'], reads: false },
    {
      name: 'cas',
      arrays: [{ element: 'bigint', members: each(() => maybe(() => String(random.integer(3)))) }, value],
      columns: [...applied, 'version', 'value'],
      reads: false,
    },
    { name: 'delete', arrays: [], columns: ['ord', 'deleted'], reads: false },
    {
      name: 'incr',
      arrays: [{ element: 'numeric', members: each(() => '1.5') }],
      columns: ['ord', 'value'],
      reads: false,
    },
    {
      name: 'merge',
      arrays: [{ element: 'jsonb', members: each(() => '{"m": 1}') }],
      columns: ['ord', 'value', 'version'],
      reads: false,
    },
    { name: 'expire', arrays: [ttls()], columns: applied, reads: false },
    {
      name: 'expire_at',
      arrays: [{ element: 'timestamptz', members: each(() => maybe(() => '2099-01-01 00:00:00+00')) }],
      columns: applied,
      reads: false,
    },
    { name: 'persist', arrays: [], columns: applied, reads: false },
    { name: 'touch', arrays: [], columns: applied, reads: false },
    { name: 'ttl', arrays: [], columns: ['ord', 'ttl IS NULL'], reads: true },
  ]);
  const arrays: GivenArray[] = [
    { element: 'text', members: tenants },
    { element: 'text', members: keys },
    ...operation.arrays,
  ];
  const wrong = random.integer(arrays.length);
  if (fault === 'null array') arrays[wrong] = { ...arrays[wrong]!, members: null };
  if (fault === 'length') arrays[wrong] = { ...arrays[wrong]!, members: (arrays[wrong]!.members ?? []).slice(1) };
  return { ...operation, name: `kv_${operation.name}_many`, arrays };
}
