// Turns the run matrix of one Postgres version into tap results: one subtest a theme, one assertion a scenario.
import type { Test } from 'tap';
import { findPostgres, PLAYED_VERSIONS, type PostgresVersion } from '../support/postgres-binaries.js';
import { type DeliberateDifference, DifferenceJudge, describeDifference, namesScenario } from './compare.js';
import { DELIBERATE_DIFFERENCES } from './deliberate-differences.js';
import { CONTESTANTS, isDirect, type MatrixOptions, runMatrix, type Share } from './matrix.js';
import type { Scenario } from './scenario.js';
import { THEMES } from './themes.js';

export interface Suite extends Omit<MatrixOptions, 'version'> {
  readonly deliberate: readonly DeliberateDifference[];
}

/** Ordinary tables on one server. */
const PLAIN: Suite = { themes: THEMES, contestants: CONTESTANTS, deliberate: DELIBERATE_DIFFERENCES };

/** Where in this file the failure was noticed says nothing. */
const WITHOUT_PLACE = { at: null, stack: '', source: '' } as unknown as { [name: string]: unknown };

export async function checkVersion(t: Test, version: PostgresVersion, suite: Suite = PLAIN): Promise<void> {
  if (!findPostgres(version)) {
    t.pass(`Postgres ${version} is not installed here`, { skip: 'not installed' });
    return;
  }
  // `npm test` is what needs only Node, and takes as long on every machine; `.ci/run` plays the rest.
  if (!PLAYED_VERSIONS.includes(version)) {
    t.pass(`Postgres ${version}: played by .ci/run`, { skip: 'PGKV_DEBIAN=1 plays it' });
    return;
  }
  // A listed difference may show in one mode only: what is named there is played in all.
  const isListed = ({ name }: Scenario) => suite.deliberate.some((entry) => namesScenario(entry, name));
  const shareOf = (scenario: Scenario): Share =>
    process.env['PGKV_LONG'] === '1' || isListed(scenario) ? 'all' : 'half';
  const result = await runMatrix({ version, ...suite, shareOf });
  const judge = new DifferenceJudge(isDirect() ? [] : suite.deliberate, result.major);
  for (const difference of result.differences) judge.judge(difference);
  for (const theme of new Set(result.played.map((played) => played.theme))) {
    t.test(theme, async (t) => {
      for (const { scenario } of result.played.filter((played) => played.theme === theme)) {
        const found = judge.unexpected.filter((difference) => difference.scenario === scenario.name);
        if (found.length === 0) t.pass(scenario.name);
        else t.fail(scenario.name, { ...WITHOUT_PLACE, differences: found.map(describeDifference).join('\n') });
      }
    });
  }
  t.strictSame(result.defects, [], 'every scenario runs to its end on Postgres itself');
  const stale = judge.stale(result.played.map(({ scenario }) => scenario));
  t.strictSame(stale, [], 'every listed difference still occurs');
}
