// The simulation must be able to fail: pgkv is broken in one way after the other, as a careless change might break it,
// and each time some run has to notice.
import t from 'tap';
import { ServerConnection, type ServerLoss } from '../../src/backend/connection/server-connection.js';
import { SettingsRegistry } from '../../src/backend/connection/settings-group.js';
import { NodePool } from '../../src/backend/pool/node-pool.js';
import { type Owed, ReplyQueue } from '../../src/backend/replies/reply-queue.js';
import { LeasedLane } from '../../src/execute/leased/leased-lane.js';
import { Conversation } from '../../src/frontend/conversation/conversation.js';
import { ClientConnection } from '../../src/frontend/door/client-connection.js';
import type { BlockPlace } from '../../src/frontend/exchanges/block-span.js';
import { LostAnswers } from '../../src/frontend/exchanges/lost-answers.js';
import { MessageDeeds } from '../../src/frontend/exchanges/message-deeds.js';
import { OwnExchange } from '../../src/frontend/exchanges/own-exchange.js';
import { Transaction } from '../../src/session/transaction.js';
import { UnnamedStatement } from '../../src/session/unnamed-statement.js';
import { loadParser } from '../../src/sql/meaning/parse.js';
import { Effect, type Template } from '../../src/sql/plan/template.js';
import { FrameReader } from '../../src/wire/frame-reader.js';
import { TransactionStatus } from '../../src/wire/protocol.js';
import { RunFailure, simulate } from './world.js';

/** Most faults below are noticed within 100 runs. */
const SEEDS_MAX = 3_000;

/** Puts something else in the place of a method or getter; returns what takes it back. */
function replace<Class extends object>(
  prototype: Class,
  name: keyof Class & string,
  change: (original: PropertyDescriptor) => PropertyDescriptor,
): () => void {
  const original = Object.getOwnPropertyDescriptor(prototype, name)!;
  Object.defineProperty(prototype, name, { ...original, ...change(original) });
  return () => Object.defineProperty(prototype, name, original);
}

type Method = (this: unknown, ...args: unknown[]) => unknown;

/** `change` gets the original, bound, and the arguments. */
const replaceMethod = <Class extends object>(
  prototype: Class,
  name: keyof Class & string,
  change: (original: (...args: unknown[]) => unknown, self: Class, args: unknown[]) => unknown,
): (() => void) =>
  replace(prototype, name, ({ value }) => ({
    value(this: Class, ...args: unknown[]) {
      return change((value as Method).bind(this), this, args);
    },
  }));

const replaceGetter = <Class extends object>(
  prototype: Class,
  name: keyof Class & string,
  get: (self: Class) => unknown,
): (() => void) =>
  replace(prototype, name, () => ({
    get(this: Class) {
      return get(this);
    },
  }));

const SABOTAGE: Readonly<Record<string, () => () => void>> = {
  'a connection is handed on in the middle of a transaction': () =>
    replaceMethod(LeasedLane.prototype, 'serverReady', (original, { connection }) => {
      connection!.status = TransactionStatus.idle;
      original(TransactionStatus.idle);
    }),

  'a batch without its Sync counts as finished': () =>
    replaceMethod(ReplyQueue.prototype, 'unsynced', (_, { skipping }) => skipping),

  'what was assumed of skipped messages is not undone': () =>
    replaceMethod(ReplyQueue.prototype, 'push', (original, _, [entry]) =>
      original({ ...(entry as Owed), assumption: null }),
    ),

  'settings are not carried over': () => replaceMethod(SettingsRegistry.prototype, 'intern', (_, { empty }) => empty),

  'the state that statements leave is not asked for': () =>
    replaceMethod(LeasedLane.prototype, 'note', (original, _, [template, text]) =>
      original({ ...(template as Template), effects: Effect.none }, text),
    ),

  'statements read under other settings are shared': () => {
    const restores = (['prepare', 'isPrepared', 'parse'] as const).map((name) =>
      replaceMethod(ServerConnection.prototype, name, (original, _, [source, , ...rest]) =>
        original(source, '', ...rest),
      ),
    );
    return () => {
      for (const restore of restores) restore();
    };
  },

  'a statement runs under the name of another': () => {
    let last: unknown = null;
    return replaceMethod(ServerConnection.prototype, 'prepare', (original, _, args) => {
      const name = original(...args);
      const former = last;
      last = name;
      return former ?? name;
    });
  },

  'nobody waits for a cancel under way': () =>
    replaceMethod(LeasedLane.prototype, 'cancel', (original, { connection }) => {
      original();
      if (connection !== null) connection.cancelsUnderWay = 0;
    }),

  'a request that was withdrawn still stands in the queue': () =>
    replaceMethod(NodePool.prototype, 'withdraw', (_, __, [request]) =>
      (request as { group: { waiting: Set<unknown> } }).group.waiting.has(request),
    ),

  'writes that were lost count as reads': () =>
    replaceMethod(ReplyQueue.prototype, 'push', (original, _, [entry]) =>
      original({ ...(entry as Owed), does: ['reads'] }),
    ),

  'a COMMIT under way is forgotten when the connection is lost': () =>
    replaceMethod(LostAnswers.prototype, 'connectionLost', (original, _, [loss, block]) =>
      original(loss, { ...(block as BlockPlace), mayHaveCommitted: false }),
    ),

  'a lost transaction is forgotten': () =>
    replaceMethod(Transaction.prototype, 'lose', (_, self) => self.answered(TransactionStatus.idle, {})),

  'a lost transaction is committed': () =>
    replaceMethod(OwnExchange.prototype, 'take', (original, _, [unit]) => {
      const { template } = unit as { template: Template };
      const ended: Template = { ...template, kind: 'rollback', leavesBlock: 'closed' };
      return original({ ...(unit as object), text: 'ROLLBACK', template: ended });
    }),

  'clients are not told what their lost batch has become': () =>
    replaceMethod(Conversation.prototype, 'lost', (original, _, [loss, hadState]) =>
      original({ ...(loss as ServerLoss), owedReadies: 0 }, hadState),
    ),

  'a message that was put back is lost': () => replaceMethod(FrameReader.prototype, 'unread', () => undefined),

  'memory is read into again while a client has not got what is in it': () =>
    replaceGetter(LeasedLane.prototype, 'holdsBytes', () => false),

  'a client that does not read is sent more and more': () =>
    replaceGetter(Conversation.prototype, 'clogged', () => false),

  'a client that waits is read from all the same': () =>
    replaceMethod(ClientConnection.prototype, 'pauseReading', () => undefined),

  'the unnamed statement is forgotten when a later one is skipped': () =>
    replaceMethod(UnnamedStatement.prototype, 'undo', (original, _, [change]) => original(change, true)),

  'a Parse that was lost leaves the statement before it': () =>
    replaceMethod(UnnamedStatement.prototype, 'undo', (original, _, [change]) => original(change, false)),

  'what is told as done of a lost batch is undone': () =>
    replaceMethod(ReplyQueue.prototype, 'push', (original, _, [entry]) => {
      const { assumption } = entry as Owed;
      const undo = (refused: boolean): void => assumption!.undo(refused);
      original({
        ...(entry as Owed),
        assumption: assumption === null ? null : { ...assumption, undo, redo: undefined },
      });
    }),

  'a client goes on with the settings of a block that was lost': () =>
    replaceMethod(Conversation.prototype, 'lost', (original, { session }, [loss, ...rest]) =>
      original({ ...(loss as ServerLoss), parametersOutside: session.told }, ...rest),
    ),

  'a COMMIT counts as executed when it is bound, and not later': () =>
    replaceMethod(MessageDeeds.prototype, 'edgeRunBy', () => null),

  'a block counts as ended by what a server will refuse': () =>
    replaceMethod(MessageDeeds.prototype, 'isRefused', () => false),
};

/**
 * A run that notices it, where the first ones do not: tried before them. Where it no longer does, the others are, and the failure that
 * passes says which one does.
 */
const NOTICED_BY: Readonly<Record<string, number>> = {
  'a batch without its Sync counts as finished': 30,
  'what was assumed of skipped messages is not undone': 17,
  'nobody waits for a cancel under way': 470,
  'writes that were lost count as reads': 64,
  'a COMMIT under way is forgotten when the connection is lost': 64,
  'a client that does not read is sent more and more': 83,
  'the unnamed statement is forgotten when a later one is skipped': 251,
  'a Parse that was lost leaves the statement before it': 1145,
  'what is told as done of a lost batch is undone': 657,
  'a client goes on with the settings of a block that was lost': 970,
  'a COMMIT counts as executed when it is bound, and not later': 1205,
  'a block counts as ended by what a server will refuse': 129,
};

function noticed(what: string): RunFailure | null {
  const first = NOTICED_BY[what] ?? 1;
  for (let turn = 0; turn <= SEEDS_MAX; turn++) {
    try {
      simulate({ seed: turn === 0 ? first : turn });
    } catch (error) {
      if (error instanceof RunFailure) return error;
      throw error;
    }
  }
  return null;
}

await loadParser();

for (const [what, sabotage] of Object.entries(SABOTAGE)) {
  t.test(`it is noticed that ${what}`, async (t) => {
    const restore = sabotage();
    try {
      const failure = noticed(what);
      if (failure === null) t.fail(`not in ${SEEDS_MAX} runs`);
      else t.pass(failure.message);
    } finally {
      restore();
    }
  });
}
