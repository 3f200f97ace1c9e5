// Sums over workers that come and go.
import t from 'tap';
import { WorkerStatistics } from '../../../src/control/worker-statistics.js';
import { createCounters } from '../../../src/telemetry/counters.js';
import { readProcessUsage } from '../../../src/telemetry/process-usage.js';

const usage = readProcessUsage();

function report(statements: number, clientsConnected: number, errors = 0) {
  const counters = createCounters();
  Object.assign(counters, { statements, clientsConnected });
  counters.ownErrors['42'] = errors;
  return { epoch: 1, counters, usage, copies: [] };
}

t.test('what runs is added up; what is gone keeps its totals and loses its gauges', async (t) => {
  const statistics = new WorkerStatistics();
  const { sum } = statistics;
  statistics.take(1, report(10, 2, 1));
  statistics.take(2, report(5, 3, 4));
  statistics.refresh();
  t.match(sum, { statements: 15, clientsConnected: 5, ownErrors: { '42': 5 } });
  statistics.take(2, report(7, 1, 4));
  statistics.refresh();
  t.match(sum, { statements: 17, clientsConnected: 3 }, 'the last report counts, not all of them');

  statistics.ended(2);
  statistics.refresh();
  t.match(sum, { statements: 17, clientsConnected: 2, ownErrors: { '42': 5 } });
  statistics.take(2, report(1, 1));
  statistics.refresh();
  t.match(sum, { statements: 18, clientsConnected: 3, ownErrors: { '42': 5 } }, 'its successor begins at 0');
  statistics.ended(2);
  statistics.ended(2);
  statistics.refresh();
  t.equal(sum.statements, 18, 'counted once');
  t.same([...statistics.reports.keys()], [1]);
});

t.test('copies are those of the last report of each worker that runs', async (t) => {
  const statistics = new WorkerStatistics();
  const place = { user: 'u', database: 'd', table: 'public.kv', direction: 'in', startedAt: '' } as const;
  const copy = { pid: 7, ...place, rows: 1, bytes: 2 };
  statistics.take(1, { ...report(0, 1), copies: [copy, { ...copy, pid: 8 }] });
  statistics.take(2, { ...report(0, 1), copies: [{ ...copy, pid: 9 }] });
  t.match(statistics.copies, [
    { pid: 7, worker: 1 },
    { pid: 8, worker: 1 },
    { pid: 9, worker: 2 },
  ]);
  statistics.take(1, report(0, 1));
  t.strictSame(statistics.copies, [{ ...copy, pid: 9, worker: 2 }]);
  statistics.ended(2);
  t.strictSame(statistics.copies, []);
});
