// `pgkv start`: a router in front of servers that are already there.
import { ListenError } from '../base/listen-error.js';
import { openCatalog } from '../catalog/open-catalog.js';
import { planReload } from '../config/reload.js';
import { startRouter, startWorkers } from '../main.js';
import { createLogger } from '../telemetry/log.js';
import { requireState } from './cluster/cluster-access.js';
import { CommandFailure } from './command-failure.js';
import { settingsFrom } from './config-file.js';
import type { StartOptions } from './options.js';
import { type EndSignals, runUntilSignalled } from './process-life.js';
import { packageVersion } from './version.js';

export async function runStart(options: StartOptions, signals: EndSignals): Promise<number> {
  const { configFile } = options;
  const settings = settingsFrom(configFile);
  const log = createLogger(settings.log);
  const cluster = { settings, source: configFile, user: undefined };
  const catalog = openCatalog(settings);
  if (catalog !== null) await requireState(catalog, cluster);
  try {
    const start = settings.workers > 1 ? startWorkers : startRouter;
    const router = await start({ settings, log, version: packageVersion(), catalog, warmsUp: true });
    let inForce = settings;
    const reload = (): Readonly<Record<string, unknown>> => {
      const plan = planReload(inForce, settingsFrom(configFile));
      const { certificateRenewed } = router.reload(plan.settings);
      inForce = plan.settings;
      const { changed, needRestart } = plan;
      if (needRestart.length > 0)
        log.warn({ settings: needRestart }, 'changed in the file, in force at the next start');
      // The files may have been replaced under their old names.
      return { changed: certificateRenewed ? [...changed, 'the certificate'] : changed };
    };
    const ended = runUntilSignalled(router, log, { graceful: true, signals, reload });
    // Behind it: whoever reads this may send SIGHUP, which would end a process that does not listen for it yet.
    process.stdout.write(`pgkv ready on ${settings.listen.host}:${router.port}\n`);
    return await ended;
  } catch (error) {
    if (error instanceof ListenError) throw new CommandFailure(1, error.message);
    throw error;
  }
}
