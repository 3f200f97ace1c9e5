// The catalogue in a file: compare-and-set among processes, crashes at every step, what a router is told of changes.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { CatalogError } from '../../../src/catalog/catalog-error.js';
import { type CatalogState, renderCatalog } from '../../../src/catalog/catalog-state.js';
import { FileCatalog } from '../../../src/catalog/file-catalog.js';

const STATE: CatalogState = {
  epoch: 1,
  database: 'kv',
  shards: [{ name: 'a', hashSlots: [[0, 16383]] }],
  tables: [],
};
const at = (epoch: number, ...tables: string[]): CatalogState => ({
  ...STATE,
  epoch,
  tables: tables.map((name) => ({ schema: 'public', name, valueType: 'jsonb' as const })),
});

function place(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'pgkv-catalog-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'catalog.json');
}

/** A process that lives until the test ends, so that its pid can be in a lock. */
function otherProcess(t: Test): ChildProcess {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  return child;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (const end = performance.now() + 5000; !condition(); await sleep(10)) {
    if (performance.now() > end) throw new Error(`waited in vain for ${what}`);
  }
}

t.test('nothing, then a first state, then the next', async (t) => {
  const path = place(t);
  const catalog = new FileCatalog(path);
  t.equal(await catalog.read(), null);
  t.equal(await catalog.compareAndSet(3, at(4)), false, 'another state was expected than none');
  t.equal(await catalog.compareAndSet(null, at(1)), true);
  t.equal(await catalog.compareAndSet(null, at(2)), false, 'none was expected');
  t.equal(await catalog.compareAndSet(1, at(2, 'kv')), true);
  t.equal(await catalog.compareAndSet(1, at(2, 'other')), false);
  t.strictSame(await catalog.read(), at(2, 'kv'));
  t.strictSame(readdirSync(join(path, '..')), ['catalog.json'], 'neither lock nor draft stays');
  await t.rejects(catalog.compareAndSet(2, at(2)), /cannot follow/);
  await t.rejects(catalog.compareAndSet(2, { ...at(3), shards: [] }), /not usable/, 'what could not be read back');
  t.strictSame(await catalog.read(), at(2, 'kv'));
});

t.test('of writers that expect the same epoch, exactly one succeeds each time', async (t) => {
  const path = place(t);
  const writers = Array.from({ length: 4 }, () => new FileCatalog(path));
  t.equal(await writers[0]!.compareAndSet(null, at(1)), true);
  const won = await Promise.all(
    writers.map(async (writer, index) => {
      let count = 0;
      while (count < 10) {
        const state = (await writer.read())!;
        const next = {
          ...at(state.epoch + 1),
          tables: [...state.tables, { ...at(1, `t${index}_${count}`).tables[0]! }],
        };
        if (await writer.compareAndSet(state.epoch, next)) count++;
      }
      return count;
    }),
  );
  const last = (await writers[0]!.read())!;
  t.equal(last.epoch, 1 + won.reduce((sum, count) => sum + count, 0));
  t.equal(new Set(last.tables.map(({ name }) => name)).size, 40, 'no change was lost');
});

t.test('a draft left by a crash before the rename changes nothing and is removed by the next writer', async (t) => {
  const path = place(t);
  const catalog = new FileCatalog(path);
  await catalog.compareAndSet(null, at(1));
  writeFileSync(`${path}.new-0a1b2c3d`, renderCatalog(at(2, 'lost')).slice(0, 50));
  // A writer that is gone: no process has this birth.
  writeFileSync(`${path}.lock`, JSON.stringify({ pid: process.pid, birth: 'an earlier life' }));
  t.strictSame(await catalog.read(), at(1));
  t.equal(await catalog.compareAndSet(1, at(2)), true);
  t.strictSame(readdirSync(join(path, '..')), ['catalog.json']);
});

t.test('a lock torn by a crash of the machine is cleared', async (t) => {
  const path = place(t);
  writeFileSync(`${path}.lock`, '{"pid":');
  t.equal(await new FileCatalog(path).compareAndSet(null, at(1)), true);
});

t.test('the lock of a living process is waited for, then respected', async (t) => {
  const path = place(t);
  const catalog = new FileCatalog(path, { lockPatienceMs: 500 });
  const router = await catalog.acquireRouterLock();
  renameSync(`${path}.router`, `${path}.lock`);
  const freed = sleep(200).then(() => rmSync(`${path}.lock`));
  t.equal(await catalog.compareAndSet(null, at(1)), true);
  await freed;
  router.release();

  const held = await catalog.acquireRouterLock();
  renameSync(`${path}.router`, `${path}.lock`);
  await t.rejects(catalog.compareAndSet(1, at(2)), { name: 'CatalogError', message: RegExp(`process ${process.pid}`) });
  held.release();
});

t.test('only one router at a time; the next one after it, or after its death', async (t) => {
  const path = place(t);
  const first = new FileCatalog(path);
  const lock = await first.acquireRouterLock();
  await t.rejects(new FileCatalog(path).acquireRouterLock(), {
    name: 'CatalogError',
    message: `another router, process ${process.pid}, serves from the catalogue ${path}`,
  });
  t.equal(await first.compareAndSet(null, at(1)), true, 'it does not keep anybody from changing the catalogue');
  lock.release();
  lock.release();
  const second = await new FileCatalog(path).acquireRouterLock();
  lock.release();
  t.ok(existsSync(`${path}.router`), 'a lock is only released by its holder');
  second.release();

  const child = otherProcess(t);
  writeFileSync(`${path}.router`, JSON.stringify({ pid: child.pid, birth: 'another process of this pid' }));
  (await first.acquireRouterLock()).release();
});

t.test('what is no catalogue is refused, and never overwritten', async (t) => {
  const path = place(t);
  const catalog = new FileCatalog(path);
  for (const text of ['', '{"format": 1, "epo', 'null']) {
    writeFileSync(path, text);
    await t.rejects(catalog.read(), { name: 'CatalogError', message: /catalog\.json is not usable/ });
    await t.rejects(catalog.compareAndSet(null, at(1)), CatalogError);
    await t.rejects(catalog.compareAndSet(1, at(2)), CatalogError);
    t.equal(readFileSync(path, 'utf8'), text);
  }
  rmSync(path);
  mkdirSync(path);
  await t.rejects(catalog.read(), { name: 'CatalogError', message: /cannot be read: EISDIR/ });
});

t.test('without its folder there is nothing to read, and writing says what is missing', async (t) => {
  const path = join(place(t), '..', 'absent', 'catalog.json');
  const catalog = new FileCatalog(path);
  t.equal(await catalog.read(), null);
  await t.rejects(catalog.compareAndSet(null, at(1)), { name: 'CatalogError', hint: /folder .* has to exist/ });
});

t.test('a folder that may not be written to', { skip: process.getuid?.() === 0 && 'root may' }, async (t) => {
  const path = place(t);
  chmodSync(join(path, '..'), 0o555);
  await t.rejects(new FileCatalog(path).compareAndSet(null, at(1)), CatalogError);
});

t.test('watching tells each later state once, from the one last read', async (t) => {
  const path = place(t);
  const catalog = new FileCatalog(path, { pollMs: 20 });
  await catalog.compareAndSet(null, at(1));
  await catalog.read();
  await new FileCatalog(path).compareAndSet(1, at(2, 'between reading and watching'));
  const epochs: number[] = [];
  const failures: string[] = [];
  const stop = catalog.watch(
    ({ epoch }) => epochs.push(epoch),
    ({ message }) => failures.push(message),
  );
  await until(() => epochs.length === 1, 'the change before watching');
  await new FileCatalog(path).compareAndSet(2, at(3));
  await until(() => epochs.length === 2, 'the change while watching');
  stop();
  await catalog.compareAndSet(3, at(4));
  await sleep(100);
  t.strictSame(epochs, [2, 3]);
  t.strictSame(failures, []);
});

t.test('watching without a first reading tells the present state; a file may appear later', async (t) => {
  const path = place(t);
  const catalog = new FileCatalog(path);
  t.teardown(() => catalog.close());
  const epochs: number[] = [];
  catalog.watch(({ epoch }) => epochs.push(epoch));
  await sleep(50);
  await new FileCatalog(path).compareAndSet(null, at(7));
  await until(() => epochs.length === 1, 'the first state');
  t.strictSame(epochs, [7]);
});

t.test('what is damaged, older, gone or edited is reported once, and the next good state counts again', async (t) => {
  const path = place(t);
  const catalog = new FileCatalog(path, { pollMs: 20 });
  t.teardown(() => catalog.close());
  await catalog.compareAndSet(null, at(5));
  await catalog.read();
  const epochs: number[] = [];
  const failures: string[] = [];
  catalog.watch(
    ({ epoch }) => epochs.push(epoch),
    ({ message }) => failures.push(message),
  );
  const replace = (text: string) => {
    writeFileSync(`${path}.draft`, text);
    renameSync(`${path}.draft`, path);
  };
  const steps: readonly (readonly [() => void, RegExp])[] = [
    [() => replace('{'), /is not usable: it is not JSON/],
    [() => replace(renderCatalog(at(4))), /went back from epoch 5 to 4/],
    [() => rmSync(path), /is gone/],
    [() => replace(renderCatalog(at(5, 'edited'))), /changed without a later epoch than 5/],
  ];
  for (const [index, [change, expected]] of steps.entries()) {
    change();
    await until(() => failures.length > index, String(expected));
    await sleep(100);
    t.equal(failures.length, index + 1, 'once');
    t.match(failures[index], expected);
  }
  t.strictSame(epochs, []);
  replace(renderCatalog(at(6)));
  await until(() => epochs.length === 1, 'the good state');
  t.strictSame(epochs, [6]);
});

t.test('watching keeps no process alive', async (t) => {
  const path = place(t);
  const source = new URL('../../../src/catalog/file-catalog.js', import.meta.url).href;
  const script = `const { FileCatalog } = await import(${JSON.stringify(source)});
    new FileCatalog(${JSON.stringify(path)}).watch(() => undefined);`;
  const child = spawn(process.execPath, [...process.execArgv, '--input-type=module', '-e', script], {
    stdio: 'inherit',
    timeout: 20_000,
  });
  const [code] = await once(child, 'exit');
  t.equal(code, 0);
});
