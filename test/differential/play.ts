// Plays one scenario to one target and returns what came back, step by step.
import { encodeAll } from '../support/frontend-message.js';
import type { Target } from '../support/target.js';
import { type Exchange, WireClient } from '../support/wire-client.js';
import { type Mode, messagesOf, type Scenario, type Step, sessionOf, titleOf, untilOf } from './scenario.js';
import type { ServerSide } from './server-side.js';
import { type Transcript, TranscriptWriter } from './transcript.js';

/** Longer than any step takes; a step that reaches it is shown as `(timeout)`. */
const STEP_TIMEOUT_MS = 5_000;

export interface PlayOptions {
  readonly target: Target;
  /** The server that answers in the end: to prepare it and to look behind the target's back. */
  readonly serverSide: ServerSide;
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
  readonly writer = new TranscriptWriter();
  readonly #scenario: Scenario;
  readonly #mode: Mode;
  readonly #options: PlayOptions;
  readonly #clients = new Map<string, WireClient>();

  constructor(scenario: Scenario, mode: Mode, options: PlayOptions) {
    this.#scenario = scenario;
    this.#mode = mode;
    this.#options = options;
  }

  async perform(step: Step, label: string): Promise<void> {
    const session = sessionOf(step);
    if (typeof step === 'string') return this.perform({ sql: step }, label);
    if ('blocked' in step) return this.#options.serverSide.waitUntilBlocked();
    if ('open' in step) return this.#open(session, step.open, label, step.until ?? 1);
    const client = await this.#client(session);
    if ('vanish' in step) {
      client.destroy();
      this.#clients.delete(session);
    } else if ('sql' in step) {
      this.writer.write(label, session, await client.exchange(messagesOf(step, this.#mode)));
    } else if (step.cutAt) {
      await client.sendCut(encodeAll(step.send), step.cutAt);
      this.writer.write(label, session, await client.wait(untilOf(step)));
    } else {
      this.writer.write(label, session, await client.exchange(step.send, untilOf(step)));
    }
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
    const client = await WireClient.open(this.#options.target, STEP_TIMEOUT_MS);
    this.#clients.set(session, client);
    client.sendBytes(bytes);
    this.writer.write(label, session, await client.wait(until));
  }

  async #client(session: string): Promise<WireClient> {
    const existing = this.#clients.get(session);
    if (existing) return existing;
    const { target } = this.#options;
    const client = await WireClient.open(target, STEP_TIMEOUT_MS);
    this.#clients.set(session, client);
    const options = this.#scenario.sessions?.[session];
    const startup: Exchange = await client.startUp({ user: target.user, database: target.database, ...options });
    this.writer.write(`${this.#mode}: start of ${session}`, session, startup);
    return client;
  }
}
