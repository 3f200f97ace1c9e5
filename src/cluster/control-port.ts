// What the control process and the data processes (workers) tell each other: plain values that structured cloning
// copies, in the order they were sent. With one process there is no port, and nothing of this is sent.
import type { Settings } from '../config/settings.js';
import type { Counters } from '../telemetry/counters.js';
import type { ProcessUsage } from '../telemetry/process-usage.js';
import type { CopyState } from '../telemetry/running-copies.js';
import type { ClusterView, ShardId } from './cluster-view.js';
import type { SessionSignal, SignalOutcome } from './session-pids.js';

/** A data process's line to the control process, for what concerns its siblings too. */
export interface ControlPort {
  /** DDL went through this process. */
  schemaChanged(shard: ShardId): void;
  /** A login failed against the role's verifier as it was kept. */
  verifierForgotten(role: string): void;
  /** A statement went through this process that wants nobody to be connected to the database. */
  databaseLeft(database: string): void;
  /** A cancel request for a session of another process. Calls `done` when that one has it, or nobody can. */
  cancel(pid: number, secretKey: Uint8Array, done: () => void): void;
  /** `by`, a role, wants to reach a session of another process. Calls `done` once. */
  signal(pid: number, what: SessionSignal, by: string, done: (outcome: SignalOutcome) => void): void;
}

/** Chain and key of the server certificate, PEM. */
export interface Certificate {
  readonly cert: string;
  readonly key: string;
}

/** What a data process begins with: all of it from the control process, so that no two can differ. */
export interface WorkerAssignment {
  /** From 1; that of a worker that ended passes to its successor. */
  readonly worker: number;
  /** Without the password of the service role. */
  readonly settings: Settings;
  readonly servicePassword: string | null;
  readonly version: string;
  readonly view: ClusterView;
  readonly state: ClusterState;
  readonly certificate: Certificate | null;
  /** Where the sockets are over which workers merge together; null: each merges for itself. */
  readonly laneFolder: string | null;
  /** Makes stand-ins for the verifiers of unknown roles, which must not change from worker to worker. */
  readonly mockSecret: Uint8Array;
}

/** What is known of a shard's primary. `other`: a server answers there that is not the one expected (D28). */
export type ShardState = 'answers' | 'unreachable' | 'silent' | 'other' | 'unknown';

export interface ShardHealth {
  readonly state: ShardState;
  /** Why it does not answer as it should; null while it does. */
  readonly reason: string | null;
}

/** A branch of a transaction over several shards that is prepared (D14). */
export interface PreparedState {
  readonly shard: string;
  readonly database: string;
  readonly gid: string;
  readonly owner: string;
  readonly ageMs: number;
  /** `underway`: its coordinator has it; else why it was not finished when it was tried last. */
  readonly state: 'underway' | 'undecided' | 'refused' | 'lost';
}

/** What all workers show of the whole, at most seconds old. */
export interface ClusterState {
  readonly prepared: readonly PreparedState[];
  /** By shard id. */
  readonly health: readonly ShardHealth[];
  readonly workers: readonly WorkerState[];
  readonly copies: readonly WorkerCopy[];
}

/** A copy that a client of that worker is at. */
export type WorkerCopy = CopyState & { readonly worker: number };

export interface WorkerState {
  readonly worker: number;
  readonly pid: number;
  /** Takes clients; else it is starting, or being replaced. */
  readonly serving: boolean;
  /** Of the view it works with; 0 where it has not reported yet. */
  readonly epoch: number;
  readonly clients: number;
  readonly serverConnections: number;
  readonly statements: number;
  /** Statements that it has handed to other workers to be merged, and taken from them. */
  readonly handedOver: number;
  readonly taken: number;
}

export interface WorkerReport {
  readonly epoch: number;
  readonly counters: Counters;
  readonly usage: ProcessUsage;
  readonly copies: readonly CopyState[];
}

interface ForwardedCancel {
  /** Of the worker that got it. */
  readonly request: number;
  readonly pid: number;
  readonly secretKey: Uint8Array;
}

interface ForwardedSignal {
  /** Of the worker whose client asks. */
  readonly request: number;
  readonly pid: number;
  readonly what: SessionSignal;
  readonly by: string;
}

/** What concerns workers alike: one tells it, the others hear it. */
export type SharedMessage =
  | { readonly kind: 'schema-changed'; readonly shard: ShardId }
  | { readonly kind: 'verifier-forgotten'; readonly role: string }
  | { readonly kind: 'database-left'; readonly database: string };

/** From the control process to a worker. */
export type ControlMessage =
  | SharedMessage
  | { readonly kind: 'start'; readonly assignment: WorkerAssignment }
  /** Comes with its socket. */
  | { readonly kind: 'client' }
  | { readonly kind: 'view'; readonly view: ClusterView }
  | { readonly kind: 'state'; readonly state: ClusterState }
  | { readonly kind: 'reload'; readonly settings: Settings; readonly certificate: Certificate | null }
  | { readonly kind: 'report-wanted' }
  /** `from`: the worker that got the request, to be told when it is done. */
  | ({ readonly kind: 'cancel'; readonly from: number } & ForwardedCancel)
  | { readonly kind: 'cancel-done'; readonly request: number }
  | ({ readonly kind: 'signal'; readonly from: number } & ForwardedSignal)
  | { readonly kind: 'signal-done'; readonly request: number; readonly outcome: SignalOutcome }
  | { readonly kind: 'drain' }
  | { readonly kind: 'stop' };

/** From a worker to the control process. */
export type WorkerMessage =
  | SharedMessage
  /** Clients can come. */
  | { readonly kind: 'serving' }
  /** The client has arrived. */
  | { readonly kind: 'taken' }
  /** It cannot start. */
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'report'; readonly report: WorkerReport }
  | ({ readonly kind: 'cancel' } & ForwardedCancel)
  | { readonly kind: 'cancel-done'; readonly from: number; readonly request: number }
  | ({ readonly kind: 'signal' } & ForwardedSignal)
  | {
      readonly kind: 'signal-done';
      readonly from: number;
      readonly request: number;
      readonly outcome: SignalOutcome;
    };
