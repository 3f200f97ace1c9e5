// How long one client's long statement keeps another client waiting, for each kind of text that is long for a reason of its own
// (but for rows of signs, which keep Postgres itself at work for hours): `node bench/long-statements.mjs [--mib 12] [--rounds 3]
// [--assert]`. The other client asks, without a pause, what pgkv answers itself, so that neither a server nor a pool has a part
// in its waiting time. The texts are sent by a thread of its own; each is one that pgkv has not seen. The goal is meant for an
// idle machine as the one it was set on: what misses it is measured against what the same work takes here and now.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { stopServers } from './processes.mjs';
import { openRouter } from './router-options.mjs';
import { bindMessage, executeMessage, parseMessage, queryMessage, syncMessage, WireClient } from './wire-client.mjs';

const GOAL_MS = 100;
/** --assert fails from so many times the goal on: hashing, by which a machine is measured, says little of its memory. */
const ASSERTED = 2;
const MIB = 2 ** 20;
/** The default of clients.query_bytes_max. */
const LIMIT_MIB = 12;

/** Texts of about so many bytes. */
const long = {
  'a value': (bytes) => `SELECT length('${'x'.repeat(bytes)}')`,
  'a value with quotes': (bytes) => `SELECT length('${"it''s ".repeat(bytes / 6)}')`,
  'a value with escapes': (bytes) => `SELECT length(E'${'x\\n'.repeat(bytes / 3)}')`,
  'a value in dollars': (bytes) => `SELECT length($v$${'x'.repeat(bytes)}$v$)`,
  'a value beyond ASCII': (bytes) => `SELECT length('${'ÄÖ€😀'.repeat(bytes / 11)}')`,
  'a value for a key': (bytes) =>
    `INSERT INTO kv (tenant_id, key, value) VALUES ('t', 'k', '"${'x'.repeat(bytes)}"') ON CONFLICT (tenant_id, key) DO NOTHING`,
  'a comment': (bytes) => `SELECT 1 /*${'x'.repeat(bytes)}*/`,
  'a line comment': (bytes) => `SELECT 1 --${'x'.repeat(bytes)}`,
  spaces: (bytes) => `SELECT 1${' '.repeat(bytes)}`,
  'a name': (bytes) => `SELECT ${'x'.repeat(bytes)}`,
  'a number': (bytes) => `SELECT ${'1'.repeat(bytes)}`,
  'rows of values': (bytes) =>
    `INSERT INTO nowhere VALUES ${Array(Math.floor(bytes / 8))
      .fill("(1,'x')")
      .join(',')}`,
  'rows for keys': (bytes) =>
    `INSERT INTO kv (tenant_id, key, value) VALUES ${Array(Math.floor(bytes / 15))
      .fill("('t','k','1')")
      .join(',')}`,
  'a list': (bytes) =>
    `SELECT 1 FROM kv WHERE key IN (${Array(Math.floor(bytes / 4))
      .fill("'k'")
      .join(',')})`,
  'many statements': (bytes) => 'SELECT 1;'.repeat(bytes / 9),
  parentheses: (bytes) => `SELECT ${'('.repeat(bytes / 2)}1${')'.repeat(bytes / 2)}`,
};
const list = (count, item, by = ',') => Array.from({ length: count }, (_, n) => item(n)).join(by);
/** Texts that pgkv reads in full: as many tokens as it takes. `seen` is another word in each, so that none has been seen. */
const full = {
  'a target list': (seen) => `SELECT ${list(1600, () => `count(*) ${seen}`)} FROM nowhere`,
  'a list that is read': (seen) =>
    `SELECT 1 ${seen} FROM kv WHERE tenant_id = 't' AND key IN (${list(8000, () => "'k'")})`,
  'conditions that are read': (seen) =>
    `SELECT 1 ${seen} FROM kv WHERE tenant_id = 't' AND (${list(4000, (n) => `key = 'k${n}'`, ' OR ')})`,
  'rows that are read': (seen) =>
    `INSERT INTO kv AS ${seen} (tenant_id, key, value) VALUES ${list(2000, (n) => `('t','k${n}','1')`)}`,
  'statements that are read': (seen) => `SELECT 1 ${seen};`.repeat(2000),
  'statements on keys': (seen) =>
    list(2000, (n) => `INSERT INTO kv AS ${seen} (tenant_id, key, value) VALUES ('t', 'k', '${n}')`, ';\n'),
  'unlike statements on keys': (seen) =>
    list(350, (n) => `UPDATE kv SET value = '1' WHERE tenant_id = 't' AND key = 'k' RETURNING key AS ${seen}${n}`, ';'),
};

/** Thread: sends each text once, simple or extended, and says when it is answered. */
async function sendTexts({ router, bytes }) {
  const client = await WireClient.open(router);
  parentPort.postMessage('open');
  for (;;) {
    const [{ kind, extended, seen }] = await once(parentPort, 'message');
    const text = kind in long ? long[kind](bytes) : full[kind](seen);
    const message = extended
      ? Buffer.concat([parseMessage('', text), bindMessage('', []), executeMessage, syncMessage])
      : queryMessage(text);
    const answered = new Promise((resolve, reject) => {
      client.onClose = () => reject(new Error(`${kind}: the connection was closed`));
      client.onFrame = (type) => type === 90 && resolve();
    });
    parentPort.postMessage('begins');
    client.send(message);
    await answered;
    parentPort.postMessage('answered');
  }
}

/** As test/support/machine-speed.ts: how much longer the same work takes than on the machine the goal was set on, when idle. */
async function slowness() {
  const bytes = Buffer.alloc(4096);
  const began = performance.now();
  for (let round = 0; round < 20; round++) {
    for (let n = 0; n < 560; n++) createHash('sha256').update(bytes).digest();
    await turn();
  }
  return Math.max(1, (performance.now() - began) / 40);
}

async function measure({ router, values }) {
  // With room for what stands around the long part.
  const bytes = Number(values.mib ?? LIMIT_MIB) * MIB - 1024;
  const { host, port, user, database } = router;
  const address = { host, port, user, database };
  const thread = new Worker(new URL(import.meta.url), { workerData: { router: address, bytes } });
  thread.on('error', (error) => {
    console.error(error);
    process.exit(1);
  });
  const told = async () => (await once(thread, 'message'))[0];
  await told();
  const prober = await WireClient.open(router);
  const missed = [];
  let isFar = false;
  let seen = 0;
  for (const kind of [...Object.keys(full), ...Object.keys(long)]) {
    for (const extended of [false, true]) {
      const worst = [];
      for (let round = 0; round < Number(values.rounds ?? 3); round++) {
        thread.postMessage({ kind, extended, seen: `seen${seen++}x` });
        await told();
        let isOver = false;
        const over = told().then(() => {
          isOver = true;
        });
        let longest = 0;
        while (!isOver) {
          const asked = performance.now();
          await prober.run('SELECT pg_backend_pid()');
          longest = Math.max(longest, performance.now() - asked);
        }
        await over;
        worst.push(longest);
      }
      const median = worst.sort((one, other) => one - other)[Math.floor(worst.length / 2)];
      const name = `${kind}, ${extended ? 'extended' : 'simple'}`;
      const slow = median > GOAL_MS ? await slowness() : 1;
      if (median > GOAL_MS * slow) missed.push(name);
      if (median > ASSERTED * GOAL_MS * slow) isFar = true;
      console.log(
        `${median.toFixed(0).padStart(6)} ms  ${name}${slow > 1 ? ` (machine ${slow.toFixed(1)} times as slow)` : ''}`,
      );
    }
  }
  console.log(
    `goal: nobody waits longer than ${GOAL_MS} ms: ${missed.length === 0 ? 'met' : `MISSED by ${missed.join('; ')}`}`,
  );
  if (values.assert && isFar) process.exitCode = 1;
  prober.close();
  await thread.terminate();
}

if (isMainThread) {
  try {
    await measure(
      await openRouter('long', { mib: { type: 'string' }, rounds: { type: 'string' } }, { withCatalog: true }),
    );
  } finally {
    await stopServers();
  }
} else await sendTexts(workerData);
