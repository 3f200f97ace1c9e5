// A load generator for machines without pgbench: the same scripts, the same closed loop (each client sends its next statement when
// it has the last answer), extended or prepared. Its own process, so that its CPU is not counted as the router's.
// Prints one JSON object: {"tps", "transactions", "latencyUs"}.

import { parseArgs } from 'node:util';
import {
  bindMessage,
  describePortalMessage,
  errorText,
  executeMessage,
  parseMessage,
  syncMessage,
  WireClient,
} from './wire-client.mjs';
import { parseScript } from './workloads.mjs';

const READY_FOR_QUERY = 90;
const ERROR_RESPONSE = 69;

const string = { type: 'string' };
const { values: options } = parseArgs({
  options: {
    port: string,
    user: string,
    database: string,
    script: string,
    mode: string,
    clients: string,
    seconds: string,
  },
});
const { variables, statements } = parseScript(options.script);
const prepared = options.mode === 'prepared';
const statementName = (index) => (prepared ? `load${index}` : '');

let running = true;
let transactions = 0;

/** Runs the script's statements one after another until told to stop; resolves at the end of a script. */
function loop(client) {
  return new Promise((resolve, reject) => {
    let index = 0;
    let chosen;
    const sendNext = () => {
      if (index === 0) {
        if (!running) {
          resolve();
          return;
        }
        chosen = new Map();
        for (const [name, { low, high }] of variables)
          chosen.set(name, String(low + Math.floor(Math.random() * (high - low + 1))));
      }
      const { sql, parameters } = statements[index];
      const values = parameters.map((name) => chosen.get(name));
      const head = prepared ? [] : [parseMessage('', sql)];
      client.send(
        Buffer.concat([
          ...head,
          bindMessage(statementName(index), values),
          describePortalMessage,
          executeMessage,
          syncMessage,
        ]),
      );
    };
    client.onFrame = (type, body) => {
      if (type === ERROR_RESPONSE) reject(new Error(errorText(body)));
      if (type !== READY_FOR_QUERY) return;
      index = (index + 1) % statements.length;
      if (index === 0) transactions += 1;
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
    client.send(
      Buffer.concat([...statements.map(({ sql }, index) => parseMessage(statementName(index), sql)), syncMessage]),
    );
  });
}

const login = { port: Number(options.port), user: options.user, database: options.database };
const clients = await Promise.all(Array.from({ length: Number(options.clients) }, () => WireClient.open(login)));
if (prepared) await Promise.all(clients.map(prepare));
setTimeout(() => {
  running = false;
}, Number(options.seconds) * 1000);
const startedMs = performance.now();
await Promise.all(clients.map(loop));
const seconds = (performance.now() - startedMs) / 1000;
for (const client of clients) client.close();
const tps = transactions / seconds;
console.log(JSON.stringify({ tps, transactions, latencyUs: (clients.length / tps) * 1e6 }));
