// One connection of the shell: sends texts by the simple protocol and hands their answers on, message by message, with
// values as the server wrote them. Owns COPY in both directions, cancelling, and telling that a connection was lost.
// A statement's `run` settles only at ReadyForQuery, so statements never overlap.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SIMPLE-QUERY
import { once } from 'node:events';
import { connect as connectSocket } from 'node:net';
import pg from 'pg';
import type {
  CopyDataMessage,
  CopyResponse,
  DataRowMessage,
  Field,
  NoticeMessage,
  NotificationResponseMessage,
  ParameterStatusMessage,
  ReadyForQueryMessage,
  RowDescriptionMessage,
} from 'pg-protocol/dist/messages';
import { drained } from '../backpressure.js';
import { type AskPassword, connect, type DriverClient, type DriverConnection } from '../connect.js';
import type { ConnectionTarget } from '../connection-target.js';

const CANCEL_REQUEST_CODE = 80877102;
const CANCEL_TIMEOUT_MS = 5_000;

export type Row = readonly (string | null)[];

/** Receives the answer to one text, in protocol order. */
export interface AnswerSink {
  columns(fields: readonly Field[]): void;
  row(values: Row): void;
  /** One statement of the text is done. */
  complete(tag: string): void;
  error(error: pg.DatabaseError): void;
  /** Data of COPY TO STDOUT; a promise stops the connection's reading until it settles. */
  copyOut(chunk: Buffer): Promise<void> | undefined;
  /** COPY FROM STDIN has begun: send the data, then end or fail it, also when the server has given up meanwhile. */
  copyIn(target: CopyTarget): Promise<void>;
}

/** Where the data of COPY FROM STDIN go. After the server has refused them, they go nowhere. */
export interface CopyTarget {
  readonly binary: boolean;
  send(chunk: Buffer): Promise<void>;
  end(): void;
  fail(reason: string): void;
}

/** The connection is gone. `fatal` is what the server said before, if it said anything. */
export class ConnectionLost extends Error {
  readonly fatal: pg.DatabaseError | undefined;

  constructor(fatal: pg.DatabaseError | undefined, cause: unknown) {
    super('server closed the connection unexpectedly', { cause });
    this.name = 'ConnectionLost';
    this.fatal = fatal;
  }
}

export class SqlSession {
  readonly target: ConnectionTarget;
  /** ParameterStatus values as last reported. */
  readonly parameters = new Map<string, string>();
  /** I idle, T in a transaction, E in a failed one. */
  transactionStatus = 'I';
  /** What LISTEN brought since the shell last looked. */
  notifications: NotificationResponseMessage[] = [];
  onNotice: (notice: NoticeMessage) => void = () => undefined;

  #client!: DriverClient;
  #running: RunningText | undefined;
  #fatal: pg.DatabaseError | undefined;
  #lost: unknown;

  private constructor(target: ConnectionTarget) {
    this.target = target;
  }

  /** @throws CommandFailure with exit code 2 */
  static async open(target: ConnectionTarget, askPassword: AskPassword): Promise<SqlSession> {
    const session = new SqlSession(target);
    session.#client = await connect(target, askPassword, (client) => session.#listen(client));
    session.#watchForLoss(session.#client);
    return session;
  }

  #listen(client: DriverClient): void {
    const { connection } = client;
    connection.on('parameterStatus', (message: ParameterStatusMessage) => {
      this.parameters.set(message.parameterName, message.parameterValue);
    });
    connection.on('readyForQuery', (message: ReadyForQueryMessage) => {
      this.transactionStatus = message.status;
      this.#running?.readyForQuery();
    });
    connection.on('copyInResponse', (message: CopyResponse) => this.#running?.copyInResponse(message, connection));
    client.on('notification', (message) => this.notifications.push(message as NotificationResponseMessage));
    client.on('notice', (notice) => this.onNotice(notice as unknown as NoticeMessage));
  }

  /** Not before it is connected: the ends of failed attempts are not ours. */
  #watchForLoss(client: DriverClient): void {
    client.on('error', (error: Error) => {
      // FATAL outside a statement arrives here before the connection ends.
      if (error instanceof pg.DatabaseError) this.#fatal = error;
      this.#lost ??= error;
    });
    client.on('end', () => {
      this.#lost ??= new Error('the connection ended');
      this.#running?.connectionLost(this.lost!);
    });
  }

  /** Whether the TLS handshake was done; its protocol and cipher. */
  get tls(): { protocol: string; cipher: string } | undefined {
    const stream = this.#client.connection.stream as unknown as {
      getProtocol?: () => string;
      getCipher?: () => { standardName: string };
    };
    if (!stream.getProtocol || !stream.getCipher) return undefined;
    return { protocol: stream.getProtocol(), cipher: stream.getCipher().standardName };
  }

  get lost(): ConnectionLost | undefined {
    return this.#lost === undefined ? undefined : new ConnectionLost(this.#fatal, this.#lost);
  }

  /** Runs one text, which may hold several statements. True if no error came. @throws ConnectionLost */
  async run(text: string, sink: AnswerSink): Promise<boolean> {
    if (this.lost) throw this.lost;
    const running = new RunningText(text, sink, (error) => {
      if (error instanceof pg.DatabaseError) {
        this.#fatal = error; // the connection's end follows
        return;
      }
      this.#lost ??= error;
      running.connectionLost(this.lost!);
    });
    this.#running = running;
    this.#client.query(running);
    try {
      return await running.done;
    } finally {
      this.#running = undefined;
    }
  }

  /** The rows of a text that answers with one result. @throws DatabaseError @throws ConnectionLost */
  async rows(text: string): Promise<Row[]> {
    const rows: Row[] = [];
    let failure: pg.DatabaseError | undefined;
    await this.run(text, {
      columns: () => undefined,
      row: (values) => rows.push(values),
      complete: () => undefined,
      error: (error) => {
        failure = error;
      },
      copyOut: () => undefined,
      copyIn: async (target) => target.fail('COPY is not expected here'),
    });
    if (failure) throw failure;
    return rows;
  }

  /** Asks the server to cancel what runs, by a connection of its own. Resolves when the request was delivered. */
  async cancel(): Promise<void> {
    const { processID, secretKey } = this.#client;
    if (processID === null || secretKey === null) return;
    const request = Buffer.alloc(16);
    request.writeInt32BE(16, 0);
    request.writeInt32BE(CANCEL_REQUEST_CODE, 4);
    request.writeInt32BE(processID, 8);
    request.writeInt32BE(secretKey, 12);
    const { host, port } = this.target;
    const socket = connectSocket(host.startsWith('/') ? { path: `${host}/.s.PGSQL.${port}` } : { host, port });
    socket.setTimeout(CANCEL_TIMEOUT_MS, () => socket.destroy(new Error('no answer')));
    socket.end(request);
    socket.resume(); // the server answers by closing; without reading, its close is never seen
    await once(socket, 'close');
  }

  async close(): Promise<void> {
    if (this.lost) return;
    await this.#client.end();
  }

  /** Ends it at once, whatever it runs. */
  abandon(): void {
    this.#client.connection.stream.destroy();
  }
}

/**
 * One text on its way, as the driver's Submittable. The driver forgets it at an ErrorResponse, so ReadyForQuery comes
 * from the session's own listener.
 */
class RunningText {
  readonly done: Promise<boolean>;
  readonly #text: string;
  readonly #sink: AnswerSink;
  readonly #onFatal: (error: Error) => void;
  #connection!: DriverConnection;
  #failed = false;
  #finished = false;
  #copying: Promise<void> = Promise.resolve();
  #resolve!: (succeeded: boolean) => void;
  #reject!: (error: unknown) => void;

  constructor(text: string, sink: AnswerSink, onFatal: (error: Error) => void) {
    this.#text = text;
    this.#sink = sink;
    this.#onFatal = onFatal;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  submit(connection: unknown): void {
    this.#connection = connection as DriverConnection;
    this.#connection.query(this.#text);
  }

  handleRowDescription(message: RowDescriptionMessage): void {
    this.#sink.columns(message.fields);
  }

  handleDataRow(message: DataRowMessage): void {
    this.#sink.row(message.fields as Row);
  }

  handleCommandComplete(message: { readonly text: string }): void {
    this.#sink.complete(message.text);
  }

  handleEmptyQuery(): void {
    // psql shows nothing for an empty statement.
  }

  handleCopyInResponse(): void {
    // The driver's call lacks the message; see copyInResponse.
  }

  handleReadyForQuery(): void {
    // Not called after an error; see readyForQuery.
  }

  handleCopyData(message: CopyDataMessage): void {
    const wait = this.#sink.copyOut(message.chunk);
    if (!wait) return;
    const { stream } = this.#connection;
    stream.pause();
    // A reader that went away (EPIPE) ends the program; the connection need not go on for it.
    wait.then(
      () => stream.resume(),
      () => stream.destroy(),
    );
  }

  handleError(error: Error): void {
    this.#failed = true;
    // Anything but an ErrorResponse means that the connection is gone.
    const fatal = !(error instanceof pg.DatabaseError) || error.severity === 'FATAL' || error.severity === 'PANIC';
    if (fatal) this.#onFatal(error);
    else this.#sink.error(error);
  }

  copyInResponse(message: CopyResponse, connection: DriverConnection): void {
    const accepting = () => !this.#failed && !this.#finished;
    const target: CopyTarget = {
      binary: message.binary,
      async send(chunk) {
        if (!accepting()) return;
        connection.sendCopyFromChunk(chunk);
        if (connection.stream.writableNeedDrain) await drained(connection.stream);
      },
      end: () => {
        if (accepting()) connection.endCopyFrom();
      },
      fail: (reason) => {
        if (accepting()) connection.sendCopyFail(reason);
      },
    };
    this.#copying = this.#sink.copyIn(target).catch((error: unknown) => {
      target.fail(error instanceof Error ? error.message : String(error));
    });
  }

  readyForQuery(): void {
    this.#finished = true;
    // The rest of the data must be read before the next statement is, even if the server refused them.
    void this.#copying.then(() => this.#resolve(!this.#failed));
  }

  connectionLost(lost: ConnectionLost): void {
    this.#finished = true;
    this.#reject(lost);
  }
}
