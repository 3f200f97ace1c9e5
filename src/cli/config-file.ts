// A configuration file as the commands read it: usable settings, or a message that says where the first problem is.
import { readFileSync } from 'node:fs';
import { loadSettings } from '../config/load.js';
import { formatProblem } from '../config/problems.js';
import type { Settings } from '../config/settings.js';
import { CommandFailure, unreadable } from './command-failure.js';

/** @throws CommandFailure */
export function settingsFrom(configFile: string): Settings {
  let text: string;
  try {
    text = readFileSync(configFile, 'utf8');
  } catch (error) {
    throw unreadable(1, configFile, error);
  }
  const loaded = loadSettings(text, configFile);
  if (loaded.ok) return loaded.settings;
  const [first] = loaded.problems;
  const more = loaded.problems.length > 1 ? ` (and ${loaded.problems.length - 1} more)` : '';
  throw new CommandFailure(
    1,
    `${first === undefined ? `${configFile} is not usable` : formatProblem(first)}${more}`,
    `pgkv check-config ${configFile}`,
  );
}
