// Reads over several shards on behalf of a conversation, by simple query or through a portal of the extended protocol
// that no server knows. One at a time; while one is under way the conversation takes no messages. Also EXPLAIN (ROUTE).
// What is asked of the shards is put together in shard-read-request.ts.
import type { RewrittenText } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import type { ShardView } from '../../cluster/cluster-view.js';
import type { ScatterClient, ScatterRequest } from '../../execute/scatter/scatter-request.js';
import { ScatterRun } from '../../execute/scatter/scatter-run.js';
import type { Template } from '../../sql/plan/template.js';
import { stringEnd } from '../../wire/client-messages.js';
import { encodeErrorResponse } from '../../wire/error-fields.js';
import { Frontend } from '../../wire/protocol.js';
import {
  BIND_COMPLETE,
  CLOSE_COMPLETE,
  encodeCommandComplete,
  encodeTextRow,
  encodeTextRowDescription,
  PORTAL_SUSPENDED,
} from '../../wire/server-messages.js';
import type { KvStatement } from '../unit/kv-statements.js';
import { explainRoute } from './explain-route.js';
import {
  boundParts,
  NOTHING_BOUND,
  placedError,
  type ReadRequestServices,
  shardReadRequest,
  shardTextOf,
} from './scatter-request-of.js';

/** What reads need of the conversation. */
export interface ShardReadsHost {
  send(bytes: Buffer): void;
  flush(): void;
  clogged(): boolean;
  /** Messages are taken again. */
  resume(): void;
  /** An error was sent: a transaction block that is open fails. */
  failed(): void;
  /** The rest of the batch is to be skipped. */
  skip(): void;
  /** ReadyForQuery as the conversation stands. */
  ready(): Buffer;
}

export interface ShardReadsServices extends ReadRequestServices {
  /** Statements are merged. */
  readonly merges: boolean;
}

const PORTALS_MAX = 100;
const PORTAL = 0x50;

interface Portal {
  readonly request: ScatterRequest;
  readonly rewritten: RewrittenText;
  /** RowDescription, once it is known. */
  description: Buffer | null;
  run: ScatterRun | null;
  /** The client asked for its description and has not had it yet. */
  describe: boolean;
  /** All rows were sent. */
  ended: boolean;
}

export class ShardReads {
  /** The conversation waits for an answer. */
  busy = false;
  readonly #host: ShardReadsHost;
  readonly #services: ShardReadsServices;
  #run: ScatterRun | null = null;
  readonly #portals = new Map<string, Portal>();

  constructor(host: ShardReadsHost, services: ShardReadsServices) {
    this.#host = host;
    this.#services = services;
  }

  /** Answers a simple query. */
  query(statement: KvStatement, shards: readonly ShardView[]): void {
    const request = shardReadRequest(statement, shards, NOTHING_BOUND, this.#services);
    if (request instanceof PgkvError) throw request;
    const host = this.#host;
    const rewritten = shardTextOf(statement);
    this.#begin(request, {
      described: (description) => host.send(description),
      suspended: () => undefined,
      completed: (tag) => {
        host.send(encodeCommandComplete(tag));
        host.send(host.ready());
      },
      failed: (error) => {
        host.send(placedError(error, rewritten));
        host.failed();
        host.send(host.ready());
      },
    }).start();
  }

  /** Makes a portal of the Bind message `buffer[start, end)`. */
  bind(
    statement: KvStatement,
    shards: readonly ShardView[],
    buffer: Buffer,
    start: number,
    end: number,
  ): PgkvError | Buffer | null {
    const name = buffer.toString('latin1', start + 5, stringEnd(buffer, start + 5, end));
    const parts = boundParts(buffer, start, end);
    if (parts === null) return new PgkvError('protocol_violation', { message: 'invalid Bind message' });
    if (name !== '' && this.#portals.has(name)) return cursorExists(name);
    if (this.#portals.size >= PORTALS_MAX) {
      return new PgkvError('limit_exceeded', { detail: `${PORTALS_MAX} portals over several shards are open` });
    }
    const request = shardReadRequest(statement, shards, parts, this.#services);
    if (request instanceof PgkvError) return request;
    this.#close(name);
    const rewritten = shardTextOf(statement);
    this.#portals.set(name, { request, rewritten, description: null, run: null, describe: false, ended: false });
    this.#host.send(BIND_COMPLETE);
    return null;
  }

  /** Takes a message that is about a portal of these. False: it is not. */
  take(type: number, buffer: Buffer, start: number, end: number): boolean {
    if (this.#portals.size === 0) return false;
    if (type === Frontend.bind) {
      // The unnamed portal, and a name in use, are other ones from now on; the rest is the server's matter.
      const nameEnd = stringEnd(buffer, start + 5, end);
      if (nameEnd === start + 5) this.#close('');
      return false;
    }
    const nameStart = type === Frontend.execute ? start + 5 : start + 6;
    if (type !== Frontend.execute && buffer[start + 5] !== PORTAL) return false;
    const nameEnd = stringEnd(buffer, nameStart, end);
    if (nameEnd < 0) return false;
    const name = buffer.toString('latin1', nameStart, nameEnd);
    const portal = this.#portals.get(name);
    if (portal === undefined) return false;
    switch (type) {
      case Frontend.describe:
        this.#describe(portal, buffer[end] === Frontend.execute);
        return true;
      case Frontend.execute:
        this.#execute(portal, nameEnd + 5 <= end ? buffer.readInt32BE(nameEnd + 1) : 0);
        return true;
      case Frontend.close:
        this.#close(name);
        this.#host.send(CLOSE_COMPLETE);
        return true;
      default:
        return false;
    }
  }

  /** A Sync ends portals unless they stand in a transaction block. */
  sync(inBlock: boolean): void {
    if (inBlock || this.#portals.size === 0) return;
    for (const name of [...this.#portals.keys()]) this.#close(name);
  }

  /** CancelRequest: whether there was something to cancel. */
  cancel(): boolean {
    if (this.#run === null) return false;
    this.#run.cancel();
    return true;
  }

  clientDrained(): void {
    this.#run?.resume();
  }

  /** The client is gone. */
  abandon(): void {
    this.#run?.abandon();
    this.#run = null;
    for (const name of [...this.#portals.keys()]) this.#close(name);
  }

  /** Answers EXPLAIN (ROUTE), which runs nothing. `statement` null: no key-value table is concerned, or it is refused. */
  explainRoute(template: Template, statement: KvStatement | null): void {
    const host = this.#host;
    const { kv } = this.#services;
    const lines = explainRoute(
      template,
      statement,
      statement === null ? null : kv.route(statement),
      kv.view,
      this.#services.merges,
    );
    host.send(encodeTextRowDescription('QUERY PLAN'));
    for (const line of lines) host.send(encodeTextRow(line));
    host.send(encodeCommandComplete('EXPLAIN'));
    host.send(host.ready());
  }

  #describe(portal: Portal, executeFollows: boolean): void {
    if (portal.description !== null) {
      this.#host.send(portal.description);
      return;
    }
    portal.describe = true;
    // Nearly always Execute is next, and brings the description along.
    if (executeFollows) return;
    const host = this.#host;
    const run = this.#begin(portal.request, {
      described: (description) => {
        host.send(description);
        portal.description = description;
        portal.describe = false;
        run.abandon();
        this.#end();
      },
      suspended: () => undefined,
      completed: () => undefined,
      failed: (error) => this.#failed(placedError(error, portal.rewritten)),
    });
    run.start();
  }

  #execute(portal: Portal, rowsMax: number): void {
    const host = this.#host;
    if (portal.ended) {
      // As Postgres answers a portal that has been run to its end.
      host.send(encodeCommandComplete('SELECT 0'));
      return;
    }
    if (portal.run !== null) {
      this.#run = portal.run;
      this.busy = true;
      portal.run.continue(rowsMax);
      return;
    }
    portal.run = this.#begin(portal.request, {
      described: (description) => {
        if (portal.describe) host.send(description);
        portal.description = description;
        portal.describe = false;
      },
      suspended: () => {
        host.send(PORTAL_SUSPENDED);
        this.#end();
      },
      completed: (tag) => {
        portal.ended = true;
        host.send(encodeCommandComplete(tag));
      },
      failed: (error) => this.#failed(placedError(error, portal.rewritten)),
    });
    portal.run.start(rowsMax);
  }

  #failed(error: Buffer): void {
    this.#host.send(error);
    this.#host.failed();
    this.#host.skip();
  }

  /** A run whose rows go to the client; the conversation waits until it ends. */
  #begin(request: ScatterRequest, client: Omit<ScatterClient, 'rows' | 'notice'>): ScatterRun {
    const host = this.#host;
    const run = new ScatterRun(request, {
      described: client.described,
      suspended: client.suspended,
      rows: (bytes) => {
        host.send(bytes);
        host.flush();
        return !host.clogged();
      },
      notice: (message) => host.send(message),
      completed: (tag) => {
        client.completed(tag);
        this.#end();
      },
      failed: (error) => {
        client.failed(error);
        this.#end();
      },
    });
    this.#run = run;
    this.busy = true;
    return run;
  }

  #end(): void {
    this.#run = null;
    this.busy = false;
    this.#host.flush();
    this.#host.resume();
  }

  #close(name: string): void {
    this.#portals.get(name)?.run?.abandon();
    this.#portals.delete(name);
  }
}

/** In Postgres's words. */
const cursorExists = (name: string): Buffer =>
  encodeErrorResponse({ S: 'ERROR', V: 'ERROR', C: '42P03', M: `cursor "${name}" already exists` });
