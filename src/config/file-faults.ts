// What is wrong with the files that settings name: certificate, key and authorities are read and held together as `start`
// does, so that check-config finds what would keep a router from starting, and SIGHUP from taking a certificate over.
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { messageOf } from '../base/errors.js';
import type { Fault } from './problems.js';
import type { FileSettings } from './settings.js';

/** Throws where it cannot be read. */
export type ReadFile = (file: string) => string;

interface NamedFile {
  readonly path: readonly ['tls' | 'servers', string];
  readonly file: string;
  readonly text: string;
}

export function fileFaults({ tls, servers }: Partial<FileSettings>, readFile: ReadFile): Fault[] {
  const faults: Fault[] = [];
  const open = (path: NamedFile['path'], file: string | null | undefined): NamedFile | null => {
    if (file === null || file === undefined) return null;
    try {
      const text = readFile(file);
      if (text.includes('-----BEGIN ')) return { path, file, text };
      faults.push({ path, message: `${file} is not a PEM file` });
    } catch (error) {
      faults.push({ path, message: `cannot be read: ${messageOf(error)}` });
    }
    return null;
  };
  const certificate = open(['tls', 'cert_file'], tls?.cert_file);
  const key = open(['tls', 'key_file'], tls?.key_file);
  const authorities = open(['servers', 'tls_ca_file'], servers?.tls_ca_file);
  // One without the other is a fault already.
  const isPair = typeof tls?.cert_file === 'string' && typeof tls.key_file === 'string';
  const found = [
    isPair && certificate !== null ? certificateFault(certificate) : null,
    isPair && key !== null ? keyFault(key) : null,
    authorities && certificateFault(authorities),
  ].filter((fault) => fault !== null);
  if (found.length === 0 && certificate !== null && key !== null) {
    const fault = pairFault(certificate, key, tls!.min_version);
    if (fault !== null) found.push(fault);
  }
  return [...faults, ...found];
}

function certificateFault({ path, file, text }: NamedFile): Fault | null {
  try {
    new X509Certificate(text);
    return null;
  } catch (error) {
    const message = holds(text, 'PRIVATE KEY')
      ? `${file} holds a private key, not a certificate`
      : `${file} holds no certificate that can be read: ${messageOf(error)}`;
    return { path, message };
  }
}

function keyFault({ path, file, text }: NamedFile): Fault | null {
  try {
    createPrivateKey(text);
    return null;
  } catch (error) {
    if (!holds(text, 'PRIVATE KEY')) return { path, message: `${file} holds no private key` };
    const isLocked = holds(text, 'ENCRYPTED PRIVATE KEY') || text.includes('Proc-Type: 4,ENCRYPTED');
    const reason = isLocked ? 'it is encrypted, and pgkv asks for no passphrase' : messageOf(error);
    return { path, message: `the private key in ${file} cannot be used: ${reason}` };
  }
}

function pairFault(certificate: NamedFile, key: NamedFile, minVersion: 'TLSv1.2' | 'TLSv1.3'): Fault | null {
  if (!new X509Certificate(certificate.text).checkPrivateKey(createPrivateKey(key.text))) {
    const message = `the key in ${key.file} does not belong to the certificate in ${certificate.file}`;
    return { path: key.path, message };
  }
  try {
    createSecureContext({ cert: certificate.text, key: key.text, minVersion });
    return null;
  } catch (error) {
    return { path: certificate.path, message: `${certificate.file} cannot be used: ${messageOf(error)}` };
  }
}

const holds = (text: string, what: string): boolean => new RegExp(`-----BEGIN [A-Z0-9 ]*${what}-----`).test(text);
