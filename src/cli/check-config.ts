// `pgkv check-config`: all problems of a configuration file at once, or what the router would do with it.
import { readFileSync } from 'node:fs';
import { describeSettings } from '../config/check.js';
import { loadSettings } from '../config/load.js';
import { formatProblem } from '../config/problems.js';
import { unreadable } from './command-failure.js';
import type { CheckConfigOptions } from './options.js';
import type { Terminal } from './terminal.js';

/** @returns 0 if the file is sound, else 1 */
export async function runCheckConfig({ configFile, json }: CheckConfigOptions, terminal: Terminal): Promise<number> {
  let text: string;
  try {
    text = readFileSync(configFile, 'utf8');
  } catch (error) {
    throw unreadable(1, configFile, error);
  }
  const result = loadSettings(text, configFile);
  if (json) {
    const problems = result.ok ? [] : result.problems;
    terminal.output.write(`${JSON.stringify({ ok: result.ok, problems })}\n`);
  } else if (result.ok) {
    terminal.output.write(`${[`${configFile} is sound.`, ...describeSettings(result.settings)].join('\n')}\n`);
  } else {
    terminal.errors.write(`${result.problems.map(formatProblem).join('\n')}\n`);
  }
  return result.ok ? 0 : 1;
}
