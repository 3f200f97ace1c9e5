// A load generator for machines without pgbench: the same scripts, the same closed loop (each client sends its next transaction when
// it has the last answer), extended or prepared, one statement at a time or a pipeline of them. Its own process, so that its CPU is
// not counted as the router's. Writes a log as `pgbench -l` does.

import { appendFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { logLine } from './latency-log.mjs';
import { loaderScript } from './scripts.mjs';
import {
  bindMessage,
  describePortalMessage,
  errorText,
  executeMessage,
  parseMessage,
  syncMessage,
  WireClient,
} from './wire-client.mjs';

const READY_FOR_QUERY = 90;
const ERROR_RESPONSE = 69;

const string = { type: 'string' };
const { values: options } = parseArgs({
  options: {
    host: string,
    port: string,
    user: string,
    database: string,
    parts: string,
    dialect: string,
    mode: string,
    keys: string,
    clients: string,
    seconds: string,
    log: string,
    pipeline: string,
  },
});
const prepared = options.mode === 'prepared';
const pipeline = Number(options.pipeline ?? 1);
const { dialect, keys } = options;
const scripts = options.parts.split(',').map((part, index) => {
  const [name, weight] = part.split('@');
  const statements = loaderScript(name, { dialect, keys }).map((statement, place) => {
    return { ...statement, name: prepared ? `load_${index}_${place}` : '' };
  });
  return { index, weight: Number(weight), statements };
});
const weightOfAll = scripts.reduce((sum, { weight }) => sum + weight, 0);

let running = true;
const lines = [];

function chooseScript() {
  let left = Math.random() * weightOfAll;
  for (const script of scripts) {
    left -= script.weight;
    if (left < 0) return script;
  }
  return scripts[0];
}

function messagesOf({ sql, name, valuesOf }) {
  const parse = prepared ? [] : [parseMessage('', sql)];
  return [...parse, bindMessage(name, valuesOf()), describePortalMessage, executeMessage];
}

/** Runs scripts one after another until told to stop; a pipeline is one script many times with one Sync. */
function loop(client, number) {
  return new Promise((resolve, reject) => {
    let script;
    let place = 0;
    let startedMs;
    let transactions = 0;
    const sendNext = () => {
      if (place === 0) {
        if (!running) {
          resolve();
          return;
        }
        script = chooseScript();
        startedMs = performance.now();
      }
      const { statements } = script;
      const taken = pipeline === 1 ? [statements[place]] : Array.from({ length: pipeline }, () => statements).flat();
      place = pipeline === 1 ? (place + 1) % statements.length : 0;
      client.send(Buffer.concat([...taken.flatMap(messagesOf), syncMessage]));
    };
    client.onFrame = (type, body) => {
      if (type === ERROR_RESPONSE) reject(new Error(errorText(body)));
      if (type !== READY_FOR_QUERY) return;
      if (place === 0) {
        const nowMs = performance.now();
        lines.push(logLine(number, transactions, (nowMs - startedMs) * 1000, script.index, Date.now() * 1000));
        transactions += 1;
      }
      sendNext();
    };
    client.onClose = () => reject(new Error('connection closed'));
    sendNext();
  });
}

/** Parses the statements once, for the prepared mode. */
function prepare(client) {
  return new Promise((resolve, reject) => {
    client.onFrame = (type, body) => {
      if (type === ERROR_RESPONSE) reject(new Error(errorText(body)));
      if (type === READY_FOR_QUERY) resolve();
    };
    const statements = scripts.flatMap((script) => script.statements);
    client.send(Buffer.concat([...statements.map(({ sql, name }) => parseMessage(name, sql)), syncMessage]));
  });
}

// Logging in counts as working time, as with pgbench.
setTimeout(() => {
  running = false;
}, Number(options.seconds) * 1000);
const login = { host: options.host, port: Number(options.port), user: options.user, database: options.database };
const clients = await Promise.all(Array.from({ length: Number(options.clients) }, () => WireClient.open(login)));
if (prepared) await Promise.all(clients.map(prepare));
const log = `${options.log}.${process.pid}`;
writeFileSync(log, '\n'); // an empty line says that work begins; the others come when nothing is measured any more
await Promise.all(clients.map(loop));
for (const client of clients) client.close();
appendFileSync(log, lines.join(''));
