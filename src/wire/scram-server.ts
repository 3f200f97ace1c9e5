// The server's half of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; the manual's "SASL Authentication"),
// with the checks, their order and the words of Postgres's auth-scram.c. One object is one exchange: it ends at the
// first error or verdict. The user name in the messages is ignored: the startup packet's counts. No I/O here.
import { timingSafeEqual } from 'node:crypto';
import { assert } from '../base/assert.js';
import { PgkvError } from '../base/errors.js';
import { hmacSha256, KEY_BYTES, maskClientKey, sha256 } from './scram-keys.js';
import {
  AttributeReader,
  authMessage,
  BINDING_TYPE,
  bindingInput,
  type ChannelBinding,
  decodeBase64,
  isPrintable,
  messageText,
  SASL_MESSAGE_BYTES_MAX,
  SCRAM_SHA_256,
  SCRAM_SHA_256_PLUS,
  showCharacter,
} from './scram-message.js';
import type { ScramVerifier } from './scram-verifier.js';

export interface ScramServerOptions {
  readonly verifier: ScramVerifier;
  /** Null without TLS, and where the certificate has no tls-server-end-point hash: then PLUS is not offered. */
  readonly channelBinding: ChannelBinding | null;
  /** 18 unpredictable bytes; or the text itself, for test vectors. */
  readonly nonce: Buffer | string;
  /** The verifier is a stand-in: the exchange runs to its end and is refused there. */
  readonly mock: boolean;
}

export type ScramVerdict =
  /** `clientKey` lets pgkv log in to servers that hold the same verifier (D17): never log it, never store it. */
  | { readonly kind: 'accepted'; readonly serverFinal: Buffer; readonly clientKey: Buffer }
  | { readonly kind: 'refused' };

type Phase =
  | { readonly kind: 'fresh' }
  | { readonly kind: 'challenged'; readonly exchange: Exchange; readonly serverFirst: string; readonly nonce: string }
  | { readonly kind: 'over' };

/** What client-first said. */
interface Exchange {
  readonly flag: 'n' | 'y' | 'p';
  readonly clientFirstBare: string;
  readonly clientNonce: string;
}

interface ClientFinal {
  readonly nonce: string;
  readonly proof: Buffer;
  readonly withoutProof: string;
}

const malformed = (detail: string) =>
  new PgkvError('protocol_violation', { message: 'malformed SCRAM message', detail });

const EMPTY = Buffer.alloc(0);

export class ScramServer {
  readonly #verifier: ScramVerifier;
  readonly #channelBinding: ChannelBinding | null;
  readonly #serverNonce: string;
  readonly #mock: boolean;
  #phase: Phase;

  constructor({ verifier, channelBinding, nonce, mock }: ScramServerOptions) {
    this.#verifier = verifier;
    this.#channelBinding = channelBinding;
    this.#serverNonce = typeof nonce === 'string' ? nonce : nonce.toString('base64');
    this.#mock = mock;
    this.#phase = { kind: 'fresh' };
    assert(this.#serverNonce !== '' && isPrintable(this.#serverNonce), 'SCRAM server nonce is printable');
  }

  /** What AuthenticationSASL offers, the better first. */
  mechanisms(): string[] {
    return this.#channelBinding === null ? [SCRAM_SHA_256] : [SCRAM_SHA_256_PLUS, SCRAM_SHA_256];
  }

  /**
   * Answers SASLInitialResponse with the payload of AuthenticationSASLContinue. A SASLInitialResponse without data
   * (length −1, `clientFirst` null) gets an empty challenge; client-first then comes as SASLResponse, to be passed here
   * with the same mechanism. Throws protocol_violation, unsupported or invalid_authorization.
   */
  first(mechanism: string, clientFirst: Buffer | null): Buffer {
    assert(this.#phase.kind === 'fresh', 'SCRAM client-first comes once');
    if (!this.mechanisms().includes(mechanism)) {
      this.#phase = { kind: 'over' };
      throw new PgkvError('protocol_violation', {
        message: 'client selected an invalid SASL authentication mechanism',
      });
    }
    if (clientFirst === null) return EMPTY;
    this.#phase = { kind: 'over' }; // unless what follows succeeds
    const text = messageText(clientFirst, SASL_MESSAGE_BYTES_MAX, malformed);
    const exchange = readClientFirst(text, mechanism === SCRAM_SHA_256_PLUS, this.#channelBinding !== null);
    const { salt, iterations } = this.#verifier;
    const nonce = exchange.clientNonce + this.#serverNonce;
    const serverFirst = `r=${nonce},s=${salt.toString('base64')},i=${iterations}`;
    this.#phase = { kind: 'challenged', exchange, serverFirst, nonce };
    return Buffer.from(serverFirst, 'latin1');
  }

  /** Judges SASLResponse. Throws as first() does; a wrong proof and a mock verifier are refused alike. */
  final(clientFinal: Buffer): ScramVerdict {
    const phase = this.#phase;
    assert(phase.kind === 'challenged', 'SCRAM client-final follows the challenge');
    this.#phase = { kind: 'over' };
    const text = messageText(clientFinal, SASL_MESSAGE_BYTES_MAX, malformed);
    const { flag, clientFirstBare } = phase.exchange;
    const final = readClientFinal(text, (binding) => this.#checkBinding(flag, binding));
    if (final.nonce !== phase.nonce) {
      throw new PgkvError('protocol_violation', { message: 'invalid SCRAM response', detail: 'Nonce does not match.' });
    }
    // The proof is computed and compared for a mock verifier too: time must not tell which users exist.
    const { storedKey, serverKey } = this.#verifier;
    const signed = authMessage(clientFirstBare, phase.serverFirst, final.withoutProof);
    const clientKey = maskClientKey(final.proof, storedKey, signed);
    const proven = timingSafeEqual(sha256(clientKey), storedKey);
    if (!proven || this.#mock) return { kind: 'refused' };
    const serverFinal = Buffer.from(`v=${hmacSha256(serverKey, signed).toString('base64')}`, 'latin1');
    return { kind: 'accepted', serverFinal, clientKey };
  }

  /** "c=" must repeat the gs2 header of client-first, followed by the hash of the certificate this server showed. */
  #checkBinding(flag: 'n' | 'y' | 'p', binding: string): void {
    if (flag === 'p') assert(this.#channelBinding !== null, 'SCRAM channel binding in use');
    const data = flag === 'p' ? this.#channelBinding!.data : null;
    if (binding === bindingInput(flag, data).toString('base64')) return;
    if (flag === 'p') {
      throw new PgkvError('invalid_authorization', { message: 'SCRAM channel binding check failed' });
    }
    throw new PgkvError('protocol_violation', {
      message: 'unexpected SCRAM channel-binding attribute in client-final-message',
    });
  }
}

function readClientFirst(text: string, plusChosen: boolean, plusOffered: boolean): Exchange {
  const reader = new AttributeReader(text, malformed);
  const flag = readBindingFlag(reader, plusChosen, plusOffered);
  if (reader.peek() === 'a') {
    throw new PgkvError('unsupported_protocol', {
      message: 'client uses authorization identity, but it is not supported',
    });
  }
  if (reader.peek() !== ',') {
    throw malformed(`Unexpected attribute "${showCharacter(reader.peek())}" in client-first-message.`);
  }
  reader.skip();
  const clientFirstBare = reader.rest();
  if (reader.peek() === 'm') {
    throw new PgkvError('unsupported_protocol', { message: 'client requires an unsupported SCRAM extension' });
  }
  reader.expect('n');
  const clientNonce = reader.expect('r');
  if (!isPrintable(clientNonce)) {
    throw new PgkvError('protocol_violation', { message: 'non-printable characters in SCRAM nonce' });
  }
  while (!reader.done) reader.next(); // optional extensions: well formed, otherwise ignored
  return { flag, clientFirstBare, clientNonce };
}

/** Reads "n,", "y," or "p=type,": whether the client binds to the channel, and whether that fits what was agreed. */
function readBindingFlag(reader: AttributeReader, plusChosen: boolean, plusOffered: boolean): Exchange['flag'] {
  const flag = reader.peek();
  switch (flag) {
    case 'n':
    case 'y':
      if (plusChosen) {
        throw malformed(
          'The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.',
        );
      }
      // "y" means: I can, and you did not offer it. We did, so someone took the offer out on its way.
      if (flag === 'y' && plusOffered) {
        throw new PgkvError('invalid_authorization', {
          message: 'SCRAM channel binding negotiation error',
          detail:
            'The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.',
        });
      }
      reader.skip();
      if (reader.peek() !== ',') {
        throw malformed(`Comma expected, but found character "${showCharacter(reader.peek())}".`);
      }
      reader.skip();
      return flag;
    case 'p': {
      if (!plusChosen) {
        throw malformed(
          'The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.',
        );
      }
      const type = reader.expect('p');
      if (type !== BINDING_TYPE) {
        const shown = type.slice(0, 30).replace(/[^\x21-\x7e]/g, '?');
        throw new PgkvError('protocol_violation', { message: `unsupported SCRAM channel-binding type "${shown}"` });
      }
      return flag;
    }
    default:
      throw malformed(`Unexpected channel-binding flag "${showCharacter(flag)}".`);
  }
}

function readClientFinal(text: string, checkBinding: (binding: string) => void): ClientFinal {
  const reader = new AttributeReader(text, malformed);
  checkBinding(reader.expect('c'));
  const nonce = reader.expect('r');
  let proofFrom = reader.at;
  let attribute = reader.next();
  while (attribute.name !== 'p') {
    proofFrom = reader.at;
    attribute = reader.next();
  }
  const proof = decodeBase64(attribute.value);
  if (proof?.length !== KEY_BYTES) throw malformed('Malformed proof in client-final-message.');
  if (!reader.done) throw malformed('Garbage found at the end of client-final-message.');
  return { nonce, proof, withoutProof: text.slice(0, proofFrom - 1) };
}
