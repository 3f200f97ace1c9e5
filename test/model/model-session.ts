// One session of the model Postgres: messages in, messages out, no sockets and no time. It serves twice: behind the
// simulated network as the server pgkv talks to, and beside each client as the server the client should believe to talk
// to. As a mirror it can be told that a message failed at a certain point of its answer.
// https://www.postgresql.org/docs/current/protocol-flow.html
import {
  BIND_COMPLETE,
  BodyReader,
  CLOSE_COMPLETE,
  COPY_DONE,
  COPY_IN,
  COPY_OUT,
  commandComplete,
  copyData,
  dataRow,
  EMPTY_QUERY,
  errorResponse,
  type Message,
  NO_DATA,
  notice,
  PARSE_COMPLETE,
  PORTAL_SUSPENDED,
  parameterDescription,
  parameterStatus,
  ready,
  rowDescription,
} from './frames.js';
import { ownerOf, PROBE_COLUMNS, type Probe, readStatements, type Statement, type StatementText } from './model-sql.js';
import {
  copyRevertible,
  copyState,
  emptyRevertible,
  emptyState,
  type Prepared,
  type SessionState,
  type Transaction,
} from './session-state.js';

/** Rows that outlive sessions. */
export class ModelDatabase {
  /** Keys in the order of their commits. */
  committed: string[] = [];
  schemaVersion = 1;
  sequence = 0;
  /** What can be read off the function that sets app.hidden: the setting's name, or only that it makes one up. */
  hidesNames = false;
  /** A trigger on kv calls it, too. */
  hasTrigger = false;
  schemaChanged: () => void = () => undefined;
  notify: (pid: number, channel: string, payload: string) => void = () => undefined;
}

export class SqlError extends Error {
  readonly sqlstate: string;
  /** The ErrorResponse. */
  readonly bytes: Buffer;
  /** pgkv's word for a connection that broke: a parse may have been among what was lost. */
  readonly connectionLost: boolean;

  constructor(sqlstate: string, text: string, routine = 'model', bytes?: Buffer, connectionLost = false) {
    super(text);
    this.sqlstate = sqlstate;
    this.connectionLost = connectionLost;
    this.bytes = bytes ?? errorResponse({ S: 'ERROR', V: 'ERROR', C: sqlstate, M: text, R: routine });
  }
}

/** Makes a message fail: before its answer's message number `at`, or where it would run its first statement. */
export interface Failure {
  readonly at: number | 'execution';
  readonly error: SqlError;
}

/** pgkv's names for what ties a session to its server. */
const PINS: readonly string[] = ['prepared', 'cursors', 'channels', 'locks', 'temporary objects'];
const DEFAULTS: ReadonlyMap<string, string> = new Map([
  ['application_name', ''],
  ['datestyle', 'ISO'],
  ['work_mem', '4MB'],
]);
/** As Postgres writes them. */
const REPORTED: ReadonlyMap<string, string> = new Map([
  ['application_name', 'application_name'],
  ['datestyle', 'DateStyle'],
]);
export const STYLE_SEPARATOR = '|';
const STALE_PLAN = new SqlError('0A000', 'cached plan must not change result type', 'RevalidateCachedQuery');
const ABORTED = new SqlError(
  '25P02',
  'current transaction is aborted, commands ignored until end of transaction block',
);
const SYNTAX_ERROR = new SqlError('42601', 'syntax error at or near "SELEC"');

interface Result {
  readonly notices: readonly Buffer[];
  readonly columns: readonly string[] | null;
  readonly rows: readonly Buffer[];
  readonly tag: string;
}

const done = (tag: string, ...notices: readonly Buffer[]): Result => ({ notices, columns: null, rows: [], tag });
const oneRow = (column: string, value: string | null): Result => ({
  notices: [],
  columns: [column],
  rows: [dataRow([value])],
  tag: 'SELECT 1',
});

const isProbe = (statement: Statement): statement is Probe =>
  statement.kind === 'select' || statement.kind === 'insert';
const endsFailedBlock = ({ kind }: Statement): boolean =>
  kind === 'commit' || kind === 'rollback' || kind === 'rollback to';

export interface ModelSessionOptions {
  readonly database: ModelDatabase;
  readonly pid: number;
  readonly startup: ReadonlyMap<string, string>;
  /**
   * Of a mirror, plans do not go stale with the schema: pgkv parses anew. So rows show all styles since the Parse, any
   * of which the statement may have been read under; those of a server show the one.
   */
  readonly isMirror: boolean;
  /** A statement of this client is about to run. */
  readonly observe?: (owner: string) => void;
}

export class ModelSession {
  readonly pid: number;
  state: SessionState = emptyState();
  /** The transaction the client is in was lost with its connection; pgkv stands in for the server until it ends. */
  lostBlock = false;
  readonly #database: ModelDatabase;
  readonly #startup: ReadonlyMap<string, string>;
  readonly #isMirror: boolean;
  /** Values DateStyle has had, the present one last. */
  readonly #styles: string[] = [];
  readonly #observe: (owner: string) => void;
  #out: Buffer[] = [];
  /** Messages of the answer so far, ParameterStatus not counted: it comes when it likes. */
  #emitted = 0;
  #failures: Failure[] = [];
  #soleStatement: Statement | null = null;

  constructor(options: ModelSessionOptions) {
    this.pid = options.pid;
    this.#database = options.database;
    this.#startup = options.startup;
    this.#isMirror = options.isMirror;
    this.#observe = options.observe ?? (() => undefined);
    for (const [name] of REPORTED) this.state.reported.set(name, this.setting(name)!);
  }

  get status(): 'I' | 'T' | 'E' {
    const { transaction } = this.state;
    if (transaction === null || !transaction.block) return 'I';
    return transaction.failed ? 'E' : 'T';
  }

  /** What ties the session to this server, by pgkv's names for it. */
  pins(): string[] {
    const { revertible, locks, statements } = this.state;
    const pins: string[] = [];
    if ([...statements.values()].some(({ fromSql }) => fromSql)) pins.push('prepared');
    if (revertible.cursors.size > 0) pins.push('cursors');
    if (revertible.channels.size > 0) pins.push('channels');
    if (locks.size > 0) pins.push('locks');
    if (revertible.tables.size > 0) pins.push('temporary objects');
    return pins;
  }

  /** The value in force; null: a custom setting that nobody has named. */
  setting(name: string): string | null {
    const { revertible, transaction, definedNames } = this.state;
    const set = transaction?.locals.get(name) ?? revertible.settings.get(name);
    if (set !== undefined) return set;
    if (name.includes('.')) return definedNames.has(name) ? '' : null;
    return this.#startup.get(name) ?? DEFAULTS.get(name) ?? null;
  }

  /** What a log-in reports. */
  reports(): Buffer[] {
    return [...REPORTED].map(([name, written]) => parameterStatus(written, this.setting(name)!));
  }

  save(): () => void {
    const state = copyState(this.state);
    const { lostBlock } = this;
    const keyCount = this.#database.committed.length;
    return () => {
      this.state = copyState(state);
      this.lostBlock = lostBlock;
      this.#database.committed.length = keyCount;
    };
  }

  /** The answer to one message. Of a mirror, `failures` tell what became of it instead, in order. */
  handle(message: Message, failures: readonly Failure[] = []): Buffer[] {
    this.#out = [];
    this.#emitted = 0;
    this.#failures = [...failures];
    this.#soleStatement = null;
    this.#styleNow();
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
    this.#abort();
  }

  /** Of a mirror: pgkv has the client end a transaction that is over, since it does not know that it is. */
  enterLostBlock(): void {
    const transaction = this.#begun();
    transaction.block = transaction.failed = true;
    this.lostBlock = true;
  }

  /** The session ends: what is open is rolled back. */
  close(): void {
    this.#abort();
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
    if (error.connectionLost) this.state.statements.delete('');
    if (error.sqlstate.startsWith('08')) {
      this.#abort();
      this.lostBlock = false;
    } else if (error.sqlstate === '40001') {
      // A COMMIT that finds its transaction lost ends it; everything else leaves it open, and failed.
      if (this.#soleStatement?.kind === 'commit') this.#abort();
      else if (transaction?.block === true) {
        transaction.savepoints = [];
        this.#failBlock(transaction);
        this.lostBlock = true;
      } else this.#abort();
    } else if (transaction?.block === true) this.#failBlock(transaction);
    else this.#abort();
  }

  /** Only what came behind the last savepoint is taken back at once; its rows are forgotten when the block ends. */
  #failBlock(transaction: Transaction): void {
    const last = transaction.savepoints.at(-1);
    transaction.failed = true;
    transaction.locals = new Map(last?.locals);
    this.state.revertible = copyRevertible(last?.state ?? transaction.before);
    this.state.portals.clear();
  }

  #abort(): void {
    const { transaction } = this.state;
    if (transaction !== null) this.state.revertible = copyRevertible(transaction.before);
    this.state.transaction = null;
    this.state.portals.clear();
    this.lostBlock = false;
  }

  #commit(): void {
    const { transaction } = this.state;
    if (transaction === null) return;
    const database = this.#database;
    database.committed.push(...transaction.keys);
    if (transaction.altersSchema) {
      database.schemaVersion++;
      database.schemaChanged();
    }
    this.state.transaction = null;
    this.state.portals.clear();
    for (const [channel, payload] of transaction.notifications) database.notify(this.pid, channel, payload);
  }

  #begun(): Transaction {
    const { state } = this;
    state.transaction ??= {
      block: false,
      failed: false,
      before: copyRevertible(state.revertible),
      keys: [],
      locals: new Map(),
      savepoints: [],
      notifications: [],
      altersSchema: false,
    };
    return state.transaction;
  }

  #ready(): void {
    try {
      this.#point();
      if (this.status === 'I') this.#commit();
    } catch (error) {
      if (!(error instanceof SqlError)) throw error;
      this.#fail(error);
    }
    const { reported } = this.state;
    for (const [name, written] of REPORTED) {
      const value = this.setting(name)!;
      if (reported.get(name) === value) continue;
      reported.set(name, value);
      this.#out.push(parameterStatus(written, value));
    }
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
      this.#admit(one.statement);
      const prepared = this.#analyze(one, false);
      this.#running(one.owner);
      if (one.statement.kind === 'copy in') return this.#beginCopy(false);
      if (one.statement.kind === 'copy out') this.#copyOut();
      else {
        const result = this.#evaluate(prepared, null);
        for (const bytes of result.notices) this.#emit(bytes);
        if (result.columns !== null) this.#emit(rowDescription(result.columns));
        for (const row of result.rows) this.#emit(row);
        this.#emit(commandComplete(result.tag));
      }
    }
    this.#ready();
  }

  /** The statement may run in the transaction as it is. */
  #admit(statement: Statement): void {
    if (this.#begun().failed && !endsFailedBlock(statement)) throw ABORTED;
  }

  #analyze(statement: StatementText | null, fromSql: boolean): Prepared {
    if (statement !== null) this.#findTables(statement.statement);
    return {
      statement,
      style: this.#styleNow(),
      schemaVersion: this.#database.schemaVersion,
      fromSql,
    };
  }

  #findTables(statement: Statement): void {
    if (statement.kind === 'unknown column') throw new SqlError('42703', 'column "no_such_column" does not exist');
    if (!isProbe(statement) || statement.source?.kind !== 'table') return;
    const { name } = statement.source;
    if (name !== 'shape' && !this.state.revertible.tables.has(name)) {
      throw new SqlError('42P01', `relation "${name}" does not exist`, 'parserOpenTable');
    }
  }

  #running(owner: string | null): void {
    if (owner !== null) this.#observe(owner);
    if (this.#failures[0]?.at === 'execution') throw this.#failures.shift()!.error;
  }

  #parse(reader: BodyReader): void {
    const { statements } = this.state;
    const name = reader.text();
    if (name === '') statements.delete('');
    const found = readStatements(reader.text());
    if (found === null) throw SYNTAX_ERROR;
    const statement = found[0] ?? null;
    if (statement !== null) this.#admit(statement.statement);
    else this.#begun();
    const prepared = this.#analyze(statement, false);
    if (statements.has(name)) throw new SqlError('42P05', `prepared statement "${name}" already exists`);
    statements.set(name, prepared);
    this.#emit(PARSE_COMPLETE);
  }

  #preparedAs(name: string): Prepared {
    const prepared = this.state.statements.get(name);
    if (prepared !== undefined) return prepared;
    throw name === ''
      ? new SqlError('26000', 'unnamed prepared statement does not exist')
      : new SqlError('26000', `prepared statement "${name}" does not exist`);
  }

  #bind(reader: BodyReader): void {
    const { portals } = this.state;
    const portal = reader.text();
    const prepared = this.#preparedAs(reader.text());
    for (let formats = reader.int16(); formats > 0; formats--) reader.int16();
    const nonce = reader.int16() > 0 ? reader.value() : null;
    const { statement } = prepared;
    if (statement !== null) {
      this.#admit(statement.statement);
      this.#findTables(statement.statement);
      const readsShape = isProbe(statement.statement) && statement.statement.source?.kind === 'table';
      if (readsShape && !this.#isMirror && prepared.schemaVersion !== this.#database.schemaVersion) throw STALE_PLAN;
    } else this.#begun();
    if (portal !== '' && portals.has(portal)) throw new SqlError('42P03', `cursor "${portal}" already exists`);
    portals.set(portal, { prepared, nonce, rows: null });
    this.#emit(BIND_COMPLETE);
  }

  #describe(reader: BodyReader): void {
    const target = reader.letter();
    const name = reader.text();
    const prepared = target === 'S' ? this.#preparedAs(name) : this.#portal(name).prepared;
    const { statement } = prepared;
    if (target === 'S') {
      const takesNonce = statement !== null && isProbe(statement.statement) && statement.statement.nonce === null;
      this.#emit(parameterDescription(takesNonce ? 1 : 0));
    }
    const columns = statement === null ? null : columnsOf(statement.statement);
    if (columns !== null && this.#begun().failed) throw ABORTED;
    this.#emit(columns === null ? NO_DATA : rowDescription(columns));
  }

  #portal(name: string) {
    const portal = this.state.portals.get(name);
    if (portal === undefined) throw new SqlError('34000', `portal "${name}" does not exist`);
    return portal;
  }

  #execute(reader: BodyReader): void {
    const portal = this.#portal(reader.text());
    const rowsMax = reader.int32();
    const { statement } = portal.prepared;
    if (statement === null) return this.#emit(EMPTY_QUERY);
    this.#admit(statement.statement);
    if (portal.rows === null) {
      this.#running(statement.owner ?? (portal.nonce === null ? null : ownerOf(portal.nonce)));
      if (statement.statement.kind === 'copy in') return this.#beginCopy(true);
      if (statement.statement.kind === 'copy out') return this.#copyOut();
      const result = this.#evaluate(portal.prepared, portal.nonce);
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
    this.#begun().keys.push(...keys);
    if (keys.length > 0) this.#draw();
    state.copy = null;
    try {
      this.#emit(commandComplete(`COPY ${keys.length}`));
    } catch (error) {
      state.copy = { extended, keys };
      throw error;
    }
    if (!extended) this.#ready();
  }

  // One case per kind of statement, so longer than a screen.
  #evaluate(prepared: Prepared, nonce: string | null): Result {
    const { statement } = prepared.statement!;
    const { state } = this;
    const { revertible } = state;
    const transaction = this.#begun();
    switch (statement.kind) {
      case 'select':
      case 'insert':
        return this.#probe(statement, prepared, statement.nonce ?? nonce ?? '');
      case 'begin': {
        const already = transaction.block;
        transaction.block = true;
        return already ? done('BEGIN', notice('25001', 'there is already a transaction in progress')) : done('BEGIN');
      }
      case 'commit':
      case 'rollback':
        return this.#end(statement.kind, transaction);
      case 'savepoint':
      case 'rollback to':
      case 'release':
        return this.#savepoint(statement.kind, statement.name, transaction);
      case 'set':
        this.#set(statement.name, statement.value, statement.isLocal);
        return done('SET');
      case 'reset':
        this.#reset(statement.name);
        return done('RESET');
      case 'set_config':
        for (const [name, value, isLocal] of statement.calls) {
          if (value === null) this.#reset(name);
          else this.#set(name, value, isLocal);
        }
        return oneRow('set_config', this.setting(statement.calls[0]![0]));
      case 'fails':
        throw new SqlError('22012', 'division by zero');
      case 'unknown column':
        throw new Error('found by analysis');
      case 'duplicate':
        throw new SqlError('23505', 'duplicate key value violates unique constraint "kv_pkey"');
      case 'prepare': {
        if (state.statements.has(statement.name)) {
          throw new SqlError('42P05', `prepared statement "${statement.name}" already exists`);
        }
        const [inner] = readStatements(statement.text) ?? [];
        state.statements.set(statement.name, this.#analyze(inner!, true));
        return done('PREPARE');
      }
      case 'execute': {
        const inner = this.#preparedAs(statement.name);
        this.#findTables(inner.statement!.statement);
        return this.#evaluate(inner, null);
      }
      case 'deallocate':
        return this.#deallocate(statement.name);
      case 'discard':
        return this.#discard(statement.what, transaction);
      case 'create temp':
        if (revertible.tables.has(statement.name)) {
          throw new SqlError('42P07', `relation "${statement.name}" already exists`);
        }
        revertible.tables.add(statement.name);
        return done('CREATE TABLE');
      case 'drop':
        if (!revertible.tables.delete(statement.name)) {
          throw new SqlError('42P01', `table "${statement.name}" does not exist`);
        }
        return done('DROP TABLE');
      case 'listen':
        revertible.channels.add(statement.name);
        return done('LISTEN');
      case 'unlisten':
        revertible.channels.delete(statement.name);
        return done('UNLISTEN');
      case 'notify':
        transaction.notifications.push([statement.channel, statement.payload]);
        return done('NOTIFY');
      case 'declare':
        if (revertible.cursors.has(statement.name)) {
          throw new SqlError('42P03', `cursor "${statement.name}" already exists`);
        }
        revertible.cursors.add(statement.name);
        return done('DECLARE CURSOR');
      case 'close':
        if (!revertible.cursors.delete(statement.name)) {
          throw new SqlError('34000', `cursor "${statement.name}" does not exist`);
        }
        return done('CLOSE CURSOR');
      case 'lock':
        state.locks.set(statement.id, (state.locks.get(statement.id) ?? 0) + 1);
        return oneRow('pg_try_advisory_lock', 't');
      case 'unlock':
        return this.#unlock(statement.id);
      case 'nextval':
        return oneRow('nextval', this.#draw());
      case 'lastval':
        if (state.lastValue === null) throw new SqlError('55000', 'lastval is not yet defined in this session');
        return oneRow('lastval', state.lastValue);
      case 'alter':
        transaction.altersSchema = true;
        return done('ALTER TABLE');
      case 'opaque':
        this.#set('app.hidden', statement.value, false);
        return oneRow('opaque', statement.value);
      case 'routines':
        return this.#routines();
      case 'state check':
        return this.#stateCheck(statement.names, statement.pins);
      case 'copy in':
      case 'copy out':
        throw new Error('COPY does not answer with rows');
    }
  }

  #styleNow(): number {
    const now = this.setting('datestyle')!;
    if (this.#styles.at(-1) !== now) this.#styles.push(now);
    return this.#styles.length - 1;
  }

  /** Rows of kv have a number, too. */
  #draw(): string {
    this.state.lastValue = `seq:${++this.#database.sequence}`;
    return this.state.lastValue;
  }

  #probe(probe: Probe, prepared: Prepared, nonce: string): Result {
    if (probe.kind === 'insert') {
      this.#begun().keys.push(nonce);
      this.#draw();
      if (this.#database.hasTrigger) this.#set('app.hidden', nonce, false);
    }
    const row = dataRow([
      probe.tag,
      nonce,
      this.setting('work_mem'),
      this.setting('app.x'),
      this.setting('app.hidden'),
      this.#styles.slice(prepared.style, this.#isMirror ? undefined : prepared.style + 1).join(STYLE_SEPARATOR),
      this.setting('datestyle'),
      `pid:${this.pid}`,
    ]);
    const count = probe.source?.kind === 'rows' ? probe.source.count : 1;
    const tag = probe.kind === 'insert' ? 'INSERT 0 1' : `SELECT ${count}`;
    return { notices: [], columns: PROBE_COLUMNS, rows: Array.from({ length: count }, () => row), tag };
  }

  #end(kind: 'commit' | 'rollback', transaction: Transaction): Result {
    const none = transaction.block ? [] : [notice('25P01', 'there is no transaction in progress')];
    if (kind === 'commit' && !transaction.failed) {
      this.#commit();
      return done('COMMIT', ...none);
    }
    this.#abort();
    return done('ROLLBACK', ...none);
  }

  #savepoint(kind: 'savepoint' | 'rollback to' | 'release', name: string, transaction: Transaction): Result {
    if (!transaction.block) throw new SqlError('25P01', `${kind.toUpperCase()} can only be used in transaction blocks`);
    const { savepoints } = transaction;
    if (kind === 'savepoint') {
      const state = copyRevertible(this.state.revertible);
      const locals = new Map(transaction.locals);
      savepoints.push({ name, state, locals, keyCount: transaction.keys.length });
      return done('SAVEPOINT');
    }
    const index = savepoints.findLastIndex((savepoint) => savepoint.name === name);
    if (index < 0) throw new SqlError('3B001', `savepoint "${name}" does not exist`);
    const found = savepoints[index]!;
    if (kind === 'release') {
      transaction.savepoints = savepoints.slice(0, index);
      return done('RELEASE');
    }
    transaction.savepoints = savepoints.slice(0, index + 1);
    transaction.failed = false;
    transaction.keys.length = Math.min(transaction.keys.length, found.keyCount);
    transaction.locals = new Map(found.locals);
    this.state.revertible = copyRevertible(found.state);
    return done('ROLLBACK');
  }

  #set(name: string, value: string, isLocal: boolean): void {
    const { definedNames, revertible } = this.state;
    if (name.includes('.')) definedNames.add(name);
    const { locals } = this.#begun();
    if (isLocal) locals.set(name, value);
    else {
      locals.delete(name);
      revertible.settings.set(name, value);
    }
  }

  #reset(name: string): void {
    const { definedNames, revertible } = this.state;
    const { locals } = this.#begun();
    if (name === 'all') {
      revertible.settings.clear();
      locals.clear();
      return;
    }
    if (name.includes('.')) definedNames.add(name);
    revertible.settings.delete(name);
    locals.delete(name);
  }

  #deallocate(name: string): Result {
    const { statements } = this.state;
    if (name === 'ALL') {
      for (const known of [...statements.keys()]) if (known !== '') statements.delete(known);
      return done('DEALLOCATE ALL');
    }
    this.#preparedAs(name);
    statements.delete(name);
    return done('DEALLOCATE');
  }

  #discard(what: 'ALL' | 'SEQUENCES', transaction: Transaction): Result {
    const { state } = this;
    if (what === 'SEQUENCES') {
      state.lastValue = null;
      return done('DISCARD SEQUENCES');
    }
    if (transaction.block) throw new SqlError('25001', 'DISCARD ALL cannot run inside a transaction block');
    state.revertible = emptyRevertible();
    state.locks.clear();
    state.portals.clear();
    state.lastValue = null;
    this.#deallocate('ALL');
    return done('DISCARD ALL');
  }

  #unlock(id: string): Result {
    const { locks } = this.state;
    const held = locks.get(id) ?? 0;
    if (held > 1) locks.set(id, held - 1);
    else locks.delete(id);
    return oneRow('pg_advisory_unlock', held > 0 ? 't' : 'f');
  }

  #routines(): Result {
    const { hidesNames, hasTrigger } = this.#database;
    const rows = [hidesNames ? dataRow(['d', '']) : dataRow(['n', 'app.hidden'])];
    if (hasTrigger) rows.push(dataRow(['t', '']));
    return { notices: [], columns: ['kind', 'name'], rows, tag: `SELECT ${rows.length}` };
  }

  #stateCheck(names: readonly string[], pins: readonly string[]): Result {
    const { settings } = this.state.revertible;
    const rows: (string | null)[][] = [];
    for (const [name, value] of settings) {
      if (!name.includes('.')) rows.push(['s', REPORTED.get(name) ?? name, value]);
    }
    for (const name of names) rows.push(['c', name, name === 'role' ? 'none' : this.setting(name)]);
    const held = this.pins();
    const unknown = pins.filter((pin) => !PINS.includes(pin));
    if (unknown.length > 0) throw new Error(`the model server cannot tell whether there are ${unknown.join(', ')}`);
    for (const pin of pins) rows.push(['p', pin, held.includes(pin) ? '1' : '0']);
    return { notices: [], columns: ['kind', 'name', 'value'], rows: rows.map(dataRow), tag: `SELECT ${rows.length}` };
  }
}

function columnsOf(statement: Statement): readonly string[] | null {
  switch (statement.kind) {
    case 'select':
    case 'insert':
      return PROBE_COLUMNS;
    case 'set_config':
    case 'nextval':
    case 'lastval':
    case 'opaque':
      return [statement.kind];
    case 'fails':
    case 'unknown column':
      return ['?column?'];
    case 'lock':
      return ['pg_try_advisory_lock'];
    case 'unlock':
      return ['pg_advisory_unlock'];
    default:
      return null;
  }
}
