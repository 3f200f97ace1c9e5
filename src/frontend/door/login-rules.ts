// Who may log in once the password was right, by what the servers say of the role: what Postgres would refuse is refused in
// its words, although the connection that serves the client is one that is open already; and a role that is not the same
// on every shard is refused here, with the shard's name, instead of at its first statement there.
import { PgkvError } from '../../base/errors.js';
import type { RoleAnswers } from './role-source.js';

export interface LoginAttempt {
  readonly user: string;
  /** Its statements may go to any shard. */
  readonly usesAllShards: boolean;
  /** Superusers are let in. */
  readonly superusersAllowed: boolean;
}

/** Null: nothing is known that forbids it. NOLOGIN and CONNECT are left to the server that is asked next (`barred`). */
export function loginFault(answers: RoleAnswers, attempt: LoginAttempt): PgkvError | null {
  const [first, ...others] = answers;
  const record = first?.record ?? null;
  if (record === null) return null;
  const { rights } = record;
  const { user } = attempt;
  if (rights?.isSuperuser === true && !attempt.superusersAllowed) {
    const message = `role "${user}" is a superuser: pgkv lets superusers in only where auth.allow says so`;
    return new PgkvError('invalid_authorization', { message });
  }
  // A limit above 0 is one of server connections, which clients share; the server holds it.
  if (rights !== null && !rights.isSuperuser && rights.connectionLimit === 0) {
    return new PgkvError('too_many_connections', { message: `too many connections for role "${user}"` });
  }
  if (!attempt.usesAllShards) return null;
  for (const { shard, record: there } of others) {
    const fault =
      there === null ? 'does not exist' : there.stored === record.stored ? null : 'has another stored password';
    if (fault !== null) {
      const message = `role "${user}" ${fault} on shard ${shard.name}: it has to be the same on all shards as on ${first!.shard.name}`;
      return new PgkvError('authentication_failed', { message });
    }
    if (there?.rights?.mayLogIn === false && rights?.mayLogIn === true) {
      const message = `role "${user}" is not permitted to log in on shard ${shard.name}`;
      return new PgkvError('invalid_authorization', { message });
    }
  }
  return null;
}
