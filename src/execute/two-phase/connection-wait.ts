// How long one who has a connection to one shard waits for one to another.
import { PgkvError } from '../../base/errors.js';

/** Others may wait for those that are held meanwhile. No server sees that, nor does the look at locks (R66). */
export const CONNECTION_WAIT_MS = 5_000;
export const NO_CONNECTION = new PgkvError('pool_wait_timeout', {
  detail: 'a transaction that has a connection to one shard waits 5 s for one to another: both may be needed by others',
});
