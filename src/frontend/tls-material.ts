// The certificate pgkv shows to clients. Read at start and again on SIGHUP; connections keep what they began with.
import { createPublicKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContext } from 'node:tls';
import { tlsServerEndPoint } from '../wire/tls-server-end-point.js';

export interface TlsMaterial {
  readonly context: SecureContext;
  /** For SCRAM-SHA-256-PLUS; null where the certificate's signature defines no such hash. */
  readonly endPointHash: Buffer | null;
}

/** Throws where the files cannot be read or do not belong together. */
export function loadTlsMaterial(options: {
  certFile: string;
  keyFile: string;
  minVersion: 'TLSv1.2' | 'TLSv1.3';
}): TlsMaterial {
  const cert = readFileSync(options.certFile);
  const key = readFileSync(options.keyFile);
  const leaf = new X509Certificate(cert);
  if (!leaf.publicKey.equals(createPublicKey(key))) {
    throw new Error(`the key in ${options.keyFile} does not belong to the certificate in ${options.certFile}`);
  }
  return {
    context: createSecureContext({ cert, key, minVersion: options.minVersion }),
    endPointHash: tlsServerEndPoint(leaf.raw),
  };
}
