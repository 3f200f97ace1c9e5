// Hash slot ranges as they stand in settings (D1, D5): the even spread that holds where none is given, and the check
// that stated ranges cover every slot exactly once. Which key hashes to which slot is cluster/'s business.

export const HASH_SLOT_COUNT = 16384;

/** First and last hash slot, both inclusive. */
export type SlotRange = readonly [first: number, last: number];

/** One contiguous range per shard, sizes differing by at most one; `shardCount` from 1 to 16384. */
export function evenSlotRanges(shardCount: number): SlotRange[] {
  const firstSlot = (index: number) => Math.floor((index * HASH_SLOT_COUNT) / shardCount);
  return Array.from({ length: shardCount }, (_, index) => [firstSlot(index), firstSlot(index + 1) - 1] as const);
}

export interface OwnedRange {
  readonly owner: number;
  readonly range: SlotRange;
}

export type CoverageFault =
  /** `range` ends before it begins. */
  | { readonly kind: 'reversed'; readonly owner: number; readonly range: SlotRange }
  /** `range` is held by `owner` and, before it, by `other`. */
  | { readonly kind: 'overlap'; readonly owner: number; readonly other: number; readonly range: SlotRange }
  | { readonly kind: 'gap'; readonly range: SlotRange };

/** All faults of a slot map; an empty list is the proof that each slot has exactly one owner. */
export function coverageFaults(owned: readonly OwnedRange[]): CoverageFault[] {
  const faults: CoverageFault[] = [];
  const ordered: OwnedRange[] = [];
  for (const item of owned) {
    if (item.range[0] > item.range[1]) faults.push({ kind: 'reversed', ...item });
    else ordered.push(item);
  }
  ordered.sort((left, right) => left.range[0] - right.range[0]);
  let covered = -1;
  let coveredBy = -1;
  for (const { owner, range } of ordered) {
    if (range[0] > covered + 1) faults.push({ kind: 'gap', range: [covered + 1, range[0] - 1] });
    if (range[0] <= covered) {
      faults.push({ kind: 'overlap', owner, other: coveredBy, range: [range[0], Math.min(range[1], covered)] });
    }
    if (range[1] > covered) {
      covered = range[1];
      coveredBy = owner;
    }
  }
  if (covered < HASH_SLOT_COUNT - 1) faults.push({ kind: 'gap', range: [covered + 1, HASH_SLOT_COUNT - 1] });
  return faults;
}
