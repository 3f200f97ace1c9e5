// The life of a router process: runs until a signal asks it to end. SIGTERM and SIGINT drain, a second one ends at
// once; SIGHUP reloads.
import { messageOf } from '../base/errors.js';
import type { Router } from '../main.js';
import type { Logger } from '../telemetry/log.js';

/** Resolves with the exit code when the router has ended. */
export function runUntilSignalled(router: Router, log: Logger, options: { graceful: boolean }): Promise<number> {
  return new Promise((resolve) => {
    let ending = false;
    const end = (signal: NodeJS.Signals): void => {
      if (ending) {
        log.warn({ signal }, 'second signal: ending at once');
        void router.stop().then(() => resolve(1));
        return;
      }
      ending = true;
      log.info({ signal }, 'ending');
      const ended = options.graceful ? router.drain() : router.stop();
      ended.then(
        () => resolve(0),
        (error: unknown) => {
          log.error({ err: error }, 'could not end in order');
          resolve(1);
        },
      );
    };
    process.on('SIGTERM', end);
    process.on('SIGINT', end);
    process.on('SIGHUP', () => {
      try {
        router.reload();
        log.info('reloaded');
      } catch (error) {
        log.error({ reason: messageOf(error) }, 'reload failed, what was in force stays in force');
      }
    });
  });
}
