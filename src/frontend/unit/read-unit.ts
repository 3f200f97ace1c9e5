// Reads the message at hand into the conversation's Unit: what its statement is, with which values, and where that goes.
import { type ReadTemplate, readText, type StatementSource } from '../../backend/replies/statement-source.js';
import { refuse } from '../../base/refusals.js';
import type { ClusterView } from '../../cluster/cluster-view.js';
import { CONTROL_ROUTE, EXPLAIN_ROUTE, HOME_ROUTE, type Route, SHOW_ROUTE } from '../../route/route.js';
import type { CopyOut } from '../../sql/plan/copy-out.js';
import { NEUTRAL_TEMPLATE, type Template, UNPARSED_TEMPLATE } from '../../sql/plan/template.js';
import type { FrameReader } from '../../wire/frame-reader.js';
import { Frontend } from '../../wire/protocol.js';
import type { KvStatement, KvStatements } from './kv-statements.js';
import type { NamedStatements } from './named-statements.js';
import type { Unit } from './unit.js';

const CONTROL_KINDS: ReadonlySet<string> = new Set(['begin', 'commit', 'rollback', 'savepoint']);
/** `SHOW pgkv.<name>` is answered here. */
const OWN_SETTINGS = 'pgkv.';
/** OIDs from here on are functions of users (FirstNormalObjectId). */
const USER_OID_MIN = 16_384;
/** Which function a FunctionCall calls, and with which key, is not known here. */
const CALLED_BY_OID: Route = refuse('function_call');

/** What can be filled. */
type Filled = { -readonly [Field in keyof Unit]: Unit[Field] };

export class UnitReader {
  readonly #reader: FrameReader;
  readonly #kv: KvStatements;
  readonly #named: NamedStatements;
  readonly #templateOf: ReadTemplate;
  readonly #unit: Filled;

  constructor(reader: FrameReader, kv: KvStatements, named: NamedStatements, templateOf: ReadTemplate) {
    this.#reader = reader;
    this.#kv = kv;
    this.#named = named;
    this.#templateOf = templateOf;
    this.#unit = {
      type: 0,
      buffer: reader.buffer,
      start: 0,
      end: 0,
      template: NEUTRAL_TEMPLATE,
      text: '',
      source: null,
      statement: null,
      copied: null,
      route: HOME_ROUTE,
      view: kv.view,
      placed: false,
    };
  }

  /** What was read last. */
  get unit(): Unit {
    return this.#unit;
  }

  /** The message that the frame reader stands at: no COPY data, no Sync, no Terminate. */
  read(): Unit {
    const { type, buffer, start, end } = this.#reader;
    const unit = this.#unit;
    unit.type = type;
    unit.buffer = buffer;
    unit.start = start;
    unit.end = end;
    unit.view = this.#kv.view;
    unit.placed = this.#kv.exist;
    unit.template = NEUTRAL_TEMPLATE;
    unit.text = '';
    unit.source = unit.statement = unit.copied = null;
    unit.route = HOME_ROUTE;
    switch (type) {
      case Frontend.query:
        this.#query();
        break;
      case Frontend.functionCall:
        unit.template = UNPARSED_TEMPLATE;
        if (unit.placed && start + 9 <= end && buffer.readUInt32BE(start + 5) >= USER_OID_MIN)
          unit.route = CALLED_BY_OID;
        break;
      case Frontend.parse:
        this.#names(this.#named.parsed(buffer, start, end));
        break;
      case Frontend.bind:
        this.#bind();
        break;
      case Frontend.describe:
        this.#names(this.#named.namedSource(type, buffer, start, end));
        // No server knows of these.
        if (unit.route !== SHOW_ROUTE && unit.route !== EXPLAIN_ROUTE) unit.route = HOME_ROUTE;
        break;
    }
    return unit;
  }

  #query(): void {
    const unit = this.#unit;
    const { buffer, start, end } = unit;
    const textEnd = buffer.indexOf(0, start + 5);
    // The server says what is wrong with the message.
    if (textEnd !== end - 1) return;
    const { reading, scope } = this.#kv;
    const read = readText(this.#templateOf, buffer.subarray(start + 5, textEnd), reading, scope);
    unit.text = read.text;
    unit.template = read.template;
    const { kv, copyOut } = unit.template;
    if (kv?.kind === 'kv') unit.statement = this.#kv.simple(kv, unit.text);
    unit.route = copyOut !== null ? this.#copy(copyOut) : this.#route(unit.template, unit.statement, unit.view);
  }

  /** Where the rows are that a COPY copies. */
  #copy(copy: CopyOut): Route {
    const unit = this.#unit;
    const { reading, scope } = this.#kv;
    const { kv, kinds, explainsRoute } = this.#templateOf(copy.query, reading.standardStrings, scope);
    if (kv?.kind === 'refused') return kv;
    // Of what writes, and is lost, more has to be told than of a read.
    if (kv?.kind !== 'kv' || kv.writes || kinds.length !== 1 || explainsRoute) return refuse('copy');
    const statement = this.#kv.simple(kv, copy.query);
    const route = this.#kv.route(statement, unit.view);
    unit.copied = { copy, statement };
    if (route.kind !== 'scattered' && route.kind !== 'multi-keyed') return route;
    if (copy.format === null) return refuse('copy_options');
    const { name, asciiSafe } = statement.encoding;
    return asciiSafe ? route : refuse('copy_encoding', { encoding: name });
  }

  #bind(): void {
    const unit = this.#unit;
    const { buffer, start, end } = unit;
    const source = this.#named.namedSource(Frontend.bind, buffer, start, end);
    if (source === null) return;
    unit.source = source;
    unit.template = source.template;
    unit.text = source.text;
    const { kv } = source.template;
    if (kv?.kind === 'kv') unit.statement = this.#kv.bound(kv, source, buffer, start, end);
    // A text that pgkv cannot read, but the server that was asked could: it is refused here at the latest, never run unread.
    unit.route = this.#route(source.template, unit.statement, unit.view);
  }

  #names(source: StatementSource | null): void {
    if (source === null) return;
    const unit = this.#unit;
    unit.source = source;
    unit.template = source.template;
    unit.text = source.text;
    unit.route = this.#route(source.template, null, unit.view);
  }

  #route(template: Template, statement: KvStatement | null, view: ClusterView): Route {
    if (template.explainsRoute && this.#unit.placed) return EXPLAIN_ROUTE;
    if (template.showName?.startsWith(OWN_SETTINGS)) return SHOW_ROUTE;
    const { kv } = template;
    if (kv?.kind === 'refused') return kv;
    if (statement !== null) return this.#kv.route(statement, view);
    if (template.backendCall !== null) return { kind: 'backend', call: template.backendCall };
    return CONTROL_KINDS.has(template.kind) ? CONTROL_ROUTE : HOME_ROUTE;
  }
}
