// pg_cancel_backend() and pg_terminate_backend() of sessions by the pids they were greeted with, in whichever process they are.
// Whether a role may do that is asked of a server, which knows roles and their members; the session is reached only then. A
// session of another process is reached, and the server asked, there.
import type { ControlPort } from '../../cluster/control-port.js';
import type { SessionSignal, SignalOutcome } from '../../cluster/session-pids.js';
import { quoteLiteral } from '../../sql/text/quote-literal.js';
import type { CancelRegistry } from './cancel-registry.js';

export interface SessionSignalsOptions {
  readonly sessions: CancelRegistry;
  /** Null: there are no other processes. */
  readonly port: Pick<ControlPort, 'signal'> | null;
  /** Rows of a statement that pgkv's own role runs on the home shard. */
  ask(sql: string): Promise<(string | null)[][]>;
}

/** The function's rights are those of its caller. */
const FUNCTIONS: Readonly<Record<SessionSignal, string>> = {
  cancel: 'pg_catalog.pg_cancel_backend(int4)',
  terminate: 'pg_catalog.pg_terminate_backend(int4, int8)',
};

export class SessionSignals {
  readonly #options: SessionSignalsOptions;

  constructor(options: SessionSignalsOptions) {
    this.#options = options;
  }

  /** @param by the role that asks */
  signal(pid: number, what: SessionSignal, by: string, done: (outcome: SignalOutcome) => void): void {
    const { sessions, port } = this.#options;
    if (port !== null && sessions.isElsewhere(pid)) port.signal(pid, what, by, done);
    else this.signalHere(pid, what, by, done);
  }

  /** The same for a session of this process only. */
  signalHere(pid: number, what: SessionSignal, by: string, done: (outcome: SignalOutcome) => void): void {
    const { sessions, ask } = this.#options;
    const asked = sessions.session(pid);
    ask(rightsSql(what, by, asked?.user ?? by)).then(
      ([row]) => {
        const judged = judge(row);
        if (judged !== 'done') return done(judged);
        // Whose rights were compared: by now another session may have the pid.
        if (asked === undefined || sessions.session(pid) !== asked) return done('absent');
        asked[what]();
        done('done');
      },
      () => done('unanswered'),
    );
  }
}

/** One row: whether the function may be called, both roles' SUPERUSER, and membership as pg_signal_backend() looks at it. */
const rightsSql = (what: SessionSignal, by: string, of: string): string => `
  SELECT pg_catalog.has_function_privilege(caller.oid, ${quoteLiteral(FUNCTIONS[what])}, 'EXECUTE'),
         caller.rolsuper, target.rolsuper,
         pg_catalog.pg_has_role(caller.oid, target.oid, 'USAGE')
           OR pg_catalog.pg_has_role(caller.oid, 'pg_signal_backend', 'USAGE')
    FROM pg_catalog.pg_roles caller, pg_catalog.pg_roles target
   WHERE caller.rolname = ${quoteLiteral(by)} AND target.rolname = ${quoteLiteral(of)}`;

/** A role that is gone by now has no rights. */
function judge(row: readonly (string | null)[] | undefined): Exclude<SignalOutcome, 'absent' | 'unanswered'> {
  if (row === undefined) return 'no member';
  const [mayCall, bySuperuser, ofSuperuser, isMember] = row;
  if (mayCall !== 't') return 'not callable';
  if (ofSuperuser === 't' && bySuperuser !== 't') return 'no superuser';
  return isMember === 't' ? 'done' : 'no member';
}
