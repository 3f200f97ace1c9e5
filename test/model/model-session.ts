// One session of the model Postgres: messages in, messages out, no sockets and no time. It serves twice: behind the
// simulated network as the server pgkv talks to, and beside each client as the server the client should believe to talk
// to. As a mirror it can be told that a message failed at a certain point of its answer.
// https://www.postgresql.org/docs/current/protocol-flow.html
import { tellsLoss } from '../oracle/transaction-told.js';
import {
  BIND_COMPLETE,
  BodyReader,
  CLOSE_COMPLETE,
  COPY_DONE,
  COPY_IN,
  COPY_OUT,
  commandComplete,
  copyData,
  EMPTY_QUERY,
  type Message,
  NO_DATA,
  PARSE_COMPLETE,
  PORTAL_SUSPENDED,
  parameterDescription,
  ready,
  rowDescription,
} from './frames.js';
import { ownerOf, readStatements, type Statement } from './model-sql.js';
import { ABORTED, columnsOf, type EngineOptions, isProbe, SessionEngine, SqlError } from './session-engine.js';
import { copyState, emptyState, type Portal } from './session-state.js';

/** Makes a message fail: before its answer's message number `at`, or where it would run its first statement. */
export interface Failure {
  readonly at: number | 'execution';
  readonly error: SqlError;
}

const STALE_PLAN = new SqlError('0A000', 'cached plan must not change result type', 'RevalidateCachedQuery');
const SYNTAX_ERROR = new SqlError('42601', 'syntax error at or near "SELEC"');

export interface ModelSessionOptions extends EngineOptions {
  /** A statement of this client is about to run. */
  readonly observe?: (owner: string) => void;
}

export class ModelSession extends SessionEngine {
  readonly #observe: (owner: string) => void;
  #out: Buffer[] = [];
  /** Messages of the answer so far, ParameterStatus not counted: it comes when it likes. */
  #emitted = 0;
  #failures: Failure[] = [];
  #soleStatement: Statement | null = null;

  constructor(options: ModelSessionOptions) {
    super(options);
    this.#observe = options.observe ?? (() => undefined);
  }

  save(): () => void {
    const state = copyState(this.state);
    const { lostBlock } = this;
    const keyCount = this.database.committed.length;
    return () => {
      this.state = copyState(state);
      this.lostBlock = lostBlock;
      this.database.committed.length = keyCount;
    };
  }

  /** The answer to one message. Of a mirror, `failures` tell what became of it instead, in order. */
  handle(message: Message, failures: readonly Failure[] = []): Buffer[] {
    this.#out = [];
    this.#emitted = 0;
    this.#failures = [...failures];
    this.#soleStatement = null;
    this.styleNow();
    const { copy } = this.state;
    const extended = message.type === 'Q' ? false : (copy?.extended ?? true);
    try {
      this.#dispatch(message);
    } catch (error) {
      if (!(error instanceof SqlError)) throw error;
      this.#fail(error);
      if (extended) this.state.skipping = true;
      else this.#ready();
    }
    return this.#out;
  }

  /** An error that comes between messages: while a copy or a batch waits for its client to go on. */
  failNow(error: SqlError): Buffer[] {
    const { state } = this;
    const { copy } = state;
    this.#out = [];
    this.#emitted = 0;
    this.#failures = [];
    this.#fail(error);
    if (copy === null || copy.extended) state.skipping = true;
    else this.#ready();
    return this.#out;
  }

  /** Of a mirror: the connection is lost, and the block with it, of which the client knew that it had failed. */
  abandonBlock(): void {
    this.abort();
  }

  /** Of a mirror: pgkv has the client end a transaction that is over, since it does not know that it is. */
  enterLostBlock(): void {
    const transaction = this.begun();
    transaction.block = transaction.failed = true;
    this.lostBlock = true;
  }

  /** Of a mirror: the block that was lost has not been. */
  recoverLostBlock(): void {
    if (this.lostBlock) this.begun().failed = false;
  }

  /** The session ends: what is open is rolled back. */
  close(): void {
    this.abort();
    this.state = emptyState();
  }

  #dispatch(message: Message): void {
    const { state } = this;
    const { type, body } = message;
    if (state.copy !== null && type !== 'Q') return this.#duringCopy(type, body);
    if (type === 'd' || type === 'c' || type === 'f' || type === 'H') return;
    if (type === 'S') {
      state.skipping = false;
      state.unsynced = false;
      this.#ready();
      return;
    }
    if (type === 'Q') {
      state.unsynced = false;
      return this.#query(new BodyReader(body).text());
    }
    if (state.skipping) return;
    state.unsynced = true;
    if (type === 'E') {
      const portal = state.portals.get(new BodyReader(body).text());
      this.#soleStatement = portal?.prepared.statement?.statement ?? null;
    }
    // Whatever becomes of a Parse, also where it is refused before a server has read it.
    if (type === 'P' && new BodyReader(body).text() === '') state.statements.delete('');
    this.#point();
    switch (type) {
      case 'P':
        return this.#parse(new BodyReader(body));
      case 'B':
        return this.#bind(new BodyReader(body));
      case 'D':
        return this.#describe(new BodyReader(body));
      case 'E':
        return this.#execute(new BodyReader(body));
      case 'C':
        return this.#close(new BodyReader(body));
      default:
        throw new Error(`the model server does not know messages of type ${type}`);
    }
  }

  /** The next message of the answer, unless this is where it is made to fail. */
  #emit(bytes: Buffer): void {
    this.#point();
    this.#out.push(bytes);
    this.#emitted++;
  }

  #point(): void {
    if (this.#failures[0]?.at === this.#emitted) throw this.#failures.shift()!.error;
  }

  #fail(cause: SqlError): void {
    const error = this.#failures[0]?.at === this.#emitted ? this.#failures.shift()!.error : cause;
    this.#out.push(error.bytes);
    this.#emitted++;
    this.state.copy = null;
    const { transaction } = this.state;
    if (error.sqlstate !== '40001' && tellsLoss(error.sqlstate)) {
      this.abort();
      this.lostBlock = false;
    } else if (error.sqlstate === '40001') {
      // A COMMIT that finds its transaction lost ends it; everything else leaves it open, and failed.
      if (this.#soleStatement?.kind === 'commit') this.abort();
      else if (transaction?.block === true) {
        transaction.savepoints = [];
        this.failBlock(transaction);
        this.lostBlock = true;
      } else this.abort();
    } else if (transaction?.block === true) this.failBlock(transaction);
    else this.abort();
  }

  #ready(): void {
    try {
      this.#point();
      if (this.status === 'I') this.commit();
    } catch (error) {
      if (!(error instanceof SqlError)) throw error;
      this.#fail(error);
    }
    this.#out.push(...this.changedReports());
    this.#out.push(ready(this.status));
    this.#emitted++;
  }

  #query(text: string): void {
    const { state } = this;
    state.statements.delete('');
    state.portals.delete('');
    const statements = readStatements(text);
    if (statements?.length === 1) this.#soleStatement = statements[0]!.statement;
    this.#point();
    if (statements === null) throw SYNTAX_ERROR;
    if (statements.length === 0) this.#emit(EMPTY_QUERY);
    for (const one of statements) {
      this.#point();
      this.admit(one.statement);
      const prepared = this.analyze(one, false);
      this.#running(one.owner);
      if (one.statement.kind === 'copy in') return this.#beginCopy(false);
      if (one.statement.kind === 'copy out') this.#copyOut();
      else {
        const result = this.evaluate(prepared, null);
        for (const bytes of result.notices) this.#emit(bytes);
        if (result.columns !== null) this.#emit(rowDescription(result.columns));
        for (const row of result.rows) this.#emit(row);
        this.#emit(commandComplete(result.tag));
      }
    }
    this.#ready();
  }

  #running(owner: string | null): void {
    if (owner !== null) this.#observe(owner);
    if (this.#failures[0]?.at === 'execution') throw this.#failures.shift()!.error;
  }

  #parse(reader: BodyReader): void {
    const { statements } = this.state;
    const name = reader.text();
    const found = readStatements(reader.text());
    if (found === null) throw SYNTAX_ERROR;
    const statement = found[0] ?? null;
    if (statement !== null) this.admit(statement.statement);
    else this.begun();
    const prepared = this.analyze(statement, false);
    if (statements.has(name)) throw new SqlError('42P05', `prepared statement "${name}" already exists`);
    statements.set(name, prepared);
    this.#emit(PARSE_COMPLETE);
  }

  #bind(reader: BodyReader): void {
    const { portals } = this.state;
    const portal = reader.text();
    const name = reader.text();
    const prepared = this.preparedAs(name);
    for (let formats = reader.int16(); formats > 0; formats--) reader.int16();
    const values = reader.int16();
    const nonce = values > 0 ? reader.value() : null;
    const { statement } = prepared;
    const wanted = valuesOf(prepared);
    if (values !== wanted) {
      const text = `bind message supplies ${values} parameters, but prepared statement "${name}" requires ${wanted}`;
      throw new SqlError('08P01', text);
    }
    if (statement !== null) {
      this.admit(statement.statement);
      this.findTables(statement.statement);
      const readsShape = isProbe(statement.statement) && statement.statement.source?.kind === 'table';
      if (readsShape && !this.isMirror && prepared.schemaVersion !== this.database.schemaVersion) throw STALE_PLAN;
    } else this.begun();
    if (portal !== '' && portals.has(portal)) throw new SqlError('42P03', `cursor "${portal}" already exists`);
    portals.set(portal, { prepared, nonce, rows: null });
    this.#emit(BIND_COMPLETE);
  }

  #describe(reader: BodyReader): void {
    const target = reader.letter();
    const name = reader.text();
    const prepared = target === 'S' ? this.preparedAs(name) : this.#portal(name).prepared;
    const { statement } = prepared;
    if (target === 'S') this.#emit(parameterDescription(valuesOf(prepared)));
    const columns = statement === null ? null : columnsOf(statement.statement);
    if (columns !== null && this.begun().failed) throw ABORTED;
    this.#emit(columns === null ? NO_DATA : rowDescription(columns));
  }

  #portal(name: string): Portal {
    const portal = this.state.portals.get(name);
    if (portal === undefined) throw new SqlError('34000', `portal "${name}" does not exist`);
    return portal;
  }

  #execute(reader: BodyReader): void {
    const portal = this.#portal(reader.text());
    const rowsMax = reader.int32();
    const { statement } = portal.prepared;
    if (statement === null) return this.#emit(EMPTY_QUERY);
    this.admit(statement.statement);
    if (portal.rows === null) {
      this.#running(statement.owner ?? (portal.nonce === null ? null : ownerOf(portal.nonce)));
      if (statement.statement.kind === 'copy in') return this.#beginCopy(true);
      if (statement.statement.kind === 'copy out') return this.#copyOut();
      const result = this.evaluate(portal.prepared, portal.nonce);
      for (const bytes of result.notices) this.#emit(bytes);
      if (result.columns === null) return this.#emit(commandComplete(result.tag));
      portal.rows = result.rows;
      if (!result.tag.startsWith('SELECT')) {
        portal.rows = [];
        for (const row of result.rows) this.#emit(row);
        return this.#emit(commandComplete(result.tag));
      }
    }
    const rows = portal.rows;
    const count = rowsMax === 0 ? rows.length : Math.min(rowsMax, rows.length);
    portal.rows = rows.slice(count);
    for (const row of rows.slice(0, count)) this.#emit(row);
    // The server stops as soon as it has the rows asked for, without looking whether there are more.
    this.#emit(rowsMax > 0 && count === rowsMax ? PORTAL_SUSPENDED : commandComplete(`SELECT ${count}`));
  }

  #close(reader: BodyReader): void {
    const { statements, portals } = this.state;
    if (reader.letter() === 'S') statements.delete(reader.text());
    else portals.delete(reader.text());
    this.#emit(CLOSE_COMPLETE);
  }

  #beginCopy(extended: boolean): void {
    this.#emit(COPY_IN);
    this.state.copy = { extended, keys: [] };
  }

  #copyOut(): void {
    this.#emit(COPY_OUT);
    this.#emit(copyData('row\n'));
    this.#emit(COPY_DONE);
    this.#emit(commandComplete('COPY 1'));
  }

  /** COPY FROM STDIN: Sync and Flush are ignored until it ends. */
  #duringCopy(type: string, body: Buffer): void {
    const { state } = this;
    const { extended, keys } = state.copy!;
    if (type === 'S' || type === 'H') return;
    if (type === 'd') {
      state.copy = { extended, keys: [...keys, body.toString('utf8').trim()] };
      return;
    }
    if (type === 'f') throw new SqlError('57014', `COPY from stdin failed: ${new BodyReader(body).text()}`);
    if (type !== 'c') throw new SqlError('08P01', `unexpected message type "${type}" during COPY from stdin`);
    this.#point();
    this.begun().keys.push(...keys);
    if (keys.length > 0) this.draw();
    state.copy = null;
    try {
      this.#emit(commandComplete(`COPY ${keys.length}`));
    } catch (error) {
      state.copy = { extended, keys };
      throw error;
    }
    if (!extended) this.#ready();
  }
}

/** How many parameters it has. */
const valuesOf = ({ statement }: Portal['prepared']): number =>
  statement !== null && isProbe(statement.statement) && statement.statement.nonce === null ? 1 : 0;
