// What the workers have counted, added up. A worker that ends takes its gauges along, and nothing else: totals must not
// go down.
import type { WorkerCopy, WorkerReport } from '../cluster/control-port.js';
import { addCounters, type Counters, createCounters } from '../telemetry/counters.js';

export class WorkerStatistics {
  /** As it was at the last `refresh`; one object for good. */
  readonly sum: Counters = createCounters();
  /** The last of each worker that runs. */
  readonly reports = new Map<number, WorkerReport>();
  /** Of workers that are gone. */
  readonly #before = createCounters();

  take(worker: number, report: WorkerReport): void {
    this.reports.set(worker, report);
  }

  get copies(): WorkerCopy[] {
    return [...this.reports].flatMap(([worker, { copies }]) => copies.map((copy) => ({ ...copy, worker })));
  }

  /** What it counted behind its last report is lost. */
  ended(worker: number): void {
    const last = this.reports.get(worker);
    if (last === undefined) return;
    addCounters(this.#before, last.counters, false);
    this.reports.delete(worker);
  }

  refresh(): void {
    const fresh = createCounters();
    addCounters(fresh, this.#before);
    for (const { counters } of this.reports.values()) addCounters(fresh, counters);
    const { ownErrors, serverErrors, ...numbers } = fresh;
    Object.assign(this.sum, numbers);
    Object.assign(this.sum.ownErrors, ownErrors);
    Object.assign(this.sum.serverErrors, serverErrors);
  }
}
