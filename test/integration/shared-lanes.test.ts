// Workers that merge together (R50): whatever is handed to another worker has the answer and the effect that it has by itself,
// to the byte. Real processes, real Postgres.
import t, { type Test } from 'tap';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import {
  bytesOf,
  CASES,
  type Case,
  elsewhere,
  FORMS,
  fillFor,
  isNamed,
  MEMBERS,
  prepared,
  reads,
} from '../support/merged-cases.js';
import { directClient, TickClient, tickClients, together } from '../support/merged-clients.js';
import { buildPackage } from '../support/router-process.js';
import { handedOver, sharedWorkers } from '../support/shared-workers.js';

const { program } = buildPackage(t);
const cluster = await kvServers(t, 1);
const direct = await directClient(cluster.servers[0]!);
t.teardown(() => direct.sql.wire.destroy());

/** Bursts until some of one are handed over: the owner has to learn the statement, too, and to accept it. */
const BURSTS_MAX = 60;
/** Each case in one form with the larger number of workers, unless it is long: all forms are played with the smaller one. */
const LONG = process.env['PGKV_LONG'] === '1';
const playsAll = (workers: number): boolean => workers === 2 || LONG;
/** Without what names a place in the server's own source or text. */
const readable = (answers: readonly Buffer[]): string[] =>
  answers.map((answer) => answer.toString('latin1').replaceAll(/P\d+\0/g, ''));

async function stateFor({ sql }: Case): Promise<string> {
  const table = sql.includes('blobs') ? 'blobs' : 'kv';
  const rows = await direct.run(`select tenant_id, key, version, value::text, ttl is null, slot
    from ${table} where ttl is null or ttl > now() order by 1, 2`);
  return JSON.stringify(rows);
}

interface Outcome {
  readonly answers: readonly string[];
  readonly state: string;
}

/** Of each case in each form. @param ready what has to be before the case is played */
async function outcomes(
  clients: readonly TickClient[],
  ready: (burst: () => Promise<unknown>, name: string) => Promise<void>,
  all = true,
): Promise<Map<string, Outcome>> {
  const found = new Map<string, Outcome>();
  for (const [index, one] of CASES.entries()) {
    await direct.run(fillFor(one));
    for (const form of all ? FORMS : [FORMS[index % FORMS.length]!]) {
      const name = `${one.name}, ${form}`;
      const away = elsewhere(one);
      if (isNamed(form)) await together(clients, () => prepared(one.sql));
      if (one.leased !== true) await ready(() => together(clients, (index) => bytesOf(form, away, index, false)), name);
      if (!reads(one)) await direct.run(fillFor(one));
      const answers = readable(await together(clients, (index) => bytesOf(form, one, index, false)));
      found.set(name, { answers, state: await stateFor(one) });
    }
  }
  return found;
}

let alone: Map<string, Outcome> | null = null;
async function outcomesAlone(t: Test): Promise<Map<string, Outcome>> {
  if (alone !== null) return alone;
  const live = await kvRouter(t, cluster, { pool: { sizeMax: 8 }, merged: { disabled: true } });
  alone = await outcomes(await tickClients(live, MEMBERS), async () => undefined);
  return alone;
}

for (const workers of [2, 4]) {
  t.test(`every kind of statement in every form, ${workers} workers`, async (t) => {
    const router = await sharedWorkers(t, cluster, { program, workers });
    const clients: TickClient[] = [];
    for (let round = 0; round < MEMBERS / workers; round++)
      for (const client of await router.connectToEach()) clients.push(new TickClient(client));
    const never: string[] = [];
    const ready = async (burst: () => Promise<unknown>, name: string): Promise<void> => {
      let { handed: before } = await handedOver(router);
      for (let attempt = 0; attempt < BURSTS_MAX; attempt++) {
        await burst();
        const { handed } = await handedOver(router);
        // All of one worker, but for one whose text is of another shape (NULL).
        if (handed - before >= MEMBERS / workers - 1) return;
        before = handed;
      }
      never.push(name);
    };
    const found = await outcomes(clients, ready, playsAll(workers));
    t.same(never, [], 'all are handed over');
    const alone = await outcomesAlone(t);
    for (const [name, { answers, state }] of found) {
      t.strictSame(answers, alone.get(name)!.answers, name);
      t.equal(state, alone.get(name)!.state, `${name}: what the table holds`);
    }
    if (playsAll(workers)) t.equal(found.size, alone.size);
    const { handed, owned, takenBack } = await handedOver(router);
    t.equal(handed - owned, takenBack, 'what was handed over was taken, or taken back');
    t.comment(`${handed} handed over, ${takenBack} taken back`);
  });
}
