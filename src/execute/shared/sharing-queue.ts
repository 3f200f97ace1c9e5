// Where requests for one statement wait whose lane another worker owns: they are handed to that one as long as it takes them, and
// else merged here. Invariant: a request is in the own queue, or with the link it was handed to, and comes back from there.
import type { SettingsGroup } from '../../backend/connection/settings-group.js';
import type { MergedQueue } from '../merged/merged-queue.js';
import type { MergedRequest, RequestQueue } from '../merged/merged-request.js';
import type { MergedStatement } from '../merged/merged-statement.js';
import type { OwnerLink, StatementHandle } from './owner-link.js';

export class SharingQueue implements RequestQueue {
  readonly own: MergedQueue;
  /** As the owner knows the statement, its result format and settings. */
  handle: StatementHandle | null = null;
  readonly #link: OwnerLink;
  #handed = 0;

  constructor(own: MergedQueue, link: OwnerLink) {
    this.own = own;
    this.#link = link;
  }

  get statement(): MergedStatement {
    return this.own.statement;
  }

  get settings(): SettingsGroup {
    return this.own.settings;
  }

  get isIdle(): boolean {
    return this.#handed === 0 && this.own.isIdle;
  }

  offer(request: MergedRequest): void {
    // Those of a group go in one batch, which other workers' bounds must not tear.
    if (request.group === null && this.#link.hand(this, request)) this.#handed++;
    else this.own.offer(request);
  }

  withdraw(request: MergedRequest): void {
    this.#link.cancel(request);
  }

  release(request: MergedRequest): void {
    if (!this.#link.release(request)) this.own.release(request);
  }

  /** One that was handed over is no longer with the owner. */
  cameBack(): void {
    this.#handed--;
  }

  /** The same, and nothing was done of it. @param cancelled its client does not want it any more */
  takeBack(request: MergedRequest, cancelled: boolean): void {
    this.#handed--;
    if (request.dropped) return;
    const { statement } = this.own;
    // Its answer has begun to look as was known then.
    const isAsItWas = statement.stage === 'merged' && statement.form === request.form;
    if (cancelled || !isAsItWas) request.sink.rerun(request);
    else this.own.offer(request);
  }
}
