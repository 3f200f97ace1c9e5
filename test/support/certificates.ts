// Certificates for tests, made by openssl: an authority, and certificates it signs.
import { spawnSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Certificate {
  readonly certFile: string;
  readonly keyFile: string;
}

const EC_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-sha256'];

/** Why no certificate can be made here, or false. */
export const noOpenssl: string | false = spawnSync('openssl', ['version']).status !== 0 && 'openssl is not installed';

export function makeAuthority(folder: string, name: string): Certificate {
  const files = filesOf(folder, name);
  run(['req', '-x509', ...EC_KEY, '-days', '2', '-subj', `/CN=${name}`, ...outputs(files)]);
  return files;
}

/** @param names as in subjectAltName: `IP:127.0.0.1`, `DNS:localhost` */
export function makeCertificate(folder: string, name: string, authority: Certificate, names: string): Certificate {
  const files = filesOf(folder, name);
  const request = join(folder, `${name}.csr`);
  const extensions = join(folder, `${name}.ext`);
  writeFileSync(extensions, `subjectAltName=${names}\n`);
  run(['req', ...EC_KEY, '-subj', `/CN=${name}`, '-keyout', files.keyFile, '-out', request]);
  run([
    ...['x509', '-req', '-sha256', '-days', '2', '-in', request, '-out', files.certFile, '-extfile', extensions],
    ...['-CA', authority.certFile, '-CAkey', authority.keyFile, '-CAcreateserial'],
  ]);
  chmodSync(files.keyFile, 0o600);
  return files;
}

const filesOf = (folder: string, name: string): Certificate => ({
  certFile: join(folder, `${name}.crt`),
  keyFile: join(folder, `${name}.key`),
});

const outputs = ({ certFile, keyFile }: Certificate) => ['-keyout', keyFile, '-out', certFile];

function run(args: readonly string[]): void {
  const { status, stderr } = spawnSync('openssl', [...args], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`openssl ${args[0]} failed: ${stderr}`);
}
