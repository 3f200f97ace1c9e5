// The certificate pgkv shows to clients. Read at start and again on SIGHUP; connections keep what they began with.
import { createPublicKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext, type SecureContext } from 'node:tls';
import type { Certificate } from '../../cluster/control-port.js';
import type { Settings } from '../../config/settings.js';
import { tlsServerEndPoint } from '../../wire/tls-server-end-point.js';

export interface TlsMaterial {
  readonly context: SecureContext;
  /** For SCRAM-SHA-256-PLUS; null where the certificate's signature defines no such hash. */
  readonly endPointHash: Buffer | null;
}

/** Null: no TLS. Throws where the files cannot be read or do not belong together. */
export function readCertificate({ tls: { certFile, keyFile } }: Settings): Certificate | null {
  if (certFile === null || keyFile === null) return null;
  const cert = readFileSync(certFile, 'utf8');
  const key = readFileSync(keyFile, 'utf8');
  if (!new X509Certificate(cert).publicKey.equals(createPublicKey(key))) {
    throw new Error(`the key in ${keyFile} does not belong to the certificate in ${certFile}`);
  }
  return { cert, key };
}

export const isSameCertificate = (one: Certificate | null, other: Certificate | null): boolean =>
  one?.cert === other?.cert && one?.key === other?.key;

/** Throws where the certificate cannot be used. */
export function tlsMaterial(certificate: Certificate | null, { tls }: Settings): TlsMaterial | null {
  if (certificate === null) return null;
  return {
    context: createSecureContext({ ...certificate, minVersion: tls.minVersion }),
    endPointHash: tlsServerEndPoint(new X509Certificate(certificate.cert).raw),
  };
}
