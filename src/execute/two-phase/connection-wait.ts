// How long one who has a connection to one shard waits for one to another.
import { PgkvError } from '../../base/errors.js';

/** Others may wait for those that are held meanwhile. As long as for a lock (BRANCH_SETTINGS), for the same reason. */
export const CONNECTION_WAIT_MS = 5_000;
export const NO_CONNECTION = new PgkvError('pool_wait_timeout', {
  detail: 'a transaction that has a connection to one shard waits 5 s for one to another: both may be needed by others',
});
