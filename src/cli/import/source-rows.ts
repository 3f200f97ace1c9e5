// The source's rows from a position on, as one COPY that is read no faster than the rows are taken. Invariant: in memory are at most
// a chunk that waits and one that is being filled, and what one read of the socket has brought.
import { CommandFailure } from '../command-failure.js';
import { ConnectionLost, type SqlSession } from '../sql/sql-session.js';
import { fieldText, LineCutter } from './copy-text.js';

/** A chunk has so many bytes at most, and the row that goes beyond. */
const CHUNK_BYTES = 4 * 1024 * 1024;

export interface SourceRow {
  readonly tenant: string | null;
  readonly key: string | null;
  /** Tenant, key, value and ttl as the source writes them. */
  readonly fields: readonly [string, string, string, string];
  /** When it was read. */
  readonly hasExpired: boolean;
  /** The key that the source is read by. */
  readonly position: readonly string[];
}

export const rowKey = (row: SourceRow): string => `${row.fields[0]}\t${row.fields[1]}`;

export function sourceRow(line: string): SourceRow {
  const [tenant, key, value, ttl, hasExpired, ...position] = line.split('\t') as [
    string,
    string,
    string,
    string,
    string,
  ];
  return {
    tenant: fieldText(tenant),
    key: fieldText(key),
    fields: [tenant, key, value, ttl],
    hasExpired: hasExpired === 't',
    position: (position as string[]).map((field) => fieldText(field) ?? ''),
  };
}

export class SourceRows {
  #chunk: SourceRow[] = [];
  #bytes = 0;
  readonly #ready: SourceRow[][] = [];
  #ended: { readonly error?: unknown } | null = null;
  #wake: () => void = () => undefined;
  #roomMade: () => void = () => undefined;
  #room: Promise<void> | undefined;

  readonly #rowsMax: number;

  /** @param query of COPY … TO STDOUT */
  constructor(session: SqlSession, query: string, rowsMax: number) {
    this.#rowsMax = rowsMax;
    const cutter = new LineCutter((line) => this.#take(line));
    let failure: unknown;
    const end = (error: unknown): void => {
      if (error === undefined && this.#chunk.length > 0) this.#seal();
      this.#ended = { error };
      this.#wake();
    };
    session
      .run(query, {
        columns: () => undefined,
        row: () => undefined,
        complete: () => undefined,
        error: (error) => {
          failure = new CommandFailure(1, `the source: ${error.message}`, error.detail ?? error.hint, error);
        },
        copyOut: (bytes) => {
          cutter.push(bytes);
          return this.#room;
        },
        copyIn: async (target) => target.fail('COPY is not expected here'),
      })
      .then(
        () => end(failure),
        (error: unknown) => end(error instanceof ConnectionLost ? sourceLost(error) : error),
      );
  }

  /** The next rows in order; null: there are no more. @throws what the source says */
  async next(): Promise<SourceRow[] | null> {
    for (;;) {
      const chunk = this.#ready.shift();
      if (chunk !== undefined) {
        if (this.#ready.length === 0) this.#makeRoom();
        return chunk;
      }
      if (this.#ended !== null) {
        if (this.#ended.error !== undefined) throw this.#ended.error;
        return null;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #take(line: string): void {
    this.#chunk.push(sourceRow(line));
    this.#bytes += line.length;
    if (this.#chunk.length >= this.#rowsMax || this.#bytes >= CHUNK_BYTES) this.#seal();
  }

  #seal(): void {
    this.#ready.push(this.#chunk);
    this.#chunk = [];
    this.#bytes = 0;
    this.#room ??= new Promise((resolve) => {
      this.#roomMade = resolve;
    });
    this.#wake();
  }

  #makeRoom(): void {
    this.#room = undefined;
    this.#roomMade();
  }
}

function sourceLost({ fatal }: ConnectionLost): CommandFailure {
  const why = fatal === undefined ? '' : `: ${fatal.message}`;
  return new CommandFailure(2, `the connection to the source was lost${why}`, 'Run the same command again to go on.');
}
