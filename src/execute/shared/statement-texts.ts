// A statement, its result format and settings as one worker names them to another.
import { nodeId } from '../../cluster/cluster-view.js';
import { nameOfForm } from '../merged/form-name.js';
import type { MergedForm } from '../merged/merged-form.js';
import type { MergedQueue } from '../merged/merged-queue.js';

/** Places of the texts; names and values of settings follow. */
export const Text = { node: 0, group: 1, statement: 2, format: 3, settings: 4 } as const;

export function describeStatement({ lane, statement, format, settings }: MergedQueue, form: MergedForm): string[] {
  const name = nameOfForm(form, statement.table);
  return [nodeId(lane.pool.address), lane.group.key, name, String(format), ...[...settings.values].flat()];
}
