// What the first statements of a router that has just started take, with a client that is logged in, each unlike those before it, and the
// same from later clients: `node bench/first-statements.mjs`.

import pg from 'pg';
import { stopServers } from './processes.mjs';
import { openRouter } from './router-options.mjs';

const statements = [
  ['SELECT value FROM kv WHERE tenant_id = $1 AND key = $2', ['t1', 'k1']],
  [
    'INSERT INTO kv (tenant_id, key, value) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, key) DO UPDATE SET value = excluded.value',
    ['t1', 'k1', '1'],
  ],
  ['SELECT count(*) FROM pg_catalog.pg_class', []],
  ['UPDATE kv SET value = $3 WHERE tenant_id = $1 AND key = $2 RETURNING version', ['t1', 'k1', '2']],
  ['DELETE FROM kv WHERE tenant_id = $1 AND key = $2', ['t1', 'k1']],
];

async function times({ host, port, user, database }) {
  const client = new pg.Client({ host, port, user, database });
  await client.connect();
  const took = [];
  for (const [text, values] of statements) {
    const start = performance.now();
    await client.query(text, values);
    took.push(performance.now() - start);
  }
  await client.end();
  return took;
}

const shown = (label, took) =>
  console.log(`${label.padEnd(10)} ${took.map((ms) => ms.toFixed(1).padStart(7)).join('')} ms`);

try {
  const { router } = await openRouter('first-statements', {}, { withCatalog: true });
  shown('first', await times(router));
  shown('again', await times(router));
  shown('warm', await times(router));
} finally {
  await stopServers();
}
