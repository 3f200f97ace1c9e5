// Backend messages as lines of text that can be compared. A line holds everything the message holds; only what
// cannot be equal on two servers is replaced: process and transaction ids, cancel keys, OIDs and temporary schemas.
import type { BackendMessage, ColumnDescription, ErrorFields } from '../support/backend-message.js';
import type { Exchange } from '../support/wire-client.js';

export interface TranscriptEntry {
  readonly step: string;
  readonly lines: readonly string[];
}

export type Transcript = readonly TranscriptEntry[];

export function printTranscript(transcript: Transcript): string {
  return transcript.map(({ step, lines }) => [`  ${step}`, ...lines].join('\n    ')).join('\n');
}

const FIRST_USER_OID = 16384;
/** oid, regproc, regclass, regtype, regrole, regnamespace: in binary all of them are OIDs. */
const OID_TYPES = new Set([26, 24, 2205, 2206, 4096, 4089]);

/** Renders the messages of one run of one scenario. OIDs and pids are numbered in order of appearance. */
export class TranscriptWriter {
  readonly #entries: TranscriptEntry[] = [];
  readonly #oids = new Map<number, string>();
  readonly #pids = new Map<number, string>();
  /** The columns of the DataRows that follow, by session. */
  readonly #columns = new Map<string, readonly ColumnDescription[]>();
  readonly #relations: ReadonlyMap<number, string>;

  /** @param relations names for OIDs that differ between servers though they mean the same */
  constructor(relations: ReadonlyMap<number, string> = new Map()) {
    this.#relations = relations;
  }

  get transcript(): Transcript {
    return this.#entries;
  }

  /** Makes the pid of a session known, so that it is told from those of others. */
  knowPid(pid: number | undefined, session: string): void {
    if (pid !== undefined) this.#pids.set(pid, `pid of ${session}`);
  }

  /** @param canonical what is not compared as it stands: see answer-forms.ts */
  write(step: string, session: string, exchange: Exchange, canonical: Canonical = asItIs): void {
    const lines = sortParameters(exchange.messages.map((message) => this.#line(message, session)));
    if (exchange.outcome !== 'reached') lines.push(`(${exchange.outcome})`);
    this.#entries.push({ step, lines: canonical(lines) });
  }

  note(step: string, line: string): void {
    this.#entries.push({ step, lines: [line] });
  }

  #line(message: BackendMessage, session: string): string {
    switch (message.type) {
      case 'RowDescription':
        this.#columns.set(session, message.columns);
        return `RowDescription ${message.columns.map((column) => this.#column(column)).join(', ')}`;
      case 'ParameterDescription':
        return `ParameterDescription ${message.typeOids.map((oid) => this.#oid(oid)).join(' ')}`;
      case 'DataRow':
        return `DataRow ${this.#row(message.values, this.#columns.get(session) ?? [])}`;
      case 'ErrorResponse':
      case 'NoticeResponse':
        return `${message.type} ${this.#fields(message.fields)}`;
      case 'BackendKeyData':
        this.knowPid(message.pid, session);
        return `BackendKeyData key of ${message.key.length} bytes`;
      case 'NotificationResponse':
        return `NotificationResponse ${this.#pid(message.pid)} ${quote(message.channel)} ${quote(message.payload)}`;
      case 'ParameterStatus':
        return `ParameterStatus ${message.name}=${quote(message.value)}`;
      case 'CommandComplete':
        return `CommandComplete ${message.tag}`;
      case 'ReadyForQuery':
        return `ReadyForQuery ${message.status}`;
      case 'Authentication':
        return `Authentication ${message.code} ${renderBytes(message.data)}`;
      case 'NegotiateProtocolVersion':
        return `NegotiateProtocolVersion 3.${message.minor} ${JSON.stringify(message.unrecognized)}`;
      case 'CopyData':
        return `CopyData ${renderBytes(message.data)}`;
      case 'CopyInResponse':
      case 'CopyOutResponse':
      case 'CopyBothResponse':
        return `${message.type} format ${message.format} columns ${message.columnFormats.join(' ')}`;
      case 'FunctionCallResponse':
        return `FunctionCallResponse ${message.value === null ? 'null' : renderBytes(message.value)}`;
      case 'Malformed':
        return `Malformed ${quote(message.tag)} ${renderBytes(message.body)}`;
      default:
        return message.type;
    }
  }

  #column(column: ColumnDescription): string {
    const type = `type ${this.#oid(column.typeOid)} size ${column.typeSize} mod ${column.typeModifier}`;
    const origin = column.tableOid === 0 ? '' : ` from ${this.#oid(column.tableOid)}.${column.columnNumber}`;
    return `${quote(column.name)} ${type} format ${column.format}${origin}`;
  }

  #row(values: readonly (Buffer | null)[], columns: readonly ColumnDescription[]): string {
    return values
      .map((value, index) => {
        if (value === null) return 'null';
        const column = columns[index];
        const number = column && numberIn(value, column);
        if (number !== undefined && column && OID_TYPES.has(column.typeOid)) return this.#oid(number);
        if (number !== undefined && column?.name.endsWith('pid')) return this.#pid(number);
        return renderBytes(value, (text) => this.#text(text));
      })
      .join(' ');
  }

  #fields(fields: ErrorFields): string {
    return Object.entries(fields)
      .map(([code, text]) => `${code}=${quote(this.#text(text))}`)
      .join(' ');
  }

  #text(text: string): string {
    return text
      .replace(/\b(process|pid) (\d+)/gi, (_, word: string, pid: string) => `${word} ${this.#pid(Number(pid))}`)
      .replace(/\btransaction \d+/g, 'transaction n')
      .replace(/\boid (\d{5,})/gi, (_, oid: string) => `OID ${this.#oid(Number(oid))}`)
      .replace(/\bpg_(toast_)?temp_\d+/g, 'pg_$1temp_n');
  }

  #oid(oid: number): string {
    if (oid < FIRST_USER_OID) return String(oid);
    const name = this.#relations.get(oid) ?? this.#oids.get(oid) ?? `user#${this.#oids.size + 1}`;
    this.#oids.set(oid, name);
    return name;
  }

  #pid(pid: number): string {
    return this.#pids.get(pid) ?? 'unknown pid';
  }
}

type Canonical = (lines: readonly string[]) => readonly string[];

const asItIs: Canonical = (lines) => lines;

/** Sorts ParameterStatus that follow each other: Postgres reports in no promised order, by its own history of changes. */
function sortParameters(lines: readonly string[]): string[] {
  const sorted: string[] = [];
  let run: string[] = [];
  for (const line of [...lines, '']) {
    if (line.startsWith('ParameterStatus ')) run.push(line);
    else {
      sorted.push(...run.sort(), line);
      run = [];
    }
  }
  return sorted.slice(0, -1);
}

function numberIn(value: Buffer, column: ColumnDescription): number | undefined {
  if (column.format === 1) return value.length === 4 ? value.readUInt32BE() : undefined;
  const text = value.toString('latin1');
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

/** UTF-8 text quoted (after `replace`), anything else in hex. */
function renderBytes(bytes: Buffer, replace: (text: string) => string = (text) => text): string {
  const text = bytes.toString('utf8');
  const isText = !/[^\P{Cc}\t\n\r]/u.test(text) && Buffer.from(text, 'utf8').equals(bytes);
  return isText ? quote(replace(text)) : `hex:${bytes.toString('hex')}`;
}

function quote(text: string): string {
  return JSON.stringify(text);
}
