// Literals in extended statements (D11): what stands in the text of a prepared INSERT, UPDATE, DELETE, SELECT or call is merged
// as it is with parameters in every place, goes to the shard of its key, and has the answers and effects that Postgres gives.
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { encodeAll } from '../support/frontend-message.js';
import { BLOBS, KV, kvRouter, kvServers, prepareShard } from '../support/kv-cluster.js';
import { drawStatement, FILL, type LiteralStatement } from '../support/literal-statements.js';
import type { LiveRouter } from '../support/live-router.js';
import { forPostgres } from '../support/merged-cases.js';
import {
  batchBytes,
  directClient,
  type TickClient,
  tickClients,
  together,
  told,
  untilMerged,
} from '../support/merged-clients.js';
import { SeededRandom } from '../support/seeded-random.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const STATEMENTS = process.env['PGKV_LONG'] === '1' ? 1_000 : 400;
const MEMBERS = 6;
/** Rounds until a statement has to be merged: seen, learnt on one shard, on the other, whose connections may have to be opened. */
const ROUNDS_MAX = 80;
const ROUNDS_OF_FAILING = 6;
/** From then on a round waits, so that a connection that has to be opened for it is. */
const ROUNDS_AT_ONCE = 10;
const PAUSE_MS = 40;
const BETWEEN_FILLS = 40;

const cluster = await kvServers(t, 2);
const [first] = cluster.servers;
const shards = await Promise.all(cluster.servers.map((server) => directClient(server)));
const admin = await directClient(first!);
await admin.run('create database oracle');
await prepareShard(first!, [KV, BLOBS], 'oracle');
const oracle = await directClient(first!, 'oracle');
t.teardown(() => {
  for (const client of [...shards, admin, oracle]) client.sql.wire.destroy();
});

const STATE = 'select tenant_id, key, version, value::text, ttl is null, slot from kv';
const state = async (clients: readonly TickClient[]): Promise<string[]> =>
  (await Promise.all(clients.map((client) => client.run(STATE))))
    .flat()
    .map((row) => row.join('|'))
    .sort();

/** The rows of the plain table, laid where they belong. */
async function fill(): Promise<void> {
  await oracle.run(FILL);
  for (const [index, client] of shards.entries())
    await client.run(`${FILL}; delete from kv where slot / 8192 <> ${index}`);
}

interface Form {
  readonly isNamed: boolean;
  readonly describes: boolean;
  readonly resultFormats: readonly number[];
}
const drawForm = (random: SeededRandom): Form => ({
  isNamed: random.oneIn(2),
  describes: random.oneIn(2),
  resultFormats: random.pick([[], [0], [1]]),
});

const NAME = 'mine';
const prepared = (sql: string): Buffer =>
  encodeAll([
    { close: 'statement', name: NAME },
    { parse: sql, name: NAME },
    { describe: 'statement', name: NAME },
    'sync',
  ]);
const bytesOf = ({ sql, values }: LiteralStatement, { isNamed, ...form }: Form, member: number, text = sql): Buffer =>
  batchBytes(text, values[member]!, { ...form, ...(isNamed ? { named: NAME } : {}) });

/** Without OIDs of tables and places in sources and texts, which differ between servers. */
function readable(answer: Buffer, anyOrder = false): string {
  const bytes = Buffer.from(answer);
  const rows: string[] = [];
  let others = '';
  for (let at = 0, end = 0; at + 5 <= bytes.length; at = end) {
    end = at + 1 + bytes.readInt32BE(at + 1);
    if (bytes[at] === 0x54) {
      let column = at + 7;
      for (let left = bytes.readInt16BE(at + 5); left > 0; left--) {
        const name = bytes.indexOf(0, column);
        bytes.writeInt32BE(0, name + 1);
        column = name + 19;
      }
    }
    const message = bytes.toString('latin1', at, end);
    if (anyOrder && bytes[at] === 0x44) rows.push(message);
    else others += message;
  }
  return [others.replaceAll(/P\d+\0/g, ''), ...rows.sort()].join('');
}
const sorted = (answers: readonly Buffer[], anyOrder = false): string[] =>
  answers.map((answer) => readable(answer, anyOrder)).sort();

/** Rounds of all members at once, until one was merged as a whole; the answers of each round. */
async function rounds(live: LiveRouter, clients: readonly TickClient[], statement: LiteralStatement, form: Form) {
  const { counters } = live.router;
  const found: string[][] = [];
  let isMerged = false;
  let batches = 0;
  while (!isMerged && found.length < (statement.mayFail ? ROUNDS_OF_FAILING : ROUNDS_MAX)) {
    const { mergedStatements, mergedReruns, mergedBatches } = counters;
    if (found.length >= ROUNDS_AT_ONCE) await setTimeout(PAUSE_MS);
    found.push(sorted(await together(clients, (member) => bytesOf(statement, form, member)), statement.anyOrder));
    isMerged = counters.mergedStatements - mergedStatements + (counters.mergedReruns - mergedReruns) === MEMBERS;
    batches = counters.mergedBatches - mergedBatches;
  }
  return { found, isMerged, batches };
}

async function compare(t: Test, live: LiveRouter, clients: readonly TickClient[], random: SeededRandom, index: number) {
  const statement = drawStatement(random, MEMBERS);
  const form = drawForm(random);
  const plain = forPostgres(statement.sql);
  const what = `${index}: ${statement.sql} ${JSON.stringify(form)}`;
  if (form.isNamed) {
    const told = sorted(await together(clients, () => prepared(statement.sql)));
    const wanted = readable(await oracle.ask(prepared(plain)));
    if (told.some((one) => one !== wanted)) t.strictSame(told[0], wanted, `prepared ${what}`);
  }
  const { found, isMerged, batches } = await rounds(live, clients, statement, form);
  for (const [round, answers] of found.entries()) {
    const wanted: Buffer[] = [];
    for (let member = 0; member < MEMBERS; member++) {
      wanted.push(await oracle.ask(bytesOf(statement, form, member, plain)));
    }
    const expected = sorted(wanted, statement.anyOrder);
    if (JSON.stringify(answers) === JSON.stringify(expected)) continue;
    t.strictSame(answers, expected, `round ${round} of ${what}`);
    break;
  }
  if (!isMerged && !statement.mayFail) t.fail(`not merged: ${what}`);
  return isMerged && !statement.mayFail ? batches : 0;
}

t.test(`${STATEMENTS} statements with literals in any place, as Postgres answers them`, async (t) => {
  await fill();
  const live = await kvRouter(t, cluster, { pool: { sizeMax: 10 } });
  const clients = await tickClients(live, MEMBERS);
  const random = new SeededRandom(SEED);
  let batches = 0;
  let merged = 0;
  for (let index = 0; index < STATEMENTS; index++) {
    const sent = await compare(t, live, clients, random, index);
    batches += sent;
    if (sent > 0) merged += MEMBERS;
    if (index % BETWEEN_FILLS === BETWEEN_FILLS - 1) {
      t.same(await state(shards), await state([oracle]), `the rows after ${index + 1}`);
      await fill();
    }
  }
  t.ok(merged > STATEMENTS * MEMBERS * 0.8, `${merged} statements were merged, seed ${SEED}`);
  t.ok(batches < merged * 0.7, `${merged} statements by ${batches}`);
  t.same(
    (
      await Promise.all(shards.map((shard, index) => shard.run(`select key from kv where slot / 8192 <> ${index}`)))
    ).flat(),
    [],
    'no row lies where nobody looks for it',
  );
});

t.test('clients of as many tenants, each written in its text, share batches', async (t) => {
  await fill();
  const live = await kvRouter(t, cluster, { pool: { sizeMax: 10 } });
  const clients = await tickClients(live, 40);
  const upsert = (index: number): Buffer =>
    batchBytes(
      `INSERT INTO kv (tenant_id, key, value) VALUES ('tenant ${index}', $1, $2)
       ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING tenant_id, value`,
      ['k', `${index}`],
    );
  await untilMerged(t, live, clients, upsert);
  const { counters } = live.router;
  const { mergedStatements, mergedBatches } = counters;
  const answers = await together(clients, upsert);
  for (const [index, answer] of answers.entries()) t.same(told(answer).rows, [[`tenant ${index}`, `${index}`]]);
  t.equal(counters.mergedStatements - mergedStatements, clients.length);
  t.ok(counters.mergedBatches - mergedBatches <= 12, `${counters.mergedBatches - mergedBatches} batches`);
  await oracle.run(FILL);
});

t.test('a write of the same key waits for another one, whether tenant and key are parameters or not', async (t) => {
  await fill();
  const live = await kvRouter(t, cluster, { pool: { sizeMax: 10 } });
  const clients = await tickClients(live, 24);
  const add = 'UPDATE kv SET value = to_jsonb((value::text)::int + 1)';
  await shards[0]!.run(`delete from kv`);
  await shards[1]!.run(`delete from kv`);
  await clients[0]!.run(`insert into kv (tenant_id, key, value) values ('müller', '{t}''k', '0')`);
  const forms: readonly (readonly [string, readonly string[]])[] = [
    [`${add} WHERE tenant_id = $1 AND key = $2`, ['müller', "{t}'k"]],
    [`${add} WHERE tenant_id = 'müller' AND key = $1`, ["{t}'k"]],
    [`${add} WHERE tenant_id = U&'m\\00fcller' AND key = E'{t}\\'k'`, []],
    [`${add} WHERE tenant_id = $1 AND key = $$\{t}'k$$`, ['müller']],
  ];
  let sent = 0;
  const send = (index: number): Buffer => {
    sent++;
    return batchBytes(...(forms[index % forms.length] as [string, string[]]));
  };
  const { counters } = live.router;
  let merged = 0;
  for (let round = 0; round < 40; round++) {
    const before = counters.mergedStatements;
    for (const answer of await together(clients, send)) t.match(told(answer), { code: '', tags: ['UPDATE 1'] });
    merged = counters.mergedStatements - before;
  }
  t.equal(merged, clients.length, 'all of the last round');
  t.equal(counters.mergedReruns, 0, 'none had to wait for another one’s lock');
  t.same(await clients[0]!.run(`select value::text from kv where tenant_id = 'müller' and key = '{t}''k'`), [
    [`${sent}`],
  ]);
});

t.test('a literal that stands for the time of its Parse is another one each time', async (t) => {
  await fill();
  const live = await kvRouter(t, cluster);
  const [client] = await tickClients(live, 1);
  for (const sql of [
    `SELECT timestamptz 'now' FROM kv WHERE tenant_id = 't' AND key = $1`,
    `UPDATE kv SET ttl = 'now' WHERE tenant_id = 't' AND key = $1 RETURNING ttl`,
  ]) {
    const times: (string | null)[] = [];
    for (let turn = 0; turn < 8; turn++) {
      const key = `k${turn}`;
      times.push(told(await client!.ask(batchBytes(sql, [key]))).rows[0]![0]!);
    }
    t.equal(new Set(times).size, times.length, sql);
  }
});

t.test('backslashes in plain strings are read as the session has them', async (t) => {
  await fill();
  const live = await kvRouter(t, cluster);
  const options = '-c standard_conforming_strings=off -c escape_string_warning=off';
  const clients = await tickClients(live, MEMBERS, { parameters: { options } });
  const texts = [
    `SELECT key, tenant_id, 'x\\'y' AS x FROM kv WHERE tenant_id = 'a\\\\b' AND key = $1`,
    `UPDATE kv SET value = '{"a": "\\\\n"}' WHERE tenant_id = 'o\\'brien' AND key = $1 RETURNING key, value`,
  ];
  for (const sql of texts) {
    await together(clients, () => prepared(sql));
    const question = (index: number): Buffer => batchBytes(sql, [`k${index}`], { named: NAME });
    for (let round = 0; round < 5; round++) {
      for (const [index, answer] of (await together(clients, question)).entries()) {
        const key = `k${index}`;
        const wanted = sql.startsWith('SELECT') ? [key, 'a\\b', "x'y"] : [key, '{"a": "\\n"}'];
        t.same(told(answer).rows, [wanted], sql);
      }
    }
  }
});
