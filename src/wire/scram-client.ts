// The client's half of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS towards servers, with a password or with the ClientKey a
// client proved to us (D17). One object is one login. It authenticates the server too: verify() must have returned
// before anything the server says counts as coming from the server that was meant.
import { timingSafeEqual } from 'node:crypto';
import { assert } from '../base/assert.js';
import { PgkvError } from '../base/errors.js';
import { deriveKeys, hmacSha256, KEY_BYTES, maskClientKey, type ScramKeys } from './scram-keys.js';
import {
  AttributeReader,
  authMessage,
  bindingInput,
  type ChannelBinding,
  decodeBase64,
  isPrintable,
  messageText,
  SCRAM_SHA_256,
  SCRAM_SHA_256_PLUS,
} from './scram-message.js';
import type { ScramVerifier } from './scram-verifier.js';

/** A server that asks for more is refused: a million takes about 0.4 s of this thread. */
export const SERVER_ITERATIONS_MAX = 1_000_000;
/** Postgres sends under 200 bytes. */
const SERVER_MESSAGE_BYTES_MAX = 2000;

export type ScramCredential =
  | { readonly kind: 'password'; readonly password: string }
  /** ClientKey with the verifier it satisfies: good for every server that holds that same verifier. */
  | ({ readonly kind: 'clientKey'; readonly clientKey: Buffer } & ScramVerifier);

export interface ScramClientOptions {
  readonly credential: ScramCredential;
  /** 18 unpredictable bytes; or the text itself, for test vectors. */
  readonly nonce: Buffer | string;
  /** Null without TLS, and where the server's certificate has no tls-server-end-point hash. */
  readonly channelBinding: ChannelBinding | null;
  /** The mechanisms of the server's AuthenticationSASL. */
  readonly offered: readonly string[];
}

type Phase =
  | { readonly kind: 'fresh' }
  | { readonly kind: 'opened' }
  | { readonly kind: 'proven'; readonly serverSignature: Buffer }
  | { readonly kind: 'over' };

const malformed = (detail: string) =>
  new PgkvError('protocol_violation', { message: 'malformed SCRAM message from the server', detail });

export class ScramClient {
  /** For SASLInitialResponse: PLUS where both sides can. */
  readonly mechanism: string;
  readonly #credential: ScramCredential;
  readonly #flag: 'n' | 'y' | 'p';
  readonly #bindingData: Buffer | null;
  readonly #clientNonce: string;
  readonly #clientFirstBare: string;
  #phase: Phase;

  constructor({ credential, nonce, channelBinding, offered }: ScramClientOptions) {
    const plus = channelBinding !== null && offered.includes(SCRAM_SHA_256_PLUS);
    if (!plus && !offered.includes(SCRAM_SHA_256)) {
      throw new PgkvError('authentication_failed', {
        message: `the server offers none of pgkv's SASL mechanisms, only ${JSON.stringify(offered)}`,
      });
    }
    this.mechanism = plus ? SCRAM_SHA_256_PLUS : SCRAM_SHA_256;
    this.#credential = credential;
    // "y" tells a server which did offer PLUS that somebody removed it from the list on its way here.
    this.#flag = plus ? 'p' : channelBinding === null ? 'n' : 'y';
    this.#bindingData = plus ? channelBinding.data : null;
    this.#clientNonce = typeof nonce === 'string' ? nonce : nonce.toString('base64');
    // The name stays empty as libpq leaves it: servers take it from the startup packet.
    this.#clientFirstBare = `n=,r=${this.#clientNonce}`;
    this.#phase = { kind: 'fresh' };
    assert(this.#clientNonce !== '' && isPrintable(this.#clientNonce), 'SCRAM client nonce is printable');
  }

  /** client-first, the data of SASLInitialResponse. */
  first(): Buffer {
    assert(this.#phase.kind === 'fresh', 'SCRAM client-first is sent once');
    this.#phase = { kind: 'opened' };
    return Buffer.concat([bindingInput(this.#flag, null), Buffer.from(this.#clientFirstBare, 'latin1')]);
  }

  /** Answers AuthenticationSASLContinue with client-final, the data of SASLResponse. */
  continue(serverFirst: Buffer): Buffer {
    assert(this.#phase.kind === 'opened', 'SCRAM server-first follows client-first');
    this.#phase = { kind: 'over' }; // unless what follows succeeds
    const text = messageText(serverFirst, SERVER_MESSAGE_BYTES_MAX, malformed);
    const { nonce, salt, iterations } = readServerFirst(text, this.#clientNonce);
    const { clientKey, storedKey, serverKey } = keysFor(this.#credential, salt, iterations);
    const withoutProof = `c=${bindingInput(this.#flag, this.#bindingData).toString('base64')},r=${nonce}`;
    const signed = authMessage(this.#clientFirstBare, text, withoutProof);
    const proof = maskClientKey(clientKey, storedKey, signed);
    this.#phase = { kind: 'proven', serverSignature: hmacSha256(serverKey, signed) };
    return Buffer.from(`${withoutProof},p=${proof.toString('base64')}`, 'latin1');
  }

  /** Checks AuthenticationSASLFinal. Throws authentication_failed if the server does not know the password's verifier. */
  verify(serverFinal: Buffer): void {
    const phase = this.#phase;
    assert(phase.kind === 'proven', 'SCRAM server-final follows the proof');
    this.#phase = { kind: 'over' };
    const reader = new AttributeReader(messageText(serverFinal, SERVER_MESSAGE_BYTES_MAX, malformed), malformed);
    if (reader.peek() === 'e') {
      throw new PgkvError('authentication_failed', {
        message: `error received from server in SCRAM exchange: ${reader.expect('e')}`,
      });
    }
    const signature = decodeBase64(reader.expect('v'));
    if (signature?.length !== KEY_BYTES) throw malformed('Invalid server signature.');
    while (!reader.done) reader.next();
    if (!timingSafeEqual(signature, phase.serverSignature)) {
      throw new PgkvError('authentication_failed', {
        message: 'incorrect server signature: the server does not hold the verifier of this password',
      });
    }
  }
}

function readServerFirst(text: string, clientNonce: string): { nonce: string; salt: Buffer; iterations: number } {
  const reader = new AttributeReader(text, malformed);
  const nonce = reader.expect('r');
  // A server that adds nothing of its own could replay an exchange.
  if (!nonce.startsWith(clientNonce) || nonce.length === clientNonce.length || !isPrintable(nonce)) {
    throw malformed('Nonce does not match.');
  }
  const salt = decodeBase64(reader.expect('s'));
  if (salt === null) throw malformed('Invalid salt.');
  const count = reader.expect('i');
  if (!/^[1-9][0-9]{0,9}$/.test(count)) throw malformed('Invalid iteration count.');
  while (!reader.done) reader.next(); // optional extensions
  const iterations = Number(count);
  if (iterations > SERVER_ITERATIONS_MAX) {
    throw new PgkvError('authentication_failed', {
      message: `the server asks for ${iterations} SCRAM iterations; pgkv computes at most ${SERVER_ITERATIONS_MAX}`,
      hint: 'Set the role\'s password again with a lower "scram_iterations".',
    });
  }
  return { nonce, salt, iterations };
}

function keysFor(credential: ScramCredential, salt: Buffer, iterations: number): ScramKeys {
  if (credential.kind === 'password') return deriveKeys(credential.password, salt, iterations);
  if (salt.equals(credential.salt) && iterations === credential.iterations) return credential;
  throw new PgkvError('authentication_failed', {
    message: "the role's password verifier on this server differs from the one the client logged in against",
    detail:
      'Salt or iteration count differ: the password was changed since, was set separately on this server, or the role is missing there.',
    hint: 'Log in again; if that fails, copy pg_authid.rolpassword, so that every server holds the same verifier.',
  });
}
