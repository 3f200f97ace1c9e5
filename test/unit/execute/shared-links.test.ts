// The line between two workers that merge together (R50), over a real Unix socket: whatever happens to it, each statement that was
// offered is heard of exactly once, and as is true. Generated: PGKV_SEED=n plays that seed.
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { systemClock } from '../../../src/base/clock.js';
import { PgkvError } from '../../../src/base/errors.js';
import type { MergedForm } from '../../../src/execute/merged/merged-form.js';
import type { MergedQueue } from '../../../src/execute/merged/merged-queue.js';
import { type BatchSink, MergedRequest } from '../../../src/execute/merged/merged-request.js';
import { OwnerLink } from '../../../src/execute/shared/owner-link.js';
import { RemoteRequests } from '../../../src/execute/shared/remote-requests.js';
import type { RemoteStatement } from '../../../src/execute/shared/remote-statements.js';
import { FrameCutter, FrameWriter, readTexts, writeTexts } from '../../../src/execute/shared/share-frames.js';
import { SharingQueue } from '../../../src/execute/shared/sharing-queue.js';
import { createCounters } from '../../../src/telemetry/counters.js';
import { SeededRandom } from '../../support/seeded-random.js';

const SEED = Number(process.env['PGKV_SEED'] ?? Date.now() % 1_000_000);
const DEADLINE_MS = 60_000;
t.comment(`PGKV_SEED=${SEED}`);

t.test('frames come whole, however they are cut', async (t) => {
  const random = new SeededRandom(SEED);
  for (let run = 0; run < 200; run++) {
    const sent: string[] = [];
    const writer = new FrameWriter();
    for (let left = 1 + random.integer(20); left > 0; left--) {
      const type = 1 + random.integer(6);
      const texts = Array.from({ length: random.integer(4) }, () =>
        'ü'.repeat(random.integer(random.pick([3, 300, 9_000]))),
      );
      writer.open(type, 0);
      writeTexts(writer, texts);
      writer.close();
      sent.push(JSON.stringify([type, texts]));
    }
    const bytes = Buffer.from(writer.take());
    const came: string[] = [];
    const cutter = new FrameCutter((type, buffer, start, end) =>
      came.push(JSON.stringify([type, readTexts(buffer, start, end)])),
    );
    for (let at = 0; at < bytes.length; ) {
      const next = Math.min(bytes.length, at + 1 + random.integer(random.pick([1, 5, 100, 70_000])));
      cutter.push(Buffer.from(bytes.subarray(at, next)));
      at = next;
    }
    t.strictSame(came, sent, `run ${run}`);
  }
});

t.test('what is no frame is refused', async (t) => {
  const cutter = new FrameCutter(() => undefined);
  t.throws(() => cutter.push(Buffer.from([0xff, 0xff, 0xff, 0xff, 1])), { message: /frame/ });
  t.throws(() => cutter.push(Buffer.from([0, 0, 0, 0, 1])), { message: /frame/ });
  t.throws(() => readTexts(Buffer.from([0, 0, 0, 9, 65]), 0, 5), { message: /frame/ });
});

t.test('whatever is written, taken or thrown away, what is taken next is whole frames', async (t) => {
  for (let run = 0; run < 500; run++) {
    const random = new SeededRandom(SEED, run);
    const writer = new FrameWriter();
    let sent: number[] = [];
    for (let step = 0; step < 40; step++) {
      const chance = random.integer(10);
      const type = 1 + random.integer(6);
      if (chance < 6) {
        if (!writer.isOpen(type)) {
          writer.open(type, 4);
          sent.push(type);
        }
        writer.room(4);
        writer.int(step);
      } else if (chance < 8) {
        writer.small(type, random.pick([null, step]));
        sent.push(type);
      } else {
        if (chance < 9) {
          const came: number[] = [];
          const cutter = new FrameCutter((type) => came.push(type));
          cutter.push(Buffer.from(writer.take()));
          t.strictSame(came, sent, `run ${run}`);
        }
        writer.taken(random.oneIn(2));
        t.equal(writer.bytes, 0);
        sent = [];
      }
    }
  }
});

/** A statement of one value, which writes or reads. */
const formOf = (writes: boolean): MergedForm =>
  ({
    plan: { refs: [{}], writes, keyValues: [0, 0], tag: 'UPDATE' },
    one: { source: { text: String(writes) }, shape: '' },
    many: { source: { text: String(writes) }, shape: '' },
    optimistic: null,
    types: [25],
    description: null,
  }) as unknown as MergedForm;

/** What was told of a request. */
type Told = 'completed' | 'rerun' | 'failed 08007' | 'failed 08006' | 'merged here';

interface Asked {
  readonly request: MergedRequest;
  readonly writes: boolean;
  readonly value: string;
  readonly told: Told[];
}

/** One worker and the owner of its lane; what the owner does with each request is up to the test. */
class Pair {
  readonly asked: Asked[] = [];
  /** With the owner, unanswered. */
  readonly atOwner: MergedRequest[] = [];
  readonly released: MergedRequest[] = [];
  readonly counters = createCounters();
  readonly link: OwnerLink;
  readonly remotes: RemoteRequests[] = [];
  /** The worker's own ends of the line. */
  readonly sockets: Socket[] = [];
  readonly #queues: readonly SharingQueue[];
  epoch = 1;
  ownersEpoch = 1;
  accepts = true;
  problems: string[] = [];

  constructor(path: string) {
    this.link = new OwnerLink(2, {
      connect: () => {
        const socket = connect({ path, allowHalfOpen: true });
        this.sockets.push(socket);
        return socket;
      },
      clock: systemClock,
      stamp: () => performance.now(),
      epoch: () => this.epoch,
      counters: this.counters,
      deadlineMs: DEADLINE_MS,
      later: setImmediate,
      wants: () => true,
      watch: () => undefined,
    });
    this.#queues = [false, true].map((writes) => new SharingQueue(this.#ownQueue(writes), [this.link], systemClock));
  }

  #ownQueue(writes: boolean): MergedQueue {
    const form = formOf(writes);
    const lane = { pool: { address: { host: 'h', port: 1 } }, group: { key: '' } };
    const statement = { form, stage: 'merged', table: { schema: 's', name: 't' } };
    const offer = (request: MergedRequest): void => this.#tell(request, 'merged here');
    const release = (): void => undefined;
    return {
      lane,
      statement,
      format: 0,
      settings: { values: new Map() },
      offer,
      release,
      isIdle: true,
    } as unknown as MergedQueue;
  }

  accept(socket: Socket): void {
    const remote = new RemoteRequests(
      socket,
      {
        find: (texts) => (this.accepts ? this.#found(texts) : null),
        clock: systemClock,
        stamp: () => performance.now(),
        epoch: () => this.ownersEpoch,
        counters: this.counters,
        staleMs: DEADLINE_MS / 2,
        later: setImmediate,
      },
      () => undefined,
    );
    this.remotes.push(remote);
  }

  #found(texts: readonly string[]): RemoteStatement {
    if (texts.length !== 4) this.problems.push(`texts ${texts}`);
    const queue = {
      offer: (request: MergedRequest) => {
        request.sent = false;
        request.dropped = false;
        this.atOwner.push(request);
      },
      release: (request: MergedRequest) => {
        request.holdsKey = false;
        this.released.push(request);
      },
      withdraw: () => undefined,
    };
    return { queue, form: formOf(true), isAsNamed: () => true } as unknown as RemoteStatement;
  }

  #tell(request: MergedRequest, told: Told): void {
    const asked = this.asked.find((each) => each.request === request)!;
    asked.told.push(told);
    if (told !== 'completed') return;
    const answer = request.answers.toString('latin1', request.start, request.end);
    if (answer !== `answer to ${asked.value}`) this.problems.push(`"${answer}" for ${asked.value}`);
  }

  ask(writes: boolean): Asked {
    const sink: BatchSink = {
      completed: (request) => this.#tell(request, 'completed'),
      rerun: (request) => this.#tell(request, 'rerun'),
      failed: (error, request) => this.#tell(request, `failed ${error.sqlstate}` as Told),
    };
    const request = new MergedRequest(sink);
    const asked = { request, writes, value: `value ${this.asked.length}`, told: [] };
    this.asked.push(asked);
    request.buffer = Buffer.from(`..${asked.value}`);
    request.offsets[0] = 2;
    request.offsets[1] = request.bytes = asked.value.length;
    request.queue = this.#queues[writes ? 1 : 0]!;
    request.queue.offer(request);
    return asked;
  }

  /** The owner's answer to one of those it has. */
  answer(request: MergedRequest, how: 'completed' | 'rerun' | 'rerun holding' | 'failed'): void {
    if (request.dropped) return;
    const value = request.buffer.toString('latin1', request.offsets[0]!, request.offsets[0]! + request.offsets[1]!);
    request.sent = true;
    if (how === 'failed') return request.sink.failed(new PgkvError('server_unreachable'), request);
    if (how !== 'completed') {
      request.holdsKey = how === 'rerun holding';
      return request.sink.rerun(request);
    }
    request.answers = Buffer.from(`xanswer to ${value}`);
    request.start = 1;
    request.end = request.answers.length;
    request.rows = 1;
    request.sink.completed(request);
  }
}

/** Gives up after a while: what follows says what is wrong then. */
async function until(fits: () => boolean): Promise<void> {
  for (const end = performance.now() + 10_000; !fits() && performance.now() < end; ) await sleep(1);
}

async function withPair(t: Test, play: (pair: Pair, server: Server) => Promise<void>): Promise<Pair> {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-pair-'));
  const path = join(folder, '2.sock');
  const pair = new Pair(path);
  const server = createServer({ allowHalfOpen: true }, (socket) => pair.accept(socket));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  // The first of each kind open the line and make the statement known.
  while (pair.atOwner.length < 2) {
    pair.atOwner.length = 0;
    for (const writes of [false, true]) pair.ask(writes);
    await sleep(5);
  }
  await play(pair, server);
  pair.link.destroy('over');
  for (const remote of pair.remotes) remote.destroy();
  server.close();
  rmSync(folder, { recursive: true, force: true });
  t.same(pair.problems, []);
  return pair;
}

t.test('each is heard of once, whatever the owner and the line do', async (t) => {
  const endings = new Map<string, number>();
  for (let run = 0; run < 60; run++) {
    const random = new SeededRandom(SEED, run);
    const pair = await withPair(t, async (pair) => {
      for (let step = 30 + random.integer(60); step > 0; step--) {
        const chance = random.integer(100);
        if (chance < 55) pair.ask(random.oneIn(2));
        else if (chance < 85 && pair.atOwner.length > 0) {
          const [request] = pair.atOwner.splice(random.integer(pair.atOwner.length), 1);
          pair.answer(
            request!,
            random.pick(['completed', 'completed', 'completed', 'rerun', 'rerun holding', 'failed']),
          );
        } else if (chance < 90) {
          const asked = random.pick(pair.asked);
          if (asked.told.length === 0) asked.request.withdraw();
          else asked.request.releaseKey();
        } else if (chance < 93) pair.epoch = random.pick([pair.ownersEpoch, pair.ownersEpoch + 1]);
        else if (chance < 95) random.pick(pair.remotes)?.[random.oneIn(3) ? 'destroy' : 'end']();
        // It tells later that it is closed: what is asked until then finds a socket that takes no more.
        else if (chance < 97) pair.sockets.at(-1)?.destroy();
        if (random.oneIn(3)) await sleep(random.pick([0, 0, 1, 6]));
      }
      await until(() => {
        for (const request of pair.atOwner.splice(0)) pair.answer(request, 'completed');
        return pair.asked.every(({ told }) => told.length > 0);
      });
    });
    for (const { writes, told, value } of pair.asked) {
      const told1 = told.join(' and ');
      if (told.length !== 1) t.fail(`run ${run}: ${writes ? 'write' : 'read'} ${value}: told ${told1 || 'nothing'}`);
      if (!writes && told1 === 'failed 08007') t.fail(`run ${run}: a read is told ${told1}`);
      endings.set(
        `${writes ? 'write' : 'read'} ${told1}`,
        (endings.get(`${writes ? 'write' : 'read'} ${told1}`) ?? 0) + 1,
      );
    }
  }
  t.comment(JSON.stringify([...endings]));
  for (const kind of ['write failed 08007', 'read completed', 'write completed', 'write rerun', 'read merged here'])
    t.ok((endings.get(kind) ?? 0) > 10, kind);
});

t.test('views that do not agree, and what is old: merged here', async (t) => {
  await withPair(t, async (pair) => {
    pair.ownersEpoch = 2;
    pair.atOwner.length = 0;
    const asked = [pair.ask(true), pair.ask(false)];
    await until(() => asked.every(({ told }) => told.length > 0));
    t.same(
      asked.map(({ told }) => told),
      [['merged here'], ['merged here']],
    );
    t.equal(pair.atOwner.length, 0);
  });
});

t.test('what has not left the process is not lost with the line', async (t) => {
  await withPair(t, async (pair) => {
    pair.atOwner.length = 0;
    const sent = pair.ask(true);
    await until(() => pair.atOwner.length > 0);
    const unsent = pair.ask(true);
    const read = pair.ask(false);
    pair.link.destroy('of the test');
    t.same([sent.told, unsent.told, read.told], [['failed 08007'], ['merged here'], ['merged here']]);
  });
});

t.test('a key that is kept for one who runs by himself is released when he is done, or gone', async (t) => {
  await withPair(t, async (pair) => {
    pair.atOwner.length = 0;
    const asked = [pair.ask(true), pair.ask(true)];
    await until(() => pair.atOwner.length === 2);
    for (const request of pair.atOwner.splice(0)) pair.answer(request, 'rerun holding');
    await until(() => asked.every(({ told }) => told.length > 0));
    t.same(
      asked.map(({ told }) => told),
      [['rerun'], ['rerun']],
    );
    asked[0]!.request.releaseKey();
    await until(() => pair.released.length > 0);
    t.equal(pair.released.length, 1);
    pair.link.destroy('of the test');
    await until(() => pair.released.length > 1);
    t.equal(pair.released.length, 2);
  });
});
