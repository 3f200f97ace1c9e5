// How long one client's long statement keeps another client waiting, for each kind of text that is long for a reason of its own (but for rows of signs, which keep Postgres itself at work for hours):
// `node bench/long-statements.mjs [--mib 60] [--rounds 3] [--assert]`. The other client asks, without a pause, what pgkv answers
// itself, so that neither a server nor a pool has a part in its waiting time. The texts are sent by a thread of its own.

import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { stopServers } from './processes.mjs';
import { openRouter } from './router-options.mjs';
import { bindMessage, executeMessage, parseMessage, queryMessage, syncMessage, WireClient } from './wire-client.mjs';

const GOAL_MS = 100;
const MIB = 2 ** 20;

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
/** Texts that pgkv reads in full: as many tokens as it takes. */
const full = {
  'a target list': () => `SELECT ${Array(7000).fill('count(*)').join(',')} FROM nowhere`,
  'a list that is read': () =>
    `SELECT 1 FROM kv WHERE tenant_id = 't' AND key IN (${Array(15_000).fill("'k'").join(',')})`,
  'rows that are read': () =>
    `INSERT INTO kv (tenant_id, key, value) VALUES ${Array.from({ length: 4000 }, (_, n) => `('t','k${n}','1')`).join(',')}`,
  'statements that are read': () => 'SELECT 1;'.repeat(1200),
};

/** Thread: sends each text once, simple or extended, and says when it is answered. */
async function sendTexts({ router, bytes }) {
  const client = await WireClient.open(router);
  parentPort.postMessage('open');
  for (;;) {
    const [{ kind, extended }] = await once(parentPort, 'message');
    const text = (long[kind] ?? full[kind])(bytes);
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

async function measure({ router, values }) {
  const bytes = Number(values.mib ?? 60) * MIB;
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
  let worstOfAll = 0;
  for (const kind of [...Object.keys(full), ...Object.keys(long)]) {
    for (const extended of [false, true]) {
      const worst = [];
      for (let round = 0; round < Number(values.rounds ?? 3); round++) {
        thread.postMessage({ kind, extended });
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
      worstOfAll = Math.max(worstOfAll, median);
      console.log(`${median.toFixed(0).padStart(6)} ms  ${kind}, ${extended ? 'extended' : 'simple'}`);
    }
  }
  const met = worstOfAll <= GOAL_MS;
  console.log(`goal: nobody waits longer than ${GOAL_MS} ms: ${met ? 'met' : 'MISSED'}`);
  if (values.assert && !met) process.exitCode = 1;
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
