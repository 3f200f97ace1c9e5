// Workers that merge together (R50). Each lane has an owner, which is the same for all workers: the others hand it their requests, so
// that there are few full batches instead of many small ones. Where that would cost more than it saves, each worker merges for itself:
// a worker whose own batches are small although several clients are at work hands over; one whose writes to the owner hold hardly more
// than one request stops. Owns the lines to the other workers, in both directions.
import type { Socket } from 'node:net';
import type { SettingsRegistry } from '../../backend/connection/settings-group.js';
import type { Clock } from '../../base/clock.js';
import { nodeId } from '../../cluster/cluster-view.js';
import type { Counters } from '../../telemetry/counters.js';
import type { MergedLanes } from '../merged/merged-lanes.js';
import type { MergedQueue } from '../merged/merged-queue.js';
import type { RequestQueue } from '../merged/merged-request.js';
import { type LinkServices, OwnerLink } from './owner-link.js';
import { RemoteRequests } from './remote-requests.js';
import { findStatement } from './remote-statements.js';
import { SharingQueue } from './sharing-queue.js';

/** How often is looked whether owners answer, and whether handing over pays; only while there is something to look at. */
const LOOK_MS = 50;
/** Looks between two judgements. */
const LOOKS_PER_JUDGEMENT = 4;

export interface LaneSharingOptions {
  /** This one, from 1, and how many there are. */
  readonly worker: number;
  readonly workers: number;
  /** Hands over whatever the load. */
  readonly always: boolean;
  readonly clock: Clock;
  readonly registry: SettingsRegistry;
  readonly counters: Counters;
  readonly deadlineMs: number;
  connect(owner: number): Socket;
  /** Milliseconds of a clock that all processes of the machine share. */
  stamp(): number;
  epoch(): number;
  /** Place of the node's shard in the view; below 0: it has none. */
  shardOf(node: string): number;
  readonly later: (task: () => void) => void;
}

export class LaneSharing {
  readonly #options: LaneSharingOptions;
  readonly #lanes: MergedLanes;
  readonly #links = new Map<number, OwnerLink>();
  readonly #remotes = new Set<RemoteRequests>();
  readonly #services: LinkServices;
  #hands: boolean;
  #isWatched = false;
  #ended = false;
  #looks = 0;
  #offered = false;
  #before = { batches: 0, statements: 0, handed: 0, writes: 0 };
  #none: (() => void) | null = null;

  constructor(lanes: MergedLanes, options: LaneSharingOptions) {
    this.#lanes = lanes;
    this.#options = options;
    this.#hands = options.always;
    const { connect, clock, stamp, epoch, counters, deadlineMs, later } = options;
    this.#services = {
      ...{ connect, clock, stamp, epoch, counters, deadlineMs, later },
      wants: () => {
        this.#offered = true;
        if (!this.#isWatched) this.#watch();
        return this.#hands;
      },
      watch: () => {
        if (!this.#isWatched) this.#watch();
      },
    };
  }

  /** Where requests wait that would wait in `own` if this worker were alone. */
  queue(own: MergedQueue): RequestQueue {
    const { worker, workers, clock } = this.#options;
    const links: OwnerLink[] = [];
    for (let owner = this.#ownerOf(own); owner !== worker; owner = 1 + (owner % workers)) links.push(this.#link(owner));
    return links.length === 0 ? own : new SharingQueue(own, links, clock);
  }

  #link(owner: number): OwnerLink {
    let link = this.#links.get(owner);
    if (link === undefined) {
      link = new OwnerLink(owner, this.#services);
      this.#links.set(owner, link);
    }
    return link;
  }

  /** Lanes of one log-in are spread by their shards, those of one shard by their log-ins. */
  #ownerOf({ lane }: MergedQueue): number {
    const { workers, shardOf } = this.#options;
    let hash = 0;
    const { key } = lane.group;
    for (let at = 0; at < key.length; at++) hash = (Math.imul(hash, 31) + key.charCodeAt(at)) | 0;
    return 1 + (((hash >>> 0) + Math.max(0, shardOf(nodeId(lane.pool.address)))) % workers);
  }

  /** Another worker has connected. */
  accept(socket: Socket): void {
    if (this.#ended) {
      socket.destroy();
      return;
    }
    const { clock, registry, stamp, epoch, counters, deadlineMs, later } = this.#options;
    const find = (texts: readonly string[]) => findStatement(texts, this.#lanes, registry, clock);
    const services = { find, clock, stamp, epoch, counters, staleMs: deadlineMs / 2, later };
    const remote = new RemoteRequests(socket, services, (gone) => {
      this.#remotes.delete(gone);
      if (this.#remotes.size === 0) this.#none?.();
    });
    this.#remotes.add(remote);
  }

  /** Nothing more is handed over or taken. Resolves when what is under way for others is answered. */
  end(): Promise<void> {
    this.#ended = true;
    this.#hands = false;
    for (const link of this.#links.values()) link.end();
    for (const remote of this.#remotes) remote.end();
    if (this.#remotes.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#none = resolve;
    });
  }

  destroy(): void {
    this.#ended = true;
    this.#hands = false;
    for (const link of this.#links.values()) link.destroy('this worker is ending');
    for (const remote of this.#remotes) remote.destroy();
  }

  #watch(): void {
    this.#isWatched = true;
    this.#options.clock.after(LOOK_MS, this.#look);
  }

  readonly #look = (): void => {
    this.#isWatched = false;
    let isOwed = false;
    for (const link of this.#links.values()) {
      link.look();
      isOwed ||= link.isOwed;
    }
    const { always } = this.#options;
    const judges = !always && !this.#ended && ++this.#looks % LOOKS_PER_JUDGEMENT === 0;
    if (judges) this.#judge();
    if (isOwed || this.#offered) this.#watch();
    if (always || judges) this.#offered = false;
  };

  /** Whether handing over pays, by what went on since the last judgement. */
  #judge(): void {
    const { counters } = this.#options;
    let writes = 0;
    for (const link of this.#links.values()) writes += link.writes;
    const { mergedBatches: batches, mergedStatements: statements, mergedHanded: handed } = counters;
    const last = this.#before;
    this.#before = { batches, statements, handed, writes };
    if (this.#hands) this.#hands = pays(handed - last.handed, writes - last.writes, STOP);
    else this.#hands = pays(statements - last.statements, batches - last.batches, START);
  }
}

/** So many statements at least, and so many for each batch, or write. */
const START = { statements: 100, each: 2 };
const STOP = { statements: 40, each: 1.5 };

function pays(
  statements: number,
  times: number,
  least: { readonly statements: number; readonly each: number },
): boolean {
  return statements >= least.statements && statements >= least.each * times;
}
