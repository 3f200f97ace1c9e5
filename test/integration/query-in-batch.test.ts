// Batches in which something stands that ends its server's transaction command and leaves the batch's transaction open: a simple
// query, a FunctionCall. PostgreSQL 18.4 itself does not commit them where nothing behind starts a command anew: what they wrote is
// undone by the next statement on the connection, which fails (XX000). Behind pgkv that would be anybody's statement.
//   PGKV_SEED=7            that seed
//   PGKV_FUZZ_SCRIPTS=500  so many batches of each server and table
import t from 'tap';
import type { BackendMessage } from '../support/backend-message.js';
import { encodeAll, type FrontendMessage, readyForQueryCount } from '../support/frontend-message.js';
import { kvRouter, kvServers } from '../support/kv-cluster.js';
import { findPostgres, PLAYED_VERSIONS } from '../support/postgres-binaries.js';
import { startPostgres } from '../support/postgres-server.js';
import { SeededRandom } from '../support/seeded-random.js';
import { errorOf, rowsOf } from '../support/sql-client.js';
import { WireClient } from '../support/wire-client.js';

const SEED = Number(process.env['PGKV_SEED'] ?? 1);
const SCRIPTS = Number(process.env['PGKV_FUZZ_SCRIPTS'] ?? 60);
/** OID of pg_backend_pid(), which is the same in every release. */
const BACKEND_PID = 2026;
const PLAIN = 'create table plain (tenant_id text, key text, value jsonb)';
const TABLES = ['kv', 'plain'] as const;

interface Batch {
  readonly inBlock: boolean;
  /** Before it, in a batch of its own. */
  readonly before: readonly FrontendMessage[];
  /** In front of the Sync. */
  readonly messages: readonly FrontendMessage[];
  /** Keys that it writes. */
  readonly keys: readonly string[];
  /** Its Sync is read while the server is in a copy, and ignored there: another one ends it. */
  readonly syncInCopy: boolean;
  /** Sync is sent when all in front of it has been answered. */
  readonly apart: boolean;
}

class BatchWriter {
  readonly #random: SeededRandom;
  readonly #table: string;
  readonly #keys: string[] = [];

  constructor(seed: number, table: string) {
    this.#random = new SeededRandom(seed);
    this.#table = table;
  }

  batch(): Batch {
    const random = this.#random;
    const { before, messages } = this.#front();
    const copies = this.#table === 'plain' && random.chance(0.15);
    if (copies) {
      messages.push({ query: 'copy plain (tenant_id, key) from stdin' });
      const data: FrontendMessage[] = [{ copyData: `a\t${this.#key()}\n` }, 'copyDone'];
      const syncInCopy = random.chance(0.5);
      messages.push(...(syncInCopy ? (['sync', ...data] as const) : data));
      return { ...this.#made(before, messages), syncInCopy, apart: false };
    }
    for (let count = random.between(1, 2); count > 0; count--) messages.push(this.#stop());
    for (let count = random.between(0, 3); count > 0; count--) messages.push(...this.#behind());
    return { ...this.#made(before, messages), syncInCopy: false, apart: random.chance(0.3) };
  }

  #made(before: FrontendMessage[], messages: FrontendMessage[]) {
    return { inBlock: this.#random.chance(0.2), before, messages, keys: this.#keys };
  }

  #front(): { before: FrontendMessage[]; messages: FrontendMessage[] } {
    const named: FrontendMessage = { parse: 'select 1', name: 'own' };
    const isKnown = this.#random.chance(0.5);
    const messages: FrontendMessage[] = isKnown ? [] : [named];
    if (this.#random.chance(0.4))
      messages.push({ parse: '', name: 'none' }, { bind: [], portal: 'p', statement: 'none' });
    else messages.push({ bind: [], portal: 'p', statement: 'own' });
    for (let count = this.#random.between(1, 2); count > 0; count--) {
      messages.push({ parse: this.#insert() }, { bind: [] }, { execute: '' });
    }
    return { before: isKnown ? [named, 'sync'] : [], messages };
  }

  #stop(): FrontendMessage {
    const random = this.#random;
    if (random.chance(0.5)) return { functionCall: BACKEND_PID, args: [] };
    if (random.chance(0.2)) return { query: this.#insert() };
    return { query: random.pick(['select 1', "set application_name = 'x'", 'select 1; select 2', '', 'commit']) };
  }

  #behind(): FrontendMessage[] {
    return this.#random.pick<() => FrontendMessage[]>([
      () => [{ close: 'statement', name: 'own' }],
      () => [{ close: 'statement', name: '' }],
      () => [{ close: 'statement', name: 'absent' }],
      () => [{ close: 'portal', name: 'p' }],
      () => [{ close: 'portal', name: '' }],
      () => ['flush'],
      () => [{ close: 'portal', name: 'absent' }, 'flush'],
      () => [
        { parse: 'select 1', name: 'again' },
        { close: 'statement', name: 'again' },
      ],
      () => [{ parse: `select ${this.#random.integer(1e9)}`, name: '' }],
      () => [{ parse: 'select 1' }, { describe: 'statement' }],
      () => [{ execute: 'p' }],
      () => [{ parse: this.#insert() }, { bind: [] }, { execute: '' }],
    ])();
  }

  #insert(): string {
    return `insert into ${this.#table} (tenant_id, key, value) values ('a', '${this.#key()}', '1')`;
  }

  #key(): string {
    const key = `k${this.#keys.length}`;
    this.#keys.push(key);
    return key;
  }
}

/** What a client is told, without what differs from one connection to another. */
function told(messages: readonly BackendMessage[]): string[] {
  return messages.map((message) => {
    if (message.type === 'ReadyForQuery') return `ready ${message.status}`;
    if (message.type === 'ErrorResponse') return `error ${message.fields['C']}`;
    if (message.type === 'CommandComplete') return message.tag;
    return message.type;
  });
}

async function play(client: WireClient, batch: Batch): Promise<string[]> {
  const all: BackendMessage[] = [];
  const send = async (messages: readonly FrontendMessage[], readies = readyForQueryCount(messages)): Promise<void> => {
    const { messages: answers, outcome } = await client.exchange(messages, readies);
    all.push(...answers);
    if (outcome !== 'reached') all.push({ type: 'ErrorResponse', fields: { C: outcome } });
  };
  if (batch.before.length > 0) await send(batch.before);
  if (batch.inBlock) await send([{ query: 'begin' }]);
  if (batch.apart) {
    await send(batch.messages);
    await send(['sync']);
  } else if (batch.syncInCopy) {
    await send(batch.messages, readyForQueryCount(batch.messages) - 1);
    await send(['sync']);
  } else await send([...batch.messages, 'sync']);
  if (batch.inBlock) await send([{ query: 'commit' }]);
  return told(all.filter(({ type }) => type !== 'ParameterStatus' && type !== 'NoticeResponse'));
}

const isFunctionCall = (message: FrontendMessage): boolean => typeof message !== 'string' && 'functionCall' in message;

const shown = (batch: Batch): string => JSON.stringify({ ...batch, bytes: encodeAll(batch.messages).length });

for (const version of PLAYED_VERSIONS) {
  const skip = findPostgres(version) ? false : `no Postgres ${version}`;
  t.test(`batches on ${version}`, { skip, timeout: 3_600_000 }, async (t) => {
    const cluster = await kvServers(t, 1, { version });
    const plain = await startPostgres({ version });
    t.teardown(() => plain.stop());
    const login = { user: plain.superuser, database: 'postgres' };
    const router = await kvRouter(t, cluster, { pool: { sizeMax: 1 } });
    const [direct, stranger] = await Promise.all([WireClient.connect(plain, login), WireClient.connect(router, login)]);
    await direct.query(`${PLAIN}; create table kv (like plain)`);
    await stranger.query(PLAIN);
    for (const table of TABLES) {
      await t.test(`on table ${table}`, async (t) => {
        for (let seed = SEED; seed < SEED + SCRIPTS; seed++) {
          const batch = new BatchWriter(seed, table).batch();
          const keys = `select key from ${table} where tenant_id = 'a' and key = any('{${batch.keys.join()}}') order by key`;
          const [client, model] = await Promise.all(
            [router, plain].map((address) => WireClient.connect(address, login)),
          );
          const [here, there] = await Promise.all([play(client!, batch), play(model!, batch)]);
          // Whose function was called may have left state, and its connection is nobody else's as long as it stays.
          const next = batch.messages.some(isFunctionCall) ? client! : stranger;
          const read = await next.query(keys);
          // On the connection it has poisoned Postgres undoes the batch; its answers are right.
          model!.send({ query: keys });
          const { messages: own } = await model!.wait(1);
          const isUndone = errorOf(own)?.code === 'XX000';
          const rows = rowsOf(read).flat();
          const ok =
            t.same(here, there, `seed ${seed}: the client is told what Postgres tells`) &&
            t.equal(errorOf(read), null, `seed ${seed}: the next statement on the connection is served`) &&
            t.same(rows, isUndone ? batch.keys : rowsOf(own).flat(), `seed ${seed}: the rows are there for others`);
          if (!ok) t.comment(`${version} ${table} ${seed}`, shown(batch));
          client!.destroy();
          const left = rowsOf(await stranger.query(keys)).flat();
          if (ok) t.same(left, rows, `seed ${seed}: and stay`);
          await stranger.query(`delete from ${table} where tenant_id = 'a' and key = any('{${batch.keys.join()}}')`);
          await direct.query(`truncate ${table}`);
          model!.destroy();
          if (!ok) break;
        }
      });
    }
    stranger.destroy();
    direct.destroy();
    await router.quiet();
  });
}
