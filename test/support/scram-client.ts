// The client's side of SCRAM-SHA-256 (RFC 7677), for tests. No channel binding, no SASLprep: test passwords are ASCII.
import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from 'node:crypto';

export class ScramClient {
  readonly #password: string;
  readonly #firstBare = `n=,r=${randomBytes(18).toString('base64')}`;
  #serverSignature: Buffer | undefined;

  constructor(password: string) {
    this.#password = password;
  }

  /** Body of the SASLInitialResponse. */
  initialResponse(): Buffer {
    const first = Buffer.from(`n,,${this.#firstBare}`);
    const length = Buffer.alloc(4);
    length.writeInt32BE(first.length);
    return Buffer.concat([Buffer.from('SCRAM-SHA-256\0'), length, first]);
  }

  /** Body of the SASLResponse to the server's first message. */
  finalResponse(serverFirst: string): Buffer {
    const attributes = new Map(serverFirst.split(',').map((part) => [part.slice(0, 1), part.slice(2)]));
    const [nonce, salt, iterations] = [attributes.get('r'), attributes.get('s'), Number(attributes.get('i'))];
    if (!nonce || !salt || !(iterations > 0)) throw new Error(`not a SCRAM server-first-message: ${serverFirst}`);
    const withoutProof = `c=${Buffer.from('n,,').toString('base64')},r=${nonce}`;
    const authMessage = `${this.#firstBare},${serverFirst},${withoutProof}`;
    const salted = pbkdf2Sync(this.#password, Buffer.from(salt, 'base64'), iterations, 32, 'sha256');
    const clientKey = hmac(salted, 'Client Key');
    const signature = hmac(createHash('sha256').update(clientKey).digest(), authMessage);
    const proof = Buffer.from(clientKey.map((byte, index) => byte ^ (signature[index] ?? 0)));
    this.#serverSignature = hmac(hmac(salted, 'Server Key'), authMessage);
    return Buffer.from(`${withoutProof},p=${proof.toString('base64')}`);
  }

  /** Throws unless the server proved that it knows the verifier. */
  verify(serverFinal: string): void {
    const given = Buffer.from(serverFinal.replace(/^v=/, ''), 'base64');
    const wanted = this.#serverSignature;
    if (!wanted || given.length !== wanted.length || !timingSafeEqual(given, wanted)) {
      throw new Error('the server does not know the SCRAM verifier');
    }
  }
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
