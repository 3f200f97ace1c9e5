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
  return { epoch: 1, counters, usage };
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
