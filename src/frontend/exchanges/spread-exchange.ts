// Statements that write on several shards, each by itself and outside of blocks (D14). One at a time; while one is under way
// the conversation takes no messages. What runs on the shards, and how it is made one, is execute/two-phase's.
import { rewrittenText } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import { type RefusalName, refusalError, refuse } from '../../base/refusals.js';
import type { ShardView } from '../../cluster/cluster-view.js';
import type { Exchange, Handling } from '../../execute/exchange.js';
import { NO_PARAMETERS } from '../../execute/scatter/extended-messages.js';
import { SpreadWrite } from '../../execute/two-phase/spread-write.js';
import type { BranchTarget } from '../../execute/two-phase/write-branch.js';
import { Frontend } from '../../wire/protocol.js';
import { encodeCommandComplete } from '../../wire/server-messages.js';
import type { Unit } from '../unit/unit.js';
import type { ExchangeContext } from './exchange-context.js';
import type { OwnAnswers } from './own-answers.js';
import { placedError } from './scatter-request-of.js';

/** `2pc`, `per_shard` or `refuse`. */
const SETTING = 'pgkv.cross_shard';
const BY_SETTING: Readonly<Record<string, string>> = {
  per_shard: `${SETTING} = per_shard is not supported`,
};

export class SpreadExchange implements Exchange<Unit> {
  readonly #context: ExchangeContext;
  readonly #answers: OwnAnswers;
  #run: SpreadWrite | null = null;

  constructor(context: ExchangeContext, answers: OwnAnswers) {
    this.#context = context;
    this.#answers = answers;
  }

  get busy(): boolean {
    return this.#run !== null;
  }

  /** Why the unit may not run so; null: it may. */
  obstacle({ type, view, template }: Unit): PgkvError | null {
    const { transaction, batch, session } = this.#context;
    const refused = (name: RefusalName): PgkvError => refusalError(refuse(name));
    const isAlone = type === Frontend.query && template.kinds.length === 1 && batch.begins;
    if (!isAlone || transaction.inBlock || view.clusterId === null) return refused('several_shards_write');
    // RESET leaves '' of a setting that no server knows.
    const wanted = session.settings.values.get(SETTING) || '2pc';
    if (wanted === '2pc') return null;
    const why = BY_SETTING[wanted];
    return why === undefined ? refused('several_shards_write') : refusalError(refuse('several_shards_unable', { why }));
  }

  /** A Query. */
  take(unit: Unit): Handling {
    const { route, statement, view } = unit;
    if (route.kind !== 'spread' || statement === null || view.clusterId === null) {
      return this.#answers.refuse(unit, new PgkvError('internal', { detail: 'a write of one shard was to be spread' }));
    }
    const { services, output, session, lanes, kv } = this.#context;
    const rewritten = kv.rewrite(statement);
    const target = (shard: ShardView): BranchTarget => ({
      shardName: shard.name,
      lane: (client) => lanes.another(shard, client),
    });
    services.counters.statements++;
    this.#run = new SpreadWrite(
      {
        targets: route.shards.map(target),
        statement: {
          source: services.sources.ownText(rewrittenText(rewritten), [], statement.encoding),
          parameters: NO_PARAMETERS,
        },
        clusterId: view.clusterId,
        role: session.user,
        clock: services.clock,
        random: services.random,
      },
      {
        notice: (message) => output.send(message),
        completed: (rows) => {
          output.send(encodeCommandComplete(`${statement.plan.verb.toUpperCase()} ${rows}`));
          this.#answers.ready();
          this.#end();
        },
        failed: (error) => {
          this.#answers.error(Frontend.query, placedError(error, rewritten));
          this.#end();
        },
      },
    );
    this.#run.start();
    return 'taken';
  }

  cancel(): void {
    this.#run?.cancel();
  }

  drained(): void {
    // Its answer is one tag.
  }

  lost(): void {
    // Its branches have lanes of their own.
  }

  abandon(): void {
    this.#run?.abandon();
    this.#run = null;
  }

  #end(): void {
    this.#run = null;
    this.#context.output.flush();
    this.#context.resume();
  }
}
