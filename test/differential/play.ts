// Plays one scenario to one target and returns what came back, step by step.
import { encodeAll } from '../support/frontend-message.js';
import type { Target } from '../support/target.js';
import { type Exchange, WireClient } from '../support/wire-client.js';
import { asRefusal, rowsInAnyOrder, withoutOrigins, withoutTimes } from './answer-forms.js';
import {
  type AnswerForm,
  type Mode,
  messagesOf,
  type Scenario,
  type Step,
  sessionOf,
  titleOf,
  untilOf,
} from './scenario.js';
import type { ServerSide } from './server-side.js';
import { type Transcript, TranscriptWriter } from './transcript.js';

/** Longer than any step takes; a step that reaches it is shown as `(timeout)`. */
const STEP_TIMEOUT_MS = 30_000;

/** What Postgres is sent where pgkv refuses: it fails as well and changes nothing. */
const STAND_IN = 'refused by pgkv';

export interface PlayOptions {
  readonly target: Target;
  /** The servers that answer in the end: to prepare them and to look behind the target's back. */
  readonly serverSide: ServerSide;
  /** The target gives key-value tables their meaning, where Postgres only has tables. */
  readonly routesKeys?: boolean;
  /** How long a step may take; default 30 s. */
  readonly timeoutMs?: number;
  /** Called between the steps. */
  readonly betweenSteps?: () => Promise<void>;
}

/** Plays the scenario once in one mode. */
export async function play(scenario: Scenario, mode: Mode, options: PlayOptions): Promise<Transcript> {
  if (scenario.setup) await options.serverSide.run(scenario.setup);
  const stage = new Stage(scenario, mode, options);
  try {
    for (const [index, step] of scenario.steps.entries()) {
      if (index > 0) await options.betweenSteps?.();
      await stage.perform(step, `${mode}: step ${index + 1} of ${sessionOf(step)}: ${titleOf(step)}`);
    }
    await stage.endSessions();
  } finally {
    stage.destroy();
  }
  await options.serverSide.settle(stage.writer, `${mode}: left behind on the server`);
  if (scenario.teardown) await options.serverSide.run(scenario.teardown);
  return stage.writer.transcript;
}

/** The sessions of one run. */
class Stage {
  readonly writer: TranscriptWriter;
  readonly #scenario: Scenario;
  readonly #mode: Mode;
  readonly #options: PlayOptions;
  readonly #clients = new Map<string, WireClient>();

  constructor(scenario: Scenario, mode: Mode, options: PlayOptions) {
    this.#scenario = scenario;
    this.#mode = mode;
    this.#options = options;
    this.writer = new TranscriptWriter(options.serverSide.relations);
  }

  async perform(step: Step, label: string): Promise<void> {
    const session = sessionOf(step);
    if (typeof step === 'string') return this.perform({ sql: step }, label);
    if ('blocked' in step) return this.#options.serverSide.waitUntilBlocked();
    if ('behind' in step) {
      await this.#options.serverSide.run(this.#routesKeys ? step.behind.pgkv : step.behind.postgres);
      return;
    }
    if ('open' in step) return this.#open(session, step.open, label, step.until ?? 1);
    if ('onlyPostgres' in step && this.#routesKeys) return;
    const client = await this.#client(session);
    if ('vanish' in step) {
      client.destroy();
      this.#clients.delete(session);
    } else if ('onlyPostgres' in step) {
      await client.exchange([{ query: step.onlyPostgres }]);
    } else if ('sql' in step) {
      const isRefused = step.refused !== undefined && !this.#routesKeys;
      const messages = messagesOf(isRefused ? { ...step, sql: STAND_IN } : step, this.#mode);
      this.writer.write(label, session, await client.exchange(messages), this.#canonical(step));
    } else if (step.cutAt) {
      await client.sendCut(encodeAll(step.send), step.cutAt);
      this.writer.write(label, session, await client.wait(untilOf(step)), this.#canonical(step));
    } else {
      const { send } = !this.#routesKeys && step.postgres ? { send: step.postgres } : step;
      this.writer.write(label, session, await client.exchange(send, untilOf(step)), this.#canonical(step));
    }
  }

  get #routesKeys(): boolean {
    return this.#options.routesKeys === true;
  }

  #canonical({ anyOrder, anyTime, anyOrigin, refused }: AnswerForm): (lines: readonly string[]) => readonly string[] {
    return (lines) => {
      const timeless = anyTime ? lines.map(withoutTimes) : lines;
      const placeless = anyOrigin ? timeless.map(withoutOrigins) : timeless;
      const ordered = anyOrder ? rowsInAnyOrder(placeless) : placeless;
      return refused === undefined ? ordered : asRefusal(ordered, this.#routesKeys ? refused : null);
    };
  }

  /** Says goodbye on every session; anything that still arrives is part of the comparison. */
  async endSessions(): Promise<void> {
    for (const [session, client] of this.#clients) {
      this.writer.write(`${this.#mode}: end of ${session}`, session, await client.end());
    }
  }

  destroy(): void {
    for (const client of this.#clients.values()) client.destroy();
  }

  async #open(session: string, bytes: Buffer, label: string, until: Parameters<WireClient['wait']>[0]): Promise<void> {
    const client = await this.#enter(session);
    client.sendBytes(bytes);
    this.writer.write(label, session, await client.wait(until));
  }

  async #client(session: string): Promise<WireClient> {
    const existing = this.#clients.get(session);
    if (existing) return existing;
    const { target } = this.#options;
    const client = await this.#enter(session);
    const options = this.#scenario.sessions?.[session];
    const startup: Exchange = await client.startUp({ user: target.user, database: target.database, ...options });
    this.writer.write(`${this.#mode}: start of ${session}`, session, startup);
    return client;
  }
  async #enter(session: string): Promise<WireClient> {
    const { target, timeoutMs = STEP_TIMEOUT_MS } = this.#options;
    const client = await WireClient.open(target, timeoutMs);
    this.#clients.set(session, client);
    return client;
  }
}
