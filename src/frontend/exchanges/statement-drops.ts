// Statements that DEALLOCATE, DEALLOCATE ALL and DISCARD ALL drop behind the protocol: gone with the tag of a simple query,
// and with the Execute of a portal, from which on the client's next messages name what is left.
// Invariants: what the server refuses or skips drops nothing, or is put back; portals that drop are bounded.
import type { ServerConnection } from '../../backend/connection/server-connection.js';
import type { Assumption, ReplyQueue } from '../../backend/replies/reply-queue.js';
import type { StatementSource } from '../../backend/replies/statement-source.js';
import { PgkvError } from '../../base/errors.js';
import type { Session } from '../../session/session.js';
import { Effect, type Template } from '../../sql/plan/template.js';
import { portalIn } from '../unit/named-statements.js';
import type { Unit } from '../unit/unit.js';
import type { UnsettledNames } from '../unit/unsettled-names.js';

/** Portals of one block that drop statements. */
const DROPPING_MAX = 100;
const TOO_MANY_DROPPING = `more than ${DROPPING_MAX} portals of DEALLOCATE or DISCARD ALL are open`;

/** Whether statements prepared at the protocol level may be gone behind it. */
const dropsStatements = ({ effects, statementNames }: Template): boolean =>
  (effects & Effect.deallocatesAll) !== 0 || statementNames.some(({ verb }) => verb === 'deallocate');

/**
 * A name waits in `#deallocated` from when its text is sent until its tag comes, or all is answered and it has failed; a
 * portal stands in `#dropping` from its Bind until it is closed, bound to something else, or its block ends.
 */
export class StatementDrops {
  readonly #session: Session;
  readonly #unsettled: UnsettledNames;
  /** Names that simple queries under way deallocate, in order. */
  readonly #deallocated: string[] = [];
  /** Portals whose statement drops others, by name; see portalsEnd. */
  readonly #dropping = new Map<string, Template>();

  constructor(session: Session, unsettled: UnsettledNames) {
    this.#session = session;
    this.#unsettled = unsettled;
  }

  /** Gets the names that the text about to be sent deallocates. It waited for those before it: what is left of them failed. */
  begin(): string[] {
    this.#deallocated.length = 0;
    return this.#deallocated;
  }

  /** A simple query was sent: it may drop statements of any name. */
  sentSql(template: Template, connection: ServerConnection): void {
    if (dropsStatements(template)) this.#unsettled.allChanged(connection.replies);
  }

  /** All that was sent has been answered: a DEALLOCATE that failed drops nothing. */
  settledAll(): void {
    this.#deallocated.length = 0;
  }

  /** A simple query's tag on its way to the client. */
  tag(tag: string, connection: ServerConnection): void {
    if (tag === 'DEALLOCATE') {
      const name = this.#deallocated.shift();
      const source = name === undefined ? undefined : this.#session.statement(name);
      if (source === undefined) return;
      connection.dropPrepared(source);
      this.#session.dropStatement(name!);
    } else if (tag === 'DEALLOCATE ALL' || tag === 'DISCARD ALL') {
      connection.forgetAllPrepared();
      this.#session.dropAllStatements();
      this.#deallocated.length = 0;
    }
  }

  /** Remembers what the portal of a Bind drops: names are resolved when it is executed, not when it was parsed. */
  bound(unit: Unit, source: StatementSource | null): void {
    if (source !== null && dropsStatements(source.template)) {
      if (this.#dropping.size >= DROPPING_MAX) throw new PgkvError('limit_exceeded', { detail: TOO_MANY_DROPPING });
      this.#dropping.set(portalIn(unit), source.template);
    } else if (this.#dropping.size > 0) this.#dropping.delete(portalIn(unit));
  }

  /**
   * Whether answers to come to earlier batches decide what the portal of an Execute drops: what it takes from the session would
   * be put back, where it fails, as if those had succeeded.
   */
  dependsOnAnswers(portal: string, replies: ReplyQueue): boolean {
    const template = this.#dropping.size === 0 ? undefined : this.#dropping.get(portal);
    if (template === undefined) return false;
    if ((template.effects & Effect.deallocatesAll) !== 0) return this.#unsettled.isAnyOpen(replies);
    return template.statementNames.some(
      ({ verb, name }) => verb === 'deallocate' && this.#unsettled.isOpen(name, replies),
    );
  }

  /** Drops what the portal of an Execute does; null: nothing. */
  executed(unit: Unit, connection: ServerConnection): Assumption | null {
    const template = this.#dropping.size === 0 ? undefined : this.#dropping.get(portalIn(unit));
    return template === undefined ? null : this.#drop(template, connection);
  }

  /** The portal of a Close is gone; `nameEnd` is below `nameStart` where its name has no end. */
  closed(buffer: Buffer, nameStart: number, nameEnd: number): void {
    if (this.#dropping.size > 0)
      this.#dropping.delete(buffer.toString('latin1', nameStart, Math.max(nameEnd, nameStart)));
  }

  /** There are none any more: a server has said that it is outside a block, and owes nothing behind that. */
  portalsEnd(): void {
    this.#dropping.clear();
  }

  /** Drops what a DEALLOCATE or DISCARD ALL does; taken back where the server refuses or skips it. */
  #drop(template: Template, connection: ServerConnection): Assumption {
    const session = this.#session;
    if ((template.effects & Effect.deallocatesAll) !== 0) {
      const before = session.takeAllStatements();
      const here = [...connection.prepared];
      connection.forgetAllPrepared();
      this.#unsettled.allChanged(connection.replies);
      const undo = (): void => {
        session.putBackStatements(before);
        for (const [source, known] of here) connection.putBackPrepared(source, known);
      };
      return { undo };
    }
    const dropped = template.statementNames.flatMap(({ verb, name }) => {
      const source = verb === 'deallocate' ? session.statement(name) : undefined;
      if (source === undefined) return [];
      const known = connection.dropPrepared(source);
      session.dropStatement(name);
      this.#unsettled.changed(name, connection.replies, connection.replies.nextPlace);
      return [{ name, source, known }];
    });
    const undo = (): void => {
      for (const { name, source, known } of dropped) {
        if (session.statement(name) === undefined) session.setStatement(name, source);
        if (known !== undefined) connection.putBackPrepared(source, known);
      }
    };
    return { undo };
  }
}
