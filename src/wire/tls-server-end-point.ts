// Channel binding data of type tls-server-end-point (RFC 5929 §4): the hash of the server's certificate, with the hash
// function of its signature. Finds that by a walk over the certificate's outer DER layers; checks nothing else in it.
import { createHash } from 'node:crypto';

const SEQUENCE = 0x30;
const OBJECT_IDENTIFIER = 0x06;
/** [0] of RSASSA-PSS-params: hashAlgorithm. */
const CONTEXT_0 = 0xa0;

const RSASSA_PSS = '1.2.840.113549.1.1.10';

// MD5 and SHA-1 give way to SHA-256, says the RFC.
const HASH_OF_SIGNATURE: ReadonlyMap<string, string> = new Map([
  ['1.2.840.113549.1.1.4', 'sha256'], // md5WithRSAEncryption
  ['1.2.840.113549.1.1.5', 'sha256'], // sha1WithRSAEncryption
  ['1.2.840.113549.1.1.11', 'sha256'], // sha256WithRSAEncryption
  ['1.2.840.113549.1.1.12', 'sha384'],
  ['1.2.840.113549.1.1.13', 'sha512'],
  ['1.2.840.113549.1.1.14', 'sha224'],
  ['1.2.840.10045.4.1', 'sha256'], // ecdsa-with-SHA1
  ['1.2.840.10045.4.3.1', 'sha224'],
  ['1.2.840.10045.4.3.2', 'sha256'],
  ['1.2.840.10045.4.3.3', 'sha384'],
  ['1.2.840.10045.4.3.4', 'sha512'],
]);

const HASH_OF_DIGEST: ReadonlyMap<string, string> = new Map([
  ['1.2.840.113549.2.5', 'sha256'], // md5
  ['1.3.14.3.2.26', 'sha256'], // sha1
  ['2.16.840.1.101.3.4.2.1', 'sha256'],
  ['2.16.840.1.101.3.4.2.2', 'sha384'],
  ['2.16.840.1.101.3.4.2.3', 'sha512'],
  ['2.16.840.1.101.3.4.2.4', 'sha224'],
]);

/**
 * The binding data for a certificate in DER (`X509Certificate.raw`, `getPeerCertificate().raw`). Null where the RFC
 * defines none (Ed25519, Ed448: libpq and Postgres fail there) and for what is not a certificate: then channel binding
 * must be neither offered nor chosen.
 */
export function tlsServerEndPoint(certificate: Buffer): Buffer | null {
  const hash = signatureHash(certificate);
  return hash === null ? null : createHash(hash).update(certificate).digest();
}

function signatureHash(certificate: Buffer): string | null {
  const outer = readElement(certificate, SEQUENCE);
  const tbsCertificate = readElement(outer?.content, SEQUENCE);
  const algorithm = readAlgorithm(tbsCertificate?.rest);
  if (algorithm === null) return null;
  if (algorithm.oid !== RSASSA_PSS) return HASH_OF_SIGNATURE.get(algorithm.oid) ?? null;
  const parameters = readElement(algorithm.parameters, SEQUENCE);
  if (parameters === null) return null;
  if (parameters.content[0] !== CONTEXT_0) return 'sha256'; // hashAlgorithm defaults to SHA-1
  const digest = readAlgorithm(readElement(parameters.content, CONTEXT_0)?.content);
  return digest === null ? null : (HASH_OF_DIGEST.get(digest.oid) ?? null);
}

/** AlgorithmIdentifier: SEQUENCE { OBJECT IDENTIFIER, parameters }. */
function readAlgorithm(der: Buffer | undefined): { oid: string; parameters: Buffer } | null {
  const identifier = readElement(readElement(der, SEQUENCE)?.content, OBJECT_IDENTIFIER);
  if (identifier === null) return null;
  const oid = decodeOid(identifier.content);
  return oid === null ? null : { oid, parameters: identifier.rest };
}

/** The element at the start of `der` if it has this tag and lies wholly inside; `rest` is what follows it. */
function readElement(der: Buffer | undefined, tag: number): { content: Buffer; rest: Buffer } | null {
  if (der === undefined || der.length < 2 || der[0] !== tag) return null;
  let length = der[1]!;
  let from = 2;
  if (length >= 0x80) {
    const lengthBytes = length & 0x7f;
    // 0 is the indefinite form, which DER does not have; over 4 cannot be a certificate.
    if (lengthBytes === 0 || lengthBytes > 4 || der.length < 2 + lengthBytes) return null;
    length = der.readUIntBE(2, lengthBytes);
    from += lengthBytes;
  }
  const to = from + length;
  return to > der.length ? null : { content: der.subarray(from, to), rest: der.subarray(to) };
}

/** Dotted decimal; null if empty, cut off, or with a component past 2^28, which no known identifier has. */
function decodeOid(content: Buffer): string | null {
  const components: number[] = [];
  let value = 0;
  let pending = false;
  for (const byte of content) {
    if (value >= 2 ** 21) return null;
    value = value * 128 + (byte & 0x7f);
    pending = byte >= 0x80;
    if (pending) continue;
    components.push(value);
    value = 0;
  }
  const first = components.shift();
  if (first === undefined || pending) return null;
  const root = Math.min(Math.floor(first / 40), 2);
  return [root, first - root * 40, ...components].join('.');
}
