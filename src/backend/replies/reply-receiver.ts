// What a server connection asks of whoever holds its lease, and what it says when it breaks under them.
import type { PgkvError } from '../../base/errors.js';
import type { ErrorFields } from '../../wire/error-fields.js';
import type { Done } from './deeds.js';
import type { ReportedParameters } from './parameter-status.js';
import type { Owed } from './reply-queue.js';
import type { StatementSource } from './statement-source.js';

/** Whoever holds the lease of a connection: gets the replies meant for the client. Called synchronously. */
export interface ReplyReceiver {
  /** Why it has the connection, for those who wait for one: "a statement under way", "temporary objects" … */
  readonly heldFor: string;
  /** Whether bytes it was given are still to be read from where they were: its socket has not taken them yet. */
  readonly holdsBytes: boolean;
  /** Bytes to forward, whole messages or parts of streamed ones, in order. Valid during the call; views may be kept. */
  serverBytes(bytes: Buffer): void;
  /**
   * A NotificationResponse, which servers send between transactions only. Behind all bytes before it; valid during the call.
   * @param isBeside false: it belongs to the end of the transaction that is being answered to the client
   */
  serverNotified(message: Buffer, isBeside: boolean): void;
  /** Nothing more has arrived for now: flush. */
  serverPaused(): void;
  /** A forwarded ReadyForQuery went out with this status byte. */
  serverReady(status: number): void;
  /** The server reported a setting while this receiver held the connection (already forwarded unless swallowed). */
  serverParameter(name: string, value: string): void;
  /** What the client calls a statement, "" if it is its unnamed one; undefined if it is not the client's. */
  clientStatementName(source: StatementSource | null): string | undefined;
  /** CommandComplete tag, called only while `watchTags` is set. */
  serverTag(tag: string): void;
  /**
   * An ErrorResponse to a forwarded message, before it is forwarded, called only while `guarded` is set. True keeps it
   * and all that follows up to ReadyForQuery from the client, which then gets `guardedReady`.
   */
  guardedError(fields: ErrorFields): boolean;
  guardedReady(): void;
  serverLost(loss: ServerLoss): void;
}

/** What a receiver has to know of a connection that broke under it. */
export interface ServerLoss {
  readonly error: PgkvError;
  /** The server's own last FATAL message, if it sent one. */
  readonly last: Buffer | null;
  /** It was closed because the server refused what the client had said in its block elsewhere: the answer in place of the loss. */
  readonly refusal: Buffer | null;
  /** ReadyForQuery messages the client still waits for. */
  readonly owedReadies: number;
  /** All that the client still waits for, in order. */
  readonly owed: readonly Owed[];
  /** What is answered of the first batch. */
  readonly done: Done;
  /** Messages of the extended protocol were sent and no Sync behind them yet. */
  readonly unsynced: boolean;
  /** The client has had an error for the first of the batches that it waits for, or is still sending. */
  readonly told: boolean;
  /** A row was forwarded in part: the client's stream cannot be continued. */
  readonly midMessage: boolean;
  /** Transaction status when last reported. */
  readonly status: number;
  /** Reported settings when the server was last outside a block. */
  readonly parametersOutside: ReportedParameters;
}
