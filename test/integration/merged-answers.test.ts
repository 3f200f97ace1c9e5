// Answers of merged statements are those that each gets by itself, to the byte, whoever else is in its batch (D11).
import t, { type Test } from 'tap';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import {
  bytesOf,
  CASES,
  type Case,
  elsewhere,
  FILL,
  FORMS,
  fillFor,
  forPostgres,
  GET,
  isNamed,
  MEMBERS,
  prepared,
  reads,
  UPSERT,
} from '../support/merged-cases.js';
import {
  batchBytes,
  directClient,
  grants,
  queryBytes,
  type TickClient,
  tickClients,
  together,
  untilMerged,
} from '../support/merged-clients.js';
import { seeded } from '../support/seeded-random.js';

const LONG = process.env['PGKV_LONG'] === '1';
const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);

const cluster = await kvServers(t, 1);
const server = cluster.servers[0]!;
const direct = await directClient(server);
t.teardown(() => direct.sql.wire.destroy());

const onServer = (sql: string) => direct.run(sql);

/** What the case's table holds. */
async function stateFor({ sql }: Case): Promise<string> {
  const table = sql.includes('blobs') ? 'blobs' : 'kv';
  const rows = await onServer(`select tenant_id, key, version, value::text, ttl is null, slot
    from ${table} where ttl is null or ttl > now() order by 1, 2`);
  return JSON.stringify(rows);
}

interface Outcome {
  readonly answers: readonly string[];
  readonly state: string;
}

/** Answers of each case in each form, from one router. */
async function outcomes(t: Test, merges: boolean): Promise<Map<string, Outcome>> {
  const live = await kvRouter(t, cluster, { pool: { sizeMax: 8 }, merged: { disabled: !merges } });
  const clients = await tickClients(live, MEMBERS);
  const found = new Map<string, Outcome>();
  for (const one of CASES) {
    const { name: what, leased = false, alone = 0 } = one;
    await onServer(fillFor(one));
    for (const form of FORMS) {
      const name = `${what}, ${form}`;
      const away = elsewhere(one);
      if (isNamed(form)) await together(clients, () => prepared(one.sql));
      if (merges && !leased) await untilMerged(t, live, clients, (index) => bytesOf(form, away, index, false), name);
      if (!reads(one)) await onServer(fillFor(one));
      const before = grants(live);
      const answers = await together(clients, (index) => bytesOf(form, one, index, false));
      const statements = grants(live) - before;
      if (merges && !leased && statements > 2 + alone) t.fail(`${name}: ${statements} statements`);
      const state = await stateFor(one);
      found.set(name, { answers: answers.map((answer) => answer.toString('latin1')), state });
    }
  }
  return found;
}

let merged = new Map<string, Outcome>();

t.test('every kind of statement is merged, in every form', async (t) => {
  merged = await outcomes(t, true);
});

t.test('the same answers, to the byte, as without merging', async (t) => {
  const unmerged = await outcomes(t, false);
  for (const [name, outcome] of unmerged) {
    t.strictSame(readable(merged.get(name)!.answers), readable(outcome.answers), name);
    t.equal(merged.get(name)!.state, outcome.state, `${name}: what the table holds`);
  }
});

t.test('the same answers, to the byte, as from Postgres', async (t) => {
  const client = await directClient(server);
  for (const one of CASES) {
    const fill = one.knowsExpiry === true ? fillFor(one) : `${fillFor(one)}; delete from kv where ttl < now()`;
    await onServer(fill);
    for (const form of FORMS) {
      if (!reads(one)) await onServer(fill);
      if (isNamed(form)) await client.ask(prepared(forPostgres(one.sql)));
      const questions = Array.from({ length: MEMBERS }, (_, index) => bytesOf(form, one, index, true));
      for (const question of questions) client.send(question);
      const answers: string[] = [];
      for (const _ of questions) answers.push((await client.answer()).toString('latin1'));
      const state = await stateFor(one);
      const name = `${one.name}, ${form}`;
      t.strictSame(readable(merged.get(name)!.answers), readable(answers), name);
      t.equal(merged.get(name)!.state, state, `${name}: what the table holds`);
    }
  }
  client.sql.wire.destroy();
});

/** Without what names a place in the server's own source or text. */
const readable = (answers: readonly string[]): string[] => answers.map((answer) => answer.replaceAll(/P\d+\0/g, ''));

// ---------------------------------------------------------------- whose answer it is

t.test('each of 200 clients gets the answers to its own statements', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 200);
  const random = seeded(SEED);
  const before = grants(live);
  let left = LONG ? 1_000_000 : 40_000;
  const wanted = left;
  const wrong: string[] = [];
  const converse = async (client: TickClient, index: number): Promise<void> => {
    const key = `own ${index}`;
    let written = '';
    for (let turn = 0; left > 0 && wrong.length < 5; turn++) {
      left--;
      const nonce = `<${index}.${turn}>`;
      let question: Buffer;
      /** What the answer has to hold, and all of that kind that it may. */
      let expected = nonce;
      switch (Math.floor(random() * 8)) {
        case 0:
          question = batchBytes('SELECT $3::text AS nonce, value FROM kv WHERE tenant_id = $1 AND key = $2', [
            't',
            'k1',
            nonce,
          ]);
          break;
        case 1:
          question = queryBytes(
            `SELECT '${nonce}' AS nonce, key FROM kv WHERE tenant_id = 't' AND key = 'k${index % 9}'`,
          );
          break;
        case 2:
          question = batchBytes(`${UPSERT} RETURNING value`, ['t', key, `"${nonce}"`], { describes: false });
          written = nonce;
          break;
        case 3:
          question = queryBytes(
            `INSERT INTO kv (tenant_id, key, value) VALUES ('t', '${key}', '"${nonce}"') ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value RETURNING value`,
          );
          written = nonce;
          break;
        case 4:
          question = batchBytes(
            'SELECT * FROM kv_merge($1, $2, $3)',
            ['t', turn % 50 === 0 ? 'object of all' : `object ${index}`, `{"n": "${nonce}"}`],
            {
              resultFormats: [1],
            },
          );
          break;
        case 5:
          question = batchBytes(GET, ['t', key], { resultFormats: [1], describes: false });
          expected = written;
          break;
        case 6:
          question = batchBytes('SELECT key FROM kv WHERE tenant_id = $1 AND key = $2', ['t', nonce]);
          expected = '';
          break;
        default:
          question = queryBytes(`SELECT value FROM kv WHERE tenant_id = 't' AND key = '${key}'`);
          expected = written;
      }
      const answer = (await client.ask(question)).toString('latin1');
      const nonces = answer.match(/<\d+\.\d+>/g) ?? [];
      const isRight = expected === '' ? nonces.length === 0 : nonces.length === 1 && nonces[0] === expected;
      if (!isRight || answer.includes('SERROR')) wrong.push(`wanted ${expected || 'none'}: ${answer}`);
    }
  };
  await Promise.all(clients.map(converse));
  t.same(wrong, [], `seed ${SEED}`);
  const statements = grants(live) - before;
  t.ok(statements < wanted / 3, `${wanted} answers by ${statements} statements`);
});

t.test('identical reads of one batch, each answered in the form it was asked in', async (t) => {
  await onServer(FILL);
  const live = await kvRouter(t, cluster);
  const clients = await tickClients(live, 16);
  await together([direct, ...clients], () => prepared(GET));
  const question = (index: number): Buffer =>
    batchBytes(GET, ['t', 'k7'], { describes: index % 2 === 0, ...(index % 4 < 2 ? { named: 'mine' } : {}) });
  await untilMerged(t, live, clients, question);
  const { counters } = live.router;
  const before = counters.mergedStatements;
  const answers = await together(clients, question);
  t.equal(counters.mergedStatements - before, clients.length);
  for (const [index, answer] of answers.entries()) {
    t.same(answer.toString('latin1'), (await direct.ask(question(index))).toString('latin1'), `form ${index % 4}`);
  }
});
