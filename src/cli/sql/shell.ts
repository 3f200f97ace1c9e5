// Runs texts on a session and shows their answers as psql does: results, tags, errors, notices, notifications, COPY
// data and timing. Knows no command line and no prompt.
import type { Writable } from 'node:stream';
import type { DatabaseError, Field } from 'pg-protocol/dist/messages';
import { messageOf } from '../../base/errors.js';
import { drained } from '../backpressure.js';
import { INTERRUPTED, type LineSource } from './line-source.js';
import { formatResult, type Result, type ResultColumn, type ResultFormat, tagAsJson } from './result-format.js';
import { formatServerMessage, type ServerMessage, serverMessageAsJson } from './server-message.js';
import { type AnswerSink, ConnectionLost, type CopyTarget, type Row, type SqlSession } from './sql-session.js';

export interface ShellSettings {
  format: ResultFormat;
  expanded: boolean;
  timing: boolean;
  verbosity: 'default' | 'verbose';
  onErrorStop: boolean;
}

export interface ShellSetup {
  /** Opens a session; called again when a person's connection was lost. */
  readonly open: () => Promise<SqlSession>;
  readonly source: LineSource;
  readonly settings: ShellSettings;
  readonly output: Writable;
  readonly errors: Writable;
}

/** Output is collected to this size before it goes out. */
const WRITE_BYTES = 65_536;
const COPY_CHUNK_BYTES = 65_536;

export class Shell {
  readonly settings: ShellSettings;
  readonly output: Writable;
  readonly errors: Writable;
  session: SqlSession;
  /** Where statements come from now; messages name its line, COPY FROM STDIN reads it. */
  source: LineSource;
  /** Ctrl-C was pressed: what reads statements must stop. */
  interrupted = false;
  awaitsCopyData = false;
  readonly #open: () => Promise<SqlSession>;
  #busy = false;
  #cancelling: Promise<void> = Promise.resolve();

  private constructor(setup: ShellSetup, session: SqlSession) {
    this.#open = setup.open;
    this.source = setup.source;
    this.settings = setup.settings;
    this.output = setup.output;
    this.errors = setup.errors;
    this.session = session;
    session.onNotice = (notice) => this.showServerMessage(notice, undefined);
  }

  /** @throws CommandFailure with exit code 2 where there is no connection */
  static async start(setup: ShellSetup): Promise<Shell> {
    return new Shell(setup, await setup.open());
  }

  /** Replaces a lost session, telling so. @throws CommandFailure */
  async reconnect(): Promise<void> {
    this.errors.write('The connection to the server was lost. Attempting reset: ');
    try {
      this.session = await this.#open();
    } catch (error) {
      this.errors.write('Failed.\n');
      throw error;
    }
    this.session.onNotice = (notice) => this.showServerMessage(notice, undefined);
    this.errors.write('Succeeded.\n');
  }

  /** Runs `text` and shows what it answers. True if no error came. @throws ConnectionLost, shown already */
  async run(text: string): Promise<boolean> {
    const started = performance.now();
    const answer = new ShownAnswer(this, text);
    let succeeded: boolean;
    this.#busy = true;
    try {
      succeeded = await this.session.run(text, answer);
    } catch (error) {
      if (error instanceof ConnectionLost) this.#showLoss(error);
      throw error;
    } finally {
      this.#busy = false;
      await this.#cancelling; // else a late request would hit the next statement
    }
    await answer.shown();
    if (this.settings.timing) await this.print([`Time: ${timeText(performance.now() - started)}`]);
    await this.showNotifications();
    return succeeded;
  }

  /** Ctrl-C: cancels what runs. False if nothing does, or if what runs waits for COPY data of ours. */
  interrupt(): boolean {
    if (!this.#busy || this.awaitsCopyData) return false;
    this.#cancelling = this.session.cancel().then(
      () => void this.errors.write('Cancel request sent\n'),
      (error: unknown) => void this.errors.write(`Could not send cancel request: ${messageOf(error)}\n`),
    );
    return true;
  }

  async printResult(result: Result): Promise<void> {
    await this.print(formatResult(result, this.settings.format, this.settings.expanded && !result.neverExpanded));
  }

  /** Writes lines, waiting when the reader is slower. */
  async print(lines: Iterable<string>): Promise<void> {
    let text = '';
    for (const line of lines) {
      text += `${line}\n`;
      if (text.length < WRITE_BYTES) continue;
      await this.write(text);
      text = '';
    }
    if (text !== '') await this.write(text);
  }

  async write(data: string | Buffer): Promise<void> {
    if (!this.output.write(data)) await drained(this.output);
  }

  /** A message of the shell itself. */
  complain(message: string): void {
    this.errors.write(`${this.#place('error: ')}${message}\n`);
  }

  showServerMessage(message: ServerMessage, query: string | undefined): void {
    if (this.settings.format === 'json') {
      this.errors.write(`${serverMessageAsJson(message)}\n`);
      return;
    }
    const style = { verbosity: this.settings.verbosity, query };
    this.errors.write(this.#place('') + formatServerMessage(message, style));
  }

  async showNotifications(): Promise<void> {
    const { notifications } = this.session;
    this.session.notifications = [];
    await this.print(
      notifications.map(({ channel, payload, processId }) => {
        const withPayload = payload === '' ? '' : ` with payload "${payload}"`;
        return `Asynchronous notification "${channel}"${withPayload} received from server process with PID ${processId}.`;
      }),
    );
  }

  #showLoss(loss: ConnectionLost): void {
    if (loss.fatal) this.showServerMessage(loss.fatal, undefined);
    this.errors.write(
      `${this.#place('')}${loss.message}\n\tThis probably means the server terminated abnormally\n\tbefore or while processing the request.\n`,
    );
  }

  /** `pgkv:file:line: ` for text from a file. */
  #place(severity: string): string {
    const { name, lineNumber } = this.source;
    return name === undefined ? '' : `pgkv:${name}:${lineNumber}: ${severity}`;
  }
}

/** psql's form: beyond a second also as hours, minutes, seconds. */
export function timeText(milliseconds: number): string {
  const plain = `${milliseconds.toFixed(3)} ms`;
  if (milliseconds < 1000) return plain;
  const seconds = milliseconds / 1000;
  const minutes = Math.floor(seconds / 60);
  const rest = (seconds - minutes * 60).toFixed(3).padStart(6, '0');
  const hours = Math.floor(minutes / 60);
  if (hours === 0) return `${plain} (${String(minutes).padStart(2, '0')}:${rest})`;
  const days = Math.floor(hours / 24);
  const clock = [hours % 24, minutes % 60].map((part) => String(part).padStart(2, '0')).join(':');
  return `${plain} (${days > 0 ? `${days} d ` : ''}${clock}:${rest})`;
}

/** Shows the answer to one text as it arrives; results print in order, each once it is complete. */
class ShownAnswer implements AnswerSink {
  readonly #shell: Shell;
  readonly #text: string;
  #columns: readonly ResultColumn[] | undefined;
  #rows: Row[] = [];
  #copiedOut = false;
  #copyChunks: Buffer[] = [];
  #copyBytes = 0;
  #printing: Promise<void> = Promise.resolve();

  constructor(shell: Shell, text: string) {
    this.#shell = shell;
    this.#text = text;
  }

  columns(fields: readonly Field[]): void {
    this.#columns = fields.map(({ name, dataTypeID }) => ({ name, typeOid: dataTypeID }));
  }

  row(values: Row): void {
    this.#rows.push(values);
  }

  complete(tag: string): void {
    void this.#writeCopied();
    const columns = this.#columns;
    const rows = this.#rows;
    const { format } = this.#shell.settings;
    if (columns) this.#then(() => this.#shell.printResult({ tag, columns, rows }));
    // The data of COPY TO STDOUT stand alone, so that they can be piped on.
    const withTag = columns ? /^(INSERT|UPDATE|DELETE|MERGE)\b/.test(tag) && format !== 'json' : !this.#copiedOut;
    if (withTag) this.#then(() => this.#shell.print([format === 'json' ? tagAsJson(tag) : tag]));
    this.#columns = undefined;
    this.#rows = [];
    this.#copiedOut = false;
  }

  error(error: DatabaseError): void {
    void this.#writeCopied();
    this.#columns = undefined;
    this.#rows = [];
    this.#then(async () => this.#shell.showServerMessage(error, this.#text));
  }

  copyOut(chunk: Buffer): Promise<void> | undefined {
    this.#copiedOut = true;
    this.#copyChunks.push(Buffer.from(chunk)); // a view into the driver's buffer, which the next read overwrites
    this.#copyBytes += chunk.length;
    return this.#copyBytes < WRITE_BYTES ? undefined : this.#writeCopied();
  }

  #writeCopied(): Promise<void> {
    if (this.#copyBytes === 0) return this.#printing;
    const data = Buffer.concat(this.#copyChunks);
    this.#copyChunks = [];
    this.#copyBytes = 0;
    return this.#then(() => this.#shell.write(data));
  }

  async copyIn(target: CopyTarget): Promise<void> {
    await this.shown();
    const { source } = this.#shell;
    if (source.interactive) await this.#shell.print(COPY_ANNOUNCEMENT);
    this.#shell.awaitsCopyData = true;
    try {
      await (target.binary ? sendRest(source, target) : sendLines(source, target));
    } finally {
      this.#shell.awaitsCopyData = false;
    }
  }

  /** Resolves when all that came was written. */
  shown(): Promise<void> {
    return this.#printing;
  }

  #then(step: () => Promise<void>): Promise<void> {
    this.#printing = this.#printing.then(step);
    return this.#printing;
  }
}

async function sendRest(source: LineSource, target: CopyTarget): Promise<void> {
  for await (const chunk of source.rest()) await target.send(chunk);
  target.end();
}

/** Data lines up to `\.` or the end of the source. */
async function sendLines(source: LineSource, target: CopyTarget): Promise<void> {
  let pending: Buffer[] = [];
  let bytes = 0;
  for (;;) {
    const line = await source.nextLine('>> ');
    if (line === INTERRUPTED) {
      target.fail('canceled by user');
      return;
    }
    if (line === undefined || /^\\\.\r?$/.test(line.toString('latin1', 0, 4))) break;
    pending.push(line, LINE_END);
    bytes += line.length + 1;
    if (bytes < COPY_CHUNK_BYTES) continue;
    await target.send(Buffer.concat(pending));
    pending = [];
    bytes = 0;
  }
  await target.send(Buffer.concat(pending));
  target.end();
}

const COPY_ANNOUNCEMENT = [
  'Enter data to be copied followed by a newline.',
  'End with a backslash and a period on a line by itself, or an EOF signal.',
];
const LINE_END = Buffer.from('\n');
