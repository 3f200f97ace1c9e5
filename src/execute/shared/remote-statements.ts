// A statement that another worker has named, as this one finds it again among what it runs for clients of its own. Nothing is parsed, learnt or opened for others, and no credential travels: where the owner has no client with
// the same log-in, has not learnt the same statement, or finds that its rows look otherwise, it does not take it.
import type { SettingsRegistry } from '../../backend/connection/settings-group.js';
import type { Clock } from '../../base/clock.js';
import type { MergedForm } from '../merged/merged-form.js';
import type { MergedLanes } from '../merged/merged-lanes.js';
import { MergedQueue } from '../merged/merged-queue.js';
import { SharingQueue } from './sharing-queue.js';
import { Text } from './statement-texts.js';

/** A statement that others hand over, as it was when they named it. */
export class RemoteStatement {
  readonly queue: MergedQueue;
  readonly form: MergedForm;

  constructor(queue: MergedQueue, form: MergedForm) {
    this.queue = queue;
    this.form = form;
  }

  /** Whether it still means what it did. */
  isAsNamed(clock: Clock): boolean {
    const { statement, lane } = this.queue;
    return statement.form === this.form && statement.usable(clock) && statement.schemaEpoch === lane.pool.schemaEpoch;
  }
}

/** Null: this worker does not run it for others. */
export function findStatement(
  texts: readonly string[],
  lanes: MergedLanes,
  registry: SettingsRegistry,
  clock: Clock,
): RemoteStatement | null {
  const lane = lanes.find(texts[Text.node] ?? '', texts[Text.group] ?? '');
  const statement = lane?.find(texts[Text.statement] ?? '') ?? null;
  if (lane === null || statement === null) return null;
  const values = new Map<string, string>();
  for (let at = Text.settings; at + 1 < texts.length; at += 2) values.set(texts[at]!, texts[at + 1]!);
  const settings = lanes.settings(registry.intern(values));
  if (settings === null) return null;
  const queue = lane.queue(statement, Number(texts[Text.format]), settings);
  // What was handed over is not handed on, wherever this worker's own go for now.
  const own = queue instanceof SharingQueue ? queue.own : queue;
  if (!(own instanceof MergedQueue)) return null;
  const found = new RemoteStatement(own, statement.form!);
  return found.isAsNamed(clock) ? found : null;
}
