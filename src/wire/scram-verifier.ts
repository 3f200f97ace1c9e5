// What a server stores of a role's password: Postgres's rolpassword text (pg_authid), parsed, written and made, and the
// stand-in for a role that has none. A verifier proves a password but does not let its holder log in anywhere.
import { assert } from '../base/assert.js';
import { deriveKeys, hmacSha256, KEY_BYTES } from './scram-keys.js';
import { decodeBase64 } from './scram-message.js';

export const SALT_BYTES = 16;
export const ITERATIONS_DEFAULT = 4096;
/** Postgres keeps the count in a C int. */
const ITERATIONS_MAX = 2 ** 31 - 1;

export interface ScramVerifier {
  readonly iterations: number;
  readonly salt: Buffer;
  readonly storedKey: Buffer;
  readonly serverKey: Buffer;
}

/**
 * Parses `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. Null for anything else (an md5 hash, a damaged
 * verifier): such a role cannot log in by SCRAM, and its login attempts get mockVerifier().
 */
export function parseVerifier(text: string): ScramVerifier | null {
  const fields = /^SCRAM-SHA-256\$([0-9]{1,10}):([^$]*)\$([^:]*):(.*)$/.exec(text);
  if (fields === null) return null;
  const iterations = Number(fields[1]);
  const salt = decodeBase64(fields[2]!);
  const storedKey = decodeBase64(fields[3]!);
  const serverKey = decodeBase64(fields[4]!);
  if (iterations < 1 || iterations > ITERATIONS_MAX) return null;
  if (salt === null || storedKey?.length !== KEY_BYTES || serverKey?.length !== KEY_BYTES) return null;
  return { iterations, salt, storedKey, serverKey };
}

/** The text for pg_authid, or for ALTER ROLE … PASSWORD '…'. */
export function formatVerifier(verifier: ScramVerifier): string {
  const base64 = (bytes: Buffer) => bytes.toString('base64');
  const { iterations, salt, storedKey, serverKey } = verifier;
  return `SCRAM-SHA-256$${iterations}:${base64(salt)}$${base64(storedKey)}:${base64(serverKey)}`;
}

/** The verifier of a plaintext password. `salt`: SALT_BYTES random bytes, new for every password. */
export function makeVerifier(
  password: string,
  { salt, iterations = ITERATIONS_DEFAULT }: { salt: Buffer; iterations?: number },
): ScramVerifier {
  assert(Number.isInteger(iterations) && iterations >= 1 && iterations <= ITERATIONS_MAX, 'SCRAM iteration count');
  const { storedKey, serverKey } = deriveKeys(password, salt, iterations);
  return { iterations, salt, storedKey, serverKey };
}

/**
 * A verifier nobody can satisfy, for a user who does not exist or has no SCRAM password. It is a function of `user` and
 * `secret` alone, so that the salt is the same at every attempt, as a real one is: keep `secret` over restarts and
 * equal on all routers, or the change of salts tells which users are real. `iterations` should be what real roles have.
 */
export function mockVerifier(user: string, secret: Buffer, iterations: number = ITERATIONS_DEFAULT): ScramVerifier {
  const derive = (purpose: string) => hmacSha256(secret, `${purpose}\0${user}`);
  return {
    iterations,
    salt: derive('salt').subarray(0, SALT_BYTES),
    storedKey: derive('stored key'),
    serverKey: derive('server key'),
  };
}
