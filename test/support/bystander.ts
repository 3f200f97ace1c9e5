// What must not notice an attack: a client that goes on asking small questions, and the server, on which nothing may be
// left running.
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';
import type { LiveRouter } from './live-router.js';
import { stretched } from './machine-speed.js';
import type { PostgresServer } from './postgres-server.js';
import type { SqlClient } from './sql-client.js';

const REST_TIMEOUT_MS = 30_000;

/** Asks without a pause from now on. */
export class Bystander {
  readonly #client: SqlClient;
  #stopping = false;
  #running: Promise<void>;
  answers = 0;
  slowestMs = 0;

  private constructor(client: SqlClient) {
    this.#client = client;
    this.#running = this.#ask();
    this.#running.catch(() => undefined); // reported by `stop`
  }

  static async start(live: LiveRouter): Promise<Bystander> {
    return new Bystander(await live.connect());
  }

  /** Fails the test where an answer was missing, wrong or too late. */
  async stop(t: Test, slowestAllowedMs = 2_000): Promise<void> {
    const before = this.answers;
    const allowedMs = await stretched(slowestAllowedMs);
    const end = performance.now() + allowedMs;
    while (this.answers === before && performance.now() < end) await Promise.race([this.#running, sleep(5)]);
    t.ok(this.answers > before, 'the bystander is still answered');
    this.#stopping = true;
    await this.#running;
    await this.#client.end();
    t.ok(this.slowestMs < allowedMs, `the bystander's slowest answer took ${Math.round(this.slowestMs)} ms`);
  }

  async #ask(): Promise<void> {
    for (let question = 1; !this.#stopping; question++) {
      const began = performance.now();
      const answer =
        question % 2 === 0
          ? await this.#client.value(`SELECT ${question}`)
          : (await this.#client.extended('SELECT $1::int4', [`${question}`]))[0]![0];
      if (answer !== `${question}`) throw new Error(`asked for ${question}, answered ${answer}`);
      this.slowestMs = Math.max(this.slowestMs, performance.now() - began);
      this.answers++;
      await sleep(2);
    }
  }
}

/** Waits until no session on the server runs a statement, sits in a transaction or holds an advisory lock. */
export async function serverAtRest(
  t: Test,
  server: PostgresServer,
  connections: { readonly direct: SqlClient },
): Promise<void> {
  const sql = `SELECT state || ': ' || query FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'
     UNION ALL SELECT 'lock of ' || pid FROM pg_locks WHERE locktype = 'advisory'
     UNION ALL SELECT 'prepared ' || gid FROM pg_prepared_xacts`;
  const end = performance.now() + REST_TIMEOUT_MS;
  for (;;) {
    const left = (await connections.direct.rows(sql)).map(([text]) => text);
    if (left.length === 0) return;
    if (performance.now() > end) {
      t.same(left, [], `nothing is left running on port ${server.port}`);
      return;
    }
    await sleep(10);
  }
}

/** Waits for what becomes true by itself. @param timeoutMs on an idle machine */
export async function eventually(
  t: Test,
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 5_000,
): Promise<void> {
  let end = performance.now() + timeoutMs;
  let isLast = false;
  while (!(await condition())) {
    if (performance.now() > end && !isLast) {
      isLast = true;
      end += (await stretched(timeoutMs)) - timeoutMs;
    } else if (performance.now() > end) {
      t.fail(`never came true: ${what}`);
      return;
    }
    await sleep(5);
  }
  t.pass(what);
}

/** `resetAndDestroy` sends a FIN first; this is the bare RST of a machine that has lost its state. */
export function reset(socket: Socket): void {
  const { _handle: handle } = socket as unknown as { _handle: { reset(done: () => void): number } };
  handle.reset(() => socket.destroy());
}
