// The message at hand, read once (D25): all that is behind it goes by what stands here. A conversation has one object that is
// filled for message after message, so it is valid until the next one is read.
// It is not in route/ because it names StatementSource: backend/ is a sibling of route/ (R23).
import type { StatementSource } from '../../backend/replies/statement-source.js';
import type { ClusterView } from '../../cluster/cluster-view.js';
import type { Route } from '../../route/route.js';
import type { Template } from '../../sql/plan/template.js';
import type { CopiedStatement, KvStatement } from './kv-statements.js';

export interface Unit {
  /** Frontend.*; the message is `buffer[start, end)`. */
  readonly type: number;
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
  /** Of the statement that the message brings (Query, Parse) or names (Bind, Describe). */
  readonly template: Template;
  readonly text: string;
  /** Null where the message names no statement that this session has; always so for a Query. */
  readonly source: StatementSource | null;
  /** A statement on a key-value table with its values: of a Query or a Bind. */
  readonly statement: KvStatement | null;
  /** What a COPY copies; `route` is the route of that, and `statement` null. */
  readonly copied: CopiedStatement | null;
  readonly route: Route;
  /** The map it was read under. */
  readonly view: ClusterView;
  /** There are key-value tables, so that statements have to be placed. */
  readonly placed: boolean;
}
