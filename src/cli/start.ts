// `pgkv start`: a router in front of servers that are already there.
import { readFileSync } from 'node:fs';
import { messageOf } from '../base/errors.js';
import { ListenError } from '../base/listen-error.js';
import { loadSettings } from '../config/load.js';
import { startRouter } from '../main.js';
import { createLogger } from '../telemetry/log.js';
import { CommandFailure } from './command-failure.js';
import type { StartOptions } from './options.js';
import { runUntilSignalled } from './process-life.js';
import { packageVersion } from './version.js';

export async function runStart(options: StartOptions): Promise<number> {
  const { configFile } = options;
  let text: string;
  try {
    text = readFileSync(configFile, 'utf8');
  } catch (error) {
    throw new CommandFailure(1, `cannot read ${configFile}: ${messageOf(error)}`);
  }
  const loaded = loadSettings(text, configFile);
  if (!loaded.ok) {
    const hint = `pgkv check-config ${configFile}`;
    const [first] = loaded.problems;
    const more = loaded.problems.length > 1 ? ` (and ${loaded.problems.length - 1} more)` : '';
    throw new CommandFailure(1, `${configFile}:${first?.line ?? 1}: ${first?.message ?? 'not usable'}${more}`, hint);
  }
  const { settings } = loaded;
  if (settings.workers > 1) {
    throw new CommandFailure(
      1,
      `${configFile}: workers = ${settings.workers}: this version runs one data process`,
      'set workers = 1',
    );
  }
  const log = createLogger(settings.log);
  try {
    const router = await startRouter({ settings, log, version: packageVersion() });
    process.stdout.write(`pgkv ready on ${settings.listen.host}:${router.port}\n`);
    return await runUntilSignalled(router, log, { graceful: true });
  } catch (error) {
    if (error instanceof ListenError) throw new CommandFailure(1, error.message);
    throw error;
  }
}
