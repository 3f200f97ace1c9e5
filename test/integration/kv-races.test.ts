// Many clients on few keys of four shards: no update is lost, no version is given twice, an expired key is born again
// exactly once, whatever form of statement the clients use, and nobody gets an error that one client alone would not.
import t from 'tap';
import { KV, kvRouter, kvServers } from '../support/kv-cluster.js';
import { errorOf, rowsOf, SqlClient } from '../support/sql-client.js';

const CLIENTS = 64;
const KEYS = Array.from({ length: 8 }, (_, n) => `race${n}`);
const WON_BY_EACH = 4;

const cluster = await kvServers(t, 4, { tables: [KV] });
const live = await kvRouter(t, cluster);
const clients = await Promise.all(Array.from({ length: CLIENTS }, () => live.connect()));
const direct = await Promise.all(
  cluster.servers.map((server) => SqlClient.connect(server, { user: server.superuser, database: 'postgres' })),
);
t.teardown(() => Promise.all(direct.map((client) => client.end())));
t.beforeEach(async () => {
  await Promise.all(direct.map((client) => client.run('truncate kv')));
});

const keyOf = (client: number): string => KEYS[client % KEYS.length]!;
const keyed = (key: string): string => `tenant_id = 't' and key = '${key}'`;
const insertOf = (key: string, more = ''): string =>
  `insert into kv (tenant_id, key, value) values ('t', '${key}', '1') ${more}`;
const upTo = (count: number, from = 1): string[] => Array.from({ length: count }, (_, n) => `${n + from}`);
const inOrder = (numbers: readonly string[]): string[] =>
  [...numbers].sort((one, other) => Number(one) - Number(other));

/** All clients at once; what each of them answers, by key. */
async function race<T>(
  run: (client: SqlClient, key: string, number: number) => Promise<readonly T[]>,
): Promise<Map<string, T[]>> {
  const byKey = new Map<string, T[]>(KEYS.map((key) => [key, []]));
  await Promise.all(
    clients.map(async (client, number) => {
      const key = keyOf(number);
      byKey.get(key)!.push(...(await run(client, key, number)));
    }),
  );
  return byKey;
}

async function values(): Promise<Map<string, readonly (string | null)[]>> {
  const rows = await clients[0]!.rows("select key, value, version from kv where tenant_id = 't' order by key");
  return new Map(rows.map(([key, ...rest]) => [key!, rest]));
}

/** Literals for even clients, parameters for odd ones. */
function ask(
  client: SqlClient,
  number: number,
  sql: string,
  parameters: readonly string[],
): Promise<(string | null)[][]> {
  if (number % 2 === 1) return client.extended(sql, parameters);
  return client.rows(sql.replace(/\$(\d)/g, (_, n: string) => `'${parameters[Number(n) - 1]}'`));
}

const LATER = KEYS.map((key) => `('t', '${key}', '0')`);
const plantAll = async (): Promise<void> => {
  for (const row of LATER) await clients[0]!.run(`insert into kv (tenant_id, key, value) values ${row}`);
};
const PER_KEY = (CLIENTS / KEYS.length) * WON_BY_EACH;

t.test('compare and swap by UPDATE … WHERE version loses no update', async (t) => {
  await plantAll();
  let lost = 0;
  const won = await race(async (client, key, number) => {
    const versions: string[] = [];
    while (versions.length < WON_BY_EACH) {
      const [[value, version]] = (await ask(
        client,
        number,
        'select value, version from kv where tenant_id = $1 and key = $2',
        ['t', key],
      )) as [[string, string]];
      const written = await ask(
        client,
        number,
        'update kv set value = $4 where tenant_id = $1 and key = $2 and version = $3 returning version',
        ['t', key, version, `${Number(value) + 1}`],
      );
      if (written.length === 0) lost++;
      else if (written[0]![0] === `${Number(version) + 1}`) versions.push(written[0]![0]!);
      else t.fail(`version ${written[0]![0]} behind ${version}`);
      if (versions.length > 1 && Number(versions.at(-1)) <= Number(versions.at(-2))) t.fail(versions.join());
    }
    return versions;
  });
  t.comment(`${lost} times too late`);
  t.ok(lost > 0, 'there was a race');
  const found = await values();
  for (const key of KEYS) {
    t.same(found.get(key), [`${PER_KEY}`, `${PER_KEY + 1}`], key);
    t.same(inOrder(won.get(key)!), upTo(PER_KEY, 2), 'each version was given once');
  }
});

t.test('compare and swap by kv_cas, a new key included, loses no update', async (t) => {
  let lost = 0;
  const won = await race(async (client, key, number) => {
    const versions: string[] = [];
    let version = '0';
    let value = '0';
    while (versions.length < WON_BY_EACH) {
      const next = `${Number(value) + 1}`;
      const [row] = await ask(client, number, 'select applied, version, value from kv_cas($1, $2, $3, $4)', [
        't',
        key,
        version,
        next,
      ]);
      const [applied, nowVersion, nowValue] = row as [string, string, string];
      if (applied === 't') {
        if (nowVersion !== `${Number(version) + 1}` || nowValue !== next) t.fail(`${row} behind ${version}`);
        versions.push(nowVersion);
      } else {
        lost++;
        if (Number(nowVersion) <= Number(version)) t.fail(`told of version ${nowVersion}, behind ${version}`);
      }
      // A loser is told what to go on from.
      version = nowVersion;
      value = nowValue;
    }
    return versions;
  });
  t.comment(`${lost} times too late`);
  t.ok(lost > 0, 'there was a race');
  const found = await values();
  for (const key of KEYS) {
    t.same(found.get(key), [`${PER_KEY}`, `${PER_KEY}`], key);
    t.same(inOrder(won.get(key)!), upTo(PER_KEY), 'each version was given once');
  }
});

/** Ways to add one to a key that may not be there yet; each answers the sum. */
const INCREMENTS: readonly ((client: SqlClient, key: string) => Promise<(string | null)[][]>)[] = [
  (client, key) => client.rows(`select kv_incr('t', '${key}')`),
  (client, key) => client.extended('select kv_incr($1, $2, 1)', ['t', key]),
  (client, key) =>
    client.rows(
      insertOf(key, 'on conflict (tenant_id, key) do update set value = to_jsonb(kv.value::int + 1) returning value'),
    ),
  (client, key) =>
    client.extended(
      'insert into kv as k (tenant_id, key, value) values ($1, $2, $3) on conflict (tenant_id, key) do update set value = to_jsonb(k.value::int + excluded.value::int) returning value',
      ['t', key, '1'],
    ),
  (client, key) =>
    client
      .rows(`select value from kv_incr_many(array['t'], array['${key}'], array[1])`)
      .then((rows) => rows.map(([sum]) => [`${Number(sum)}`])),
];

t.test('increments of every kind on the same keys add up, from nothing and from an expired row', async (t) => {
  for (const start of ['nothing', 'an expired row']) {
    await Promise.all(direct.map((client) => client.run('truncate kv')));
    if (start !== 'nothing') {
      await plantAll();
      for (const client of direct) {
        await client.run("update kv set value = '1000', ttl = statement_timestamp() - interval '1 ms'");
      }
    }
    const sums = await race(async (client, key, number) => {
      const seen: string[] = [];
      for (let n = 0; n < WON_BY_EACH; n++) {
        const rows = await INCREMENTS[(number + n + Math.floor(number / KEYS.length)) % INCREMENTS.length]!(
          client,
          key,
        );
        seen.push(rows[0]?.[0] ?? 'no row');
      }
      return seen;
    });
    const found = await values();
    for (const key of KEYS) {
      t.same(found.get(key), [`${PER_KEY}`, `${PER_KEY}`], `${key} from ${start}`);
      t.same(inOrder(sums.get(key)!), upTo(PER_KEY), `each sum of ${key} was answered once, from ${start}`);
    }
  }
});

t.test('UPDATE … SET value = value + 1, and SELECT … FOR UPDATE then UPDATE, lose no update', async (t) => {
  await plantAll();
  const sums = await race(async (client, key, number) => {
    const seen: string[] = [];
    for (let n = 0; n < WON_BY_EACH; n++) {
      if ((number >> 3) % 2 === 0) {
        const sql = 'update kv set value = to_jsonb(value::int + 1) where tenant_id = $1 and key = $2 returning value';
        seen.push((await ask(client, n, sql, ['t', key]))[0]![0]!);
        continue;
      }
      await client.run('begin');
      const value = Number(await client.value(`select value from kv where ${keyed(key)} for update`));
      const [[written]] = (await client.rows(
        `update kv set value = '${value + 1}' where ${keyed(key)} returning value`,
      )) as [[string]];
      await client.run('commit');
      seen.push(written);
    }
    return seen;
  });
  const found = await values();
  for (const key of KEYS) {
    t.same(found.get(key), [`${PER_KEY}`, `${PER_KEY + 1}`], key);
    t.same(inOrder(sums.get(key)!), upTo(PER_KEY), 'each sum was answered once');
  }
});

const BORN = 'born';

/** Ways to make a key that must not be there: BORN, or the SQLSTATE or other word of the loser. */
const BIRTHS: Readonly<Record<string, (client: SqlClient, key: string) => Promise<string>>> = {
  INSERT: async (client, key) => errorOf(await client.answers(insertOf(key)))?.code ?? BORN,
  'INSERT, extended': async (client, key) => {
    const parse = 'insert into kv (tenant_id, key, value) values ($1, $2, $3) returning version';
    return errorOf(await client.send([{ parse }, { bind: ['t', key, '1'] }, { execute: '' }, 'sync']))?.code ?? BORN;
  },
  'INSERT of two keys': async (client, key) => {
    const more = `, ('t', '{${key}}2', '1')`;
    return errorOf(await client.answers(insertOf(`{${key}}`, more)))?.code ?? BORN;
  },
  'INSERT in a transaction': async (client, key) => {
    await client.run('begin');
    const code = errorOf(await client.answers(insertOf(key)))?.code ?? BORN;
    await client.run(code === BORN ? 'commit' : 'rollback');
    return code;
  },
  'ON CONFLICT DO NOTHING': async (client, key) => {
    const answers = await client.answers(insertOf(key, 'on conflict do nothing returning version'));
    return errorOf(answers)?.code ?? (rowsOf(answers).length === 1 ? BORN : 'no row');
  },
  kv_cas: async (client, key) =>
    (await client.value(`select applied from kv_cas('t', '${key}', 0, '1')`)) === 't' ? BORN : 'not applied',
};

for (const [form, bear] of Object.entries(BIRTHS)) {
  t.test(`an expired key is born again once: ${form}`, async (t) => {
    const rounds = 3;
    const loser = form.startsWith('INSERT') ? '23505' : form === 'kv_cas' ? 'not applied' : 'no row';
    for (let round = 0; round < rounds; round++) {
      await Promise.all(direct.map((client) => client.run('truncate kv')));
      const isPair = form === 'INSERT of two keys';
      for (const key of KEYS) {
        for (const name of isPair ? [`{${key}}`, `{${key}}2`] : [key]) {
          await clients[0]!.run(`insert into kv (tenant_id, key, value, ttl) values ('t', '${name}', '7', 'epoch')`);
        }
      }
      const outcomes = await race(async (client, key) => [await bear(client, key)]);
      for (const [key, all] of outcomes) {
        t.same(
          [all.filter((one) => one === BORN).length, all.filter((one) => one === loser).length],
          [1, CLIENTS / KEYS.length - 1],
          `${key}: ${all.join()}`,
        );
      }
      const found = await values();
      t.equal(found.size, isPair ? 2 * KEYS.length : KEYS.length);
      for (const [key, [value]] of found) if (value !== '1') t.fail(`${key} is ${value}`);
    }
  });
}

t.test('a key that expires under clients that wait for it has one heir', async (t) => {
  for (let round = 0; round < 4; round++) {
    await Promise.all(direct.map((client) => client.run('truncate kv')));
    const ttl = new Date(Date.now() + 120 + 20 * round).toISOString();
    for (const key of KEYS) {
      await clients[0]!.run(`insert into kv (tenant_id, key, value, ttl) values ('t', '${key}', '0', '${ttl}')`);
    }
    const forms = Object.values(BIRTHS).filter((_, index) => index !== 2);
    const outcomes = await race(async (client, key, number) => {
      // Until somebody has won, and once more.
      for (;;) {
        const isOver = Date.now() > Date.parse(ttl) + 5;
        const outcome = await forms[(number >> 3) % forms.length]!(client, key);
        if (outcome === BORN || isOver) return [outcome];
        if (!['23505', 'no row', 'not applied'].includes(outcome)) return [outcome];
      }
    });
    for (const [key, all] of outcomes) {
      t.equal(all.filter((one) => one === BORN).length, 1, `${key}: ${all.join()}`);
      t.notOk(
        all.some((one) => !['23505', 'no row', 'not applied', BORN].includes(one)),
        all.join(),
      );
    }
    t.same(
      [...(await values()).values()].map(([value]) => value),
      KEYS.map(() => '1'),
    );
  }
});
