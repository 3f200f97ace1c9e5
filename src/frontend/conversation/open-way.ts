// Puts together what one conversation works with: the reader of its messages, the exchanges that answer them, and what they share.
// Composition alone: who depends on whom is to be read here, and nothing is decided.
import { ClientBatch, type Exchange } from '../../execute/exchange.js';
import type { LeasedLane } from '../../execute/leased/leased-lane.js';
import type { SessionLanes } from '../../execute/session-lanes.js';
import type { Say } from '../../session/prologue.js';
import type { Session } from '../../session/session.js';
import { Transaction } from '../../session/transaction.js';
import type { FrameReader } from '../../wire/frame-reader.js';
import { BlockBranches } from '../exchanges/block-branches.js';
import type { ClientOutput } from '../exchanges/client-output.js';
import { CopyInExchange } from '../exchanges/copy-in-exchange.js';
import type { ConversationServices, ExchangeContext } from '../exchanges/exchange-context.js';
import { ExtendedProtocol } from '../exchanges/extended-protocol.js';
import { LeasedExchange } from '../exchanges/leased-exchange.js';
import { LentLanes } from '../exchanges/lent-lanes.js';
import { MergedExchange, type MergedServices } from '../exchanges/merged-exchange.js';
import { OwnAnswers } from '../exchanges/own-answers.js';
import { OwnExchange } from '../exchanges/own-exchange.js';
import { OwnPortals } from '../exchanges/own-portals.js';
import { ShardPlacement } from '../exchanges/placement.js';
import { ScatterExchange } from '../exchanges/scatter-exchange.js';
import { SpreadExchange } from '../exchanges/spread-exchange.js';
import { KvStatements } from '../unit/kv-statements.js';
import { NamedStatements } from '../unit/named-statements.js';
import { UnitReader } from '../unit/read-unit.js';
import { saidAgain } from '../unit/said-again.js';
import type { Unit } from '../unit/unit.js';
import type { Way } from './handle-unit.js';

/** What the conversation brings along. */
interface WayParts {
  readonly services: ConversationServices;
  readonly session: Session;
  readonly reader: FrameReader;
  readonly output: ClientOutput;
  readonly lanes: SessionLanes;
  /** search_path of the client's start-up packet. */
  readonly startSearchPath: string | null;
  /** Null where statements are not merged. */
  readonly merged: MergedServices | null;
  /** See ExchangeContext. */
  resume(): void;
  takeMessages(): void;
}

export interface OpenedWay {
  readonly way: Way;
  readonly units: UnitReader;
  readonly extended: ExtendedProtocol;
  /** Those that may be under way beside the current lane. */
  readonly beside: readonly Exchange<Unit>[];
}

export function openWay(parts: WayParts): OpenedWay {
  const { services, session, reader, output, lanes } = parts;
  const kv = new KvStatements(session, services, parts.startSearchPath);
  const named = new NamedStatements(session, services.sources, kv, services.statementBytesMax);
  const units = new UnitReader(reader, kv, named, services.templateOf);
  const say: Say = (template, text) => saidAgain(units.unit, template, text, session);
  const transaction = new Transaction<LeasedLane>(say);
  const portals = new OwnPortals(output);
  const context: ExchangeContext = {
    session,
    services,
    reader,
    output,
    lanes,
    batch: new ClientBatch(),
    transaction,
    lent: new LentLanes(transaction, lanes, portals),
    kv,
    named,
    resume: parts.resume,
    takeMessages: parts.takeMessages,
  };
  const extended = new ExtendedProtocol(session, named, () => lanes.home.schemaEpoch);
  const answers = new OwnAnswers(context, portals);
  const branches = new BlockBranches(context, answers, portals, say);
  const placement = new ShardPlacement(context, portals, say, branches);
  const merged = parts.merged === null ? null : new MergedExchange(context, parts.merged, extended);
  const scatter = new ScatterExchange(context, answers, portals);
  const spread = new SpreadExchange(context, answers, portals, parts.merged, extended);
  const copyIn = new CopyInExchange(context, answers, portals);
  const own = new OwnExchange(context, answers, portals, branches, merged !== null);
  const leased = new LeasedExchange(context, placement, portals, answers, extended, merged);
  return {
    way: { context, placement, branches, portals, answers, own, leased, scatter, spread, copyIn, merged },
    units,
    extended,
    beside:
      merged === null ? [scatter, spread, branches, copyIn, own] : [merged, scatter, spread, branches, copyIn, own],
  };
}
