// Hash slot ranges as people read them.
import type { HashSlotRange } from '../../cluster/cluster-view.js';

/** `0-8191, 9000` */
export function slotText(ranges: readonly HashSlotRange[]): string {
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', ');
}
