// The arithmetic of RFC 5802 with SHA-256: from a password to ClientKey, StoredKey and ServerKey, and what both sides
// compute over a finished exchange. Pure functions of Buffers; who may hold which key is decided by their callers.
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import { preparePassword } from './scram-password.js';

/** Length of every key, signature and proof of SCRAM-SHA-256. */
export const KEY_BYTES = 32;

export interface ScramKeys {
  readonly clientKey: Buffer;
  readonly storedKey: Buffer;
  readonly serverKey: Buffer;
}

export const sha256 = (data: Buffer): Buffer => createHash('sha256').update(data).digest();

export const hmacSha256 = (key: Buffer, data: Buffer | string): Buffer =>
  createHmac('sha256', key).update(data).digest();

/** All keys of a password. Synchronous, since rare: about 2 ms for Postgres's default of 4096 iterations. */
export function deriveKeys(password: string, salt: Buffer, iterations: number): ScramKeys {
  const saltedPassword = pbkdf2Sync(preparePassword(password), salt, iterations, KEY_BYTES, 'sha256');
  const clientKey = hmacSha256(saltedPassword, 'Client Key');
  return { clientKey, storedKey: sha256(clientKey), serverKey: hmacSha256(saltedPassword, 'Server Key') };
}

/**
 * ClientKey to proof and proof to ClientKey: both are an exclusive or with HMAC(StoredKey, AuthMessage), so that a
 * server which sees one good proof learns the key (D17).
 */
export function maskClientKey(keyOrProof: Buffer, storedKey: Buffer, authMessage: Buffer): Buffer {
  const result = hmacSha256(storedKey, authMessage);
  for (let at = 0; at < KEY_BYTES; at++) result[at]! ^= keyOrProof[at]!;
  return result;
}
