// The least Postgres client that the load generators need: trusted login, raw frames out, one callback per frame in.
// It parses nothing but frame headers, so that the generator costs as little as possible beside what it measures.

import { connect } from 'node:net';

const PROTOCOL_3_0 = 196_608;

/** One frontend message: type letter, length, body. */
export function frame(type, body) {
  const message = Buffer.allocUnsafe(5 + body.length);
  message.write(type, 0, 'latin1');
  message.writeInt32BE(4 + body.length, 1);
  body.copy(message, 5);
  return message;
}

const text = (value) => Buffer.from(`${value}\0`);

export const syncMessage = frame('S', Buffer.alloc(0));
export const queryMessage = (sql) => frame('Q', text(sql));
export const parseMessage = (name, sql) => frame('P', Buffer.concat([text(name), text(sql), Buffer.from([0, 0])]));
export const describePortalMessage = frame('D', Buffer.from('P\0'));
export const closeMessage = (name) => frame('C', Buffer.concat([Buffer.from('S'), text(name)]));
export const executeMessage = frame('E', Buffer.from([0, 0, 0, 0, 0]));

/** Bind of the unnamed portal with text parameters and text results. */
export function bindMessage(statement, values) {
  const parts = [Buffer.from('\0'), text(statement), Buffer.from([0, 0, 0, values.length])];
  for (const value of values) {
    const bytes = Buffer.from(value);
    const length = Buffer.allocUnsafe(4);
    length.writeInt32BE(bytes.length);
    parts.push(length, bytes);
  }
  return frame('B', Buffer.concat([...parts, Buffer.from([0, 0])]));
}

export class WireClient {
  #socket;
  #pending = Buffer.alloc(0);
  /** Called with the type letter's code and the body of each frame; the body is valid only during the call. */
  onFrame = () => undefined;
  onClose = () => undefined;

  /** Connects as a trusted user; ready for statements when it resolves. */
  static open({ host, port, user, database }) {
    return new Promise((resolve, reject) => {
      const client = new WireClient();
      const path = `${host}/.s.PGSQL.${port}`;
      const socket = connect(host.startsWith('/') ? { path } : { host, port, noDelay: true });
      client.#socket = socket;
      socket.once('error', reject);
      socket.on('close', () => client.onClose());
      socket.on('data', (chunk) => client.#receive(chunk));
      client.onClose = () => reject(new Error(`port ${port}: closed during the login`));
      client.onFrame = (type, body) => {
        if (type === 69) reject(new Error(errorText(body)));
        if (type === 82 && body.readInt32BE(0) !== 0)
          reject(new Error('the server asks for a password: benches need trust'));
        if (type !== 90) return;
        client.onClose = () => undefined;
        client.onFrame = () => undefined;
        resolve(client);
      };
      socket.once('connect', () => {
        const body = Buffer.from(`user\0${user}\0database\0${database}\0\0`);
        const start = Buffer.allocUnsafe(8);
        start.writeInt32BE(8 + body.length, 0);
        start.writeInt32BE(PROTOCOL_3_0, 4);
        socket.write(Buffer.concat([start, body]));
      });
    });
  }

  send(bytes) {
    this.#socket.write(bytes);
  }

  pause() {
    this.#socket.pause();
  }

  resume() {
    this.#socket.resume();
  }

  close() {
    this.onClose = () => undefined;
    this.#socket.end(frame('X', Buffer.alloc(0)));
    this.#socket.destroySoon();
  }

  #receive(chunk) {
    const data = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    let at = 0;
    while (data.length - at >= 5) {
      const end = at + 1 + data.readInt32BE(at + 1);
      if (end > data.length) break;
      this.onFrame(data[at], data.subarray(at + 5, end));
      at = end;
    }
    this.#pending = at === data.length ? Buffer.alloc(0) : data.subarray(at);
  }

  /** Sends one simple query and waits for its end; for set-up, not for measuring. */
  run(sql) {
    return new Promise((resolve, reject) => {
      let problem;
      this.onFrame = (type, body) => {
        if (type === 69) problem = new Error(errorText(body));
        if (type === 90) problem ? reject(problem) : resolve();
      };
      this.onClose = () => reject(new Error('connection closed'));
      this.send(queryMessage(sql));
    });
  }
}

/** "42P01: relation … does not exist" of an ErrorResponse body. */
export function errorText(body) {
  const fields = body.toString().split('\0');
  const field = (letter) => fields.find((entry) => entry.startsWith(letter))?.slice(1);
  return `${field('C')}: ${field('M')}`;
}
