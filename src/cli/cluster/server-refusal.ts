// A shard's error as the message of a command.
import pg from 'pg';
import { messageOf } from '../../base/errors.js';
import { CommandFailure } from '../command-failure.js';
import type { ShardPlace } from './shard-connection.js';

const INSUFFICIENT_PRIVILEGE = '42501';

/** @throws CommandFailure that names the shard; what is one already stays as it is */
export function explainRefusal({ name }: ShardPlace, error: unknown): never {
  if (error instanceof CommandFailure) throw error;
  const code = error instanceof pg.DatabaseError ? error.code : undefined;
  const detail = error instanceof pg.DatabaseError ? (error.hint ?? error.detail) : undefined;
  const hint =
    code === INSUFFICIENT_PRIVILEGE
      ? 'Connect as a role that may: --user NAME, with its password in PGPASSWORD.'
      : (detail ?? undefined);
  throw new CommandFailure(code === undefined ? 2 : 1, `shard ${name}: ${messageOf(error)}`, hint, error);
}
