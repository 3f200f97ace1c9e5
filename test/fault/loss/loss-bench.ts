// Plays scripts through pgkv over servers whose connections can be lost at a byte, and holds what the client was answered,
// and what the servers hold afterwards, against the ledger.
import type { Test } from 'tap';
import { initialView } from '../../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash } from '../../../src/cluster/key-hash.js';
import type { Side } from '../../support/fault-proxy.js';
import { evenSpread, fixedCatalog, KV, prepareShard } from '../../support/kv-cluster.js';
import { type LiveRouter, liveRouter } from '../../support/live-router.js';
import { type How, LossyProxy } from '../../support/lossy-proxy.js';
import { type PostgresServer, startPostgres } from '../../support/postgres-server.js';
import { SqlClient } from '../../support/sql-client.js';
import { type Answer, errorCode, showAnswer, statusOf } from './answer.js';
import { type Fate, Ledger } from './ledger.js';
import { LossClient } from './loss-client.js';
import { buildScript, type Script, type ScriptName } from './scripts.js';
import {
  fixedKey,
  messagesOf,
  OLDER_VALUE,
  type Place,
  plain,
  readRow,
  simple,
  type Unit,
  writeAt,
} from './statements.js';

/** Where and how a connection is lost; `idle`: before the packet, all of that shard's. */
export interface Cut {
  readonly shard: number;
  readonly side: Side | 'idle';
  readonly after: number;
  readonly how: How;
}

export interface Run {
  readonly answers: readonly Answer[];
  readonly before: readonly string[];
  readonly id: string;
  readonly violations: readonly string[];
  readonly fates: readonly Fate[];
  readonly log: readonly string[];
  readonly struck: boolean;
  /** Bytes that the struck packet had pass, by shard and side. */
  readonly passed: readonly Readonly<Record<Side, number>>[];
}

/** Not the database of the health checks, which are not lost. */
const DATABASE = 'template1';
/** Longer than a proxy is silent before it resets. */
const SILENT_MS = 50;
const PROBES_MAX = 2;
const SETUP_ATTEMPTS_MAX = 4;
const REST_TIMEOUT_MS = 10_000;

export class LossBench {
  readonly #live: LiveRouter;
  readonly #proxies: readonly LossyProxy[];
  readonly #direct: readonly SqlClient[];
  readonly #tags: readonly string[];
  readonly #user: string;
  #lastId = 0;

  private constructor(
    live: LiveRouter,
    proxies: readonly LossyProxy[],
    direct: readonly SqlClient[],
    tags: readonly string[],
    user: string,
  ) {
    this.#live = live;
    this.#proxies = proxies;
    this.#direct = direct;
    this.#tags = tags;
    this.#user = user;
  }

  static async start(t: Test, shards: number): Promise<LossBench> {
    await loadKeyHash();
    const servers = await Promise.all(Array.from({ length: shards }, () => startPostgres({ version: 'embedded' })));
    t.teardown(() => Promise.all(servers.map((server) => server.stop())));
    await Promise.all(servers.map((server) => prepareShard(server, [KV], DATABASE)));
    const proxies = await Promise.all(servers.map((server) => LossyProxy.start(server, DATABASE)));
    t.teardown(() => Promise.all(proxies.map((proxy) => proxy.stop())));
    const live = await liveRouter(
      t,
      proxies.map((proxy, index) => proxy.standInFor(servers[index]!)),
      { pool: { sizeMax: 6 } },
      { catalog: fixedCatalog(evenSpread(shards, [KV], DATABASE)) },
    );
    const direct = await Promise.all(servers.map((server) => directTo(t, server)));
    const tags = tagsOfShards(shards);
    const bench = new LossBench(live, proxies, direct, tags, servers[0]!.superuser);
    await bench.#fill();
    return bench;
  }

  get shards(): number {
    return this.#proxies.length;
  }

  place(here: number, there: number): Place {
    return { id: String(++this.#lastId).padStart(7, '0'), here, there, tags: this.#tags };
  }

  /** @param usual a run without a loss, null: this is one */
  async play(name: ScriptName, here: number, there: number, cut: Cut | null, usual: Run | null): Promise<Run> {
    for (let attempt = 1; ; attempt++) {
      const place = this.place(here, there);
      const client = await LossClient.connect(this.#live.port, { user: this.#user, database: DATABASE });
      const run = new OneRun(client, place, buildScript(name, place), this.#proxies, cut, usual);
      try {
        if ((await run.setUp()) || attempt === SETUP_ATTEMPTS_MAX) return await run.finish();
      } finally {
        client.destroy();
      }
    }
  }

  /** What the servers hold against what clients were told, once nothing is under way any more. */
  async check(runs: readonly Run[]): Promise<string[][]> {
    const left = await this.#atRest();
    const keys = runs.flatMap(({ fates }) => fates.flatMap(({ rows }) => rows.map(({ key }) => key)));
    const found = new Map<string, string[]>();
    for (const [shard, direct] of this.#direct.entries()) {
      const list = `ARRAY[${keys.map((key) => `'${key}'`).join(',')}]::text[]`;
      for (const [key, value] of await direct.rows(
        `SELECT key, value::text FROM kv WHERE key = ANY (${list})
         UNION ALL SELECT note, '' FROM plain WHERE note = ANY (${list})`,
      )) {
        found.set(key!, [...(found.get(key!) ?? []), `${shard}:${value}`]);
      }
    }
    const wrong = runs.map(({ fates }) => fates.flatMap((each) => wrongIn(each, found)));
    if (left.length > 0) wrong.at(-1)!.push(`[rest] left on servers: ${left.join('; ')}`);
    return wrong;
  }

  async #fill(): Promise<void> {
    for (const [shard, direct] of this.#direct.entries()) {
      const key = fixedKey({ id: '', here: 0, there: 0, tags: this.#tags }, shard);
      await direct.run(
        `INSERT INTO kv (tenant_id, key, value) VALUES ('t', '${key}', '"fixed"'), ('f', '${key}', '1')`,
      );
      await direct.run('CREATE TABLE plain (note text)', `INSERT INTO plain VALUES ('fixed')`);
    }
  }

  async #atRest(): Promise<string[]> {
    const end = performance.now() + REST_TIMEOUT_MS;
    const sql = `SELECT state || ': ' || query FROM pg_stat_activity WHERE backend_type = 'client backend'
        AND pid <> pg_backend_pid() AND state <> 'idle' AND datname = '${DATABASE}'
      UNION ALL SELECT 'prepared ' || gid FROM pg_prepared_xacts`;
    for (;;) {
      const left = (await Promise.all(this.#direct.map((direct) => direct.rows(sql)))).flat().map(([text]) => text!);
      if (left.length === 0 || performance.now() > end) return left;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

async function directTo(t: Test, server: PostgresServer): Promise<SqlClient> {
  const client = await SqlClient.connect(server, { user: server.superuser, database: DATABASE });
  t.teardown(() => client.end());
  return client;
}

/** For each shard a part of a key in braces that brings the key there. */
function tagsOfShards(shards: number): string[] {
  const state = evenSpread(shards, [KV]);
  const view = initialView(
    state.shards.map((shard) => ({ ...shard, nodes: [{ host: '', port: 0 }] })),
    [KV],
  );
  return Array.from({ length: shards }, (_, shard) => {
    for (let n = 0; ; n++) {
      const places = ['t', 'f'].map((tenant) => view.shardOfSlot[hashSlotOf(tenant, `{${n}}`)]);
      if (places.every((place) => place === shard)) return String(n);
    }
  });
}

function wrongIn({ rows, fate }: Fate, found: ReadonlyMap<string, readonly string[]>): string[] {
  const wrong: string[] = [];
  let there = 0;
  for (const { key, shard, value, table } of rows) {
    const places = found.get(key) ?? [];
    if (places.length > 0) there++;
    const expected = `${table === 'kv' ? shard : 0}:${value}`;
    if (places.length > 1) wrong.push(`[twice] ${key} is at ${places.join(', ')}`);
    else if (places[0]?.endsWith(OLDER_VALUE) === true && value !== OLDER_VALUE) {
      wrong.push(`[older] ${key} was written by an older statement`);
    } else if (places.length === 1 && places[0] !== expected)
      wrong.push(`[misplaced] ${key} is ${places[0]}, not ${expected}`);
  }
  const some = rows.map(({ key }) => `${key} ${found.has(key) ? 'there' : 'absent'}`).join(', ');
  if (fate === 'there' && there < rows.length) wrong.push(`[write lost] acknowledged: ${some}`);
  if (fate === 'absent' && there > 0) wrong.push(`[ghost write] said not to be done: ${some}`);
  if (fate === 'unknown' && there > 0 && there < rows.length) wrong.push(`[in part] told 08007: ${some}`);
  return wrong;
}

/** One script with at most one loss. */
class OneRun {
  readonly #client: LossClient;
  readonly #place: Place;
  readonly #script: Script;
  readonly #proxies: readonly LossyProxy[];
  readonly #cut: Cut | null;
  readonly #usual: Run | null;
  readonly #ledger = new Ledger();
  readonly #answers: Answer[] = [];
  readonly #before: string[] = [];
  readonly #log: string[] = [];
  #lossPossible = false;
  #struck = false;
  #passed: Run['passed'] = [];

  constructor(
    client: LossClient,
    place: Place,
    script: Script,
    proxies: readonly LossyProxy[],
    cut: Cut | null,
    usual: Run | null,
  ) {
    this.#client = client;
    this.#place = place;
    this.#script = script;
    this.#proxies = proxies;
    this.#cut = cut;
    this.#usual = usual;
  }

  /** False: the session did not come into its state, for what an earlier run has left. */
  async setUp(): Promise<boolean> {
    const { setup, struck, open } = this.#script;
    for (const unit of setup) this.#judge(unit, await this.#client.ask(messagesOf(unit)), []);
    if (this.#ledger.violations.length > 0) return false;
    if (open === 0) return true;
    const [unit] = struck as [Unit];
    const messages = messagesOf(unit).slice(0, open);
    this.#client.send(unit.form === 'extended' ? [...messages, 'flush'] : messages);
    const last = unit.form === 'copy in' ? 'CopyInResponse' : ['', 'ParseComplete', 'BindComplete'][open];
    await this.#client.hears(({ type }) => type === (last ?? 'CommandComplete') || type === 'ErrorResponse');
    return true;
  }

  async finish(): Promise<Run> {
    await this.#strike();
    if (!this.#ledger.isOver) await this.#aftermath();
    this.#disarm();
    const { violations, fates } = this.#ledger;
    return {
      ...{ answers: this.#answers, before: this.#before, id: this.#place.id, violations, fates },
      ...{ log: this.#log, struck: this.#struck, passed: this.#passed },
    };
  }

  async #strike(): Promise<void> {
    const { struck, open } = this.#script;
    const cut = this.#cut;
    for (const proxy of this.#proxies) proxy.arm(null);
    if (cut?.side === 'idle') {
      this.#lossPossible = this.#struck = true;
      this.#proxies[cut.shard]!.loseAll(cut.how);
      // Noticed before the packet, as a rule.
      if (cut.after > 0) await new Promise((resolve) => setTimeout(resolve, cut.after));
    } else if (cut !== null) {
      this.#proxies[cut.shard]!.arm({ side: cut.side, after: cut.after, how: cut.how });
      this.#lossPossible = true;
    }
    this.#client.send(struck.flatMap(messagesOf).slice(open));
    const answers = await this.#client.answers(struck.length);
    this.#passed = this.#proxies.map(({ passed }) => ({ ...passed }));
    this.#struck ||= this.#proxies.some((proxy) => proxy.struck);
    this.#disarm();
    for (const [index, unit] of struck.entries()) {
      this.#judge(unit, answers[index]!, struck.slice(index + 1), this.#usual?.answers[this.#answers.length]);
    }
    // By then what is silent is known to be lost.
    if (this.#struck && cut?.how === 'swallow') await new Promise((resolve) => setTimeout(resolve, SILENT_MS));
    // What was lost and not yet heard of may still be; what was not lost by now is not lost any more.
    if (!this.#struck) this.#lossPossible = false;
  }

  /** Goes on as a client does that has been told what it was told. */
  async #aftermath(): Promise<void> {
    const { here } = this.#place;
    if (this.#ledger.status === 'T') await this.#goOnInBlock();
    if (this.#ledger.status === 'E') {
      await this.#ask(simple({ ...writeAt(this.#place, here, 'e'), inBlock: true }));
      const end = Number(this.#place.id) % 2 === 0 ? 'COMMIT' : 'ROLLBACK';
      await this.#ask(simple(plain(end, { kind: end === 'COMMIT' ? 'commit' : 'rollback' })));
    }
    // Binds what was parsed last without a name, or nothing; if it is an older statement the row shows it.
    const bound = writeAt(this.#place, here, 'b');
    const unnamed = await this.#client.ask([{ bind: bound.values }, { execute: '' }, 'sync']);
    this.#note('(Bind without Parse)', unnamed);
    if (unnamed.ended !== 'ready') return this.#judge(simple(bound), unnamed, []);
    const status = statusOf(unnamed);
    if (status !== 'I') this.#ledger.violations.push(`[stuck] outside a block, status ${status}`);
    if (bound.effect.kind === 'write' && this.#parsesAnew()) this.#ledger.mayWrite(bound.effect.row);
    for (let probe = 1; probe <= PROBES_MAX && !this.#ledger.isOver; probe++) {
      const isLast = probe === PROBES_MAX;
      if (isLast) this.#lossPossible = false;
      const shard = probe % 2 === 0 ? here : (this.#cut?.shard ?? here);
      await this.#ask(simple(writeAt(this.#place, shard, `p${probe}`)));
    }
    await this.#fence();
  }

  /** Something took the place of the older statement without a name. */
  #parsesAnew(): boolean {
    return this.#script.struck.some(({ form, statements }) => {
      return form !== 'extended' || statements.some(({ named }) => named === undefined);
    });
  }

  /** Was not told of a loss: reads its own writes, if there are any, then commits. */
  async #goOnInBlock(): Promise<void> {
    const written = this.#ledger.blockRows.find(({ table }) => table === 'kv');
    if (written !== undefined) {
      const answer = await this.#ask(simple(readRow(written)));
      if (errorCode(answer) === '' && !answer.messages.some(({ type }) => type === 'DataRow')) {
        this.#ledger.violations.push('[half a block] its own write is not seen any more');
      }
    }
    if (this.#ledger.status === 'T') await this.#ask(simple(plain('COMMIT', { kind: 'commit' })));
  }

  /** Nothing is answered that nobody has asked. */
  async #fence(): Promise<void> {
    if (this.#ledger.isOver) return;
    const answer = await this.#ask(simple(plain("SELECT 'fence'")));
    const types = answer.messages.map(({ type }) => type).join();
    if (types !== 'RowDescription,DataRow,CommandComplete,ReadyForQuery') {
      this.#ledger.violations.push(`[unasked] ${showAnswer(answer, this.#place.id)}`);
    }
  }

  async #ask(unit: Unit): Promise<Answer> {
    const answer = await this.#client.ask(messagesOf(unit));
    this.#judge(unit, answer, []);
    return answer;
  }

  #circumstances(rest: readonly Unit[], usual: Answer | undefined) {
    const { id } = this.#place;
    const at = this.#answers.length;
    const run = this.#usual;
    return {
      undisturbed: usual === undefined ? null : { answer: usual, before: run!.before[at]!, id: run!.id },
      lossPossible: this.#lossPossible,
      lostShard: this.#cut?.shard ?? -1,
      rest,
      id,
    };
  }

  #judge(unit: Unit, answer: Answer, rest: readonly Unit[], usual?: Answer): void {
    const before = this.#ledger.violations.length;
    this.#before.push(this.#ledger.status);
    const about = this.#circumstances(rest, usual);
    this.#ledger.take(unit, answer, { ...about, undisturbed: about.undisturbed });
    this.#answers.push(answer);
    this.#note(
      unit.statements.map((each) => each.text).join(unit.form === 'extended' ? ' · ' : '; '),
      answer,
      this.#ledger.violations.slice(before),
    );
  }

  #note(what: string, answer: Answer, wrong: readonly string[] = []): void {
    this.#log.push(`${what}  →  ${showAnswer(answer, this.#place.id)}${wrong.map((each) => `  !! ${each}`).join('')}`);
  }

  #disarm(): void {
    for (const proxy of this.#proxies) proxy.disarm();
  }
}
