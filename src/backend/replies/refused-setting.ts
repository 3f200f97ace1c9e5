// What a server says to a setting, a role or the like that the client has set elsewhere, and that is set here again for it: an error of
// Postgres's own, with its own SQLSTATE, which tells the client what is wrong and that trying again is no use; but it has
// to say where, since where the client set it, it was right.
import { encodeErrorResponse, readErrorFields } from '../../wire/error-fields.js';

const HINT = 'roles and settings have to be known alike to the servers of all shards';

/** @param shardName null: there is one */
export function refusedSetting(error: Buffer, shardName: string | null): Buffer {
  if (shardName === null) return error;
  const fields = readErrorFields(error, 0, error.length);
  return encodeErrorResponse({ ...fields, M: `${fields['M']} (on shard "${shardName}")`, H: fields['H'] ?? HINT });
}
