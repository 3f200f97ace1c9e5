// What another worker has handed over is not sent once that one may have told its client that it was lost (R50), however it came to
// wait: in its queue, for a connection, for its settings, or for what the server says of the statement. Each wait, each age.
import t from 'tap';
import type { ServerConnection } from '../../../src/backend/connection/server-connection.js';
import { SettingsRegistry } from '../../../src/backend/connection/settings-group.js';
import type { LeaseRequest } from '../../../src/backend/pool/pool-group.js';
import { LaneDeadlines } from '../../../src/execute/merged/lane-deadlines.js';
import type { MergedForm } from '../../../src/execute/merged/merged-form.js';
import { MERGED_LIMITS, MergedLane } from '../../../src/execute/merged/merged-lane.js';
import { MergedRequest } from '../../../src/execute/merged/merged-request.js';
import { MergedStatement } from '../../../src/execute/merged/merged-statement.js';
import { createCounters } from '../../../src/telemetry/counters.js';

const WAITS = ['queue', 'connection', 'settings', 'shape'] as const;
type Wait = (typeof WAITS)[number];
const GOOD_FOR_MS = 100;

const text = (name: string) => ({ source: { text: name }, shape: 'shape', isSingle: name === 'one', withSlots: false });
const form = {
  plan: { refs: [{}], writes: true, keyValues: [0, 0], hidden: 0, tag: 'UPDATE' },
  one: text('one'),
  many: text('many'),
  optimistic: null,
  columnCount: 0,
  description: null,
} as unknown as MergedForm;

/** A lane in which everything takes as long as the test says. */
function laneOf() {
  let now = 1_000;
  const clock = { now: () => now, wallTime: () => now, after: () => ({ cancel: () => undefined }) };
  const steps = new Map<Wait, () => void>();
  const settings = new SettingsRegistry().intern(new Map([['timezone', 'here']]));
  const sent: number[] = [];
  let given = 0;
  const connection = {
    settings: null,
    attach: () => undefined,
    bringTo: (_: unknown, done: (failure: null) => void) => {
      steps.set('settings', () => done(null));
      return false;
    },
    isPrepared: () => false,
    askShape: (_: unknown, __: unknown, told: (shape: string) => void) => steps.set('shape', () => told('shape')),
    prepare: () => 's1',
    sendAll: () => sent.push(now),
    output: { flush: () => undefined },
  } as unknown as ServerConnection;
  const lane = new MergedLane({
    pool: {
      takeIdle: () => null,
      acquire: (request: LeaseRequest) => steps.set('connection', () => request.granted(connection)),
      release: () => given++,
    },
    group: { key: '' },
    clock,
    counters: createCounters(),
    deadlines: new LaneDeadlines(clock, 60_000),
    limits: MERGED_LIMITS,
    later: (task: () => void) => steps.set('queue', task),
    share: null,
  } as unknown as ConstructorParameters<typeof MergedLane>[0]);
  const statement = new MergedStatement();
  statement.table = { schema: 's', name: 't', valueType: 'jsonb' };
  statement.stage = 'merged';
  statement.form = form;
  const queue = lane.queue(statement, 0, settings);
  const offer = (key: string, sendBefore: number | null): string[] => {
    const told: string[] = [];
    const request = new MergedRequest({
      completed: () => told.push('completed'),
      rerun: () => told.push(request.holdsKey ? 'rerun holding' : 'rerun'),
      failed: () => told.push('failed'),
    });
    request.buffer = Buffer.from(key);
    request.offsets[0] = 0;
    request.offsets[1] = request.bytes = key.length;
    if (sendBefore !== null) request.sendBefore = now + sendBefore;
    request.queue = queue;
    queue.offer(request);
    return told;
  };
  return {
    offer,
    sent,
    given: () => given,
    /** Goes on behind a wait that took so long. */
    goOn: (wait: Wait, tookMs: number) => {
      now += tookMs;
      const step = steps.get(wait)!;
      steps.delete(wait);
      step();
    },
  };
}

for (const late of [null, ...WAITS])
  for (const [members, handed] of [
    ['one that was handed over', [true]],
    ['some that were handed over', [true, true]],
    ['one among the own ones', [false, true, false]],
    ['none but own ones', [false, false]],
  ] as const)
    t.test(`${members}, ${late === null ? 'none late' : `late in wait for its ${late}`}`, async (t) => {
      const lane = laneOf();
      const told = handed.map((isHanded, index) => lane.offer(`key${index}`, isHanded ? GOOD_FOR_MS : null));
      for (const wait of WAITS) lane.goOn(wait, wait === late ? GOOD_FOR_MS + 1 : 1);
      const isOld = late !== null && handed.some((isHanded) => isHanded);
      t.equal(lane.sent.length, isOld ? 0 : 1, 'sent');
      t.equal(lane.given(), isOld ? 1 : 0, 'its connection is given back');
      t.same(
        told,
        handed.map(() => (isOld ? ['rerun holding'] : [])),
      );
    });
