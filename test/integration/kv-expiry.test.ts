// Expiry at the edge (D9): a thousand keys that expire one after the other while clients read and write them in every
// way. A statement's clock is read by the server between the moments at which it is sent and answered here, on the same
// machine: answered before the ttl, it has to see the key; sent at or behind it, never. In between nothing is known.
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { initialView } from '../../src/cluster/cluster-view.js';
import { hashSlotOf, loadKeyHash } from '../../src/cluster/key-hash.js';
import { evenSpread, KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf, rowsOf, SqlClient, tagsOf } from '../support/sql-client.js';

const SHARDS = 4;
/** What clocks of one machine may differ by, and what Date.now() leaves out. */
const MARGIN_MS = 5;
const TENANT = 'e';

await loadKeyHash();
const cluster = await kvServers(t, SHARDS, { tables: [KV] });
const direct = await Promise.all(
  cluster.servers.map((server) => SqlClient.connect(server, { user: server.superuser, database: 'postgres' })),
);
t.teardown(() => Promise.all(direct.map((client) => client.end())));
// Versions as users have them: what is reborn must not repeat one.
for (const client of direct) await client.run('alter table kv alter column version set default pgkv.first_version()');
const live = await kvRouter(t, cluster);
const view = initialView(
  evenSpread(SHARDS, [KV]).shards.map((shard) => ({ ...shard, nodes: [{ host: '', port: 0 }] })),
  [KV],
);
const shardOf = (key: string): number => view.shardOfSlot[hashSlotOf(TENANT, key)]!;

interface Mortal {
  readonly key: string;
  /** Milliseconds since 1970. */
  readonly ttl: number;
}

/** Keys of a prefix, `apart` milliseconds from one another. */
const mortals = (prefix: string, count: number, first: number, apart: number): Mortal[] =>
  Array.from({ length: count }, (_, n) => ({ key: `${prefix}${String(n).padStart(4, '0')}`, ttl: first + n * apart }));

/** Straight onto their shards, at once. */
async function plant(all: readonly Mortal[]): Promise<void> {
  await Promise.all(
    direct.map(async (client, shard) => {
      const rows = all.filter(({ key }) => shardOf(key) === shard);
      const values = rows.map(({ key, ttl }) => `('${TENANT}', '${key}', '1', '${new Date(ttl).toISOString()}')`);
      if (values.length > 0) await client.run(`insert into kv (tenant_id, key, value, ttl) values ${values.join()}`);
    }),
  );
}

/** Over all forms. */
const seen = { alive: 0, dead: 0 };

/** What was seen of one form of statement. */
class Sightings {
  alive = 0;
  dead = 0;
  unsure = 0;
  /** Milliseconds to the ttl of the nearest certain sightings. */
  nearest = Number.POSITIVE_INFINITY;
  readonly #t: Test;
  readonly #form: string;

  constructor(t: Test, form: string) {
    this.#t = t;
    this.#form = form;
  }

  note({ key, ttl }: Mortal, isVisible: boolean, sent: number, answered: number): void {
    const mustLive = answered + MARGIN_MS < ttl;
    const mustBeGone = sent - MARGIN_MS >= ttl;
    if (!mustLive && !mustBeGone) {
      this.unsure++;
      return;
    }
    this.nearest = Math.min(this.nearest, mustLive ? ttl - answered : sent - ttl);
    if (mustLive) this.alive++;
    else this.dead++;
    if (isVisible === mustLive) return;
    const when = mustLive ? `answered ${ttl - answered} ms before` : `sent ${sent - ttl} ms behind`;
    this.#t.fail(`${this.#form}: ${key} was ${isVisible ? '' : 'not '}visible, ${when} its ttl`);
  }

  /** A busy machine asks late: how much was seen is judged over all forms, at the end. */
  report(): void {
    const { alive, dead, unsure } = this;
    seen.alive += alive;
    seen.dead += dead;
    this.#t.comment(`${this.#form}: ${alive} before, ${dead} behind, ${unsure} in between, nearest ${this.nearest} ms`);
    this.#t.ok(alive + dead > 0, `${this.#form}: it was seen at all`);
  }
}

/** Asks which of some keys are visible, without changing that. */
type Form = (client: SqlClient, keys: readonly string[]) => Promise<ReadonlySet<string>>;

const first = (rows: readonly (string | null)[][]): ReadonlySet<string> => new Set(rows.map(([key]) => key!));
const quoted = (keys: readonly string[]): string => keys.map((key) => `'${key}'`).join();
const keyed = (key: string): string => `tenant_id = '${TENANT}' and key = '${key}'`;

/** By how many keys a form is asked for at once. */
const FORMS: Readonly<Record<string, { readonly keys: number; readonly ask: Form }>> = {
  'point SELECT': {
    keys: 1,
    ask: async (client, [key]) => first(await client.rows(`select key from kv where ${keyed(key!)}`)),
  },
  'point SELECT, extended': {
    keys: 1,
    ask: async (client, [key]) =>
      first(await client.extended('select key from kv where tenant_id = $1 and key = $2', [TENANT, key!])),
  },
  'IN list': {
    keys: 8,
    ask: async (client, keys) =>
      first(await client.rows(`select key from kv where tenant_id = '${TENANT}' and key in (${quoted(keys)})`)),
  },
  '= ANY, extended': {
    keys: 8,
    ask: async (client, keys) =>
      first(
        await client.extended('select key from kv where tenant_id = $1 and key = any($2)', [
          TENANT,
          `{${keys.join()}}`,
        ]),
      ),
  },
  range: {
    keys: 24,
    ask: async (client, keys) =>
      first(
        await client.rows(
          `select key, version from kv where tenant_id = '${TENANT}' and key between '${keys[0]}' and '${keys.at(-1)}' order by key`,
        ),
      ),
  },
  'range, extended': {
    keys: 24,
    ask: async (client, keys) =>
      first(
        await client.extended(
          'select key from kv where key >= $1 and key <= $2 and tenant_id = $3 order by version desc limit 1000',
          [keys[0]!, keys.at(-1)!, TENANT],
        ),
      ),
  },
  'GROUP BY': {
    keys: 24,
    ask: async (client, keys) =>
      first(
        await client.rows(
          `select key, count(*) from kv where tenant_id = '${TENANT}' and key between '${keys[0]}' and '${keys.at(-1)}' group by key`,
        ),
      ),
  },
  'count(*) of one': {
    keys: 1,
    ask: async (client, keys) => {
      const [[count]] = (await client.rows(
        `select count(*) from kv where tenant_id = '${TENANT}' and key between '${keys[0]}' and '${keys[0]}'`,
      )) as [[string]];
      return new Set(count === '1' ? keys : []);
    },
  },
  kv_get: {
    keys: 1,
    ask: async (client, keys) => {
      const rows = await client.rows(`select version from kv_get('${TENANT}', '${keys[0]}')`);
      return new Set(rows.length === 1 ? keys : []);
    },
  },
  'kv_ttl, extended': {
    keys: 1,
    ask: async (client, keys) => {
      const [[left]] = (await client.extended('select kv_ttl($1, $2)', [TENANT, keys[0]!])) as [[string | null]];
      return new Set(left === null ? [] : keys);
    },
  },
  UPDATE: {
    keys: 1,
    ask: async (client, keys) => {
      const [tag] = await client.run(`update kv set value = '2' where ${keyed(keys[0]!)}`);
      return new Set(tag === 'UPDATE 1' ? keys : []);
    },
  },
  'UPDATE … RETURNING, extended': {
    keys: 1,
    ask: async (client, keys) =>
      first(
        await client.extended('update kv set value = $3 where tenant_id = $1 and key = $2 returning key', [
          TENANT,
          keys[0]!,
          '3',
        ]),
      ),
  },
  'FOR UPDATE': {
    keys: 1,
    ask: async (client, [key]) => first(await client.rows(`select key from kv where ${keyed(key!)} for update`)),
  },
  'kv_cas of another version': {
    keys: 1,
    // It never applies, and tells whether there is a version.
    ask: async (client, keys) => {
      const [row] = await client.rows(`select applied, version from kv_cas('${TENANT}', '${keys[0]}', 1, '0')`);
      return new Set(row![1] === null ? [] : keys);
    },
  },
};

t.test('the clocks here are one', async (t) => {
  for (const client of direct) {
    const before = Date.now();
    const server = Number(await client.value('select extract(epoch from clock_timestamp()) * 1000'));
    const after = Date.now();
    t.ok(server >= before - 1 && server <= after + 1, `${server} between ${before} and ${after}`);
  }
});

t.test('reads, and writes that leave the ttl, see a key until its ttl and never behind it', async (t) => {
  const apart = 8;
  const count = 170;
  const entries = Object.entries(FORMS);
  // Few at a time: what is not answered soon tells nothing.
  for (let group = 0; group * 5 < entries.length; group++) {
    const all = mortals(`r${group}.`, count, Date.now() + 400, apart);
    await plant(all);
    const end = all.at(-1)!.ttl + 60;
    const loops = entries.slice(group * 5, group * 5 + 5).map(async ([form, { keys, ask }]) => {
      const client = await live.connect();
      const seen = new Sightings(t, form);
      let usual = 5;
      for (let round = 0; Date.now() < end; round++) {
        // The keys that expire about when the answer comes: a little before it, a little behind it.
        const aim = Date.now() + usual * AIMS[round % AIMS.length]!;
        const current = Math.round((aim - all[0]!.ttl) / apart);
        const from = Math.max(0, Math.min(count - keys, current - (keys >> 1)));
        const asked = all.slice(from, from + keys);
        const sent = Date.now();
        const names = asked.map(({ key }) => key);
        const visible = await ask(client, names);
        const answered = Date.now();
        usual += (answered - sent + MARGIN_MS - usual) / 4;
        for (const mortal of asked) seen.note(mortal, visible.has(mortal.key), sent, answered);
        for (const key of visible) if (!names.includes(key)) t.fail(`${form}: ${key} was not asked for`);
      }
      seen.report();
      await client.end();
    });
    await Promise.all([...loops, countAll(t, all, `r${group}.`, end)]);
  }
});

/** Where to look, in usual times of an answer from now. */
const AIMS = [1.3, -1, 2, 1.6, -0.6, 3, 0];

async function countAll(t: Test, all: readonly Mortal[], prefix: string, end: number): Promise<void> {
  const client = await live.connect();
  let counted = 0;
  while (Date.now() < end) {
    const sent = Date.now();
    const number = Number(
      await client.value(`select count(*) from kv where tenant_id = '${TENANT}' and key like '${prefix}%'`),
    );
    const answered = Date.now();
    const most = all.filter(({ ttl }) => ttl > sent - MARGIN_MS).length;
    const least = all.filter(({ ttl }) => ttl > answered + MARGIN_MS).length;
    if (number < least || number > most) t.fail(`count(*) is ${number}, not ${least} to ${most}`);
    counted++;
  }
  t.ok(counted > 0, `${counted} counts`);
  await client.end();
}

/** Acts once on a key around its ttl: whether it took the key for alive, and the version it left. */
type Act = (client: SqlClient, key: string) => Promise<{ readonly wasAlive: boolean; readonly version: bigint | null }>;

const written = (rows: readonly (string | null)[][], wasAlive: (row: readonly (string | null)[]) => boolean) => {
  const [row] = rows;
  if (row === undefined) throw new Error('no row was written');
  return { wasAlive: wasAlive(row), version: BigInt(row[0]!) };
};

/** An INSERT fails with 23505 while the key lives. */
async function insertion(messages: ReturnType<SqlClient['answers']>): ReturnType<Act> {
  const answers = await messages;
  const error = errorOf(answers);
  if (error === null) return written(rowsOf(answers), () => false);
  if (error.code !== '23505') throw error;
  return { wasAlive: true, version: null };
}

const insertOf = (key: string, more: string): string =>
  `insert into kv (tenant_id, key, value) values ('${TENANT}', '${key}', '10') ${more}`;
const BOUND = 'insert into kv (tenant_id, key, value) values ($1, $2, $3)';

const ACTS: Readonly<Record<string, Act>> = {
  DELETE: async (client, key) => {
    const [tag] = await client.run(`delete from kv where ${keyed(key)}`);
    return { wasAlive: tag === 'DELETE 1', version: null };
  },
  'DELETE … RETURNING, extended': async (client, key) => {
    const rows = await client.extended('delete from kv where tenant_id = $1 and key = $2 returning version', [
      TENANT,
      key,
    ]);
    return { wasAlive: rows.length === 1, version: null };
  },
  kv_delete: async (client, key) => {
    return { wasAlive: (await client.value(`select kv_delete('${TENANT}', '${key}')`)) === 't', version: null };
  },
  INSERT: (client, key) => insertion(client.answers(insertOf(key, 'returning version'))),
  'INSERT, extended': (client, key) =>
    insertion(
      client
        .send([{ parse: `${BOUND} returning version` }, { bind: [TENANT, key, '10'] }, { execute: '' }, 'sync'])
        .then((answers) => [...answers]),
    ),
  'ON CONFLICT DO NOTHING': async (client, key) => {
    const rows = await client.rows(insertOf(key, 'on conflict do nothing returning version'));
    return rows.length === 0 ? { wasAlive: true, version: null } : written(rows, () => false);
  },
  'ON CONFLICT DO UPDATE': async (client, key) =>
    written(
      await client.rows(
        insertOf(key, "on conflict (tenant_id, key) do update set value = '20' returning version, value, ttl"),
      ),
      ([, value]) => value === '20',
    ),
  'ON CONFLICT DO UPDATE, extended': async (client, key) =>
    written(
      await client.extended(
        `${BOUND} on conflict (tenant_id, key) do update set value = to_jsonb(20 + (kv.value)::int) returning version, value`,
        [TENANT, key, '10'],
      ),
      ([, value]) => value === '21',
    ),
  kv_put: async (client, key) => {
    const rows = await client.rows(`select kv_put('${TENANT}', '${key}', '10')`);
    const { version } = written(rows, () => false);
    // A version counted up by one is that of a key that lived.
    return { wasAlive: version === before.get(key)! + 1n, version };
  },
  'kv_cas, expecting nothing': async (client, key) => {
    const [row] = await client.rows(`select applied, version from kv_cas('${TENANT}', '${key}', 0, '10')`);
    return { wasAlive: row![0] === 'f', version: row![0] === 't' ? BigInt(row![1]!) : null };
  },
  'kv_incr, extended': async (client, key) => {
    const rows = await client.extended('select kv_incr($1, $2, 5)', [TENANT, key]);
    return { wasAlive: rows[0]![0] === '6', version: null };
  },
};

/** Versions at birth. */
const before = new Map<string, bigint>();

t.test('what deletes, inserts or replaces takes a key for alive until its ttl and never behind it', async (t) => {
  const names = Object.keys(ACTS);
  const all = mortals('w', 440, Date.now() + 700, 6);
  await plant(all);
  for (const client of direct) {
    for (const [key, version] of await client.rows("select key, version from kv where key like 'w%'")) {
      before.set(key!, BigInt(version!));
    }
  }
  t.equal(before.size, all.length);
  const seen = new Map(names.map((name) => [name, new Sightings(t, name)]));
  let reborn = 0;
  const workers = 12;
  const work = Array.from({ length: workers }, async (_, worker) => {
    const client = await live.connect();
    for (let n = worker; n < all.length; n += workers) {
      const mortal = all[n]!;
      const name = names[(n + Math.floor(n / names.length)) % names.length]!;
      // From well before to well behind, half of them within a few milliseconds.
      const offset = [-30, -14, -9, -7, -3, 0, 3, 6, 7, 9, 12][(n * 5) % 11]!;
      await sleep(Math.max(0, mortal.ttl + offset - Date.now()));
      const sent = Date.now();
      const { wasAlive, version } = await ACTS[name]!(client, mortal.key);
      seen.get(name)!.note(mortal, wasAlive, sent, Date.now());
      if (version === null) continue;
      if (version <= before.get(mortal.key)!) t.fail(`${name}: version ${version} behind ${before.get(mortal.key)}`);
      if (!wasAlive) reborn++;
    }
    await client.end();
  });
  await Promise.all(work);
  for (const one of seen.values()) one.report();
  t.ok(reborn > 50, `${reborn} keys born again, with higher versions`);
});

t.test('a transaction that stays open across the ttl stops seeing the key, though now() stands still', async (t) => {
  for (const protocol of ['simple', 'extended'] as const) {
    const all = mortals(`{tx}${protocol}`, 30, Date.now() + 400, 12);
    await plant(all);
    const client = await live.connect();
    await client.run('begin');
    const ask = (sql: string, key: string) =>
      protocol === 'simple'
        ? client.rows(sql.replace('$1', `'${TENANT}'`).replace('$2', `'${key}'`))
        : client.extended(sql, [TENANT, key]);
    const seen = new Sightings(t, `in a transaction, ${protocol}`);
    const nows = new Set<string | null>();
    const STATEMENTS = [
      'select key, now() from kv where tenant_id = $1 and key = $2',
      'select key, now() from kv where key = $2 and tenant_id = $1 for share',
      "update kv set value = '5' where tenant_id = $1 and key = $2 returning key, now()",
      "select 'got', now() from kv_get($1, $2)",
    ];
    for (let n = 0; Date.now() < all.at(-1)!.ttl + 30; n++) {
      const current = Math.round((Date.now() - all[0]!.ttl) / 12) + ((n * 3) % 5) - 2;
      const mortal = all[Math.max(0, Math.min(all.length - 1, current))]!;
      const sent = Date.now();
      const rows = await ask(STATEMENTS[n % STATEMENTS.length]!, mortal.key);
      seen.note(mortal, rows.length === 1, sent, Date.now());
      for (const [, now] of rows) nows.add(now!);
    }
    seen.report();
    t.equal(nows.size, 1, 'one transaction');
    // Gone for DELETE, room for INSERT, under a transaction whose now() is long before the ttl.
    const last = all.at(-1)!.key;
    const more = [
      `delete from kv where ${keyed(last)}`,
      insertOf(last, ''),
      `select value from kv where ${keyed(last)}`,
    ];
    t.same(tagsOf(await client.answers(...more)), ['DELETE 0', 'INSERT 0 1', 'SELECT 1']);
    t.same(await client.run('commit'), ['COMMIT']);
    await client.end();
  }
});

t.test('keys that die again and again never repeat a version', async (t) => {
  const client = await live.connect();
  const lives = Array.from({ length: 12 }, async (_, n) => {
    const key = `phoenix${n}`;
    const one = await live.connect();
    let last = 0n;
    for (let life = 0; life < 12; life++) {
      const ttl = new Date(Date.now() + 15).toISOString();
      const forms = [
        `insert into kv (tenant_id, key, value, ttl) values ('${TENANT}', '${key}', '1', '${ttl}') returning version`,
        `insert into kv (tenant_id, key, value, ttl) values ('${TENANT}', '${key}', '1', '${ttl}') on conflict (tenant_id, key) do update set value = '0' returning version`,
        `select kv_put('${TENANT}', '${key}', '1', interval '15 ms')`,
        `select version from kv_cas('${TENANT}', '${key}', 0, '1', interval '15 ms')`,
      ];
      const version = BigInt((await one.value(forms[life % forms.length]!))!);
      if (version <= last) t.fail(`${key}: version ${version} behind ${last}`);
      last = version;
      for (let write = 0; write < life % 3; write++) {
        const rows = await one.rows(`update kv set value = '2' where ${keyed(key)} returning version`);
        if (rows.length > 0) {
          const next = BigInt(rows[0]![0]!);
          if (next !== last + 1n) t.fail(`${key}: version ${next} behind ${last}`);
          last = next;
        }
      }
      await sleep(25);
    }
    await one.end();
  });
  await Promise.all(lives);
  t.equal(await client.value(`select count(*) from kv where key like 'phoenix%'`), '0');
  await client.end();
});

t.test('enough was seen on either side of a ttl', (t) => {
  t.ok(seen.alive >= 40, `${seen.alive} sightings before`);
  t.ok(seen.dead >= 40, `${seen.dead} behind`);
  t.end();
});
