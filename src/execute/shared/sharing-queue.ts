// Where requests for one statement wait whose lane another worker owns: they are handed to that one as long as it takes them, and
// else merged here. An owner that does not take the statement, since it has no client that runs it, is passed over for a while: the
// next worker is the owner then, for all that are declined alike, until the turn comes to this one.
// Invariant: a request is in the own queue, or with the link it was handed to, and comes back from there.
import type { Clock } from '../../base/clock.js';
import type { MergedQueue } from '../merged/merged-queue.js';
import type { MergedRequest, RequestQueue } from '../merged/merged-request.js';
import type { OwnerLink, StatementHandle, StatementQueue } from './owner-link.js';

/** So long an owner that has declined is passed over. */
const PASSED_OVER_MS = 500;

export class SharingQueue implements RequestQueue, StatementQueue {
  readonly own: MergedQueue;
  /** As the owner knows the statement, its result format and settings. */
  handle: StatementHandle | null = null;
  /** To those whose turn to own the lane comes before this worker's. */
  readonly #links: readonly OwnerLink[];
  readonly #clock: Clock;
  #at = 0;
  #firstAgainAt = 0;
  #handed = 0;

  constructor(own: MergedQueue, links: readonly OwnerLink[], clock: Clock) {
    this.own = own;
    this.#links = links;
    this.#clock = clock;
  }

  get isIdle(): boolean {
    return this.#handed === 0 && this.own.isIdle;
  }

  offer(request: MergedRequest): void {
    if (this.#at > 0 && this.#clock.now() >= this.#firstAgainAt) this.#at = 0;
    const link = this.#links[this.#at];
    // Those of a group go in one batch, which other workers' bounds must not tear.
    if (request.group === null && link?.hand(this, request) === true) this.#handed++;
    else this.own.offer(request);
  }

  /** The owner does not take what was made known to it as that. */
  declined(handle: StatementHandle): void {
    if (handle !== this.handle) return;
    this.handle = null;
    if (this.#at === 0) this.#firstAgainAt = this.#clock.now() + PASSED_OVER_MS;
    this.#at++;
  }

  refused(): void {
    if (this.handle !== null) this.declined(this.handle);
  }

  withdraw(request: MergedRequest): void {
    for (const link of this.#links) link.cancel(request);
  }

  release(request: MergedRequest): void {
    if (!this.#links.some((link) => link.release(request))) this.own.release(request);
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
