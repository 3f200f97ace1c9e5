// The run matrix of one Postgres version: every scenario in every mode, to Postgres itself and to each target, with
// and without an intruder, on several databases ("lanes") at a time. Servers of their own for each side, so that all
// begin alike.

import type { PostgresVersion } from '../support/postgres-binaries.js';
import { type PostgresServer, startPostgres } from '../support/postgres-server.js';
import { startRouter } from '../support/router.js';
import { directTarget, type Target } from '../support/target.js';
import { WireClient } from '../support/wire-client.js';
import { probeCleanliness } from './clean-probe.js';
import { compareTranscripts, type Difference } from './compare.js';
import { Intruder } from './intruder.js';
import { play } from './play.js';
import { type Mode, modesOf, playedOn, type Scenario, sessionOf, someModesOf, type Theme } from './scenario.js';
import { APP_ROLE, type Layout, ServerSide } from './server-side.js';
import { printTranscript, type Transcript, TranscriptWriter } from './transcript.js';

/** Two cores: two Postgres backends at work while the other lanes wait for a connection or for us. */
const LANE_COUNT = 4;

const PARAMETERS = {
  wal_level: 'minimal', // with it scenarios cost a tenth less
  max_wal_senders: '0',
  deadlock_timeout: '300ms',
};

/** What is compared with Postgres. */
export interface Contestant {
  readonly name: string;
  readonly intruder: boolean;
  readonly plays: (scenario: Scenario) => boolean;
  /** Plays a scenario in one of its modes only, a different one from scenario to scenario; default: where intruded. */
  readonly oneMode?: (scenario: Scenario) => boolean;
  /** How many servers it has; default 1. */
  readonly serverCount?: number;
  /** Key-value tables are more to it than tables: see `behind` in scenario.ts. */
  readonly routesKeys?: true;
  start(servers: readonly PostgresServer[], database: string): Promise<Target>;
}

/** PGKV_DIFF_TARGET=direct compares Postgres with Postgres: it must be equal, or the suite is at fault. */
export function isDirect(): boolean {
  return process.env['PGKV_DIFF_TARGET'] === 'direct';
}

const always = () => true;
const hasOneSession = (scenario: Scenario) => scenario.steps.every((step) => sessionOf(step) === 'a');

/**
 * A pool of one makes clients follow each other on one server connection; where two clients hold one each there must be
 * two. The intruder has a connection in common with the scenario, and sometimes has to wait for it.
 */
export const CONTESTANTS: readonly Contestant[] = isDirect()
  ? [direct('direct', false), direct('direct, intruder', true)]
  : [
      router('pool of 1', 1, false, hasOneSession),
      router('pool of 2', 2, false, (scenario) => !hasOneSession(scenario)),
      router('pool of 2, intruder', 2, true, always),
    ];

export function direct(name: string, intruder: boolean): Contestant {
  const start: Contestant['start'] = async ([server], database) => directTarget(server!, APP_ROLE, database);
  return { name, intruder, plays: always, start };
}

function router(name: string, poolSize: number, intruder: boolean, plays: Contestant['plays']): Contestant {
  const start: Contestant['start'] = (servers, database) =>
    startRouter({ servers, user: APP_ROLE, database, poolSize });
  return { name, intruder, plays, start };
}

export interface MatrixOptions {
  readonly version: PostgresVersion;
  /** Default: the same version with the same settings. */
  readonly targetServer?: { readonly version?: PostgresVersion; readonly parameters?: Record<string, string> };
  readonly themes: readonly Theme[];
  readonly contestants: readonly Contestant[];
  readonly laneCount?: number;
  /** Default: empty databases. */
  readonly layout?: Layout;
  /** Makes roles and templates on a new server: the n-th behind a target, or Postgres (null). Default createRoles(). */
  readonly prepareServer?: (server: PostgresServer, index: number | null) => Promise<void>;
  /** What is played of a scenario; default all. */
  readonly shareOf?: (scenario: Scenario) => Share;
}

/** All modes; or as many as one version needs where another plays the rest of them: with the intruder every second scenario. */
export type Share = 'all' | 'half';

export interface MatrixResult {
  readonly major: number;
  readonly played: readonly { readonly theme: string; readonly scenario: Scenario }[];
  readonly differences: readonly Difference[];
  /** Scenarios that fail on Postgres itself: a step without an end, an error outside the steps. */
  readonly defects: readonly string[];
}

interface Job {
  readonly theme: Theme;
  readonly scenario: Scenario;
  readonly modes: readonly Mode[];
  readonly isIntruded: boolean;
}

/** One side of a lane: servers, their database, and the scenario played there last. */
interface Side {
  readonly serverSide: ServerSide;
  readonly target: Target;
  readonly run: string;
  readonly intruder: boolean;
  readonly plays: Contestant['plays'];
  readonly oneMode: (scenario: Scenario) => boolean;
  readonly routesKeys: boolean;
}

interface Recording {
  readonly byMode: ReadonlyMap<Mode, Transcript>;
  /** What the next client found. */
  readonly after: Transcript;
}

function flatten(recording: Recording, modes: readonly Mode[]): Transcript {
  return [...modes.flatMap((mode) => recording.byMode.get(mode) ?? []), ...recording.after];
}

export async function runMatrix(options: MatrixOptions): Promise<MatrixResult> {
  const { version, contestants, laneCount = LANE_COUNT, prepareServer = createRoles } = options;
  const started: PostgresServer[] = [];
  const start = async (other: MatrixOptions['targetServer'], index: number | null): Promise<PostgresServer> => {
    const parameters = { ...PARAMETERS, ...other?.parameters };
    const server = await startPostgres({ version: other?.version ?? version, parameters });
    started.push(server);
    await prepareServer(server, index);
    return server;
  };
  try {
    const reference = await start(undefined, null);
    const targets = new Map<number, readonly PostgresServer[]>();
    for (const count of new Set(contestants.map(({ serverCount = 1 }) => serverCount))) {
      const group = Array.from({ length: count }, (_, index) => start(options.targetServer, index));
      targets.set(count, await Promise.all(group));
    }
    const major = Number.parseInt(reference.release, 10);
    const jobs = jobsOf(options, major);
    const [differences, defects]: [Difference[], string[]] = [[], []];
    const queue = jobs.values();
    const lanes = Array.from({ length: Math.min(laneCount, jobs.length) }, async (_, index) => {
      const lane = await Lane.open(`lane_${index}`, reference, targets, options);
      for (const job of queue) await lane.play(job, differences, defects);
      await lane.close();
    });
    await Promise.all(lanes);
    const played = jobs.map(({ theme, scenario }) => ({ theme: theme.name, scenario }));
    return { major, played, differences, defects };
  } finally {
    await Promise.all(started.map((server) => server.stop()));
  }
}

/** PGKV_DIFF_ONLY=text plays only the scenarios whose name holds the text. */
function jobsOf({ themes, version, shareOf = () => 'all' }: MatrixOptions, major: number): Job[] {
  const only = process.env['PGKV_DIFF_ONLY'] ?? '';
  // A scenario has its turn whether the version plays it or not, so that another version plays the other half.
  let turn = version === 'embedded' ? 0 : 1;
  return themes.flatMap((theme) =>
    theme.scenarios.flatMap((scenario) => {
      turn++;
      if (!playedOn(scenario, major) || !scenario.name.includes(only)) return [];
      const isOfOneVersion = scenario.sinceMajor !== undefined || scenario.untilMajor !== undefined;
      const isWhole = only !== '' || isOfOneVersion || shareOf(scenario) === 'all';
      const modes = isWhole ? modesOf(scenario) : someModesOf(scenario, turn);
      return [{ theme, scenario, modes, isIntruded: isWhole || turn % 2 === 0 }];
    }),
  );
}

/** The roles every database of the suite knows. */
export async function createRoles(server: PostgresServer): Promise<void> {
  const client = await WireClient.connect(server, { user: server.superuser, database: 'postgres' });
  await client.query(
    `create role ${APP_ROLE} login; grant pg_monitor to ${APP_ROLE}; create role other login;
    grant set on parameter deadlock_timeout to ${APP_ROLE}`,
  );
  await client.end();
}

/** A database on each server and what is connected to it; plays one scenario at a time. */
class Lane {
  readonly #reference: Side;
  readonly #contestants: readonly Side[];
  /** Which fixture each server's database holds, unspoilt. */
  readonly #fixtures = new Map<ServerSide, Theme>();
  #turn = 0;

  private constructor(reference: Side, contestants: readonly Side[]) {
    this.#reference = reference;
    this.#contestants = contestants;
  }

  static async open(
    database: string,
    referenceServer: PostgresServer,
    targets: ReadonlyMap<number, readonly PostgresServer[]>,
    { contestants, layout }: MatrixOptions,
  ): Promise<Lane> {
    const withLayout = layout === undefined ? {} : { layout };
    const reference: Side = {
      serverSide: await ServerSide.create([referenceServer], database, withLayout),
      target: directTarget(referenceServer, APP_ROLE, database),
      run: 'Postgres',
      intruder: false,
      plays: always,
      oneMode: () => false,
      routesKeys: false,
    };
    const serverSides = new Map<number, ServerSide>();
    for (const [count, servers] of targets) {
      const routesKeys = contestants.some((contestant) => contestant.routesKeys);
      serverSides.set(count, await ServerSide.create(servers, database, { ...withLayout, routesKeys }));
    }
    const sides: Side[] = [];
    for (const { name, intruder, plays, start, serverCount = 1, routesKeys = false, oneMode } of contestants) {
      const target = await start(targets.get(serverCount) ?? [], database);
      const serverSide = serverSides.get(serverCount)!;
      const inOneMode = oneMode ?? (() => intruder);
      sides.push({ serverSide, target, run: name, intruder, plays, oneMode: inOneMode, routesKeys });
    }
    return new Lane(reference, sides);
  }

  async play(job: Job, differences: Difference[], defects: string[]): Promise<void> {
    const { theme, scenario, modes } = job;
    let reference: Recording;
    try {
      reference = await this.#record(this.#reference, theme, scenario, modes);
    } catch (error) {
      defects.push(`${scenario.name}: ${error}`);
      return;
    }
    const whole = flatten(reference, modes);
    if (process.env['PGKV_DIFF_PRINT']) process.stderr.write(`\n${scenario.name}\n${printTranscript(whole)}\n`);
    const hanging = whole.find((entry) => entry.lines.includes('(timeout)'));
    if (hanging) defects.push(`${scenario.name}: ${hanging.step}: no end on Postgres itself`);
    const plays = (side: Side) => side.plays(scenario) && (job.isIntruded || !side.intruder);
    for (const side of this.#contestants.filter(plays)) {
      const about = { scenario: scenario.name, run: side.run };
      const played = side.oneMode(scenario) ? [modes[this.#turn++ % modes.length] as Mode] : modes;
      try {
        const recording = await this.#record(side, theme, scenario, played);
        differences.push(...compareTranscripts(flatten(reference, played), flatten(recording, played), about));
      } catch (error) {
        differences.push({ ...about, step: 'the scenario could not be played', lines: [`+ ${error}`] });
      }
    }
  }

  async close(): Promise<void> {
    for (const side of this.#contestants) await side.target.close();
    const all = [this.#reference, ...this.#contestants].map(({ serverSide }) => serverSide);
    for (const serverSide of new Set(all)) await serverSide.close();
  }

  /** The modes one after the other, then a look at what they left to the next client, and on the server. */
  async #record(side: Side, theme: Theme, scenario: Scenario, modes: readonly Mode[]): Promise<Recording> {
    const intruder = side.intruder ? await Intruder.enter(side.target, this.#turn) : undefined;
    const betweenSteps = async () => intruder?.disturb();
    const byMode = new Map<Mode, Transcript>();
    const writer = new TranscriptWriter();
    try {
      for (const mode of modes) {
        await this.#prepare(side.serverSide, theme, scenario);
        await betweenSteps();
        byMode.set(mode, await play(scenario, mode, { ...side, betweenSteps }));
      }
      await probeCleanliness(writer, side.target);
    } finally {
      const left = (await intruder?.leave()) ?? true;
      writer.note('the intruder', left ? 'left' : 'never got a server connection');
      await side.serverSide.settle(writer, 'after all: left behind on the server');
      await side.serverSide.endLeftovers();
    }
    return { byMode, after: writer.transcript };
  }

  async #prepare(serverSide: ServerSide, theme: Theme, scenario: Scenario): Promise<void> {
    if (this.#fixtures.get(serverSide) !== theme) await serverSide.makeFixture(theme);
    if (scenario.readOnly) this.#fixtures.set(serverSide, theme);
    else this.#fixtures.delete(serverSide);
  }
}
