// COPY … FROM STDIN into key-value tables, as a simple query by itself, by an Execute, or in a block that has a branch on each shard. What becomes
// of the rows is execute/copy's. While one is under way the conversation takes the client's data and nothing else; what comes of it
// behind an error is passed over, as Postgres does. Outside of blocks that of an Execute is committed by the Sync behind its data, before which
// nothing else may be run.
import { isAscii, isUtf8 } from 'node:buffer';
import { PgkvError } from '../../base/errors.js';
import { type RefusalName, refusalError, refuse } from '../../base/refusals.js';
import { type HashSlot, type ShardView, shardOf } from '../../cluster/cluster-view.js';
import { hashSlotInBuffer, hashSlotOf, UNREAD } from '../../cluster/key-hash.js';
import { KV_COLUMNS } from '../../cluster/kv-table.js';
import { REAPED_ROWS } from '../../execute/copy/copy-branch.js';
import type { SlotForm } from '../../execute/copy/copy-feed.js';
import { CopyRun } from '../../execute/copy/copy-run.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import type { BranchTarget } from '../../execute/two-phase/branch.js';
import type { CopyIn, CopyInFormat, ListedColumns } from '../../sql/plan/copy-in.js';
import { type ClientEncoding, exactText } from '../../sql/text/client-encoding.js';
import { quoteName } from '../../sql/text/identifiers.js';
import type { RunningCopy } from '../../telemetry/running-copies.js';
import { type CopyCutter, type CopyField, CopyLines, type CopyRowTaker } from '../../wire/copy-lines.js';
import { CopyTuples } from '../../wire/copy-tuples.js';
import { encodeErrorResponse } from '../../wire/error-fields.js';
import { Frame, type FrameFound } from '../../wire/frame-reader.js';
import { Backend, Frontend } from '../../wire/protocol.js';
import {
  encodeCommandComplete,
  encodeParameterDescription,
  NO_DATA,
  PARSE_COMPLETE,
} from '../../wire/server-messages.js';
import { portalIn } from '../unit/named-statements.js';
import type { Unit } from '../unit/unit.js';
import { copyOf } from './copy-of.js';
import { CopyPortal, type CopySource } from './copy-portal.js';
import { crossShard } from './cross-shard.js';
import type { ExchangeContext } from './exchange-context.js';
import type { OwnAnswers } from './own-answers.js';
import { readOwnBind } from './own-bind.js';
import type { OwnPortals } from './own-portals.js';
import { laneFor } from './spread-request.js';

/** Longer ones are refused: as much of each COPY may have to be kept. */
const ROW_BYTES_MAX = 16 * 1024 * 1024;
/** In CSV `\.` ends the data before this version. */
const NO_END_MARK_MAJOR = 18;
const HEADER_BYTES = 5;
const STATED_SLOT = /^\s*[+-]?\d{1,9}\s*$/;
/** What begins otherwise is refused by every server. */
const MAY_BE_SLOT = /^\s*[+-]?\d[\da-fxo_]*\s*$/i;

export class CopyInExchange implements Exchange<Unit> {
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  readonly #portals: OwnPortals;
  #run: CopyRun | null = null;
  #copying: RunningCopy | null = null;
  /** All data of an Execute has come; its batch decides. */
  #awaitsEnd = false;
  /** It is committed by the Sync of its batch. */
  #isHeld = false;
  /** A CopyData has come in part: the rest of it has no header, and belongs to nobody else. */
  #isMidMessage = false;

  constructor(context: ExchangeContext, answers: OwnAnswers, portals: OwnPortals) {
    this.#context = context;
    this.#answers = answers;
    this.#portals = portals;
  }

  get busy(): boolean {
    return this.#run !== null;
  }

  /** The client's data is awaited. */
  get isCopying(): boolean {
    return this.#run?.isCopying === true;
  }

  get takesData(): boolean {
    return this.#run?.isCopying === true && !this.#run.isBlocked;
  }

  /** Why the unit may not run; null: it may. @param batchHasRun it would be one transaction with what was executed before */
  obstacle({ template, view }: Omit<CopySource, 'text'>, batchHasRun: boolean): PgkvError | null {
    const { transaction, kv, session } = this.#context;
    const refused = (name: RefusalName, words?: Record<string, string>): PgkvError => refusalError(refuse(name, words));
    const { obstacle } = template.copyIn!;
    if (obstacle !== null) return refused('copy_in_option', { option: obstacle });
    if (batchHasRun || transaction.phase === 'ending') return refused('copy_in_block');
    // Where the client does not know yet that it is lost, that is what it is told.
    if (transaction.phase === 'failed' || transaction.phase === 'lost') return new PgkvError('transaction_failed');
    if (view.shards.length > 1 && (view.clusterId === null || crossShard(session).kind === 'refused')) {
      return refused('several_shards_write');
    }
    const { encoding } = kv.reading;
    return encoding.asciiSafe ? null : refused('copy_encoding', { encoding: encoding.name });
  }

  /** A Parse, Describe or Bind. */
  prepare(unit: Unit): Handling {
    const { output, batch, named, session } = this.#context;
    const { type, source, buffer, start, end } = unit;
    if (type === Frontend.describe) {
      output.send(encodeParameterDescription([]));
      output.send(NO_DATA);
      return 'taken';
    }
    if (type === Frontend.parse) {
      const name = named.parsedName(unit);
      if (name !== '' && session.statement(name) !== undefined)
        return this.#answers.refuse(unit, statementExists(name));
      if (name === '') {
        session.dropDescription('');
        session.unnamed.set(source);
      } else named.keep(name, source!);
      batch.begunElsewhere(false);
      output.send(PARSE_COMPLETE);
      return 'taken';
    }
    const name = portalIn(unit);
    const bound = readOwnBind(buffer, start, end, { count: 0, isLeast: false }, false);
    const obstacle = 'error' in bound ? bound.error : this.#portals.obstacle(name);
    if (obstacle !== null) return this.#answers.refuse(unit, obstacle);
    batch.begunElsewhere(false);
    const run = (copy: CopySource): void => this.#copy(copy, Frontend.execute);
    this.#portals.bind(name, new CopyPortal(this.#context, this.#answers, name, unit, run));
    return 'taken';
  }

  /** A Query. */
  take(unit: Unit): Handling {
    this.#copy(unit, Frontend.query);
    return 'taken';
  }

  /** @param type of the message that it answers */
  #copy({ template, view, text }: CopySource, type: number): void {
    const { services, output, session, lanes, kv, transaction } = this.#context;
    const isInBlock = transaction.inBlock;
    const copy = template.copyIn!;
    const { encoding } = kv.reading;
    const columns = copy.columns ?? KV_COLUMNS;
    const at = (name: string): number => columns.indexOf(name);
    const statesSlot = at('slot') >= 0;
    const listed = (statesSlot ? columns : ['slot', ...columns]).map(quoteName).join(', ');
    const table = `${quoteName(copy.table.schema)}.${quoteName(copy.table.name)}`;
    const target = (shard: ShardView): BranchTarget => ({
      shardName: shard.name,
      lane: laneFor(shard, this.#context),
      ...(isInBlock && transaction.isReadCommitted ? { beside: (client) => lanes.another(shard, client) } : {}),
    });
    services.counters.statements++;
    const copying = services.copies.begin(copyOf(session, copy.table, 'in'));
    this.#copying = copying;
    this.#run = new CopyRun(
      {
        targets: view.shards.map(target),
        statement: {
          template,
          text,
          copy: encoding.write(`COPY ${copy.target} (${listed}) ${copy.tail}`),
          reap: reapText(table),
          isShared: view.shards.length > 1,
          isInBlock,
        },
        slotForm: slotForm(copy.format, statesSlot, encoding),
        tableName: copy.table.name,
        place: (fields) => {
          copying.rows++;
          const slot = slotOf(fields, encoding, copy.format?.kind === 'binary');
          if (slot === null) return { slot, shard: 0 };
          return slot instanceof PgkvError ? slot : { slot, shard: shardOf(view, slot).id };
        },
        cutter: (taker) => this.#cutter(copy, columns.length, ['tenant_id', 'key', 'slot'].map(at), taker),
        watch: services.lockWatch,
        slots: services.preparedSlots,
        clusterId: view.clusterId,
        role: session.user,
        clock: services.clock,
        random: services.random,
      },
      {
        started: () => this.#started(copy, columns.length),
        unblocked: () => this.#context.resume(),
        notice: (message) => output.send(message),
        completed: (rows) => {
          output.send(encodeCommandComplete(`COPY ${rows}`));
          if (type === Frontend.query) this.#answers.ready();
          this.#end();
        },
        failed: (error) => {
          this.#answers.error(type, error);
          this.#end();
        },
      },
    );
    this.#isHeld = type === Frontend.execute && !isInBlock;
    this.#run.start();
  }

  #started({ format }: CopyIn, columns: number): void {
    // Servers know options that pgkv does not.
    if (format === null) {
      this.#run!.refuse(refusalError(refuse('copy_in_option', { option: 'an option that is given' })));
      return;
    }
    this.#context.output.send(copyInResponse(format.kind === 'binary' ? 1 : 0, columns));
    this.#context.output.flush();
    this.#context.resume();
  }

  #cutter({ format, columns }: CopyIn, count: number, at: readonly number[], taker: CopyRowTaker): CopyCutter {
    const names: readonly string[] = columns ?? KV_COLUMNS;
    if (format === null || format.kind === 'binary') {
      return new CopyTuples(
        count,
        at.map((index) => ({ index, forceNotNull: false, forceNull: false })),
        ROW_BYTES_MAX,
        taker,
      );
    }
    const has = (listed: ListedColumns, index: number): boolean =>
      listed === 'all' || (index >= 0 && listed.includes(names[index]!));
    const fields = at.map(
      (index): CopyField => ({
        index,
        forceNotNull: has(format.forceNotNull, index),
        forceNull: has(format.forceNull, index),
      }),
    );
    const { encoding } = this.#context.kv.reading;
    const lines = {
      kind: format.kind,
      delimiter: format.delimiter.charCodeAt(0),
      quote: format.quote.charCodeAt(0),
      escape: format.escape.charCodeAt(0),
      none: encoding.write(format.none),
      hasHeader: format.header,
      hasEndMark: this.#serverMajor < NO_END_MARK_MAJOR,
    };
    return new CopyLines(lines, fields, ROW_BYTES_MAX, taker);
  }

  get #serverMajor(): number {
    return Number.parseInt(this.#context.session.told.get('server_version') ?? '', 10);
  }

  /** Whether what was found is more of a CopyData whose first part was taken here; it is done with then. */
  takesRest(found: FrameFound): boolean {
    if (!this.#isMidMessage) return false;
    this.#isMidMessage = found === Frame.more;
    return true;
  }

  /** A message while the data is awaited, as it was found. @throws PgkvError 08P01 for one that does not belong there */
  message(found: FrameFound): Handling {
    const run = this.#run!;
    const { type, buffer, start, end } = this.#context.reader;
    if (this.#awaitsEnd) return this.#behindData(type, run);
    switch (type) {
      case Frontend.copyData: {
        const isFirst = found === Frame.whole || found === Frame.first;
        this.#isMidMessage = found === Frame.first || found === Frame.more;
        const data = buffer.subarray(isFirst ? start + HEADER_BYTES : start, end);
        this.#copying!.bytes += data.length;
        run.push(data);
        return 'taken';
      }
      case Frontend.copyDone:
        if (this.#isHeld) this.#awaitsEnd = true;
        else run.finish();
        return 'taken';
      case Frontend.copyFail:
        run.clientFails(buffer.toString('utf8', start + HEADER_BYTES, end - 1));
        return 'taken';
      case Frontend.flush:
      case Frontend.sync:
        // Of a client that did not know that it is in a copy.
        return 'taken';
      default:
        throw new PgkvError('protocol_violation', {
          message: `unexpected message type 0x${type.toString(16).toUpperCase()} during COPY from stdin`,
        });
    }
  }

  /** Behind CopyDone: what would be one transaction with it may not be run. */
  #behindData(type: number, run: CopyRun): Handling {
    switch (type) {
      case Frontend.sync:
        // The Sync is answered behind that.
        run.finish();
        return 'wait';
      case Frontend.flush:
        // Who asks for the outcome now has it now.
        run.finish();
        return 'taken';
      case Frontend.copyData:
      case Frontend.copyDone:
      case Frontend.copyFail:
        return 'taken';
      default:
        run.refuse(refusalError(refuse('copy_in_block')));
        return 'taken';
    }
  }

  cancel(): void {
    this.#run?.cancel();
  }

  drained(): void {
    // Its answer is one tag.
  }

  lost(): void {
    // Its branches have lanes of their own.
  }

  abandon(): void {
    this.#run?.abandon();
    this.#forget();
  }

  #forget(): void {
    this.#run = null;
    this.#awaitsEnd = this.#isHeld = false;
    this.#context.services.copies.end(this.#copying);
    this.#copying = null;
  }

  #end(): void {
    this.#forget();
    this.#context.output.flush();
    this.#context.resume();
  }
}

/** In Postgres's words. */
const statementExists = (name: string): Buffer =>
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '42P05', M: `prepared statement "${name}" already exists` });

/** One transaction, that waits for no lock for long: what it misses is missed. */
const reapText = (table: string): string =>
  `SELECT pg_catalog.set_config('lock_timeout', '500ms', true); DELETE FROM ${table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM ${table} WHERE ttl <= pg_catalog.statement_timestamp() ` +
  `LIMIT ${REAPED_ROWS})) AND ttl <= pg_catalog.statement_timestamp()`;

function slotForm(format: CopyInFormat | null, statesSlot: boolean, encoding: ClientEncoding): SlotForm {
  if (statesSlot || format === null) return { kind: 'none' };
  if (format.kind === 'binary') return { kind: 'binary' };
  return { kind: 'text', delimiter: format.delimiter.charCodeAt(0), none: encoding.write(format.none) };
}

function copyInResponse(format: 0 | 1, columns: number): Buffer {
  const message = Buffer.alloc(HEADER_BYTES + 3 + 2 * columns);
  message[0] = Backend.copyInResponse;
  message.writeInt32BE(message.length - 1, 1);
  message[HEADER_BYTES] = format;
  message.writeInt16BE(columns, HEADER_BYTES + 1);
  for (let column = 0; column < columns; column++) message.writeInt16BE(format, HEADER_BYTES + 3 + 2 * column);
  return message;
}

/** Null: a row without tenant or key, or with bytes in them that are no text, which every server refuses. */
function slotOf(
  [tenant, key, stated]: readonly (Buffer | null)[],
  encoding: ClientEncoding,
  isBinary: boolean,
): HashSlot | PgkvError | null {
  if (tenant == null || key == null) return null;
  const slot = encoding.isUtf8 ? slotOfUtf8(tenant, key) : slotOfOther(tenant, key, encoding);
  if (slot === null || slot instanceof PgkvError || stated == null) return slot;
  const text = isBinary ? '' : stated.toString('latin1');
  if (isBinary ? stated.length !== 4 : !MAY_BE_SLOT.test(text)) return slot;
  const isReadable = isBinary || STATED_SLOT.test(text);
  if (!isReadable) return refusalError(refuse('slot_unreadable', { why: 'it is no plain integer' }));
  const said = isBinary ? stated.readInt32BE(0) : Number(text);
  return said === slot ? slot : refusalError(refuse('slot_wrong', { stated: said, slot }));
}

function slotOfUtf8(tenant: Buffer, key: Buffer): HashSlot | null {
  if (isAscii(tenant)) {
    const slot = hashSlotInBuffer(key, 0, 0, 0, key.length, tenant);
    if (slot !== UNREAD) return slot;
  }
  return isUtf8(tenant) && isUtf8(key) ? hashSlotOf(tenant.toString('utf8'), key.toString('utf8')) : null;
}

function slotOfOther(tenant: Buffer, key: Buffer, encoding: ClientEncoding): HashSlot | PgkvError {
  const [tenantText, keyText] = [exactText(encoding, tenant), exactText(encoding, key)];
  if (tenantText !== null && keyText !== null) return hashSlotOf(tenantText, keyText);
  return refusalError(refuse('key_unreadable', { why: `pgkv does not know its characters in ${encoding.name}` }));
}
