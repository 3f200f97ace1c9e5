// What statements do in one session of the model Postgres, and to its rows: transactions, savepoints, settings, state of
// all the kinds pgkv has to carry or to keep. No messages here: see model-session.ts.
import { dataRow, errorResponse, notice, parameterStatus } from './frames.js';
import { PROBE_COLUMNS, type Probe, readStatements, type Statement, type StatementText } from './model-sql.js';
import {
  copyRevertible,
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

  constructor(sqlstate: string, text: string, routine = 'model', bytes?: Buffer) {
    super(text);
    this.sqlstate = sqlstate;
    this.bytes = bytes ?? errorResponse({ S: 'ERROR', V: 'ERROR', C: sqlstate, M: text, R: routine });
  }
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
export const ABORTED = new SqlError(
  '25P02',
  'current transaction is aborted, commands ignored until end of transaction block',
);

export interface Result {
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

export const isProbe = (statement: Statement): statement is Probe =>
  statement.kind === 'select' || statement.kind === 'insert';
const endsFailedBlock = ({ kind }: Statement): boolean =>
  kind === 'commit' || kind === 'rollback' || kind === 'rollback to';

export interface EngineOptions {
  readonly database: ModelDatabase;
  readonly pid: number;
  readonly startup: ReadonlyMap<string, string>;
  /**
   * Of a mirror, plans do not go stale with the schema: pgkv parses anew. So rows show all styles since the Parse, any
   * of which the statement may have been read under; those of a server show the one.
   */
  readonly isMirror: boolean;
}

export class SessionEngine {
  readonly pid: number;
  state: SessionState = emptyState();
  /** The transaction the client is in was lost with its connection; pgkv stands in for the server until it ends. */
  lostBlock = false;
  protected readonly database: ModelDatabase;
  readonly #startup: ReadonlyMap<string, string>;
  protected readonly isMirror: boolean;
  /** Values DateStyle has had, the present one last. */
  readonly #styles: string[] = [];

  constructor(options: EngineOptions) {
    this.pid = options.pid;
    this.database = options.database;
    this.#startup = options.startup;
    this.isMirror = options.isMirror;
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

  /** ParameterStatus for what has changed since it was last reported. */
  protected changedReports(): Buffer[] {
    const { reported } = this.state;
    const changes: Buffer[] = [];
    for (const [name, written] of REPORTED) {
      const value = this.setting(name)!;
      if (reported.get(name) === value) continue;
      reported.set(name, value);
      changes.push(parameterStatus(written, value));
    }
    return changes;
  }

  /** What a log-in reports. */
  reports(): Buffer[] {
    return [...REPORTED].map(([name, written]) => parameterStatus(written, this.setting(name)!));
  }

  /** Only what came behind the last savepoint is taken back at once; its rows are forgotten when the block ends. */
  protected failBlock(transaction: Transaction): void {
    const last = transaction.savepoints.at(-1);
    transaction.failed = true;
    transaction.locals = new Map(last?.locals);
    this.state.revertible = copyRevertible(last?.state ?? transaction.before);
    this.state.portals.clear();
  }

  protected abort(): void {
    const { transaction } = this.state;
    if (transaction !== null) this.state.revertible = copyRevertible(transaction.before);
    this.state.transaction = null;
    this.state.portals.clear();
    this.lostBlock = false;
  }

  protected commit(): void {
    const { transaction } = this.state;
    if (transaction === null) return;
    const database = this.database;
    database.committed.push(...transaction.keys);
    if (transaction.altersSchema) {
      database.schemaVersion++;
      database.schemaChanged();
    }
    this.state.transaction = null;
    this.state.portals.clear();
    for (const [channel, payload] of transaction.notifications) database.notify(this.pid, channel, payload);
  }

  protected begun(): Transaction {
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

  /** The statement may run in the transaction as it is. */
  protected admit(statement: Statement): void {
    if (this.begun().failed && !endsFailedBlock(statement)) throw ABORTED;
  }

  protected analyze(statement: StatementText | null, fromSql: boolean): Prepared {
    if (statement !== null) this.findTables(statement.statement);
    return {
      statement,
      style: this.styleNow(),
      schemaVersion: this.database.schemaVersion,
      fromSql,
    };
  }

  protected findTables(statement: Statement): void {
    if (statement.kind === 'unknown column') throw new SqlError('42703', 'column "no_such_column" does not exist');
    if (!isProbe(statement) || statement.source?.kind !== 'table') return;
    const { name } = statement.source;
    if (name !== 'shape' && !this.state.revertible.tables.has(name)) {
      throw new SqlError('42P01', `relation "${name}" does not exist`, 'parserOpenTable');
    }
  }

  protected preparedAs(name: string): Prepared {
    const prepared = this.state.statements.get(name);
    if (prepared !== undefined) return prepared;
    throw name === ''
      ? new SqlError('26000', 'unnamed prepared statement does not exist')
      : new SqlError('26000', `prepared statement "${name}" does not exist`);
  }

  // One case per kind of statement, so longer than a screen.
  protected evaluate(prepared: Prepared, nonce: string | null): Result {
    const { statement } = prepared.statement!;
    const { state } = this;
    const { revertible } = state;
    const transaction = this.begun();
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
        state.statements.set(statement.name, this.analyze(inner!, true));
        return done('PREPARE');
      }
      case 'execute': {
        const inner = this.preparedAs(statement.name);
        this.findTables(inner.statement!.statement);
        return this.evaluate(inner, null);
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
        return oneRow('nextval', this.draw());
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

  protected styleNow(): number {
    const now = this.setting('datestyle')!;
    if (this.#styles.at(-1) !== now) this.#styles.push(now);
    return this.#styles.length - 1;
  }

  /** Rows of kv have a number, too. */
  protected draw(): string {
    this.state.lastValue = `seq:${++this.database.sequence}`;
    return this.state.lastValue;
  }

  #probe(probe: Probe, prepared: Prepared, nonce: string): Result {
    if (probe.kind === 'insert') {
      this.begun().keys.push(nonce);
      this.draw();
      if (this.database.hasTrigger) this.#set('app.hidden', nonce, false);
    }
    const row = dataRow([
      probe.tag,
      nonce,
      this.setting('work_mem'),
      this.setting('app.x'),
      this.setting('app.hidden'),
      this.#styles.slice(prepared.style, this.isMirror ? undefined : prepared.style + 1).join(STYLE_SEPARATOR),
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
      this.commit();
      return done('COMMIT', ...none);
    }
    this.abort();
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
    const { locals } = this.begun();
    if (isLocal) locals.set(name, value);
    else {
      locals.delete(name);
      revertible.settings.set(name, value);
    }
  }

  #reset(name: string): void {
    const { definedNames, revertible } = this.state;
    const { locals } = this.begun();
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
    this.preparedAs(name);
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
    const { hidesNames, hasTrigger } = this.database;
    const rows = [hidesNames ? dataRow(['d', 'opaque']) : dataRow(['n', 'app.hidden'])];
    if (hasTrigger) rows.push(dataRow(['t', hidesNames ? 'm' : '']));
    return { notices: [], columns: ['kind', 'name'], rows, tag: `SELECT ${rows.length}` };
  }

  #stateCheck(names: readonly string[], pins: readonly string[]): Result {
    const { settings } = this.state.revertible;
    const rows: (string | null)[][] = [];
    for (const [name, value] of settings) {
      if (!name.includes('.')) rows.push(['s', REPORTED.get(name) ?? name, value]);
    }
    for (const name of names) rows.push(['c', name, name === 'role' ? 'none' : this.setting(name)]);
    rows.push(['u', '', this.#startup.get('user') ?? null]);
    const held = this.pins();
    const unknown = pins.filter((pin) => !PINS.includes(pin));
    if (unknown.length > 0) throw new Error(`the model server cannot tell whether there are ${unknown.join(', ')}`);
    for (const pin of pins) rows.push(['p', pin, held.includes(pin) ? '1' : '0']);
    return { notices: [], columns: ['kind', 'name', 'value'], rows: rows.map(dataRow), tag: `SELECT ${rows.length}` };
  }
}

export function columnsOf(statement: Statement): readonly string[] | null {
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
