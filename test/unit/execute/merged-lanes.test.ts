// Which settings sessions may share in the merged lane (D11 rule 9): a few combinations at a time, those in use.
import t from 'tap';
import { SettingsRegistry } from '../../../src/backend/connection/settings-group.js';
import { MergedLanes } from '../../../src/execute/merged/merged-lanes.js';
import { createCounters } from '../../../src/telemetry/counters.js';

const GROUPS = 8;

function lanes() {
  const registry = new SettingsRegistry();
  let now = 0;
  const clock = { now: () => now, wallTime: () => now, after: () => ({ cancel: () => undefined }) };
  const merged = new MergedLanes(registry, clock, createCounters(), 10_000);
  const zone = (name: string, more: readonly (readonly [string, string])[] = []) =>
    merged.settings(registry.intern(new Map([['timezone', name], ...more])));
  return { registry, merged, zone, pass: (ms: number) => (now += ms) };
}

t.test('settings that change how values look are shared, others are not', async (t) => {
  const { registry, merged, zone } = lanes();
  t.equal(merged.settings(registry.empty), registry.empty);
  t.equal(zone('UTC'), registry.intern(new Map([['timezone', 'UTC']])));
  t.equal(zone('UTC', [['application_name', 'a']]), zone('UTC', [['application_name', 'b']]), 'names are left out');
  t.equal(zone('UTC', [['work_mem', '8MB']]), null);
});

t.test('the first few combinations are shared, and make room when they are not used any more', async (t) => {
  const { zone, pass } = lanes();
  for (let i = 0; i < GROUPS; i++) t.ok(zone(`zone ${i}`));
  t.equal(zone('late'), null);
  pass(60_000);
  t.equal(zone('late'), null, 'all of them were used since the last look');
  for (let i = 1; i < GROUPS; i++) zone(`zone ${i}`);
  pass(59_999);
  t.equal(zone('late'), null, 'not looked for again yet');
  pass(1);
  t.ok(zone('late'));
  t.equal(zone('zone 0'), null, 'it has gone for that');
  for (let i = 1; i < GROUPS; i++) t.ok(zone(`zone ${i}`), 'the others stay');
});
