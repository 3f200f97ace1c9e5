// Certificates here are only as much DER as RFC 5929 needs; real ones of every kind, with libpq and Postgres as the
// judges, are in test/integration/scram.test.ts.
import { createHash } from 'node:crypto';
import t from 'tap';
import { tlsServerEndPoint } from '../../src/wire/tls-server-end-point.js';

function element(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const length =
    content.length < 0x80
      ? Buffer.from([content.length])
      : Buffer.from([0x82, content.length >> 8, content.length & 0xff]);
  return Buffer.concat([Buffer.from([tag]), length, content]);
}

const oid = (hex: string) => element(0x06, Buffer.from(hex, 'hex'));
const NULL = element(0x05);
const algorithm = (...parts: Buffer[]) => element(0x30, ...parts);
const certificate = (signatureAlgorithm: Buffer) =>
  element(0x30, element(0x30, Buffer.alloc(300, 1)), signatureAlgorithm, element(0x03, Buffer.alloc(64)));

const RSASSA_PSS = oid('2a864886f70d01010a');
const SHA512 = oid('608648016503040203');

t.test('the hash is that of the signature, or SHA-256 where it is weaker', (t) => {
  const rows: [string, Buffer, string | null][] = [
    ['md5WithRSA', algorithm(oid('2a864886f70d010104'), NULL), 'sha256'],
    ['sha1WithRSA', algorithm(oid('2a864886f70d010105'), NULL), 'sha256'],
    ['sha224WithRSA', algorithm(oid('2a864886f70d01010e'), NULL), 'sha224'],
    ['sha256WithRSA', algorithm(oid('2a864886f70d01010b'), NULL), 'sha256'],
    ['sha384WithRSA', algorithm(oid('2a864886f70d01010c'), NULL), 'sha384'],
    ['sha512WithRSA', algorithm(oid('2a864886f70d01010d'), NULL), 'sha512'],
    ['ecdsa-with-SHA1', algorithm(oid('2a8648ce3d0401')), 'sha256'],
    ['ecdsa-with-SHA224', algorithm(oid('2a8648ce3d040301')), 'sha224'],
    ['ecdsa-with-SHA256', algorithm(oid('2a8648ce3d040302')), 'sha256'],
    ['ecdsa-with-SHA384', algorithm(oid('2a8648ce3d040303')), 'sha384'],
    ['ecdsa-with-SHA512', algorithm(oid('2a8648ce3d040304')), 'sha512'],
    ['RSA-PSS with SHA-512', algorithm(RSASSA_PSS, element(0x30, element(0xa0, algorithm(SHA512, NULL)))), 'sha512'],
    ['RSA-PSS with the default, SHA-1', algorithm(RSASSA_PSS, element(0x30)), 'sha256'],
    [
      'RSA-PSS with only a salt length',
      algorithm(RSASSA_PSS, element(0x30, element(0xa2, Buffer.from([2, 1, 32])))),
      'sha256',
    ],
    ['RSA-PSS without parameters', algorithm(RSASSA_PSS), null],
    ['RSA-PSS with an unknown hash', algorithm(RSASSA_PSS, element(0x30, element(0xa0, algorithm(oid('2a03'))))), null],
    ['Ed25519', algorithm(oid('2b6570')), null],
    ['Ed448', algorithm(oid('2b6571')), null],
  ];
  for (const [name, signatureAlgorithm, hash] of rows) {
    const der = certificate(signatureAlgorithm);
    t.same(tlsServerEndPoint(der), hash === null ? null : createHash(hash).update(der).digest(), name);
  }
  t.end();
});

t.test('what is cut, mislabelled or lies about its length has no binding data', (t) => {
  const der = certificate(algorithm(oid('2a864886f70d01010b'), NULL));
  for (let length = 0; length < der.length; length++)
    t.equal(tlsServerEndPoint(der.subarray(0, length)), null, `cut at ${length}`);
  const sequence = (lengthBytes: number[]) => Buffer.from([0x30, ...lengthBytes]);
  for (const bad of [sequence([0x80]), sequence([0x85, 0, 0, 0, 0, 1, 0]), sequence([0x84, 0xff, 0xff, 0xff, 0xff])]) {
    t.equal(tlsServerEndPoint(bad), null, bad.toString('hex'));
  }
  const oids = ['', '2a8648ce3d0403', '2a8648ce3d040382', '2affffffffff7f'];
  for (const hex of oids) t.equal(tlsServerEndPoint(certificate(algorithm(oid(hex)))), null, `OID ${hex}`);
  t.end();
});
