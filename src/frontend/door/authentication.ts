// Finds out whether a client is who it says (D17): SCRAM-SHA-256 against the verifier on the server, or trust where it
// is configured and the client is on this machine. Unknown roles run through the same exchange and fail at its end.

import type { Credential } from '../../backend/connection/credential.js';
import type { Clock, Random } from '../../base/clock.js';
import { PgkvError } from '../../base/errors.js';
import { Frontend } from '../../wire/protocol.js';
import { BINDING_TYPE } from '../../wire/scram-message.js';
import { ScramServer } from '../../wire/scram-server.js';
import { mockVerifier, type ScramVerifier } from '../../wire/scram-verifier.js';
import {
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
} from '../../wire/server-messages.js';
import type { RoleAnswers, RoleSource } from './role-source.js';

export interface AuthenticationServices {
  readonly method: 'trust' | 'scram-sha-256';
  readonly roles: RoleSource | null;
  readonly failureDelayMs: number;
  /** Makes stand-in verifiers that do not change from attempt to attempt. */
  readonly mockSecret: Buffer;
  readonly clock: Clock;
  readonly random: Random;
}

export interface AuthenticationPort {
  send(bytes: Buffer): void;
  /** @param answers what the shards say of the role; none where clients are trusted */
  accepted(credential: Credential, answers: RoleAnswers): void;
  refused(error: PgkvError): void;
}

/** One login. */
export class Authentication {
  readonly #services: AuthenticationServices;
  readonly #port: AuthenticationPort;
  readonly #user: string;
  #verifier: ScramVerifier | null = null;
  #answers: RoleAnswers = [];
  #scram: ScramServer | null = null;
  #mechanism: string | null = null;
  #over = false;

  constructor(services: AuthenticationServices, port: AuthenticationPort, user: string) {
    this.#services = services;
    this.#port = port;
    this.#user = user;
  }

  /**
   * @param local the client is on this machine: loopback or Unix socket
   * @param endPointHash of the TLS certificate the client saw, for channel binding
   */
  begin(local: boolean, endPointHash: Buffer | null): void {
    const { method, roles } = this.#services;
    if (method === 'trust') {
      if (local) return this.#port.accepted({ kind: 'none' }, []);
      const hint = 'auth.method = "trust" lets in clients of this machine only';
      return this.#port.refused(new PgkvError('invalid_authorization', { hint }));
    }
    if (roles === null) return this.#port.refused(new PgkvError('internal', { detail: 'no source of verifiers' }));
    roles.lookUp(this.#user).then(
      (answers) => {
        this.#answers = answers;
        this.#challenge(answers[0]?.record?.verifier ?? null, endPointHash);
      },
      (error: unknown) => {
        if (this.#over) return;
        this.#over = true;
        this.#port.refused(error instanceof PgkvError ? error : new PgkvError('internal', { cause: error }));
      },
    );
  }

  /** The client is gone. */
  abandon(): void {
    this.#over = true;
  }

  /** A message of the client during the exchange: `buffer[start, end)`, header included. */
  message(type: number, buffer: Buffer, start: number, end: number): void {
    if (this.#over) return;
    if (this.#scram === null || type !== Frontend.password) {
      throw new PgkvError('protocol_violation', { message: `expected SASL response, got message type ${type}` });
    }
    if (this.#mechanism === null) return this.#initialResponse(this.#scram, buffer, start, end);
    const body = Buffer.from(buffer.subarray(start + 5, end));
    if (this.#awaitsFirst) {
      this.#awaitsFirst = false;
      this.#port.send(encodeAuthenticationSaslContinue(this.#scram.first(this.#mechanism, body)));
      return;
    }
    const verdict = this.#scram.final(body);
    this.#over = true;
    if (verdict.kind === 'refused') {
      this.#services.roles?.forget(this.#user);
      return this.#refuse();
    }
    this.#port.send(encodeAuthenticationSaslFinal(verdict.serverFinal));
    this.#port.accepted({ kind: 'clientKey', clientKey: verdict.clientKey, ...this.#verifier! }, this.#answers);
  }

  /** The client chose a mechanism without data: client-first follows in a message of its own. */
  #awaitsFirst = false;

  #challenge(verifier: ScramVerifier | null, endPointHash: Buffer | null): void {
    if (this.#over) return;
    this.#verifier = verifier ?? mockVerifier(this.#user, this.#services.mockSecret, this.#services.roles?.iterations);
    this.#scram = new ScramServer({
      verifier: this.#verifier,
      channelBinding: endPointHash === null ? null : { type: BINDING_TYPE, data: endPointHash },
      nonce: this.#services.random.bytes(18),
      mock: verifier === null,
    });
    this.#port.send(encodeAuthenticationSasl(this.#scram.mechanisms()));
  }

  #initialResponse(scram: ScramServer, buffer: Buffer, start: number, end: number): void {
    const nameEnd = buffer.indexOf(0, start + 5);
    if (nameEnd < 0 || nameEnd + 5 > end) {
      throw new PgkvError('protocol_violation', { message: 'malformed SASLInitialResponse' });
    }
    this.#mechanism = buffer.toString('latin1', start + 5, nameEnd);
    const length = buffer.readInt32BE(nameEnd + 1);
    const rest = end - nameEnd - 5;
    if (length === -1 ? rest !== 0 : length !== rest) {
      throw new PgkvError('protocol_violation', { message: 'malformed SASLInitialResponse' });
    }
    this.#awaitsFirst = length === -1;
    const data = length === -1 ? null : Buffer.from(buffer.subarray(nameEnd + 5, end));
    this.#port.send(encodeAuthenticationSaslContinue(scram.first(this.#mechanism, data)));
  }

  /** Wrong passwords and unknown roles: the same words after the same pause. */
  #refuse(): void {
    const message = `password authentication failed for user "${this.#user}"`;
    this.#services.clock.after(this.#services.failureDelayMs, () =>
      this.#port.refused(new PgkvError('authentication_failed', { message })),
    );
  }
}
