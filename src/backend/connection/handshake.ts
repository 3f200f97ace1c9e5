// Logs in to a server: start-up packet, authentication, parameters, up to the first ReadyForQuery. Owns the stream until
// then; answers once, with what the connection needs, or with why it failed (the server's own words where it spoke).
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP
import type { Duplex } from 'node:stream';
import type { Random } from '../../base/clock.js';
import { messageOf, PgkvError } from '../../base/errors.js';
import { encodePassword, encodeSaslInitialResponse, encodeStartup, stringEnd } from '../../wire/client-messages.js';
import { readErrorFields } from '../../wire/error-fields.js';
import { Frame, FrameReader } from '../../wire/frame-reader.js';
import { md5Password } from '../../wire/md5-password.js';
import { AUTH_MESSAGE_BYTES_MAX, Backend, backendLimits } from '../../wire/protocol.js';
import { ScramClient } from '../../wire/scram-client.js';
import { BINDING_TYPE } from '../../wire/scram-message.js';
import { tlsServerEndPoint } from '../../wire/tls-server-end-point.js';
import type { Credential } from './credential.js';

export interface LoggedIn {
  readonly pid: number;
  readonly secretKey: Buffer;
  readonly parameters: Map<string, string>;
}

/** Why a login failed. `message` is the server's ErrorResponse, whole, when it sent one. */
export interface LoginFailure {
  readonly reason: string;
  readonly sqlstate: string | null;
  readonly message: Buffer | null;
  /** It let pgkv in, and is not the server that is expected. */
  readonly wrongServer?: boolean;
}

/** It was reached, and does not let the role in, or not into that database: to try again at once, or elsewhere, is of no use. */
export const refusesRole = ({ sqlstate }: LoginFailure): boolean =>
  sqlstate !== null && /^(?:28|42501|3D)/.test(sqlstate);

/** What was expected and found stands in the message: drivers drop the detail. */
export function loginError(label: string, failure: LoginFailure): PgkvError {
  const { reason, sqlstate, wrongServer } = failure;
  const detail = `${label}: ${reason}`;
  if (wrongServer === true) return new PgkvError('wrong_server', { message: detail, detail });
  if (refusesRole(failure)) {
    const name = sqlstate === '28P01' ? 'authentication_failed' : 'invalid_authorization';
    return new PgkvError(name, {
      message: `the server does not let the role in; nothing was sent (${detail})`,
      detail,
    });
  }
  return new PgkvError('server_unreachable', { detail });
}

const Authentication = { ok: 0, cleartext: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 } as const;
const LIMITS = backendLimits(AUTH_MESSAGE_BYTES_MAX);
// No rows during a login: nothing may be gathered for one.
LIMITS[Backend.dataRow] = LIMITS[Backend.copyData] = 0;

export class Handshake {
  readonly #stream: Duplex;
  readonly #credential: Credential;
  readonly #user: string;
  readonly #random: Random;
  readonly #certificate: Buffer | null;
  readonly #reader = new FrameReader(LIMITS, 0, 'backend');
  readonly #parameters = new Map<string, string>();
  readonly #succeeded: (result: LoggedIn) => void;
  readonly #failed: (failure: LoginFailure) => void;
  #pid = 0;
  #secretKey: Buffer = Buffer.alloc(0);
  #scram: ScramClient | null = null;
  #scramVerified = false;
  #authenticated = false;
  #finished = false;

  constructor(options: {
    stream: Duplex;
    certificate: Buffer | null;
    startup: ReadonlyMap<string, string>;
    user: string;
    credential: Credential;
    random: Random;
    succeeded: (result: LoggedIn) => void;
    failed: (failure: LoginFailure) => void;
  }) {
    this.#stream = options.stream;
    this.#certificate = options.certificate;
    this.#credential = options.credential;
    this.#user = options.user;
    this.#random = options.random;
    this.#succeeded = options.succeeded;
    this.#failed = options.failed;
    this.#stream.on('data', this.#received);
    this.#stream.on('error', this.#broken);
    this.#stream.on('close', this.#closed);
    this.#stream.on('end', this.#closed);
    this.#stream.write(encodeStartup(options.startup));
  }

  /** Gives up; `failed` is not called. */
  abort(): void {
    this.#finish();
    this.#stream.on('error', () => this.#stream.destroy());
    this.#stream.destroy();
  }

  readonly #broken = (error: Error): void => this.#fail({ reason: error.message, sqlstate: null, message: null });
  readonly #closed = (): void =>
    this.#fail({ reason: 'the server closed the connection during the login', sqlstate: null, message: null });

  readonly #received = (chunk: Buffer): void => {
    try {
      this.#reader.push(chunk);
      while (!this.#finished && this.#reader.next() !== Frame.none) this.#message();
    } catch (error) {
      const known = error instanceof PgkvError ? error : null;
      const detail = known?.detail === undefined ? '' : `: ${known.detail}`;
      this.#fail({ reason: `${messageOf(error)}${detail}`, sqlstate: known?.sqlstate ?? null, message: null });
    }
  };

  #message(): void {
    const { buffer, start, end, type } = this.#reader;
    switch (type) {
      case Backend.authentication:
        if (end - start < 9) throw new Error('malformed authentication request');
        this.#authentication(buffer.readInt32BE(start + 5), buffer.subarray(start + 9, end));
        return;
      case Backend.parameterStatus: {
        const nameEnd = stringEnd(buffer, start + 5, end);
        const valueEnd = nameEnd < 0 ? -1 : stringEnd(buffer, nameEnd + 1, end);
        if (valueEnd < 0) throw new Error('malformed ParameterStatus');
        this.#parameters.set(
          buffer.toString('utf8', start + 5, nameEnd),
          buffer.toString('utf8', nameEnd + 1, valueEnd),
        );
        return;
      }
      case Backend.backendKeyData:
        if (end - start < 9) throw new Error('malformed cancel key');
        this.#pid = buffer.readInt32BE(start + 5);
        this.#secretKey = Buffer.from(buffer.subarray(start + 9, end));
        return;
      case Backend.noticeResponse:
        return;
      case Backend.errorResponse: {
        const fields = readErrorFields(buffer, start, end);
        const message = Buffer.from(buffer.subarray(start, end));
        this.#fail({ reason: fields['M'] ?? 'unknown error', sqlstate: fields['C'] ?? null, message });
        return;
      }
      case Backend.readyForQuery:
        if (!this.#authenticated) throw new Error('the server is ready before it has let pgkv in');
        this.#ready();
        return;
      default:
        throw new Error(`unexpected message "${String.fromCharCode(type)}" during the login`);
    }
  }

  #ready(): void {
    const rest = this.#reader.takeRest();
    this.#finish();
    this.#succeeded({ pid: this.#pid, secretKey: this.#secretKey, parameters: this.#parameters });
    // What came right behind, say a shutdown notice, is for whoever listens now.
    if (rest.length > 0) this.#stream.unshift(rest);
  }

  #authentication(method: number, data: Buffer): void {
    const credential = this.#credential;
    switch (method) {
      case Authentication.ok:
        if (this.#scram !== null && !this.#scramVerified) throw new Error('the server skipped its part of SCRAM');
        this.#authenticated = true;
        return;
      case Authentication.cleartext:
        if (credential.kind !== 'password') throw this.#cannot('a cleartext password');
        if (this.#certificate === null) throw new Error('the server asks for a cleartext password without TLS');
        this.#stream.write(encodePassword(Buffer.from(`${credential.password}\0`, 'utf8')));
        return;
      case Authentication.md5:
        if (credential.kind !== 'password') throw this.#cannot('an MD5 password');
        this.#stream.write(
          encodePassword(Buffer.from(`${md5Password(this.#user, credential.password, data)}\0`, 'utf8')),
        );
        return;
      case Authentication.sasl:
        this.#startScram(data.toString('latin1').split('\0').filter(Boolean));
        return;
      case Authentication.saslContinue:
        if (this.#scram === null) throw new Error('SASL exchange out of order');
        this.#stream.write(encodePassword(this.#scram.continue(data)));
        return;
      case Authentication.saslFinal:
        if (this.#scram === null) throw new Error('SASL exchange out of order');
        this.#scram.verify(data);
        this.#scramVerified = true;
        return;
      default:
        throw new Error(`the server asks for authentication method ${method}, which pgkv does not support`);
    }
  }

  #startScram(mechanisms: string[]): void {
    if (this.#credential.kind === 'none') throw this.#cannot('a password (SCRAM-SHA-256)');
    const data = this.#certificate === null ? null : tlsServerEndPoint(this.#certificate);
    this.#scram = new ScramClient({
      credential: this.#credential,
      nonce: this.#random.bytes(18),
      channelBinding: data === null ? null : { type: BINDING_TYPE, data },
      offered: mechanisms,
    });
    this.#stream.write(encodeSaslInitialResponse(this.#scram.mechanism, this.#scram.first()));
  }

  #cannot(what: string): Error {
    const message = `the server asks for ${what} for role "${this.#user}", and pgkv has none to offer`;
    return new PgkvError('invalid_authorization', { message });
  }

  #fail(failure: LoginFailure): void {
    if (this.#finished) return;
    this.#finish();
    this.#stream.on('error', () => this.#stream.destroy());
    this.#stream.destroy();
    this.#failed(failure);
  }

  #finish(): void {
    this.#finished = true;
    this.#stream.off('data', this.#received);
    this.#stream.off('error', this.#broken);
    this.#stream.off('close', this.#closed);
    this.#stream.off('end', this.#closed);
  }
}
