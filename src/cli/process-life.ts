// The life of a router process: runs until a signal asks it to end. SIGTERM and SIGINT drain, a second one ends at
// once; SIGHUP reloads, and the log says what that has changed. Signals are caught before anything else is loaded: the first process of a container has no
// default action for them, so that one that came too early would be lost.
import { messageOf } from '../base/errors.js';
import type { RunningRouter } from '../main.js';
import type { Logger } from '../telemetry/log.js';

/** npm passes Ctrl-C on although the terminal has sent it to every process: within this it is the same wish. */
const ECHO_MS = 300;

type Wish = (signal: NodeJS.Signals) => void;

/** The wish to end, from the first moment of a command on. */
export class EndSignals {
  /** What was asked for first, if anything was. */
  first: NodeJS.Signals | null = null;
  #firstAt = 0;
  #end: Wish = (signal) => process.stderr.write(`${signal}: ends when the start is over; once more ends it now\n`);
  #endNow: Wish = () => process.exit(1);

  constructor() {
    process.on('SIGTERM', this.#received);
    process.on('SIGINT', this.#received);
  }

  /** Takes over what has been asked for so far, too. */
  handle(end: Wish, endNow: Wish): void {
    this.#end = end;
    this.#endNow = endNow;
    if (this.first !== null) end(this.first);
  }

  release(): void {
    process.off('SIGTERM', this.#received);
    process.off('SIGINT', this.#received);
  }

  readonly #received = (signal: NodeJS.Signals): void => {
    if (this.first === null) {
      this.first = signal;
      this.#firstAt = performance.now();
      this.#end(signal);
    } else if (performance.now() - this.#firstAt > ECHO_MS) this.#endNow(signal);
  };
}

/** Resolves with the exit code when the router has ended. */
export function runUntilSignalled(
  router: RunningRouter,
  log: Logger,
  options: {
    readonly graceful: boolean;
    readonly signals: EndSignals;
    /** On SIGHUP: what has changed and what was done about it. Throws where nothing was. */
    readonly reload: () => Readonly<Record<string, unknown>>;
  },
): Promise<number> {
  return new Promise((resolve) => {
    const end: Wish = (signal) => {
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
    const endNow: Wish = (signal) => {
      log.warn({ signal }, 'second signal: ending at once');
      void router.stop().then(() => resolve(1));
    };
    options.signals.handle(end, endNow);
    process.on('SIGHUP', () => {
      try {
        log.info(options.reload(), 'reloaded');
      } catch (error) {
        log.error({ reason: messageOf(error) }, 'reload failed, what was in force stays in force');
      }
    });
  });
}
