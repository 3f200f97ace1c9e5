// Compares two transcripts of one scenario, and holds the differences found against the list of deliberate ones.
import type { Scenario } from './scenario.js';
import type { Transcript } from './transcript.js';

export interface Difference {
  readonly scenario: string;
  /** The router's set-up, e.g. `pool of 1`. */
  readonly run: string;
  readonly step: string;
  /** `- ` what Postgres says, `+ ` what the target says. */
  readonly lines: readonly string[];
}

export interface DeliberateDifference {
  /** Exact name, or a pattern over names. */
  readonly scenario: string | RegExp;
  /** Matches the step's title, e.g. `simple: step 2 of a: select 1`, `probe: settings`, `wire: start of a`. */
  readonly step: RegExp;
  /** Every differing line must match; so nothing else hides in the same step. */
  readonly lines: RegExp;
  /** Server major versions on which it occurs; default all. */
  readonly majors?: readonly number[];
  /** Depends on which server connection is met, so that it may be absent. */
  readonly occasional?: true;
  readonly reason: string;
}

/** The steps that differ. A step that only one of the two has differs as well. */
export function compareTranscripts(
  reference: Transcript,
  target: Transcript,
  about: Pick<Difference, 'scenario' | 'run'>,
): Difference[] {
  const differences: Difference[] = [];
  for (let index = 0; index < Math.max(reference.length, target.length); index++) {
    const [expected, actual] = [reference[index], target[index]];
    const step = expected?.step ?? actual?.step ?? '';
    if (expected && actual && expected.step !== actual.step) {
      differences.push({ ...about, step, lines: [`- (step) ${expected.step}`, `+ (step) ${actual.step}`] });
      break;
    }
    const lines = differingLines(expected?.lines ?? ['(no such step)'], actual?.lines ?? ['(no such step)']);
    if (lines.length > 0) differences.push({ ...about, step, lines });
  }
  return differences;
}

/** The lines between the first and the last that differ, without those that both sides have in the same order. */
function differingLines(expected: readonly string[], actual: readonly string[]): string[] {
  let start = 0;
  while (start < expected.length && start < actual.length && expected[start] === actual[start]) start++;
  let end = 0;
  const shorter = Math.min(expected.length, actual.length) - start;
  while (end < shorter && expected[expected.length - 1 - end] === actual[actual.length - 1 - end]) end++;
  const missing = expected.slice(start, expected.length - end);
  const extra = actual.slice(start, actual.length - end);
  if (missing.length === extra.length) {
    return missing.flatMap((line, index) => (line === extra[index] ? [] : [`- ${line}`, `+ ${extra[index]}`]));
  }
  return [...missing.map((line) => `- ${line}`), ...extra.map((line) => `+ ${line}`)];
}

/** Splits differences into those that are listed and those that are not, and finds list entries nothing matched. */
export class DifferenceJudge {
  readonly unexpected: Difference[] = [];
  readonly #deliberate: readonly DeliberateDifference[];
  readonly #seen = new Set<DeliberateDifference>();
  readonly #major: number;

  constructor(deliberate: readonly DeliberateDifference[], major: number) {
    this.#deliberate = deliberate.filter((entry) => entry.majors?.includes(major) ?? true);
    this.#major = major;
  }

  judge(difference: Difference): void {
    const entry = this.#deliberate.find((candidate) => covers(candidate, difference));
    if (entry) this.#seen.add(entry);
    else this.unexpected.push(difference);
  }

  /** Listed differences that did not occur although one of their scenarios was played. */
  stale(played: readonly Scenario[]): string[] {
    return this.#deliberate
      .filter(
        (entry) =>
          entry.occasional === undefined &&
          !this.#seen.has(entry) &&
          played.some((scenario) => namesScenario(entry, scenario.name)),
      )
      .map((entry) => `Postgres ${this.#major}: ${entry.scenario} ${entry.step}: no longer occurs (${entry.reason})`);
  }
}

function covers(entry: DeliberateDifference, difference: Difference): boolean {
  return (
    namesScenario(entry, difference.scenario) &&
    entry.step.test(difference.step) &&
    difference.lines.every((line) => entry.lines.test(line))
  );
}

export function namesScenario(entry: DeliberateDifference, name: string): boolean {
  return typeof entry.scenario === 'string' ? entry.scenario === name : entry.scenario.test(name);
}

export function describeDifference(difference: Difference): string {
  const { scenario, run, step, lines } = difference;
  const shown = lines.slice(0, 40).map((line) => (line.length > 600 ? `${line.slice(0, 600)}…` : line));
  return [`${scenario} [${run}]`, step, ...shown].join('\n    ');
}
