// Who is written together: INSERTs of clients with the same log-in and settings wait while two groups of theirs are under way, and
// go together then. So a client that is alone waits for nobody, and a group grows with the load. Where a group has to be taken back,
// what comes next is run by itself for a while, longer each time.
import type { GroupMember, GroupOwner, GroupWriteServices } from './group-write.js';
import { writeGroup } from './group-write.js';

/** Under way at a time: while the servers work on one, another is made. */
const GROUPS_MAX = 2;
const MEMBERS_MAX = 16;
const BYTES_MAX = 1024 * 1024;
/** Statements that are run by themselves behind a group that was taken back. */
const ALONE_MIN = 8;
const ALONE_MAX = 1_024;

class WriteGroups {
  readonly #owner: GroupOwner;
  readonly #services: GroupWriteServices;
  readonly #later: (act: () => void) => void;
  #waiting: GroupMember[] = [];
  #underWay = 0;
  #isDue = false;
  #alone = 0;
  #penalty = 0;

  constructor(owner: GroupOwner, services: GroupWriteServices, later: (act: () => void) => void) {
    this.#owner = owner;
    this.#services = services;
    this.#later = later;
  }

  /** Whether one that comes now is taken. */
  takes(): boolean {
    if (this.#alone === 0) return true;
    this.#alone--;
    return false;
  }

  offer(member: GroupMember): void {
    this.#waiting.push(member);
    if (this.#isDue || this.#underWay >= GROUPS_MAX) return;
    this.#isDue = true;
    // With what else comes in this turn.
    this.#later(() => {
      this.#isDue = false;
      this.#start();
    });
  }

  /** @returns false: it is under way */
  withdraw(member: GroupMember): boolean {
    const before = this.#waiting.length;
    this.#waiting = this.#waiting.filter((one) => one !== member);
    return this.#waiting.length < before;
  }

  #start(): void {
    while (this.#underWay < GROUPS_MAX && this.#waiting.length > 0) {
      const members = this.#next();
      this.#underWay++;
      writeGroup(members, this.#owner, this.#services, (isWritten) => this.#ended(isWritten));
    }
  }

  #next(): GroupMember[] {
    let bytes = 0;
    let count = 0;
    const { view } = this.#waiting[0]!;
    while (count < Math.min(MEMBERS_MAX, this.#waiting.length)) {
      const member = this.#waiting[count]!;
      bytes += member.bytes;
      if (member.view !== view || (count > 0 && bytes > BYTES_MAX)) break;
      count++;
    }
    return this.#waiting.splice(0, count);
  }

  #ended(isWritten: boolean): void {
    this.#underWay--;
    if (isWritten) this.#penalty = 0;
    else {
      this.#penalty = Math.min(ALONE_MAX, Math.max(ALONE_MIN, 2 * this.#penalty));
      this.#alone = this.#penalty;
    }
    this.#start();
  }
}

export type { WriteGroups };

/** The groups of all log-ins of a process. */
export class AllWriteGroups {
  readonly #groups = new WeakMap<object, WeakMap<object, WriteGroups>>();
  readonly #later: (act: () => void) => void;

  constructor(later: (act: () => void) => void) {
    this.#later = later;
  }

  /** Of sessions with the same log-in and settings, by the objects that stand for these. */
  of(logIn: object, settings: object, owner: GroupOwner, services: GroupWriteServices): WriteGroups {
    let bySettings = this.#groups.get(logIn);
    if (bySettings === undefined) {
      bySettings = new WeakMap();
      this.#groups.set(logIn, bySettings);
    }
    let groups = bySettings.get(settings);
    if (groups === undefined) {
      groups = new WriteGroups(owner, services, this.#later);
      bySettings.set(settings, groups);
    }
    return groups;
  }
}
