// Memory of a router that is sent ever new texts, and of one whose clients prepare many statements and leave: `node
// bench/distinct-texts.mjs [--texts 100000] [--sessions 100] [--statements 2000] [--json FILE] [--assert]`.
// First the texts (texts.mjs) go through one router process, then all of them once more; then each of so many sessions prepares
// so many statements under names, and gives them back: by Close, by DEALLOCATE ALL, or by leaving. What is given back is free at
// once, but V8 looks for it only as others need memory: so half of the texts follow before it is asked how much there is left.

import { writeFileSync } from 'node:fs';
import { cpuBetween, usageOf } from './process-usage.mjs';
import { stopServers } from './processes.mjs';
import { openRouter } from './router-options.mjs';
import { distinctText, EXPECTED_ERRORS } from './texts.mjs';
import {
  bindMessage,
  closeMessage,
  errorText,
  executeMessage,
  parseMessage,
  queryMessage,
  syncMessage,
  WireClient,
} from './wire-client.mjs';

const GOAL_RSS_BYTES = 350 * 2 ** 20;
/** What a round that is like the one before it may add. */
const GOAL_GROWTH_BYTES = 40 * 2 ** 20;
/** What statements that were given back may leave: half of what they took (V8 keeps pages that are partly in use), and this. */
const GOAL_LEFT_BYTES = 64 * 2 ** 20;
/** pool.prepared_statements_max of the router. */
const GOAL_PREPARED = 500;
const CLIENTS = 8;
const MESSAGES_AT_ONCE = 32;
const SESSIONS_AT_ONCE = 10;
const SETTLE_MS = 1000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;

function messagesOf({ protocol, text, values }, name) {
  if (protocol === 'simple') return [queryMessage(text)];
  const own = protocol === 'named' ? name : '';
  const messages = [parseMessage(own, text), bindMessage(own, values), executeMessage];
  if (protocol === 'named') messages.push(closeMessage(own));
  return [...messages, syncMessage];
}

/** Sends messages that call for `count` ReadyForQuery, and waits for them. */
function exchange(client, messages, count, errors) {
  return new Promise((resolve, reject) => {
    let ready = 0;
    client.onClose = () => reject(new Error('connection closed'));
    client.onFrame = (type, body) => {
      if (type === 69) {
        const text = errorText(body);
        if (!EXPECTED_ERRORS.has(text.slice(0, 5))) errors.set(text, (errors.get(text) ?? 0) + 1);
      }
      if (type === 90 && ++ready === count) resolve();
    };
    client.send(Buffer.concat(messages));
  });
}

async function sendTexts(router, count, errors) {
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => WireClient.open(router)));
  let next = 0;
  await Promise.all(
    clients.map(async (client) => {
      while (next < count) {
        const first = next;
        next = Math.min(count, first + MESSAGES_AT_ONCE);
        const messages = [];
        for (let n = first; n < next; n++) messages.push(...messagesOf(distinctText(n), `statement_${n}`));
        await exchange(client, messages, next - first, errors);
      }
      client.close();
    }),
  );
}

const ownStatement = (session, n) =>
  n % 2 === 0
    ? `SELECT name AS of_${session}, id AS number_${n} FROM account WHERE id = $1`
    : `SELECT value, version AS of_${session}_${n} FROM kv WHERE tenant_id = 'bench' AND key = $1`;

/** A session that has prepared its statements and run each once. */
async function preparingSession(router, session, statements, errors) {
  const client = await WireClient.open(router);
  for (let first = 0; first < statements; first += MESSAGES_AT_ONCE) {
    const messages = [];
    const end = Math.min(statements, first + MESSAGES_AT_ONCE);
    for (let n = first; n < end; n++) {
      const name = `s${n}`;
      messages.push(parseMessage(name, ownStatement(session, n)), bindMessage(name, [String(n)]), executeMessage);
    }
    await exchange(client, [...messages, syncMessage], 1, errors);
  }
  return client;
}

/** The three ways to give statements back. Whoever leaves does so later. */
async function giveBack(client, session, statements, errors) {
  if (session % 3 === 0) {
    const closes = Array.from({ length: statements }, (_, n) => closeMessage(`s${n}`));
    await exchange(client, [...closes, syncMessage], 1, errors);
  } else if (session % 3 === 1) await exchange(client, [queryMessage('DEALLOCATE ALL')], 1, errors);
  else client.close();
}

async function inGroups(count, use) {
  for (let first = 0; first < count; first += SESSIONS_AT_ONCE) {
    const group = Array.from({ length: Math.min(SESSIONS_AT_ONCE, count - first) }, (_, index) => use(first + index));
    await Promise.all(group);
  }
}

/** The least of several looks, as soon as it falls no more. */
async function settledRss(pid) {
  let least = Number.POSITIVE_INFINITY;
  let since = 0;
  while (since < SETTLE_MS) {
    await pause(250);
    const { rssBytes } = usageOf(pid);
    since = rssBytes < least - 2 ** 20 ? 0 : since + 250;
    least = Math.min(least, rssBytes);
  }
  return least;
}

/** The most statements of pgkv's own that any of several server connections has: those that sessions like these have used. */
async function preparedOnServers(router) {
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => WireClient.open(router)));
  for (const client of clients) await client.run('BEGIN');
  const counts = [];
  for (const client of clients) {
    await new Promise((resolve) => {
      client.onFrame = (type, body) => {
        if (type === 68) counts.push(Number(body.toString('latin1', 6)));
        if (type === 90) resolve();
      };
      client.send(queryMessage('SELECT count(*) FROM pg_prepared_statements'));
    });
    client.close();
  }
  return Math.max(...counts);
}

async function measure(router, { texts, sessions, statements }) {
  const errors = new Map();
  const rss = {};
  const note = async (name, work) => {
    const before = usageOf(router.pid);
    const started = performance.now();
    await work();
    const seconds = (performance.now() - started) / 1000;
    const after = usageOf(router.pid);
    const cpuSeconds = cpuBetween(before, after) / 1e6;
    rss[name] = { seconds, cpuSeconds, rssBytes: after.rssBytes, settledBytes: await settledRss(router.pid) };
    const cells = [`${seconds.toFixed(1)} s`, `${cpuSeconds.toFixed(1)} s of CPU`, mebibytes(after.rssBytes)];
    console.log(name.padEnd(24) + cells.map((cell) => cell.padStart(16)).join(''));
  };
  const [first] = await Promise.all([WireClient.open(router)]);
  await first.run('CREATE TABLE account (id int PRIMARY KEY, name text)');
  await first.run("INSERT INTO account SELECT i, 'customer ' || i FROM generate_series(1, 1000) AS i");
  // Code is compiled, and buffers are grown.
  await note('warm-up', () => sendTexts(router, 1000, errors));
  await note('texts', () => sendTexts(router, texts, errors));
  await note('texts again', () => sendTexts(router, texts, errors));
  const clients = [];
  await note('statements prepared', () =>
    inGroups(sessions, async (session) => {
      clients[session] = await preparingSession(router, session, statements, errors);
    }),
  );
  const prepared = await preparedOnServers(router);
  await note('statements given back', () =>
    inGroups(sessions, (session) => giveBack(clients[session], session, statements, errors)),
  );
  await note('half of the texts', () => sendTexts(router, texts / 2, errors));
  const left = await preparedOnServers(router);
  console.log(`at most ${prepared} statements prepared on a server connection, ${left} afterwards`);
  for (const client of [first, ...clients]) client.close();
  for (const [text, count] of errors) console.log(`unexpected error, ${count} times: ${text}`);
  return { rss, prepared, errors: [...errors.values()].reduce((sum, count) => sum + count, 0) };
}

const string = { type: 'string' };
const { router, values } = await openRouter(
  'texts',
  { texts: string, sessions: string, statements: string, json: string },
  { shardCount: 2, withCatalog: true },
);
try {
  const counts = {
    texts: Number(values.texts ?? 100_000),
    sessions: Number(values.sessions ?? 100),
    statements: Number(values.statements ?? 2000),
  };
  const result = await measure(router, counts);
  const { rss, prepared, errors } = result;
  const grown = (from, to) => rss[to].settledBytes - rss[from].settledBytes;
  const goals = [
    [`at most ${mebibytes(GOAL_RSS_BYTES)} after ${counts.texts} texts`, rss.texts.rssBytes <= GOAL_RSS_BYTES],
    [
      `at most ${mebibytes(GOAL_GROWTH_BYTES)} more after the same again`,
      grown('texts', 'texts again') <= GOAL_GROWTH_BYTES,
    ],
    [
      `of ${counts.sessions} × ${counts.statements} statements that were given back, at most half and ${mebibytes(GOAL_LEFT_BYTES)} are left`,
      grown('texts again', 'half of the texts') <= grown('texts again', 'statements prepared') / 2 + GOAL_LEFT_BYTES,
    ],
    [`at most ${GOAL_PREPARED} statements on a server connection`, prepared <= GOAL_PREPARED],
    ['no other errors than expected', errors === 0],
  ];
  for (const [text, met] of goals) console.log(`goal: ${text}: ${met ? 'met' : 'MISSED'}`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ counts, ...result }, null, 2)}\n`);
  if (values.assert && goals.some(([, met]) => !met)) process.exitCode = 1;
} finally {
  await stopServers();
}
