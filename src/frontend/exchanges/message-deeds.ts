// What the statements of Parse, Bind, Describe and Execute do on the current lane's server, as far as the loss of their answers
// hangs on it: a portal may be executed in a later batch than that of its Bind; and what a server is certain to refuse does
// nothing, nor does what stands behind it in its batch. Invariant: of portals that are not known, as where there are too many,
// nobody knows what they do.
import type { Deed } from '../../backend/replies/deeds.js';
import { declaredTypes } from '../../backend/replies/statement-source.js';
import type { Session } from '../../session/session.js';
import type { TransactionPhase } from '../../session/transaction.js';
import type { Template } from '../../sql/plan/template.js';
import { valueCount } from '../../wire/bind-message.js';
import { Frontend } from '../../wire/protocol.js';
import { type NamedStatements, portalIn } from '../unit/named-statements.js';
import type { Unit } from '../unit/unit.js';
import { deedOf } from './deeds-of.js';
import { readOwnBind } from './own-bind.js';

/** Portals with a name whose deeds are kept. */
const NAMED_MAX = 100;
const STATEMENT = 0x53;

/** A statement that begins or ends a block, or goes on in it from a savepoint, where its portal is executed. */
export interface BoundEdge {
  readonly template: Template;
  readonly text: string;
  /** It can be said again as a simple query, and nobody else can refer to it. */
  readonly isPlain: boolean;
  /** Nothing uses its values, but a server takes a snapshot for them. */
  readonly hasValues: boolean;
}

interface PortalDeed {
  readonly deed: Deed | null;
  readonly edge: BoundEdge | null;
}

const UNKNOWN: PortalDeed = { deed: null, edge: null };
/** Of an empty text: its Execute starts no command. */
const OF_NOTHING: PortalDeed = { deed: 'reads', edge: null };
/** Shared: the hot path allocates none. */
const WITHOUT_EDGE: Readonly<Record<Deed, PortalDeed>> = {
  anything: { deed: 'anything', edge: null },
  reads: { deed: 'reads', edge: null },
  begins: { deed: 'begins', edge: null },
  commits: { deed: 'commits', edge: null },
  'rolls back': { deed: 'rolls back', edge: null },
  recovers: { deed: 'recovers', edge: null },
};

/** It begins a block, ends it or says where to go on in it, and no sooner than its portal is executed. */
export const isEdge = ({ leavesBlock, kind }: Template): boolean => leavesBlock !== null || kind === 'savepoint';

const hasFailed = (phase: TransactionPhase): boolean => phase === 'failed' || phase === 'lost';

/** Of a statement that is said in a block of that phase, or parsed there. */
const deedIn = (template: Template, phase: TransactionPhase): Deed =>
  deedOf(template, hasFailed(phase) && template.kind !== 'multi');

/**
 * `#isSkipping`: a server will refuse something that was sent of the batch at hand, and skip the rest of it. `#mayFail`: it may;
 * what begins a block does not.
 */
export class MessageDeeds {
  readonly #session: Session;
  readonly #named: NamedStatements;
  /** Of the portal without a name. */
  #unnamed = UNKNOWN;
  readonly #portals = new Map<string, PortalDeed>();
  #isSkipping = false;
  #mayFail = false;

  constructor(session: Session, named: NamedStatements) {
    this.#session = session;
    this.#named = named;
  }

  /** Whether it is certain that a server will refuse or skip what is about to be sent in a block of that phase. */
  isRefused(unit: Unit, phase: TransactionPhase): boolean {
    if (this.#isSkipping) return true;
    if (unit.type === Frontend.parse) return this.#isRefusedParse(unit, phase);
    return unit.type === Frontend.bind && this.#isRefusedBind(unit, phase);
  }

  #isRefusedParse(unit: Unit, phase: TransactionPhase): boolean {
    const { source, template } = unit;
    if (source === null || template.kind === 'unparsed') return false;
    if (hasFailed(phase) && !template.endsFailure && template.kind !== 'empty') return true;
    const name = this.#named.parsedName(unit);
    return name !== '' && this.#session.statement(name) !== undefined;
  }

  #isRefusedBind({ template, source, buffer, start, end }: Unit, phase: TransactionPhase): boolean {
    if (source === null || template.kind === 'unparsed') return false;
    if (hasFailed(phase) && !template.endsFailure && template.kind !== 'empty') return true;
    // Of others nobody knows here how many values they take.
    if (!isEdge(template)) return false;
    // With values, Postgres does not even let the end of a failed block through.
    if (hasFailed(phase) && valueCount(buffer, start, end) > 0) return true;
    return 'error' in readOwnBind(buffer, start, end, { count: declaredTypes(source).length, isLeast: false }, false);
  }

  /** What the statement of the message does; null: nobody knows. */
  of(unit: Unit, phase: TransactionPhase): Deed | null {
    const { type, template, source, buffer, start } = unit;
    switch (type) {
      case Frontend.parse:
      case Frontend.bind:
        return deedIn(template, phase);
      case Frontend.describe:
        if (buffer[start + 5] !== STATEMENT) return this.#portal(unit).deed;
        return source !== null && declaredTypes(source).length === 0 ? deedIn(template, phase) : 'anything';
      case Frontend.execute:
        return this.#portal(unit).deed;
      default:
        return 'anything';
    }
  }

  /** The message is sent. */
  sent(unit: Unit, deed: Deed | null, isRefused: boolean): void {
    this.#isSkipping = isRefused;
    if (unit.type !== Frontend.close && deed !== 'begins') this.#mayFail = true;
    if (isRefused) return;
    if (unit.type === Frontend.close) return this.#closed(unit);
    if (unit.type !== Frontend.bind) return;
    const portal = portalIn(unit);
    const made = madeBy(unit, deed, portal);
    if (portal === '') this.#unnamed = made;
    else if (this.#portals.size < NAMED_MAX || this.#portals.has(portal)) this.#portals.set(portal, made);
  }

  /** What the unit runs, if it is an Execute of a portal that begins or ends a block. */
  edgeRunBy(unit: Unit): BoundEdge | null {
    return unit.type === Frontend.execute ? this.#portal(unit).edge : null;
  }

  /** Whether the unit is an Execute, of more than an empty text. */
  isRunBy(unit: Unit): boolean {
    return unit.type === Frontend.execute && this.#portal(unit) !== OF_NOTHING;
  }

  /** Nothing is run by the portal of a Close any more. */
  #closed(unit: Unit): void {
    if (unit.buffer[unit.start + 5] === STATEMENT) return;
    const portal = portalOf(unit);
    if (portal === '') this.#unnamed = UNKNOWN;
    else this.#portals.delete(portal);
  }

  #portal(unit: Unit): PortalDeed {
    const portal = portalOf(unit);
    return portal === '' ? this.#unnamed : (this.#portals.get(portal) ?? UNKNOWN);
  }

  /** The batch is over. */
  synced(): void {
    this.#isSkipping = this.#mayFail = false;
  }

  /** What stands in the batch at hand before what is about to be sent may fail, so that this is skipped. */
  get maySkip(): boolean {
    return this.#mayFail;
  }

  /** There are no portals any more. */
  portalsEnd(): void {
    this.#unnamed = UNKNOWN;
    this.#portals.clear();
  }
}

/** A Describe or Close says in front of the name that it is a portal's. */
const portalOf = ({ type, buffer, start, end }: Unit): string =>
  portalIn({ buffer, start: type === Frontend.execute ? start : start + 1, end });

function madeBy(unit: Unit, deed: Deed | null, portal: string): PortalDeed {
  if (unit.template.kind === 'empty') return OF_NOTHING;
  return isEdge(unit.template) ? { deed, edge: edgeOf(unit, portal) } : withoutEdge(deed);
}

const withoutEdge = (deed: Deed | null): PortalDeed => (deed === null ? UNKNOWN : WITHOUT_EDGE[deed]);

function edgeOf({ template, text, buffer, start, end }: Unit, portal: string): BoundEdge {
  const hasValues = valueCount(buffer, start, end) > 0;
  const isSaidWithout = !hasValues || template.kind === 'begin' || template.kind === 'savepoint';
  return { template, text, hasValues, isPlain: portal === '' && isSaidWithout };
}
