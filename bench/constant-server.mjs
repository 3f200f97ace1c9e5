// What any router in Node costs at least: a server that answers every batch of messages with the same bytes, as long as the
// answer to a point read. It routes nothing and asks nobody. `npm run bench -- --lanes direct,pgkv,constant --workloads
// point-read --protocols prepared` measures it beside pgkv. Prints the port it has taken.

import { createServer } from 'node:net';
import { DOCUMENT } from './data.mjs';
import { frame } from './wire-client.mjs';

const PARSE = 80;
const SYNC = 83;
/** A packet of start-up that asks for encryption has no parameters. */
const BARE_STARTUP_BYTES = 8;

const NO_ENCRYPTION = Buffer.from('N');
const ready = frame('Z', Buffer.from('I'));
const parameter = (name, value) => frame('S', Buffer.from(`${name}\0${value}\0`));
const greeting = Buffer.concat([
  frame('R', Buffer.alloc(4)),
  parameter('server_version', '15.0'),
  parameter('client_encoding', 'UTF8'),
  parameter('standard_conforming_strings', 'on'),
  ready,
]);
const parsed = Buffer.concat([frame('1', Buffer.alloc(0)), ready]);

const int16 = (number) => Buffer.from([number >> 8, number & 255]);
const int32 = (number) => Buffer.from([number >> 24, number >> 16, number >> 8, number]);
/** Name, table, column, type, its length, modifier, format. */
const column = (name, type, length) =>
  Buffer.concat([Buffer.from(`${name}\0`), int32(0), int16(0), int32(type), int16(length), int32(-1), int16(0)]);
const value = (text) => Buffer.concat([int32(Buffer.byteLength(text)), Buffer.from(text)]);
const answered = Buffer.concat([
  frame('2', Buffer.alloc(0)),
  frame('T', Buffer.concat([int16(2), column('value', 3802, -1), column('version', 20, 8)])),
  frame('D', Buffer.concat([int16(2), value(DOCUMENT), value('1795461206607123')])),
  frame('C', Buffer.from('SELECT 1\0')),
  ready,
]);

/** Whole packets only: pgbench sends each batch in one write, and no part of it is longer than a socket's buffer. */
function startUp(socket, chunk) {
  if (chunk.readInt32BE(0) === BARE_STARTUP_BYTES) {
    socket.write(NO_ENCRYPTION);
    socket.once('data', (next) => startUp(socket, next));
    return;
  }
  socket.on('data', (batch) => answer(socket, batch));
  socket.write(greeting);
}

function answer(socket, batch) {
  let parses = false;
  for (let at = 0; at < batch.length; at += 1 + batch.readInt32BE(at + 1)) {
    if (batch[at] === PARSE) parses = true;
    else if (batch[at] === SYNC) socket.write(parses ? parsed : answered);
  }
}

const server = createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => socket.destroy());
  socket.once('data', (chunk) => startUp(socket, chunk));
});
server.listen(0, '127.0.0.1', () => console.log(`ready on port ${server.address().port}`));
process.once('SIGTERM', () => process.exit(0));
