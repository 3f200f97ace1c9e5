// The lanes of one session: one to the home shard, and one to each shard that its statements have named. At any time
// one of them is current: answers are owed by it alone, so that the client gets them in its own order. Others may keep a
// connection that holds state of the session, at rest.
import type { ShardView } from '../cluster/cluster-view.js';
import type { ClientPort, LeasedLane } from './leased/leased-lane.js';

/** Makes a lane of this session to a shard. */
export type MakeLane = (shard: ShardView, client: ClientPort<LeasedLane>) => LeasedLane;

export class SessionLanes {
  readonly home: LeasedLane;
  current: LeasedLane;
  readonly #client: ClientPort<LeasedLane>;
  readonly #make: MakeLane;
  readonly #lanes: (LeasedLane | undefined)[];

  constructor(home: ShardView, client: ClientPort<LeasedLane>, make: MakeLane) {
    this.#client = client;
    this.#make = make;
    this.home = this.current = make(home, client);
    this.#lanes = [];
    this.#lanes[home.id] = this.home;
  }

  of(shard: ShardView): LeasedLane {
    let lane = this.#lanes[shard.id];
    if (lane === undefined) {
      lane = this.#make(shard, this.#client);
      this.#lanes[shard.id] = lane;
    }
    return lane;
  }

  /** A lane beside the session's own, for one run over several shards. */
  another(shard: ShardView, client: ClientPort<LeasedLane>): LeasedLane {
    return this.#make(shard, client);
  }

  /** Whether any lane keeps its connection between statements. */
  get pinned(): boolean {
    return this.#lanes.some((lane) => lane !== undefined && lane.pins.length > 0);
  }

  /** Cancels what runs on servers; `end` follows. */
  stop(): void {
    for (const lane of this.#lanes) lane?.stop();
  }

  /** The client is gone. */
  end(): void {
    for (const lane of this.#lanes) lane?.end();
  }

  /** The client's socket takes bytes again. */
  clientDrained(): void {
    for (const lane of this.#lanes) lane?.clientDrained();
  }
}
