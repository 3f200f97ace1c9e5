// Connects the driver to a router or server, asking for a password where one is needed and nobody gave it. As libpq,
// the question is asked between two connections, so that a slow typist runs into no start-up timeout.
import pg from 'pg';
import { messageOf } from '../base/errors.js';
import { CommandFailure } from './command-failure.js';
import { type ConnectionTarget, DEFAULT_HOST, DEFAULT_PORT, placeOf, tlsSettings } from './connection-target.js';

/** The driver's protocol connection, as far as its documented extension points (Submittable) give it. */
export interface DriverConnection {
  readonly stream: NodeJS.ReadableStream &
    NodeJS.WritableStream & { readonly writableNeedDrain: boolean; destroy(): void };
  on(event: string, listener: (message: never) => void): unknown;
  query(text: string): void;
  sendCopyFromChunk(chunk: Buffer): void;
  endCopyFrom(): void;
  sendCopyFail(message: string): void;
}

export interface DriverClient extends Omit<pg.Client, 'connection'> {
  readonly connection: DriverConnection;
  readonly processID: number | null;
  readonly secretKey: number | null;
}

/** Asks the user for the password of `user`; undefined where there is nobody to ask. */
export type AskPassword = (user: string) => Promise<string | undefined>;

/**
 * @param prepare called with each client before it connects, to listen to its protocol messages
 * @throws CommandFailure (exit code 2) that says where it tried to connect and why it failed
 */
export async function connect(
  target: ConnectionTarget,
  askPassword: AskPassword,
  prepare: (client: DriverClient) => void = () => undefined,
): Promise<DriverClient> {
  let { password } = target;
  let tls = tlsSettings(target);
  for (;;) {
    const attempt = await tryConnect(target, password, tls, prepare);
    if (attempt.client) return attempt.client;
    const { error, passwordWanted } = attempt;
    if (passwordWanted && password === undefined) {
      password = await askPassword(target.user);
      if (password !== undefined) continue;
      throw failure(target, new Error('a password is needed and none was given'), 'Set PGPASSWORD or use --url.');
    }
    const optionalTls = target.sslMode === 'prefer' || target.sslMode === 'allow';
    if (tls && optionalTls && messageOf(error).includes('does not support SSL')) {
      tls = false;
      continue;
    }
    throw failure(target, error);
  }
}

type Attempt =
  | { readonly client: DriverClient }
  | { readonly client?: never; readonly error: unknown; readonly passwordWanted: boolean };

async function tryConnect(
  target: ConnectionTarget,
  password: string | undefined,
  ssl: ReturnType<typeof tlsSettings>,
  prepare: (client: DriverClient) => void,
): Promise<Attempt> {
  const client = new pg.Client({
    host: target.host,
    port: target.port,
    user: target.user,
    database: target.database,
    application_name: target.applicationName,
    ssl,
    enableChannelBinding: ssl !== false, // SCRAM-SHA-256-PLUS where the server offers it, as libpq does
    ...(password !== undefined && { password }),
    ...(target.serverOptions !== undefined && { options: target.serverOptions }),
    ...(target.connectTimeoutMs !== undefined && { connectionTimeoutMillis: target.connectTimeoutMs }),
  }) as unknown as DriverClient;
  let passwordWanted = false;
  for (const request of ['authenticationCleartextPassword', 'authenticationMD5Password', 'authenticationSASL']) {
    client.connection.on(request, () => {
      passwordWanted = true;
    });
  }
  // The reason for a failed connection comes from `connect`; this keeps later events of the same failure quiet.
  client.on('error', () => undefined);
  prepare(client);
  try {
    await client.connect();
    return { client };
  } catch (error) {
    client.connection.stream.destroy();
    return { error, passwordWanted };
  }
}

function failure(target: ConnectionTarget, error: unknown, hint?: string): CommandFailure {
  const where = target.host.startsWith('/') ? placeOf(target) : `at ${placeOf(target)}`;
  const { reason, remedy } = explain(error, target);
  return new CommandFailure(2, `connection to server ${where} failed: ${reason}`, hint ?? remedy, error);
}

const STARTS_THERE = ` "pgkv dev" starts one on port ${DEFAULT_PORT}.`;
const isDefault = ({ host, port }: ConnectionTarget): boolean => host === DEFAULT_HOST && port === DEFAULT_PORT;

/** System errors in libpq's words, the server's own refusals with their severity. */
function explain(error: unknown, target: ConnectionTarget): { reason: string; remedy?: string } {
  if (error instanceof pg.DatabaseError) {
    const detail = error.detail ? `\nDETAIL:  ${error.detail}` : '';
    return {
      reason: `${error.severity ?? 'FATAL'}:  ${error.message}${detail}`,
      ...(error.hint && { remedy: error.hint }),
    };
  }
  // With several addresses of one name, Node reports an AggregateError without a message of its own.
  const causes = error instanceof AggregateError ? (error.errors as unknown[]) : [error];
  const code = (causes[0] as NodeJS.ErrnoException | undefined)?.code;
  switch (code) {
    case 'ECONNREFUSED':
      return { reason: 'Connection refused', remedy: `Is pgkv running there?${isDefault(target) ? STARTS_THERE : ''}` };
    case 'ENOENT':
      return { reason: 'No such file or directory', remedy: 'Is the server running and using that socket?' };
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return { reason: 'the host name could not be resolved' };
    case 'ETIMEDOUT':
      return { reason: 'Connection timed out' };
    default:
      return { reason: messageOf(causes[0]) };
  }
}
