// What coordinator and recoverer of a transaction over several shards have in common (D14): what a server can answer, and
// what may be concluded from it. Each rule is one on which atomicity rests; test/model/two-phase breaks them one by one.

export type Decision = 'commit' | 'abort';

export type Answer =
  /** Told at the ReadyForQuery behind it. */
  | { readonly kind: 'done' }
  /** The server's ErrorResponse; the session goes on. A FATAL one is `lost`. */
  | { readonly kind: 'refused'; readonly sqlstate: string; readonly error: Buffer | null }
  /** Done on this server alone: waiting for its standbys was cancelled (D11 rule 2). A crash may take it back. */
  | { readonly kind: 'local' }
  /** The connection broke, or missed its deadline: it may have been done, it may even be done later. */
  | { readonly kind: 'lost' };

export interface ProtocolRules {
  /** PREPARE TRANSACTION was answered so: no crash of anybody takes it back. */
  isPrepared(answer: Answer): boolean;
  /** What is decided where the decision's COMMIT was answered so; null: only the server of the decision knows. */
  decided(answer: Answer): Decision | null;
  /** COMMIT PREPARED or ROLLBACK PREPARED was answered so, and need not be said again. */
  isFinished(answer: Answer, decision: Decision): boolean;
  /** The client may be told of a commit: every branch is visible. */
  isVisible(unfinished: number): boolean;
  /** The recoverer has been told what is decided; null: it has to ask again. */
  settled(answer: Decision | null): Decision | null;
  /** No shard can hold a transaction that is not among those found. */
  knowsAllPrepared(shards: number, answered: number): boolean;
}

const UNDEFINED_OBJECT = '42704';

/** The server holds no such transaction: somebody else has finished it, or it is still to be prepared. */
export const isAbsent = (answer: Answer): boolean => answer.kind === 'refused' && answer.sqlstate === UNDEFINED_OBJECT;

export const PROTOCOL: ProtocolRules = {
  isPrepared: ({ kind }) => kind === 'done',
  decided: ({ kind }) => (kind === 'done' ? 'commit' : kind === 'refused' ? 'abort' : null),
  // It was prepared, or there would be no decision to commit: somebody else has finished it. Behind an abort it may be
  // prepared later: the recoverer finds it then.
  isFinished: (answer, decision) => answer.kind === 'done' || (isAbsent(answer) && decision === 'commit'),
  isVisible: (unfinished) => unfinished === 0,
  settled: (answer) => answer,
  knowsAllPrepared: (shards, answered) => shards === answered,
};
