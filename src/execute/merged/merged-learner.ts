// Finds out what the merged lane has to know of a statement: asks the server for the types of its parameters and for its
// result, has the merged statement made, and asks the server whether that one means the same. Statements on tables whose
// triggers, rules or policies could tell one statement from many are not merged (D11). Phases:
//   waiting    for a connection
//   preparing  the connection is brought to the settings of the session that asks
//   one        the server describes the statement of one member
//   others     and the texts that are made of it, one after the other
//   ended      the statement has its stage; where the connection was lost, or none was to be had, it stays as it was
// A connection that misses the deadline is closed (D29).

import type { ServerConnection } from '../../backend/connection/server-connection.js';
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import type { LeaseRequest } from '../../backend/pool/pool-group.js';
import { describing, forwarded, Reply } from '../../backend/replies/reply-queue.js';
import type { StatementSource, StatementSources } from '../../backend/replies/statement-source.js';
import { assert } from '../../base/assert.js';
import { type BatchStatement, batchStatement, type SingleStatement } from '../../sql/batch/batch-statement.js';
import type { KvPlan } from '../../sql/plan/kv-plan.js';
import type { Template } from '../../sql/plan/template.js';
import { qualifiedName } from '../../sql/text/identifiers.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import { encodeNamed, SYNC } from '../../wire/client-messages.js';
import { lastingBytes } from '../../wire/copy-bytes.js';
import { Backend, Frontend } from '../../wire/protocol.js';
import { readColumns } from '../../wire/row-description.js';
import { rowShape } from '../../wire/row-shape.js';
import { builtinTypeName, TypeOid } from '../../wire/type-oids.js';
import type { Awaited } from './lane-deadlines.js';
import { LaneReceiver } from './lane-receiver.js';
import type { FormText } from './merged-form.js';
import type { MergedLane } from './merged-lane.js';
import type { MergedStatement } from './merged-statement.js';

const NOTHING = Buffer.alloc(0);
/** A statement that the server refused is tried again after this. */
const RETRY_MS = 2_000;
/** Lists of keys. */
const TEXT_ARRAYS: ReadonlyMap<number, string> = new Map([
  [1009, '_text'],
  [1015, '_varchar'],
]);

type Phase =
  | { readonly kind: 'waiting' | 'ended' }
  | { readonly kind: 'preparing' | 'one' | 'others'; readonly connection: ServerConnection };

/** A text whose shape is not known yet. */
type NewText = Omit<FormText, 'shape'>;

export class MergedLearner extends LaneReceiver implements Awaited {
  readonly #lane: MergedLane;
  readonly #statement: MergedStatement;
  readonly #plan: KvPlan;
  readonly #single: SingleStatement;
  readonly #template: Template;
  readonly #sources: StatementSources;
  readonly #settings: SettingsGroup;
  readonly #one: StatementSource;
  #phase: Phase = { kind: 'waiting' };
  #batch: BatchStatement | null = null;
  /** Texts to be described: for many; without reaping for many, and for one. */
  #wanted: readonly NewText[] = [];
  readonly #texts: FormText[] = [];
  #rest: Buffer = NOTHING;
  #types: number[] = [];
  #description: Buffer | null = null;
  #columns = 0;
  #oneShape = '';
  #shape = '';
  #failed = false;
  #special = false;

  constructor(options: {
    lane: MergedLane;
    statement: MergedStatement;
    plan: KvPlan;
    single: SingleStatement;
    /** Of the client's statement: what is learnt is kept as long as that is. */
    template: Template;
    sources: StatementSources;
    settings: SettingsGroup;
  }) {
    super();
    this.#lane = options.lane;
    this.#statement = options.statement;
    this.#plan = options.plan;
    this.#single = options.single;
    this.#template = options.template;
    this.#sources = options.sources;
    this.#settings = options.settings;
    this.#one = options.sources.ownText(options.single.text, options.single.types);
  }

  /** Ends with the statement merged, or single; where no connection could be had it stays unknown. */
  start(): void {
    this.#statement.learning = true;
    this.#statement.table = this.#plan.table;
    const request: LeaseRequest = {
      purpose: 'merged',
      group: this.#lane.group,
      settings: this.#settings,
      queuedAt: 0,
      granted: (connection) => this.#begin(connection),
      refused: () => this.#leave(),
    };
    this.#lane.pool.acquire(request);
  }

  #begin(connection: ServerConnection): void {
    assert(this.#phase.kind === 'waiting', 'a learner has one connection');
    this.#phase = { kind: 'preparing', connection };
    this.#lane.deadlines.begin(this);
    connection.attach(this);
    // Literals are read, and names resolved, under the settings in force at Parse.
    const brought = (failure: Buffer | null): void => {
      if (failure === null) return this.#ask(connection);
      // Under which settings it is now nobody knows.
      connection.attach(null);
      this.#lane.pool.destroyUnclean(connection, 'the settings of a merged statement could not be applied');
      this.#leave();
    };
    if (connection.bringTo(this.#settings, brought)) this.#ask(connection);
  }

  #ask(connection: ServerConnection): void {
    const { schema, name } = this.#plan.table;
    const table = quoteLiteral(qualifiedName(schema, name));
    connection.sendControl(specialTableSql(table), {
      row: () => {
        this.#special = true;
      },
      failed: () => {
        this.#special = true;
      },
      ready: () => undefined,
    });
    this.#describe('one', connection, this.#one);
  }

  #describe(kind: 'one' | 'others', connection: ServerConnection, source: StatementSource): void {
    this.#phase = { kind, connection };
    this.#shape = '';
    // Anew: what was prepared before DDL made beside pgkv cannot be described any more.
    const name = connection.parse(source, this.#settings.semantics, true);
    connection.send(
      encodeNamed(Frontend.describe, 'S', name),
      describing(false, () => undefined),
    );
    connection.send(SYNC, forwarded(Reply.sync));
    connection.output.flush();
  }

  serverBytes(bytes: Buffer): void {
    const buffer = this.#rest.length > 0 ? Buffer.concat([this.#rest, bytes]) : bytes;
    let at = 0;
    while (at + 5 <= buffer.length) {
      const end = at + 1 + buffer.readInt32BE(at + 1);
      if (end > buffer.length) break;
      const message = Buffer.from(buffer.subarray(at, end));
      if (message[0] === Backend.errorResponse) this.#failed = true;
      else if (message[0] === Backend.parameterDescription) this.#parameters(message);
      else if (message[0] === Backend.rowDescription) this.#described(message);
      at = end;
    }
    this.#rest = Buffer.from(buffer.subarray(at));
  }

  #parameters(message: Buffer): void {
    if (this.#phase.kind !== 'one') return;
    for (let at = 7; at + 4 <= message.length; at += 4) this.#types.push(message.readUInt32BE(at));
  }

  #described(message: Buffer): void {
    const shape = rowShape(message, 0, message.length);
    if (this.#phase.kind === 'one') {
      this.#description = message;
      this.#oneShape = shape;
      this.#columns = readColumns(message).length;
      return;
    }
    this.#shape = shape;
    const { isSingle } = this.#wanted[this.#texts.length]!;
    // It says for each row whose it is, and the rest is the client's.
    if (!endsWith(message, this.#description, isSingle ? 0 : this.#batch!.hidden)) this.#failed = true;
  }

  serverReady(): void {
    const phase = this.#phase;
    assert(phase.kind === 'one' || phase.kind === 'others', 'only what was asked is answered');
    if (this.#special || (this.#failed && this.#texts.length === 0)) return this.#end(phase.connection);
    if (phase.kind === 'one') this.#wanted = this.#made();
    else if (!this.#failed) this.#texts.push({ ...this.#wanted[this.#texts.length]!, shape: this.#shape });
    const next = this.#wanted[this.#texts.length];
    // What the server does not take without reaping is not run so.
    if (next === undefined || this.#failed) this.#end(phase.connection);
    else this.#describe('others', phase.connection, next.source);
  }

  /** None where it cannot be run for many. */
  #made(): readonly NewText[] {
    const names = this.#types.map(
      (oid) => TEXT_ARRAYS.get(oid) ?? builtinTypeName(oid === TypeOid.unknown ? TypeOid.text : oid),
    );
    if (names.includes(undefined)) return [];
    const types = names.map((name) => `pg_catalog.${name}`);
    const batch = batchStatement(this.#plan, this.#single, types);
    this.#batch = batch;
    if (batch === null) return [];
    const { withSlots, insertsPlainly, optimistic } = batch;
    const many = { isSingle: false, withSlots, rerunsAbsent: insertsPlainly, optimistic: false };
    const texts = [{ ...many, source: this.#sources.ownText(batch.text, []) }];
    if (optimistic === null) return texts;
    const hoping = { ...many, rerunsAbsent: true, optimistic: true };
    const oneTypes = [...this.#types, TypeOid.int4];
    return [
      ...texts,
      { ...hoping, source: this.#sources.ownText(optimistic.text, []) },
      { ...hoping, isSingle: true, source: this.#sources.ownText(optimistic.one, oneTypes) },
    ];
  }

  #end(connection: ServerConnection): void {
    const statement = this.#statement;
    statement.schemaEpoch = this.#lane.pool.schemaEpoch;
    const [many, ...hoping] = this.#texts;
    if (this.#failed && many === undefined) statement.retryAt = this.#lane.clock.now() + RETRY_MS;
    else if (this.#special || this.#batch === null || many === undefined) statement.stage = 'single';
    else {
      const { ownForOne } = this.#batch;
      const own = { source: this.#one, shape: this.#oneShape, isSingle: true, withSlots: false };
      const [hopingMany, hopingOne] = hoping;
      const more = statement.learnt({
        plan: this.#batch,
        many,
        one: ownForOne ? { ...own, rerunsAbsent: false, optimistic: false } : many,
        optimistic:
          hopingMany === undefined || hopingOne === undefined
            ? null
            : { many: hopingMany, one: ownForOne ? hopingOne : hopingMany },
        types: this.#types,
        description: this.#description === null ? null : lastingBytes(this.#description),
        columnCount: this.#columns,
      });
      this.#sources.learnt(this.#template, more);
      this.#lane.learnt(statement);
    }
    this.#leave();
    this.#lane.pool.release(connection, this.#lane.group);
  }

  missedDeadline(limitMs: number): void {
    const phase = this.#phase;
    assert('connection' in phase, 'who waits for a server has a connection');
    // Others that ask would only wait as long.
    this.#statement.retryAt = this.#lane.clock.now() + RETRY_MS;
    this.#lane.pool.missedDeadline(phase.connection, limitMs);
  }

  serverLost(): void {
    this.#leave();
  }

  #leave(): void {
    assert(this.#phase.kind !== 'ended', 'a learner ends once');
    this.#phase = { kind: 'ended' };
    this.#lane.deadlines.end(this);
    this.#statement.learningEnded();
  }
}

/** Whether the columns of `many` behind the first `hidden` are those of `one` (null: none) in type, as clients take them to be. */
function endsWith(many: Buffer, one: Buffer | null, hidden: number): boolean {
  const visible = readColumns(many).slice(hidden);
  const wanted = one === null ? [] : readColumns(one);
  return (
    visible.length === wanted.length &&
    visible.every(({ type, modifier }, index) => {
      const other = wanted[index]!;
      return type === other.type && modifier === other.modifier;
    })
  );
}

/**
 * A row where the table has triggers other than the extension's, rules, or row-level security; or where what looks like a
 * function or operator of Postgres may be a user's that does something.
 */
const specialTableSql = (table: string): string =>
  `SELECT 1 FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) ${table}::pg_catalog.regclass AND (c.relrowsecurity OR c.relhasrules
   OR EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
     WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND NOT t.tgisinternal AND n.nspname OPERATOR(pg_catalog.<>) 'pgkv')
   OR EXISTS (SELECT FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) o.oprcode
     WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND p.provolatile OPERATOR(pg_catalog.=) 'v')
   OR EXISTS (SELECT FROM pg_catalog.pg_proc u JOIN pg_catalog.pg_proc p ON p.proname OPERATOR(pg_catalog.=) u.proname
     WHERE u.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND p.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid
     AND u.provolatile OPERATOR(pg_catalog.=) 'v'
     AND u.pronamespace OPERATOR(pg_catalog.<>) ALL (ARRAY(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'pgkv'))))`;
