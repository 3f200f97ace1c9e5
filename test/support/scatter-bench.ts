// Several Postgres servers with pools, and one session's scattered reads on them, without a router around them: what
// main.ts and open-conversation.ts wire, by hand.
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Test } from 'tap';
import { sendCancelRequest } from '../../src/backend/connection/cancel-request.js';
import { openServerSocket } from '../../src/backend/connection/server-socket.js';
import { SettingsRegistry } from '../../src/backend/connection/settings-group.js';
import { NodePool } from '../../src/backend/pool/node-pool.js';
import { ownSource, type StatementSource } from '../../src/backend/replies/statement-source.js';
import { systemClock, systemRandom } from '../../src/base/clock.js';
import { LeasedLane } from '../../src/execute/leased/leased-lane.js';
import { NO_PARAMETERS } from '../../src/execute/scatter/extended-messages.js';
import type { ScatterClient, ScatterRequest, ScatterTarget } from '../../src/execute/scatter/scatter-request.js';
import { ScatterRun } from '../../src/execute/scatter/scatter-run.js';
import { Session, type SessionPid } from '../../src/session/session.js';
import type { SortKey } from '../../src/sql/plan/kv-plan.js';
import { NEUTRAL_TEMPLATE } from '../../src/sql/plan/template.js';
import { UTF8 } from '../../src/sql/text/client-encoding.js';
import { readErrorFields } from '../../src/wire/error-fields.js';
import { readRowValues } from '../../src/wire/row-values.js';
import { type PostgresServer, startPostgres } from './postgres-server.js';

const LIMITS = {
  sizeMax: 4,
  queueMax: 100,
  waitTimeoutMs: 10_000,
  answerTimeoutMs: 10_000,
  roleShare: 1,
  idleTimeoutMs: Number.POSITIVE_INFINITY,
  lifetimeMaxMs: Number.POSITIVE_INFINITY,
  connectTimeoutMs: 5_000,
  preparedStatementsMax: 100,
  serverMessageBytesMax: 67_108_864,
};
const openStream = openServerSocket({ tls: 'disable', tlsCaFile: null, keepaliveMs: 0 });

export interface Shard {
  readonly name: string;
  readonly server: PostgresServer;
  readonly pool: NodePool;
  /** Runs SQL past the pool. */
  query(sql: string): Promise<string[][]>;
}

/** What a client was told, in order; `gate` can hold it back. */
export class RecordingClient implements ScatterClient {
  readonly events: string[] = [];
  rowDescription: Buffer | null = null;
  readonly notices: string[] = [];
  readonly values: (string | null)[][] = [];
  /** Rows told, and bytes of them, also where values are not kept. */
  rowCount = 0;
  bytes = 0;
  keep = true;
  error: Readonly<Record<string, string>> | null = null;
  errorMessage: Buffer | null = null;
  tag: string | null = null;
  /** Answers false to `rows` and waits for the test to resume. */
  slow = false;
  onRows: (() => void) | null = null;
  #waiting: (() => void)[] = [];

  described(rowDescription: Buffer): null {
    this.events.push('described');
    this.rowDescription = rowDescription;
    return null;
  }

  rows(bytes: Buffer): boolean {
    if (this.events.at(-1) !== 'rows') this.events.push('rows');
    this.bytes += bytes.length;
    for (let start = 0; start < bytes.length; ) {
      const end = start + 1 + bytes.readInt32BE(start + 1);
      if (bytes[start] !== 0x44 || end > bytes.length) throw new Error('not whole DataRow messages');
      if (this.keep) this.values.push(readRowValues(bytes, start, end));
      this.rowCount++;
      start = end;
    }
    this.onRows?.();
    this.#wake();
    return !this.slow;
  }

  suspended(): void {
    this.#told('suspended');
  }

  completed(tag: string): void {
    this.tag = tag;
    this.#told('completed');
  }

  failed(error: Buffer): void {
    this.errorMessage = error;
    this.error = readErrorFields(error, 0, error.length);
    this.#told('failed');
  }

  notice(message: Buffer): void {
    this.notices.push(readErrorFields(message, 0, message.length)['M'] ?? '');
  }

  /** Resolves when something was told that `met` accepts. */
  async until(met: () => boolean): Promise<void> {
    const deadline = Date.now() + 30_000;
    while (!met()) {
      if (Date.now() > deadline) throw new Error(`not within 30 s; so far ${this.events.join(', ')}`);
      await Promise.race([new Promise<void>((resolve) => this.#waiting.push(resolve)), sleep(100)]);
    }
  }

  ended(): Promise<void> {
    return this.until(() => this.tag !== null || this.error !== null);
  }

  #told(event: string): void {
    this.events.push(event);
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

export interface ReadOptions extends Partial<Omit<ScatterRequest, 'shardSource' | 'plan' | 'targets'>> {
  readonly text: string;
  readonly sortKeys?: readonly SortKey[];
  /** Of a CombinePlan, with the placeholders of kv-plan.ts. */
  readonly finalText?: string;
  readonly partials?: readonly string[];
  /** Used again: a source that has been made before. */
  readonly source?: StatementSource;
}

export const sourceOf = (text: string, types: readonly number[] = []): StatementSource => {
  const oids = Buffer.alloc(2 + 4 * types.length);
  oids.writeUInt16BE(types.length, 0);
  for (const [index, oid] of types.entries()) oids.writeUInt32BE(oid, 2 + 4 * index);
  const parseTail = Buffer.concat([Buffer.from(`${text}\0`), oids]);
  const template = { ...NEUTRAL_TEMPLATE, kind: 'read' as const };
  return ownSource(parseTail, text, template, types);
};

/** Parameters in text as they stand in a Bind. */
export function textParameters(...values: (string | null)[]): Buffer {
  const parts = [Buffer.from([0, 0, 0, values.length])];
  for (const value of values) {
    const length = Buffer.alloc(4);
    length.writeInt32BE(value === null ? -1 : Buffer.byteLength(value), 0);
    parts.push(length, Buffer.from(value ?? ''));
  }
  return Buffer.concat(parts);
}

export class ScatterBench {
  readonly shards: Shard[] = [];
  readonly session: Session;
  readonly registry = new SettingsRegistry();
  readonly #stops: (() => Promise<void>)[] = [];

  private constructor() {
    this.session = new Session({
      pid: 1 as SessionPid,
      secretKey: Buffer.alloc(4),
      user: 'postgres',
      database: 'postgres',
      settings: this.registry.empty,
      told: new Map(),
    });
  }

  /** Stopped at the end of `t`. */
  static async start(t: Test, count: number): Promise<ScatterBench> {
    const bench = new ScatterBench();
    t.teardown(() => bench.stop());
    for (let index = 0; index < count; index++) await bench.#addShard(`s${index + 1}`);
    return bench;
  }

  async #addShard(name: string): Promise<void> {
    const server = await startPostgres({ version: 'embedded' });
    this.#stops.push(() => server.stop());
    const { host, port } = server;
    const pool = new NodePool({
      address: { host, port },
      shardName: name,
      limits: LIMITS,
      openStream,
      clock: systemClock,
      random: systemRandom,
      noSettings: this.registry.empty,
    });
    this.#stops.push(async () => pool.destroy());
    const client = new pg.Client({ host, port, user: 'postgres', database: 'postgres' });
    client.on('error', () => undefined); // the server may be stopped by a test
    await client.connect();
    this.#stops.push(() => client.end().catch(() => undefined));
    const query = async (sql: string) => (await client.query({ text: sql, rowMode: 'array' })).rows as string[][];
    this.shards.push({ name, server, pool, query });
  }

  async stop(): Promise<void> {
    for (const stop of this.#stops.splice(0).reverse()) await stop();
  }

  target(shard: Shard): ScatterTarget {
    const { pool } = shard;
    const group = pool.group(
      new Map([
        ['user', 'postgres'],
        ['database', 'postgres'],
      ]),
      { kind: 'none' },
    );
    return {
      shardName: shard.name,
      lane: (client) =>
        new LeasedLane({
          session: this.session,
          pool,
          group,
          registry: this.registry,
          client,
          clock: systemClock,
          cancelStatement: (connection, delivered) =>
            sendCancelRequest({
              openStream,
              address: pool.address,
              pid: connection.pid,
              secretKey: connection.secretKey,
              clock: systemClock,
              timeoutMs: 5_000,
              delivered,
            }),
          applicationName: '',
        }),
    };
  }

  /** A read on all shards, not started yet. */
  read(options: ReadOptions, client = new RecordingClient()): { run: ScatterRun; client: RecordingClient } {
    const { text, sortKeys = [], finalText, partials = [], source = sourceOf(text), ...rest } = options;
    const plan =
      finalText === undefined
        ? { kind: 'sorted' as const, shardText: [text], sortKeys, recoded: null, limit: null, offset: null }
        : {
            kind: 'combine' as const,
            shardText: [text],
            partials: partials.map((role) => ({ role })),
            finalText: [finalText],
          };
    const parameters = rest.parameters ?? NO_PARAMETERS;
    const request: ScatterRequest = {
      name: '',
      local: null,
      plan,
      shardSource: source,
      targets: this.shards.map((shard) => this.target(shard)),
      home: this.target(this.shards[0]!),
      parameters,
      final: finalText === undefined ? null : { render: (substitute) => substitute(finalText), parameters },
      resultFormats: [],
      limit: null,
      offset: 0n,
      instant: null,
      byteOrder: true,
      encoding: UTF8,
      session: this.session,
      clock: systemClock,
      ...rest,
    };
    return { run: new ScatterRun(request, client), client };
  }

  /** Starts a read and waits for its end. */
  async answer(options: ReadOptions, client?: RecordingClient): Promise<RecordingClient> {
    const started = this.read(options, client);
    started.run.start();
    await started.client.ended();
    return started.client;
  }

  /** Connections that are held by somebody; all pools are at rest where it is empty. */
  held(): string[] {
    return this.shards
      .filter(({ pool }) => pool.openCount !== pool.idleCount || pool.waitingCount > 0)
      .map(({ name, pool }) => `${name}: ${pool.openCount} open, ${pool.idleCount} idle, ${pool.waitingCount} waiting`);
  }

  /** Resolves when no connection is held any longer. */
  async quiet(): Promise<void> {
    const deadline = Date.now() + 10_000;
    while (this.held().length > 0) {
      if (Date.now() > deadline) throw new Error(this.held().join('; '));
      await sleep(5);
    }
  }
}
